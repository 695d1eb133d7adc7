//! Other hosts that fuzz the same target: campaigns that are connected tell each other the plans of
//! their corpora and their crashes. The other host is as hostile as a guest, and whoever reaches
//! the port is another host.
//!
//! ```text
//! clients ─ broker ─ exchange ─ hub ═ link ═══ TCP ═══ link ═ hub ─ exchange ─ broker ─ clients
//! ```

mod exchange;
mod greeting;
mod hub;
mod link;
mod log;
mod wire;

use std::{
    io,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    sync::Arc,
    thread::{self, Scope, ScopedJoinHandle},
};

use crossbeam::channel::Receiver;

use self::exchange::{Campaign, exchange};
pub(crate) use self::hub::Hub;
use crate::{
    clients::{Connection, Shared},
    crashes::CrashNews,
};

/// The other hosts with which a campaign is to be connected.
#[derive(Debug, Default)]
pub struct PeerOptions {
    /// Socket at which others may connect.
    pub listener: Option<TcpListener>,
    /// Addresses of others to connect to, each HOST:PORT.
    pub join: Vec<String>,
}

impl PeerOptions {
    /// Says whether there is any.
    #[must_use]
    pub fn is_some(&self) -> bool {
        self.listener.is_some() || !self.join.is_empty()
    }
}

/// Starts what connects a campaign to other hosts: threads of `scope` that end after
/// [`Hub::close`]. The one that is returned ends by itself, after the broker to which it has a
/// `connection`. `found` are the crashes of this campaign.
///
/// # Errors
///
/// The system has no threads left.
pub(crate) fn start<'scope>(
    hub: &'scope Arc<Hub>,
    scope: &'scope Scope<'scope, '_>,
    shared: &'scope Shared,
    (connection, found): (Connection, Receiver<CrashNews>),
    options: PeerOptions,
) -> io::Result<ScopedJoinHandle<'scope, ()>> {
    let (turns, explorers) = (&*shared.turns, shared.explorers as u64);
    let campaign = Campaign { connection, found, turns, explorers };
    let exchanging = thread::Builder::new().spawn_scoped(scope, move || exchange(hub, campaign))?;
    if let Some(listener) = options.listener {
        listener.set_nonblocking(true)?;
        thread::Builder::new().spawn_scoped(scope, move || link::accept(hub, scope, &listener))?;
    }
    for address in options.join {
        thread::Builder::new().spawn_scoped(scope, move || link::join(hub, &address))?;
    }
    Ok(exchanging)
}

/// Reads the address in `text`, ADDR:PORT, or a port of this machine alone.
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

/// Reads the host and port in `text`, and leaves them as they are: the name may have another
/// address later.
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
