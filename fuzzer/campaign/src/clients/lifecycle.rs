//! The life of a client, and what ends a campaign.
//!
//! ```text
//!             is ready                 the campaign ends                last message read
//!  starting ────────────▶ searching ─────────────────────▶ waiting ────────────────────▶ gone
//!     │ cannot start          │ cannot go on, panics          ▲
//!     └──────────▶ failed ◀───┘                               │
//!                    └──── ends the campaign, and waits ──────┘
//! ```
//!
//! - *is ready*: a client may have to wait for a kernel to be built. Nobody waits for it.
//! - *the campaign ends*: the user stops it, its time is up, or a client, the broker or the
//!   connection to other hosts fails or panics. A deadline still leaves time to try the crashes
//!   that are known.
//! - *cannot start*: no failure when the user wanted to stop meanwhile. A client that is still
//!   starting when the time is up and all others have ended is asked to stop in the same way.
//! - *last message read*: messages are in memory of the one who sent them. So a client keeps its
//!   memory until the broker has ended, which ends when all clients wait.

use std::{
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

use execution::Stop;

/// The time between two looks of who waits for the broker.
const PAUSE: Duration = Duration::from_millis(5);

/// The state in which the clients of a campaign, its broker and its hub see each other.
#[derive(Debug)]
pub(crate) struct Lifecycle {
    stop: Stop,
    deadline: Option<Instant>,
    /// Clients that are ready, or will never be.
    started: AtomicUsize,
    /// Clients that have sent their last message.
    waiting: AtomicUsize,
    broker_ended: AtomicBool,
    failed: AtomicBool,
}

impl Lifecycle {
    /// Begins a campaign that ends when `stop` is requested or after `time`, whichever is first.
    pub(crate) fn new(stop: Stop, time: Option<Duration>) -> Self {
        Self {
            stop,
            // A time that no clock shows never comes.
            deadline: time.and_then(|time| Instant::now().checked_add(time)),
            started: AtomicUsize::new(0),
            waiting: AtomicUsize::new(0),
            broker_ended: AtomicBool::new(false),
            failed: AtomicBool::new(false),
        }
    }

    /// Says whether the campaign is to end.
    pub(crate) fn must_end(&self) -> bool {
        self.is_interrupted() || self.deadline.is_some_and(|deadline| Instant::now() >= deadline)
    }

    /// Says whether there is no time for anything more.
    pub(crate) fn is_interrupted(&self) -> bool {
        self.is_stopped() || self.failed.load(Ordering::Acquire)
    }

    /// Says whether the user wants to stop.
    pub(crate) fn is_stopped(&self) -> bool {
        self.stop.is_requested()
    }

    /// Ends the campaign: it cannot go on.
    pub(crate) fn fail(&self) {
        self.failed.store(true, Ordering::Release);
    }

    /// Begins the life of a client; for it to hold as long as it lives.
    pub(crate) fn client(&self) -> ClientLife<'_> {
        ClientLife { lifecycle: self, started: false, _watched: self.watch() }
    }

    /// Begins the life of the broker; for it to hold as long as it passes messages on.
    pub(crate) fn broker(&self) -> BrokerLife<'_> {
        BrokerLife { lifecycle: self, _watched: self.watch() }
    }

    /// Watches a thread that is neither client nor broker, as long as it holds this: a panic ends
    /// the campaign.
    pub(crate) fn watch(&self) -> Watched<'_> {
        Watched(self)
    }

    /// Says whether the broker has passed on its last message.
    pub(crate) fn has_broker_ended(&self) -> bool {
        self.broker_ended.load(Ordering::Acquire)
    }
}

/// The end of a campaign when the thread that holds this panics: the others would go on without it.
#[derive(Debug)]
pub(crate) struct Watched<'a>(&'a Lifecycle);

impl Drop for Watched<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.fail();
        }
    }
}

/// A client's promise to say how far it is, also when it panics.
#[derive(Debug)]
pub(crate) struct ClientLife<'a> {
    lifecycle: &'a Lifecycle,
    started: bool,
    _watched: Watched<'a>,
}

impl ClientLife<'_> {
    /// Says that the client is ready, or will never be.
    pub(crate) fn started(&mut self) {
        if !std::mem::replace(&mut self.started, true) {
            self.lifecycle.started.fetch_add(1, Ordering::AcqRel);
        }
    }

    /// Says that the client has sent its last message, and waits until the broker has read it.
    pub(crate) fn wait(self) {
        let lifecycle = self.lifecycle;
        drop(self);
        while !lifecycle.has_broker_ended() {
            thread::sleep(PAUSE);
        }
    }
}

impl Drop for ClientLife<'_> {
    fn drop(&mut self) {
        self.started();
        self.lifecycle.waiting.fetch_add(1, Ordering::AcqRel);
    }
}

/// The broker's promise to say that it has ended, also when it panics.
#[derive(Debug)]
pub(crate) struct BrokerLife<'a> {
    lifecycle: &'a Lifecycle,
    _watched: Watched<'a>,
}

impl BrokerLife<'_> {
    /// Says how many clients wait for the broker.
    pub(crate) fn waiting(&self) -> usize {
        self.lifecycle.waiting.load(Ordering::Acquire)
    }

    /// Asks those of `clients` that are still starting to stop, when the campaign ends and all others
    /// wait. `waiting` is how many did when the broker looked last.
    pub(crate) fn stop_starting(&self, clients: usize, waiting: usize) {
        // Read after `waiting`: a client that starts and ends in between counts in neither.
        let starting = clients.saturating_sub(self.lifecycle.started.load(Ordering::Acquire));
        if starting > 0 && waiting + starting >= clients && self.lifecycle.must_end() {
            self.lifecycle.stop.request();
        }
    }
}

impl Drop for BrokerLife<'_> {
    fn drop(&mut self) {
        self.lifecycle.broker_ended.store(true, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use super::*;

    fn lifecycle(time: Option<Duration>) -> Lifecycle {
        Lifecycle::new(Stop::new(), time)
    }

    #[test]
    fn a_campaign_ends_by_a_stop_a_deadline_or_a_failure() {
        let ends = |lifecycle: &Lifecycle| (lifecycle.must_end(), lifecycle.is_interrupted());
        let endless = lifecycle(Some(Duration::MAX));
        assert_eq!(ends(&endless), (false, false));
        endless.stop.request();
        assert_eq!(ends(&endless), (true, true));
        assert_eq!(ends(&lifecycle(Some(Duration::ZERO))), (true, false), "there is time to try crashes");
        let failed = lifecycle(None);
        failed.fail();
        assert_eq!((ends(&failed), failed.is_stopped()), ((true, true), false));
    }

    #[test]
    fn nobody_is_stopped_when_all_have_started() {
        let lifecycle = lifecycle(Some(Duration::ZERO));
        let broker = lifecycle.broker();
        drop(lifecycle.client());
        broker.stop_starting(1, 0);
        broker.stop_starting(1, broker.waiting());
        assert!(!lifecycle.is_stopped(), "the user did not stop it");
    }

    #[test]
    fn whoever_panics_ends_the_campaign_and_keeps_nobody_waiting() {
        for broker in [false, true] {
            let lifecycle = lifecycle(None);
            let panics = catch_unwind(AssertUnwindSafe(|| {
                let _client = (!broker).then(|| lifecycle.client());
                let _broker = broker.then(|| lifecycle.broker());
                panic!("a defect");
            }));
            assert!(panics.is_err() && lifecycle.must_end());
            assert_eq!(lifecycle.has_broker_ended(), broker);
            assert_eq!(lifecycle.waiting.load(Ordering::Acquire), usize::from(!broker));
        }
    }

    #[test]
    fn who_is_still_starting_is_stopped_when_all_others_wait() {
        let lifecycle = lifecycle(Some(Duration::ZERO));
        let mut first = lifecycle.client();
        let second = lifecycle.client();
        let broker = lifecycle.broker();
        first.started();
        broker.stop_starting(2, broker.waiting());
        assert!(!lifecycle.is_stopped(), "the first one still searches");
        drop(first);
        broker.stop_starting(2, 0);
        assert!(!lifecycle.is_stopped(), "the broker has not seen yet that it waits");
        broker.stop_starting(2, broker.waiting());
        assert!(lifecycle.is_stopped());
        drop((second, broker));
        assert!(lifecycle.has_broker_ended());
    }
}
