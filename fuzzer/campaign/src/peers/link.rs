//! Connections to other hosts: who makes them, what goes over them, and when they are given up.

use std::{
    collections::HashSet,
    io::{self, ErrorKind, Write},
    net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream, ToSocketAddrs},
    os::fd::AsFd,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread::{self, Scope},
    time::Duration,
};

use crossbeam::channel::RecvTimeoutError;
use nix::poll::{PollFd, PollFlags, poll};

use super::{
    greeting::{GreetingError, TIME},
    hub::{Hub, Next},
    log::{Origin, Reader},
    wire::{MOST_BYTES, News, WireError, read_frame},
};
use crate::mutex::locked;

/// The most connections that others have made to this host.
const MOST_GUESTS: usize = 16;
/// The most addresses of which it is remembered that a line about them was written.
const MOST_TOLD: usize = 1000;
/// Interval between the signs of life of a side that has nothing to say.
const PING_INTERVAL: Duration = Duration::from_secs(2);
/// Time that the other side may be silent, or take to accept a frame.
pub(super) const SILENCE: Duration = Duration::from_secs(10);
/// Delays before another host is tried again: at first, and at most.
const PAUSES: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(15)];
/// Frames that are taken from the log at a time.
const FRAMES: usize = 64;
/// Milliseconds after which the thread that waits for others looks whether the campaign ends.
const LOOK: u16 = 500;

/// One of the connections that others can make.
struct Slot<'a>(&'a AtomicUsize);

impl<'a> Slot<'a> {
    fn take(taken: &'a AtomicUsize) -> Option<Self> {
        let more = |taken| (taken < MOST_GUESTS).then_some(taken + 1);
        taken.fetch_update(Ordering::AcqRel, Ordering::Acquire, more).is_ok().then(|| Self(taken))
    }
}

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Lets in whoever connects to `listener`, which does not block, until the campaign ends.
pub(super) fn accept<'scope>(hub: &'scope Arc<Hub>, scope: &'scope Scope<'scope, '_>, listener: &TcpListener) {
    let told = Arc::new(Mutex::new(HashSet::new()));
    while !hub.closed().is_requested() {
        let mut waiting = [PollFd::new(listener.as_fd(), PollFlags::POLLIN)];
        // An error of it, such as an interruption, is one of the next call's too, or nothing.
        let _ = poll(&mut waiting, LOOK);
        let (stream, address) = match listener.accept() {
            Ok(accepted) => accepted,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => continue,
            Err(error) => {
                tracing::warn!("another host cannot be accepted: {error}");
                let _ = hub.closed().receiver().recv_timeout(PAUSES[0]);
                continue;
            }
        };
        let Some(slot) = Slot::take(hub.guests()) else {
            tracing::debug!(%address, "no place for another host");
            continue;
        };
        let told = Arc::clone(&told);
        let receive = move || {
            let _slot = slot;
            if let Err(error) = talk(hub, stream, address, false) {
                tell_once(&told, address.ip(), &error);
            }
        };
        if let Err(error) = thread::Builder::new().spawn_scoped(scope, receive) {
            tracing::warn!("no thread for another host: {error}");
        }
    }
}

/// Writes a line about somebody at `address` who is not let in, unless there was one.
fn tell_once(told: &Mutex<HashSet<IpAddr>>, address: IpAddr, error: &GreetingError) {
    let mut told = locked(told);
    if told.len() < MOST_TOLD && told.insert(address) {
        tracing::warn!(%address, "somebody is not let in: {}", execution::chain(error));
    } else {
        tracing::debug!(%address, "not let in: {}", execution::chain(error));
    }
}

/// Connects to the hub at `address`, HOST:PORT, whenever there is no connection to it, until the
/// campaign ends.
pub(super) fn join(hub: &Hub, address: &str) {
    let [shortest, longest] = PAUSES;
    let mut pause = shortest;
    let mut known = None;
    let mut told = String::new();
    loop {
        if known.is_some_and(|node| hub.is_connected(node)) {
            pause = shortest;
        } else {
            match dial(address).and_then(|(stream, address)| talk(hub, stream, address, true)) {
                Ok((node, well)) => {
                    (known, pause) = (Some(node), if well { shortest } else { longest });
                    told.clear();
                }
                Err(error) => {
                    if error.is_final() {
                        pause = longest;
                    }
                    let text = execution::chain(&error);
                    if text != told && !hub.closed().is_requested() {
                        tracing::warn!("{address} cannot be joined, to be tried again: {text}");
                        told = text;
                    }
                }
            }
        }
        if hub.closed().receiver().recv_timeout(pause) != Err(RecvTimeoutError::Timeout) {
            return;
        }
        pause = (pause * 2).min(longest);
    }
}

fn dial(address: &str) -> Result<(TcpStream, SocketAddr), GreetingError> {
    let mut last = io::Error::new(ErrorKind::NotFound, "the name has no address");
    for address in address.to_socket_addrs().map_err(GreetingError::Unreachable)? {
        match TcpStream::connect_timeout(&address, TIME) {
            Ok(stream) => return Ok((stream, address)),
            Err(error) => last = error,
        }
    }
    Err(GreetingError::Unreachable(last))
}

/// Greets the other side and exchanges news with it until the connection ends. Returns its node
/// number, and whether it behaved well.
///
/// # Errors
///
/// The greeting failed.
fn talk(hub: &Hub, mut stream: TcpStream, address: SocketAddr, dialed: bool) -> Result<(u64, bool), GreetingError> {
    stream.set_nonblocking(false).and_then(|()| stream.set_nodelay(true)).map_err(WireError::from)?;
    let theirs = hub.hello().exchange(&mut stream)?;
    let (node, host) = (theirs.node, theirs.host);
    stream.set_write_timeout(Some(SILENCE)).map_err(WireError::from)?;
    let held = stream.try_clone().map_err(WireError::from)?;
    let back = stream.try_clone().map_err(WireError::from)?;
    let Some(number) = hub.admit(node, dialed, held) else {
        tracing::debug!(host, %address, "connected already");
        return Ok((node, true));
    };
    tracing::info!(host, %address, "connected to another host");
    let end = thread::scope(|scope| {
        let teller = move || {
            let how = match tell(hub, node, &back) {
                Ok(()) => Shutdown::Write,
                Err(_) => Shutdown::Both,
            };
            let _ = back.shutdown(how);
        };
        let end = match thread::Builder::new().spawn_scoped(scope, teller) {
            Ok(_) => hear(hub, node, &mut stream),
            Err(error) => error.into(),
        };
        let _ = stream.shutdown(Shutdown::Both);
        end
    });
    hub.dismiss(node, number);
    tracing::info!(host, %address, "no longer connected to another host: {}", execution::chain(&end));
    Ok((node, matches!(end, WireError::Io(_) | WireError::End | WireError::Silent)))
}

/// Takes in what the other side says, and returns why that ends.
fn hear(hub: &Hub, node: u64, stream: &mut TcpStream) -> WireError {
    let mut next = || -> Result<(), WireError> {
        let news = News::read(&read_frame(stream, MOST_BYTES, SILENCE)?)?;
        hub.add(Origin::Peer(node), &news)
    };
    loop {
        if let Err(error) = next() {
            return error;
        }
    }
}

/// Tells the other side everything in the log that it did not say itself, and shows that this side
/// is there.
///
/// # Errors
///
/// The other side takes no more.
fn tell(hub: &Hub, node: u64, mut stream: &TcpStream) -> Result<(), WireError> {
    let mut position = 0;
    loop {
        match hub.next(Reader::Peer(node), &mut position, FRAMES, PING_INTERVAL) {
            Next::Frames(frames) => frames.iter().try_for_each(|frame| stream.write_all(frame))?,
            Next::Nothing => stream.write_all(&News::Ping.frame()?)?,
            Next::End => return Ok(()),
        }
    }
}
