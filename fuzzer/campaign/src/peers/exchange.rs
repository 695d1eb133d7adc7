//! The hub as a client of its campaign's broker, like the others: it hears what they find, and
//! gives them the plans of other hosts.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::Duration,
};

use crossbeam::channel::Receiver;
use libafl::{
    Error,
    corpus::InMemoryCorpus,
    events::{Event, EventConfig, EventFirer, EventReceiver, EventWithStats},
    executors::ExitKind,
    state::StdState,
};
use libafl_bolts::rands::StdRand;

use super::{
    hub::{Hub, Next},
    log::Reader,
    wire::{HEAD_BYTES, News},
};
use crate::{
    clients::{Connection, Imports, Manager},
    crashes::CrashNews,
    input::PlanInput,
};

/// Plans of others that clients get at a time: whoever runs them does nothing else in between, and
/// LibAFL's connection fails when more than a few MiB wait.
const PLANS_AT_A_TIME: usize = 8;
/// The time between two looks for news.
const PAUSE: Duration = Duration::from_millis(20);

/// The state of a client without a search.
type State = StdState<InMemoryCorpus<PlanInput>, PlanInput, StdRand, InMemoryCorpus<PlanInput>>;

/// The hub's side of its own campaign.
pub(super) struct Campaign<'a> {
    pub(super) connection: Connection,
    /// The crashes that clients find.
    pub(super) found: Receiver<CrashNews>,
    /// Number of times that an explorer has run all it got.
    pub(super) turns: &'a AtomicU64,
    /// The number of clients that explore.
    pub(super) explorers: u64,
}

/// Exchanges news with the campaign until its broker has ended.
pub(super) fn exchange(hub: &Hub, campaign: Campaign<'_>) {
    let _watched = hub.lifecycle().watch();
    if let Err(error) = run(hub, campaign) {
        hub.fail(error);
    }
}

fn run(hub: &Hub, campaign: Campaign<'_>) -> Result<(), Error> {
    let Campaign { connection, found, turns, explorers } = campaign;
    let (corpus, solutions) = (InMemoryCorpus::new(), InMemoryCorpus::new());
    let mut state: State = StdState::new(StdRand::with_seed(0), corpus, solutions, &mut (), &mut ())?;
    let mut manager: Manager<State> = connection.manager(Imports::Forward)?;
    let (mut position, mut given, mut turns_before) = (0, 0, turns.load(Ordering::Relaxed));
    loop {
        // Looked at first: all that came before the broker's end is read below.
        let ended = hub.lifecycle().has_broker_ended();
        while let Some((event, _)) = manager.try_receive(&mut state)? {
            if let Event::NewTestcase { input, .. } = event.into_parts().0 {
                hub.add_own(&News::Plan(input));
            }
        }
        found.try_iter().for_each(|crash| hub.add_crash(crash));
        if ended {
            return Ok(());
        }
        let turns_now = turns.load(Ordering::Relaxed);
        if given == PLANS_AT_A_TIME && turns_now >= turns_before + explorers {
            (given, turns_before) = (0, turns_now);
        }
        if let Next::Frames(frames) = hub.next(Reader::Clients, &mut position, PLANS_AT_A_TIME - given, Duration::ZERO)
        {
            given += frames.len();
            for frame in frames {
                give(&frame, &mut manager, &mut state)?;
            }
        }
        thread::sleep(PAUSE);
    }
}

/// Gives the plan in `frame` to the clients, with nothing but the plan: each runs it for itself.
fn give(frame: &[u8], manager: &mut Manager<State>, state: &mut State) -> Result<(), Error> {
    let news = News::read(&frame[HEAD_BYTES..]).map_err(|error| Error::illegal_state(execution::chain(&error)))?;
    let News::Plan(input) = news else { return Ok(()) };
    let event = Event::NewTestcase {
        input,
        observers_buf: None,
        exit_kind: ExitKind::Ok,
        corpus_size: 0,
        client_config: EventConfig::AlwaysUnique,
        forward_id: None,
    };
    manager.fire(state, EventWithStats::with_current_time(event, 0))
}
