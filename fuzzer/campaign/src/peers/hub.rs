//! What a campaign tells the other hosts and hears from them: a log to which news is added once.
//!
//! ```text
//! own clients ─ broker ─ local ─▶ ┌─────┐ ─▶ link ─▶ other host
//! own crashes ──────────────────▶ │ log │ ─▶ link ─▶ other host
//! other hosts ─ link ─ checks ──▶ └─────┘ ─▶ local ─ broker ─▶ own clients
//! ```
//!
//! Whoever reads the log has a position in it, and leaves out what it brought itself. A host that connects again is told
//! everything again, and knows by digest what it has already: so nothing is lost when a connection breaks or a host is
//! killed, and nothing goes in circles.

use std::{
    collections::{BTreeMap, HashSet},
    fmt,
    hash::{BuildHasher, RandomState},
    net::{Shutdown, TcpStream},
    path::PathBuf,
    process,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use fault_plan::FaultPlan;
use libafl::{Error, inputs::Input};

use super::{
    greeting::{Hello, host_name},
    wire::{CrashNews, Digest, News, WireError},
};
use crate::{CampaignError, book::Books, input::PlanInput};
use execution::{Stop, Target};

/// The most bytes of news that are kept from this host, and as many from all others.
const MOST_KEPT: usize = 256 << 20;
/// What a piece of news costs beside its bytes.
const ENTRY_BYTES: usize = 200;
/// How long the end of a campaign waits for the broker's last news, and then for other hosts to take theirs.
const FAREWELL: Duration = Duration::from_secs(5);

/// Where a piece of news comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// This campaign.
    Here,
    /// The one with this node number.
    Peer(u64),
}

/// A piece of news in the log.
#[derive(Debug)]
struct Entry {
    from: Origin,
    plan: bool,
    frame: Arc<[u8]>,
}

/// Who reads the log.
#[derive(Clone, Copy, Debug)]
pub(super) enum Reader {
    /// This campaign's broker: it wants the plans of others.
    Broker,
    /// The hub with this node number: it wants all that it did not say itself.
    Peer(u64),
}

/// What a reader of the log gets.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Frames.
    Frames(Vec<Arc<[u8]>>),
    /// There was none for a while.
    Nothing,
    /// There will be none any more.
    End,
}

/// How far the end has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    #[default]
    Open,
    /// The broker has ended: it takes nothing any more, but its last news may be on its way.
    Brokerless,
    /// Nothing is added any more; other hosts get the rest.
    Closing,
}

/// A connection to another hub.
struct Link {
    number: u64,
    /// Whether this side made it.
    dialed: bool,
    stream: TcpStream,
}

#[derive(Default)]
struct State {
    seen: HashSet<Digest>,
    log: Vec<Entry>,
    /// Bytes in the log, from here and from others.
    kept: [usize; 2],
    full: [bool; 2],
    links: BTreeMap<u64, Link>,
    connections: u64,
    /// Whether the broker's last news may still come.
    attached: bool,
    phase: Phase,
    failure: Option<Error>,
}

/// One campaign's end of all its connections to others.
pub(crate) struct Hub {
    target: Arc<Target>,
    books: Arc<Books>,
    hello: Hello,
    state: Mutex<State>,
    changed: Condvar,
    turns: AtomicU64,
    guests: AtomicUsize,
    closed: Stop,
}

impl fmt::Debug for Hub {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hub").field("hello", &self.hello).finish_non_exhaustive()
    }
}

impl Hub {
    /// The hub of the campaign on `target` that `books` are about. Its log begins with the crashes in the folder, the
    /// `plans` that the campaign begins with, and the fault-free one, which all have.
    ///
    /// # Errors
    ///
    /// The folder is damaged.
    pub(crate) fn open(target: Arc<Target>, books: Arc<Books>, plans: &[PathBuf]) -> Result<Arc<Self>, CampaignError> {
        let node = RandomState::new().hash_one(process::id());
        let hello = Hello::new(&target, node, host_name())
            .map_err(|error| CampaignError::Search(Error::unknown(execution::chain(&error))))?;
        let hub = Arc::new(Self {
            target,
            books,
            hello,
            state: Mutex::default(),
            changed: Condvar::new(),
            turns: AtomicU64::new(0),
            guests: AtomicUsize::new(0),
            closed: Stop::new(),
        });
        hub.add_own(News::Plan(PlanInput(hub.target.fault_free())));
        for (meta, reproducer) in hub.books.folder.crashes()? {
            let host = meta.origin.unwrap_or_else(|| hub.hello.host.clone());
            match serde_json::from_value(meta.kind.into()) {
                Ok(kind) => hub.add_own(News::Crash(CrashNews { host, kind, reproducer })),
                Err(error) => tracing::warn!(title = meta.title, "not told to other hosts: {error}"),
            }
        }
        for path in plans {
            match PlanInput::from_file(path) {
                Ok(plan) => hub.add_own(News::Plan(plan)),
                Err(error) => tracing::warn!("not told to other hosts: {error}"),
            }
        }
        hub.books.crashes.tell(Arc::downgrade(&hub));
        Ok(hub)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How this hub introduces itself.
    pub(super) fn hello(&self) -> &Hello {
        &self.hello
    }

    /// The name of this host.
    pub(crate) fn host(&self) -> &str {
        &self.hello.host
    }

    /// The plan that all hubs know.
    pub(super) fn fault_free(&self) -> FaultPlan {
        self.target.fault_free()
    }

    /// Requested when all connections are to end.
    pub(super) fn closed(&self) -> &Stop {
        &self.closed
    }

    /// Adds what this campaign has found, unless that is known.
    pub(crate) fn add_own(&self, news: News) {
        if let Err(error) = self.add(Origin::Here, news) {
            tracing::debug!("not told to other hosts: {}", execution::chain(&error));
        }
    }

    /// Adds a piece of news that was never seen before. A crash of another host is on disk before it is in the log.
    ///
    /// # Errors
    ///
    /// It is refused. That the folder cannot be written ends the campaign instead.
    pub(super) fn add(&self, from: Origin, news: News) -> Result<(), WireError> {
        news.check(&self.target)?;
        let frame = Arc::<[u8]>::from(news.frame()?);
        {
            let mut state = self.state();
            if state.phase == Phase::Closing || !state.has_room(from, frame.len()) || !state.seen.insert(news.digest())
            {
                return Ok(());
            }
        }
        if let (Origin::Peer(_), News::Crash(crash)) = (from, &news)
            && let Err(error) = self.books.crashes.note_foreign(crash)
        {
            self.fail(error);
            return Ok(());
        }
        let mut state = self.state();
        state.kept[side(from)] += ENTRY_BYTES + frame.len();
        state.log.push(Entry { from, plan: matches!(news, News::Plan(_)), frame });
        drop(state);
        self.changed.notify_all();
        Ok(())
    }

    /// What `reader` has not read yet, at most `most` pieces; `position` is how far it is. Waits so long for something.
    pub(super) fn next(&self, reader: Reader, position: &mut usize, most: usize, wait: Duration) -> Next {
        let deadline = Instant::now() + wait;
        let mut state = self.state();
        loop {
            if matches!(reader, Reader::Broker) && state.phase >= Phase::Brokerless {
                return Next::End;
            }
            let mut frames = Vec::new();
            while let Some(entry) = state.log.get(*position).filter(|_| frames.len() < most) {
                *position += 1;
                let wanted = match reader {
                    Reader::Broker => entry.plan && entry.from != Origin::Here,
                    Reader::Peer(node) => entry.from != Origin::Peer(node),
                };
                if wanted {
                    frames.push(Arc::clone(&entry.frame));
                }
            }
            if !frames.is_empty() {
                return Next::Frames(frames);
            }
            if state.phase == Phase::Closing {
                return Next::End;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Next::Nothing;
            }
            state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Takes in that an explorer has run what the broker had for it, and plans of its own.
    pub(crate) fn turn(&self) {
        self.turns.fetch_add(1, Ordering::Relaxed);
    }

    /// How often that was so.
    pub(super) fn turns(&self) -> u64 {
        self.turns.load(Ordering::Relaxed)
    }

    /// How many connections there are that others have made, greetings included.
    pub(super) fn guests(&self) -> &AtomicUsize {
        &self.guests
    }

    /// With how many hosts this campaign is connected.
    pub(crate) fn peers(&self) -> usize {
        self.state().links.len()
    }

    /// Whether there is a connection to the hub `node`.
    pub(super) fn is_connected(&self, node: u64) -> bool {
        self.state().links.contains_key(&node)
    }

    /// Takes in a connection to the hub `node`, which `dialed` says this side has made, and gives it a number. Of two
    /// that were made in the same direction the newer one stays; of two that the hubs made towards each other, that of
    /// the hub with the smaller node number, so that both drop the same. Gives nothing when the new one is not to stay.
    pub(super) fn admit(&self, node: u64, dialed: bool, stream: TcpStream) -> Option<u64> {
        let mut state = self.state();
        if state.phase == Phase::Closing {
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
        Some(number)
    }

    /// Takes in that the connection with this number to the hub `node` has ended.
    pub(super) fn dismiss(&self, node: u64, number: u64) {
        let mut state = self.state();
        if state.links.get(&node).is_some_and(|link| link.number == number) {
            state.links.remove(&node);
        }
        drop(state);
        self.changed.notify_all();
    }

    /// Takes in whether the broker is connected to this hub.
    pub(super) fn set_attached(&self, attached: bool) {
        self.state().attached = attached;
        self.changed.notify_all();
    }

    /// Takes in that the broker's connection has ended. Unless the campaign ends anyway, that ends it.
    pub(super) fn lose_broker(&self) {
        if self.state().phase == Phase::Open {
            self.fail(Error::illegal_state("the broker's connection to the hub has ended"));
        }
    }

    /// Ends the campaign: nobody would hear of what is found.
    fn fail(&self, error: Error) {
        self.state().failure.get_or_insert(error);
    }

    /// Whether something has failed so that the campaign cannot go on.
    pub(crate) fn has_failed(&self) -> bool {
        self.state().failure.is_some()
    }

    /// Ends all connections when the broker has ended: first that to the broker, then those to other hosts, which get for
    /// a while what they have not got yet.
    ///
    /// # Errors
    ///
    /// What had failed before.
    pub(crate) fn close(&self) -> Result<(), Error> {
        self.begin(Phase::Brokerless, |state| state.attached);
        self.closed.request();
        self.begin(Phase::Closing, |state| !state.links.is_empty());
        let mut state = self.state();
        for link in state.links.values() {
            let _ = link.stream.shutdown(Shutdown::Both);
        }
        state.failure.take().map_or(Ok(()), Err)
    }

    /// Begins a phase and waits a while, as long as somebody is `busy`.
    fn begin(&self, phase: Phase, busy: impl Fn(&State) -> bool) {
        let mut state = self.state();
        state.phase = phase;
        self.changed.notify_all();
        let result = self.changed.wait_timeout_while(state, FAREWELL, |state| busy(state));
        drop(result);
    }
}

impl State {
    /// Whether `bytes` more from there can be kept. That none can is told once.
    fn has_room(&mut self, from: Origin, bytes: usize) -> bool {
        let side = side(from);
        let fits = self.kept[side] + ENTRY_BYTES + bytes <= MOST_KEPT;
        if !fits && !std::mem::replace(&mut self.full[side], true) {
            let whose = if side == 0 { "this host's" } else { "other hosts'" };
            tracing::warn!("{whose} news fills {MOST_KEPT} bytes: what more there is stays where it is");
        }
        fits
    }
}

/// Whose share of the log a piece of news takes.
fn side(from: Origin) -> usize {
    usize::from(from != Origin::Here)
}
