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
    let Campaign { connection, found, turns, explorers } = campaign;
    let mut manager = match connection.manager(Imports::Forward) {
        Ok(manager) => manager,
        Err(error) => return hub.fail(error),
    };
    if let Err(error) = run(hub, &mut manager, &found, (turns, explorers)) {
        hub.fail(error);
        // The manager stays until then: the broker reads its memory.
        while !hub.lifecycle().has_broker_ended() {
            thread::sleep(PAUSE);
        }
    }
}

fn run(
    hub: &Hub,
    manager: &mut Manager<State>,
    found: &Receiver<CrashNews>,
    (turns, explorers): (&AtomicU64, u64),
) -> Result<(), Error> {
    let (corpus, solutions) = (InMemoryCorpus::new(), InMemoryCorpus::new());
    let mut state: State = StdState::new(StdRand::with_seed(0), corpus, solutions, &mut (), &mut ())?;
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
                give(&frame, manager, &mut state)?;
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
