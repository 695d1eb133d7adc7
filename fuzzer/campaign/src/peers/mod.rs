//! Other hosts that fuzz the same target: campaigns that are connected tell each other the plans of their corpora and
//! their crashes. The other host is as hostile as a guest, and whoever reaches the port is another host.
//!
//! ```text
//! clients ─ broker ─ local ─ hub ═ link ═══ TCP ═══ link ═ hub ─ local ─ broker ─ clients
//! ```

mod greeting;
mod hub;
mod link;
mod local;
mod wire;

use std::{
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    sync::Arc,
    thread::Scope,
};

use libafl::Error;

pub(super) use self::{
    hub::Hub,
    local::attach,
    wire::{CrashNews, News},
};

/// With which other hosts a campaign is to be connected.
#[derive(Debug, Default)]
pub struct PeerOptions {
    /// Where others may connect.
    pub listener: Option<TcpListener>,
    /// Where to connect to others, each HOST:PORT.
    pub join: Vec<String>,
}

impl PeerOptions {
    /// Whether there is any.
    #[must_use]
    pub fn is_some(&self) -> bool {
        self.listener.is_some() || !self.join.is_empty()
    }
}

/// Starts what connects a campaign with `explorers` explorers to other hosts: threads of `scope` that end after
/// [`Hub::close`]. `broker` is the connection to the campaign's own broker.
///
/// # Errors
///
/// The system has no descriptors left.
pub(super) fn start<'scope>(
    hub: &'scope Arc<Hub>,
    scope: &'scope Scope<'scope, '_>,
    broker: TcpStream,
    explorers: usize,
    options: PeerOptions,
) -> Result<(), Error> {
    local::start(hub, scope, broker, explorers as u64)?;
    if let Some(listener) = options.listener {
        listener.set_nonblocking(true)?;
        scope.spawn(move || link::accept(hub, scope, &listener));
    }
    for address in options.join {
        scope.spawn(move || link::join(hub, &address));
    }
    Ok(())
}

/// The address in `text`, ADDR:PORT, or a port of this machine alone.
///
/// # Errors
///
/// It is no address.
pub fn listen_address(text: &str) -> Result<SocketAddr, String> {
    if let Ok(port) = text.parse::<u16>() {
        return Ok((Ipv4Addr::LOCALHOST, port).into());
    }
    text.parse().map_err(|_| {
        format!(
            "\"{text}\" is no address of this host: use ADDR:PORT, such as 10.0.0.1:7070, or a port alone for 127.0.0.1"
        )
    })
}

/// The host and port in `text`, as they are: the name may have another address later.
///
/// # Errors
///
/// It has not the form HOST:PORT.
pub fn join_address(text: &str) -> Result<String, String> {
    match text.rsplit_once(':') {
        Some((host, port)) if !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0) => Ok(text.to_owned()),
        _ => Err(format!("\"{text}\" is no place of another host: use HOST:PORT, such as 10.0.0.1:7070")),
    }
}

#[cfg(test)]
mod tests;
