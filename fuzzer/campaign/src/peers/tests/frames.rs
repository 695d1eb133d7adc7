//! What goes over the wire, against what LibAFL itself sends.

use std::sync::atomic::AtomicBool;

use libafl::{
    corpus::InMemoryCorpus,
    events::{Event, EventConfig, EventFirer, EventReceiver, EventWithStats, SendExiting},
    executors::ExitKind,
    inputs::NopInput,
    state::StdState,
};
use libafl_bolts::{
    ClientId,
    llmp::{Flags, Tag, TcpRemoteNewMessage},
    rands::StdRand,
};
use proptest::prelude::*;

use super::{
    super::wire::{CRASH, EVENT, PING, frame, framed},
    *,
};
use crate::{
    broker::Broker, broker::ClientEnd, broker::Ends, broker::Imports, broker::connect, monitor::CampaignMonitor,
    worker::Common,
};
use execution::Stop;

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

/// A broker with its monitor, and what its clients have in common.
fn broker(folder: &TempDir) -> (Broker, Common) {
    let (opened, earlier) = CampaignFolder::open(folder.path(), "fake", "fake").unwrap();
    let books = Books::open("fake".to_owned(), Arc::new(opened), 1, earlier).unwrap();
    let statistics = folder.path().join("stats.jsonl");
    let monitor = CampaignMonitor::new(&statistics, Box::new(std::io::sink()), 0, None).unwrap();
    let broker = Broker::new(monitor).unwrap();
    let common = Common {
        target: Arc::new(target(FAKE)),
        books: Arc::new(books),
        stop: Stop::new(),
        deadline: None,
        seed: 1,
        plans: Vec::new(),
        checking: false,
        explorers: 1,
        port: broker.port(),
        ends: Ends::default(),
        failed: AtomicBool::new(false),
        hub: None,
    };
    (broker, common)
}

#[test]
fn frames_and_numbers_are_those_of_libafl() {
    let folder = tempfile::tempdir().unwrap();
    let (mut broker, common) = broker(&folder);
    let port = broker.port();
    let mut stream = attach(port).unwrap();
    let next = |stream: &mut TcpStream| {
        let body = read_frame(stream, MOST_BYTES, Some(Duration::from_secs(10)))?;
        let message: Message = postcard::from_bytes(&body).unwrap();
        let theirs = TcpRemoteNewMessage::try_from(&body).unwrap();
        assert_eq!(postcard::to_allocvec(&theirs).unwrap(), postcard::to_allocvec(&message).unwrap());
        assert_eq!(postcard::to_allocvec(&message).unwrap(), body);
        Ok::<_, WireError>((message.client_id, message.tag, News::read(&message)?))
    };
    let mut client = move |end: ClientEnd<'_>, port: u16| {
        let mut state = state();
        let mut manager = connect::<State>(port, Imports(true)).unwrap();
        manager.fire(&mut state, found("here")).unwrap();
        assert_eq!(next(&mut stream).unwrap(), (ClientId(2), EVENT, Some(plan_news("here"))));

        stream.write_all(&plan_news("there").frame().unwrap()).unwrap();
        let mut received = None;
        while received.is_none() {
            received = manager.try_receive(&mut state).unwrap();
            thread::sleep(Duration::from_millis(1));
        }
        let (event, with_observers) = received.unwrap();
        assert!(!with_observers, "the client runs it for itself");
        assert!(matches!(event.event(), Event::NewTestcase { input, .. } if input.0 == plan("there")), "{event:?}");

        manager.fire(&mut state, found("later")).unwrap();
        assert_eq!(next(&mut stream).unwrap(), (ClientId(2), EVENT, Some(plan_news("later"))), "no echo");
        manager.fire(&mut state, found("last")).unwrap();
        manager.send_exiting().unwrap();
        end.wait();
        drop(manager);
        stream.write_all(&plan_news("wakes").frame().unwrap()).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        assert_eq!(next(&mut stream).unwrap(), (ClientId(2), EVENT, Some(plan_news("last"))), "also what came last");
        assert!(matches!(next(&mut stream), Err(WireError::End)), "the broker's thread has ended");
    };
    thread::scope(|scope| {
        // Taken before the broker looks for clients: it ends when this does, also when the test fails.
        let end = common.ends.client();
        scope.spawn(move || client(end, port));
        broker.run(1, &common).unwrap();
    });
}

#[test]
fn the_library_is_the_one_that_the_protocol_names() {
    let manifest = include_str!("../../../../../Cargo.toml");
    let (name, version) = greeting::LIBRARY.split_once(' ').unwrap();
    for package in [name, "libafl_bolts"] {
        assert!(manifest.contains(&format!("{package} = {{ version = \"={version}\"")), "{package} {version}");
    }
}

#[test]
fn news_is_what_was_said() {
    for news in
        [plan_news("a"), News::Crash(crash("host", "BUG in a")), News::Plan(PlanInput(FaultPlan::fault_free("fake")))]
    {
        news.check(&target(FAKE)).unwrap();
        assert_eq!(read(&news.frame().unwrap()[4..]), Some(news));
    }
    assert_eq!(read(&frame(PING, Vec::new()).unwrap()[4..]), None);
}

#[test]
fn the_largest_plan_fits() {
    let mut news = plan("x");
    let longest = "x".repeat(512);
    news.faults[0].call_path = CallPath(vec![longest; fault_plan::MAX_CALL_PATH]);
    news.faults = vec![news.faults[0].clone(); fault_plan::MAX_FAULTS];
    let news = News::Plan(PlanInput(news));
    news.check(&target(FAKE)).unwrap();
    assert!(news.frame().unwrap().len() < MOST_BYTES);
    assert!(matches!(framed(&vec![0; MOST_BYTES + 1]), Err(WireError::TooLong { .. })));
}

/// What is said of `change`d news.
fn refusal(change: impl FnOnce(&mut CrashNews)) -> String {
    let mut news = crash("host", "BUG in a");
    change(&mut news);
    execution::chain(&News::Crash(news).check(&target(FAKE)).unwrap_err())
}

#[test]
fn what_cannot_be_is_refused_with_the_reason() {
    for title in ["", "  ", "a\nb", "\u{1b}[2J", "a\0", "f\u{fc}r", &"x".repeat(121)] {
        assert!(refusal(|news| news.reproducer.title = title.to_owned()).contains("a title"), "{title:?}");
    }
    for name in ["", "../up", "a b", &"x".repeat(65)] {
        assert!(refusal(|news| news.reproducer.kernel = name.to_owned()).contains("a name"), "{name:?}");
        assert!(refusal(|news| news.host = name.to_owned()).contains("a name"), "{name:?}");
        assert!(refusal(|news| news.reproducer.kernel_build_id = name.to_owned()).contains("a name"), "{name:?}");
    }
    assert!(refusal(|news| news.reproducer.reproducer_version = 2).contains("version"));
    let plan = |change: fn(&mut FaultPlan)| refusal(|news| change(&mut news.reproducer.plan));
    assert!(plan(|plan| plan.target = "other".to_owned()).contains("another target"));
    assert!(plan(|plan| plan.faults[0].function = "open_ctree".to_owned()).contains("does not let fail"));
    assert!(plan(|plan| plan.faults[0].error = InjectedError::Null).contains("does not let fail"));
    assert!(plan(|plan| plan.faults[0].occurrence = 0).contains("counted from 1"));
    assert!(plan(|plan| plan.faults[0].call_path.0[0] = "a\nb".to_owned()).contains("a caller"));
    assert!(plan(|plan| plan.faults[0].call_path.0[0] = "x".repeat(513)).contains("a caller"));
    assert!(plan(|plan| plan.faults = vec![plan.faults[0].clone(); 17]).contains("17 faults"));
}

#[test]
fn other_messages_of_libafl_are_refused() {
    let event = |event: Event<PlanInput>| postcard::to_allocvec(&EventWithStats::with_current_time(event, 1)).unwrap();
    let message = |tag, payload| Message { client_id: ClientId(9), tag, flags: Flags(0), payload };
    for refused in [message(EVENT, event(Event::Stop)), message(Tag(0x00C0_FFEE), Vec::new())] {
        assert!(matches!(News::read(&refused), Err(WireError::Refused(_))), "{refused:?}");
    }
    let other = Event::<NopInput>::NewTestcase {
        input: NopInput {},
        observers_buf: Some(vec![1; 100]),
        exit_kind: ExitKind::Crash,
        corpus_size: usize::MAX,
        client_config: EventConfig::AlwaysUnique,
        forward_id: Some(ClientId(0)),
    };
    let payload = postcard::to_allocvec(&EventWithStats::with_current_time(other, u64::MAX)).unwrap();
    assert!(News::read(&message(EVENT, payload)).is_err());
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..300), tag in 0..3_usize) {
        let target = target(FAKE);
        let say = |message: &Message| if let Ok(Some(news)) = News::read(message) { let _ = news.check(&target); };
        if let Ok(message) = postcard::from_bytes::<Message>(&bytes) {
            say(&message);
        }
        let tag = [EVENT, CRASH, PING][tag];
        say(&Message { client_id: ClientId(0), tag, flags: Flags(u32::MAX), payload: bytes });
    }

    #[test]
    fn no_change_of_a_frame_makes_it_panic(at in 0..400_usize, to in any::<u8>(), whole in any::<bool>()) {
        let target = target(FAKE);
        for news in [plan_news("caller"), News::Crash(crash("host", "BUG in a"))] {
            let mut body = news.frame().unwrap().split_off(4);
            let at = at % body.len();
            body[at] = to;
            let body = if whole { &body[..] } else { &body[..at] };
            let message = postcard::from_bytes::<Message>(body);
            if let Ok(Some(news)) = message.map_err(WireError::from).and_then(|message| News::read(&message)) {
                let _ = news.check(&target);
            }
        }
    }
}
