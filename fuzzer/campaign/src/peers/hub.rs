//! A campaign's hub: the news it has, and its connections to other hosts.
//!
//! ```text
//! own clients ─ broker ── exchange ─▶ ┌─────┐ ─▶ link ─▶ other host
//! own crashes ─ channel ─ exchange ─▶ │ log │ ─▶ link ─▶ other host
//! other hosts ─ link ──── checks ───▶ └─────┘ ─▶ exchange ─ broker ─▶ own clients
//! ```
//!
//! A host that connects again is told everything again, and knows by digest what it has already: so
//! nothing is lost when a connection breaks or a host is killed, and nothing goes in circles.

use std::{
    collections::BTreeMap,
    fmt,
    hash::{BuildHasher, RandomState},
    net::{Shutdown, TcpStream},
    process,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use fault_plan::Reproducer;
use libafl::{Error, inputs::Input};

use super::{
    greeting::{Hello, host_name},
    log::{Log, Origin, Reader},
    wire::{News, WireError},
};
use crate::{
    clients::Lifecycle,
    crashes::{CrashNews, Crashes},
    error::CampaignError,
    folder::CampaignFolder,
    input::PlanInput,
    mutex::locked,
    plans::FirstPlan,
};
use execution::{Stop, Target};

/// Time that the end of a campaign leaves other hosts to take its last news.
const FAREWELL: Duration = Duration::from_secs(5);

/// The answer to a reader of the log.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Frames.
    Frames(Vec<Arc<[u8]>>),
    /// There was none for a while.
    Nothing,
    /// There will be none any more.
    End,
}

/// A connection to another hub.
struct Link {
    number: u64,
    /// True when this side made it.
    dialed: bool,
    stream: TcpStream,
}

#[derive(Default)]
struct State {
    log: Log,
    links: BTreeMap<u64, Link>,
    connections: u64,
    /// True when nothing is added any more; other hosts get the rest.
    closing: bool,
    failure: Option<Error>,
}

/// One campaign's end of all its connections to others.
pub(crate) struct Hub {
    target: Arc<Target>,
    crashes: Arc<Crashes>,
    lifecycle: Arc<Lifecycle>,
    hello: Hello,
    state: Mutex<State>,
    changed: Condvar,
    /// The number of hosts that are connected.
    peers: Arc<AtomicUsize>,
    guests: AtomicUsize,
    closed: Stop,
}

impl fmt::Debug for Hub {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hub").field("hello", &self.hello).finish_non_exhaustive()
    }
}

impl Hub {
    /// Opens the hub of the campaign on `target`. Its log begins with the crashes in the `folder`,
    /// the `plans` that the campaign begins with, and the fault-free one, which all have.
    ///
    /// # Errors
    ///
    /// The folder is damaged.
    pub(crate) fn open(
        target: Arc<Target>,
        crashes: Arc<Crashes>,
        lifecycle: Arc<Lifecycle>,
        folder: &CampaignFolder,
        plans: &[FirstPlan],
    ) -> Result<Arc<Self>, CampaignError> {
        let node = RandomState::new().hash_one(process::id());
        let hello = Hello::new(&target, node, host_name());
        let hub = Arc::new(Self {
            target,
            crashes,
            lifecycle,
            hello,
            state: Mutex::default(),
            changed: Condvar::new(),
            peers: Arc::default(),
            guests: AtomicUsize::new(0),
            closed: Stop::new(),
        });
        hub.add_own(&News::Plan(PlanInput(hub.target.fault_free())));
        let digest = hub.target.digest();
        for (meta, reproducer) in folder.crashes()? {
            // Peers add the definition that they have, which is the same.
            let target = reproducer.target.as_ref();
            if target.is_some_and(|target| target["digest"].as_str() != Some(&digest)) {
                tracing::debug!(meta.title, "not told to other hosts: the target has changed since");
                continue;
            }
            let reproducer = Reproducer { target: None, ..reproducer };
            let host = meta.origin.unwrap_or_else(|| hub.hello.host.clone());
            hub.add_own(&News::Crash { host, crash: CrashNews { kind: meta.kind, reproducer } });
        }
        for FirstPlan { path, .. } in plans {
            match PlanInput::from_file(path) {
                Ok(plan) => hub.add_own(&News::Plan(plan)),
                Err(error) => tracing::warn!("not told to other hosts: {error}"),
            }
        }
        Ok(hub)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        locked(&self.state)
    }

    /// Gives the introduction of this hub.
    pub(super) fn hello(&self) -> &Hello {
        &self.hello
    }

    /// Gives what is known of the end of the campaign.
    pub(super) fn lifecycle(&self) -> &Lifecycle {
        &self.lifecycle
    }

    /// Gives the request that all connections end.
    pub(super) fn closed(&self) -> &Stop {
        &self.closed
    }

    /// Adds a crash that this campaign has found.
    pub(super) fn add_crash(&self, crash: CrashNews) {
        self.add_own(&News::Crash { host: self.hello.host.clone(), crash });
    }

    /// Adds what this campaign has found, unless that is known.
    pub(super) fn add_own(&self, news: &News) {
        if let Err(error) = self.add(Origin::Here, news) {
            tracing::debug!("not told to other hosts: {}", execution::chain(&error));
        }
    }

    /// Adds a piece of news that was never seen before. A crash of another host is on disk before
    /// it is in the log.
    ///
    /// # Errors
    ///
    /// It is refused. That the folder cannot be written ends the campaign instead.
    pub(super) fn add(&self, from: Origin, news: &News) -> Result<(), WireError> {
        news.check(&self.target)?;
        let Some(digest) = news.digest() else { return Ok(()) };
        let frame = Arc::<[u8]>::from(news.frame()?);
        {
            let mut state = self.state();
            if state.closing || !state.log.admits(from, digest, frame.len()) {
                return Ok(());
            }
        }
        if let (Origin::Peer(_), News::Crash { host, crash }) = (from, news)
            && let Err(error) = self.crashes.note_foreign(host, crash)
        {
            self.fail(error);
            return Ok(());
        }
        self.state().log.push(from, matches!(news, News::Plan(_)), frame);
        self.changed.notify_all();
        Ok(())
    }

    /// Gives what `reader` has not read yet, at most `most` pieces; `position` is how far it is.
    /// Waits so long for something.
    pub(super) fn next(&self, reader: Reader, position: &mut usize, most: usize, wait: Duration) -> Next {
        let deadline = Instant::now() + wait;
        let mut state = self.state();
        loop {
            let frames = state.log.unread(reader, position, most);
            if !frames.is_empty() {
                return Next::Frames(frames);
            }
            if state.closing {
                return Next::End;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Next::Nothing;
            }
            state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Counts the connections that others have made, greetings included.
    pub(super) fn guests(&self) -> &AtomicUsize {
        &self.guests
    }

    /// Gives the number of hosts that are connected, which changes.
    pub(crate) fn peers(&self) -> Arc<AtomicUsize> {
        Arc::clone(&self.peers)
    }

    /// Says whether there is a connection to the hub `node`.
    pub(super) fn is_connected(&self, node: u64) -> bool {
        self.state().links.contains_key(&node)
    }

    /// Takes in a connection to the hub `node`, which `dialed` says this side has made, and gives
    /// it a number. Gives nothing when it is not to stay.
    ///
    /// Of two that were made in the same direction the newer one stays. Of two that the hubs made
    /// towards each other, that of the hub with the smaller node number stays, so that both drop
    /// the same.
    pub(super) fn admit(&self, node: u64, dialed: bool, stream: TcpStream) -> Option<u64> {
        let mut state = self.state();
        if state.closing {
            return None;
        }
        if let Some(old) = state.links.get(&node) {
            let preferred = dialed == (self.hello.node < node);
            if old.dialed != dialed && !preferred {
                return None;
            }
            let _ = old.stream.shutdown(Shutdown::Both);
        }
        state.connections += 1;
        let number = state.connections;
        state.links.insert(node, Link { number, dialed, stream });
        self.peers.store(state.links.len(), Ordering::Relaxed);
        Some(number)
    }

    /// Takes in that the connection with this number to the hub `node` has ended.
    pub(super) fn dismiss(&self, node: u64, number: u64) {
        let mut state = self.state();
        if state.links.get(&node).is_some_and(|link| link.number == number) {
            state.links.remove(&node);
            self.peers.store(state.links.len(), Ordering::Relaxed);
        }
        drop(state);
        self.changed.notify_all();
    }

    /// Ends the campaign: nobody would hear of what is found.
    pub(super) fn fail(&self, error: Error) {
        self.state().failure.get_or_insert(error);
        self.lifecycle.fail();
    }

    /// Ends all connections to other hosts, which get for a while what they have not got yet.
    ///
    /// # Errors
    ///
    /// Something had failed before.
    pub(crate) fn close(&self) -> Result<(), Error> {
        self.closed.request();
        let mut state = self.state();
        state.closing = true;
        self.changed.notify_all();
        let waited = self.changed.wait_timeout_while(state, FAREWELL, |state| !state.links.is_empty());
        let mut state = waited.unwrap_or_else(PoisonError::into_inner).0;
        for link in state.links.values() {
            let _ = link.stream.shutdown(Shutdown::Both);
        }
        state.failure.take().map_or(Ok(()), Err)
    }
}
