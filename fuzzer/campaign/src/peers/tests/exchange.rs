//! The hub as a client of its campaign's broker.

use std::sync::atomic::AtomicU64;

use libafl::{
    corpus::InMemoryCorpus,
    events::{Event, EventConfig, EventFirer, EventReceiver, EventWithStats, SendExiting},
    executors::ExitKind,
    monitors::NopMonitor,
    state::StdState,
};
use libafl_bolts::rands::StdRand;

use super::*;
use crate::clients::{Broker, Imports, Manager};

type State = StdState<InMemoryCorpus<PlanInput>, PlanInput, StdRand, InMemoryCorpus<PlanInput>>;

fn state() -> State {
    StdState::new(StdRand::with_seed(1), InMemoryCorpus::new(), InMemoryCorpus::new(), &mut (), &mut ()).unwrap()
}

fn found(caller: &str) -> EventWithStats<PlanInput> {
    let event = Event::NewTestcase {
        input: PlanInput(plan(caller)),
        observers_buf: None,
        exit_kind: ExitKind::Ok,
        corpus_size: 3,
        client_config: EventConfig::AlwaysUnique,
        forward_id: None,
    };
    EventWithStats::with_current_time(event, 7)
}

/// Waits for a plan of others and gives it.
fn received(manager: &mut Manager<State>, state: &mut State) -> FaultPlan {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        if let Some((event, with_observers)) = manager.try_receive(state).unwrap() {
            assert!(!with_observers, "the client runs it for itself");
            let Event::NewTestcase { input, .. } = event.event() else { panic!("{event:?}") };
            return input.0.clone();
        }
        assert!(Instant::now() < deadline, "nothing comes");
        thread::sleep(Duration::from_millis(1));
    }
}

/// Runs `client` and the hub of `host` as the clients of a broker. Explorers have as many turns as
/// the last argument says when the client looks at it.
fn with_broker(host: &Host, client: impl FnOnce(&mut Manager<State>, &mut State, &AtomicU64) + Send) {
    let mut broker = Broker::new(NopMonitor::new()).unwrap();
    let [to_client, connection] = [(); 2].map(|()| broker.connect().unwrap());
    let (sender, crashes) = crossbeam::channel::unbounded();
    let turns = AtomicU64::new(0);
    thread::scope(|scope| {
        let lifecycle = host.hub.lifecycle();
        let life = lifecycle.client();
        let campaign = Campaign { connection, found: crashes, turns: &turns, explorers: 1 };
        let hub = scope.spawn(move || exchange(&host.hub, campaign));
        let turns = &turns;
        let client = scope.spawn(move || {
            let mut manager = to_client.manager::<State>(Imports::Run).unwrap();
            client(&mut manager, &mut state(), turns);
            let reproducer = fake::reproducer("BUG at the end", &plan("guilty"));
            sender.send(CrashNews { kind: FindingKind::Bug, reproducer }).unwrap();
            manager.fire(&mut state(), found("last")).unwrap();
            manager.send_exiting().unwrap();
            life.wait();
        });
        broker.run(1, lifecycle).unwrap();
        client.join().unwrap();
        hub.join().unwrap();
    });
    host.hub.close().unwrap();
    assert!(host.knows(&plan_news("last")), "also what came last");
    assert!(host.log().iter().any(|news| matches!(news, News::Crash { .. })), "crashes as well");
}

#[test]
fn the_hub_hears_what_clients_find_and_gives_them_plans_of_others() {
    let host = Host::new();
    with_broker(&host, |manager, state, _| {
        manager.fire(state, found("here")).unwrap();
        eventually("heard", || host.knows(&plan_news("here")));
        host.hub.add(Origin::Peer(7), &plan_news("there")).unwrap();
        assert_eq!(received(manager, state), plan("there"));
        host.hub.add_own(&plan_news("own"));
        thread::sleep(Duration::from_millis(200));
        assert!(manager.try_receive(state).unwrap().is_none(), "no echo, and clients know their own plans");
    });
    assert_eq!(host.log().len(), 6, "the fault-free plan, here, there, own, last and the crash");
}

#[test]
fn clients_get_a_few_plans_at_a_time() {
    let host = Host::new();
    for number in 0..20 {
        host.hub.add(Origin::Peer(7), &plan_news(&format!("caller_{number}"))).unwrap();
    }
    with_broker(&host, |manager, state, turns| {
        for few in [8, 8, 4] {
            (0..few).for_each(|_| drop(received(manager, state)));
            thread::sleep(Duration::from_millis(200));
            assert!(manager.try_receive(state).unwrap().is_none(), "more come when these have run");
            turns.fetch_add(1, Ordering::Relaxed);
        }
    });
}
