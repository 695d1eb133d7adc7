//! Messages on the wire.

use fault_plan::CallPath;
use proptest::prelude::*;

use super::{super::wire::framed, *};

#[test]
fn news_is_what_was_said() {
    let fault_free = News::Plan(PlanInput(FaultPlan::fault_free("fake")));
    for news in [plan_news("a"), crash("host", "BUG in a"), fault_free, News::Ping] {
        news.check(&target(TARGET)).unwrap();
        let frame = news.frame().unwrap();
        assert_eq!(News::read(&frame[HEAD_BYTES..]).unwrap(), news);
        let longer = [&frame[HEAD_BYTES..], &[0]].concat();
        assert!(matches!(News::read(&longer), Err(WireError::Refused(_))), "{news:?}");
    }
}

#[test]
fn the_largest_plan_fits() {
    let mut news = plan("x");
    let longest = "x".repeat(512);
    news.faults[0].call_path = CallPath(vec![longest; fault_plan::MAX_CALL_PATH]);
    news.faults = vec![news.faults[0].clone(); fault_plan::MAX_FAULTS];
    let news = News::Plan(PlanInput(news));
    news.check(&target(TARGET)).unwrap();
    assert!(news.frame().unwrap().len() < MOST_BYTES);
    assert!(matches!(framed(&vec![0; MOST_BYTES + 1]), Err(WireError::TooLong { .. })));
}

/// The parts of a crash that a host says.
struct Said {
    host: String,
    reproducer: Reproducer,
}

/// Says why `change`d news is refused.
fn refusal(change: impl FnOnce(&mut Said)) -> String {
    let News::Crash { host, crash } = crash("host", "BUG in a") else { panic!("it is a crash") };
    let mut said = Said { host, reproducer: crash.reproducer };
    change(&mut said);
    let Said { host, reproducer } = said;
    let news = News::Crash { host, crash: CrashNews { kind: crash.kind, reproducer } };
    execution::chain(&news.check(&target(TARGET)).unwrap_err())
}

#[test]
fn what_cannot_be_is_refused_with_the_reason() {
    for title in ["", "  ", "a\nb", "\u{1b}[2J", "a\0", "f\u{fc}r", &"x".repeat(121)] {
        assert!(refusal(|news| news.reproducer.title = title.to_owned()).contains("a title"), "{title:?}");
    }
    for key in ["", " ", "a\nb", &"x".repeat(401)] {
        assert!(refusal(|news| news.reproducer.key = key.to_owned()).contains("a key"), "{key:?}");
    }
    for name in ["", "../up", "a b", &"x".repeat(65)] {
        assert!(refusal(|news| news.reproducer.kernel = name.to_owned()).contains("a name"), "{name:?}");
        assert!(refusal(|news| news.host = name.to_owned()).contains("a name"), "{name:?}");
        assert!(refusal(|news| news.reproducer.kernel_build_id = name.to_owned()).contains("a name"), "{name:?}");
    }
    assert!(refusal(|news| news.reproducer.reproducer_version = 2).contains("version"));
    let definition = target(TARGET).definition();
    assert!(refusal(|news| news.reproducer.target = Some(definition)).contains("brings a target along"));
    let plan = |change: fn(&mut FaultPlan)| refusal(|news| change(&mut news.reproducer.plan));
    assert!(plan(|plan| plan.target = "other".to_owned()).contains("another target"));
    assert!(plan(|plan| plan.faults[0].function = "open_ctree".to_owned()).contains("does not let fail"));
    assert!(plan(|plan| plan.faults[0].error = InjectedError::Null).contains("does not let fail"));
    assert!(plan(|plan| plan.faults[0].occurrence = 0).contains("counted from 1"));
    assert!(plan(|plan| plan.faults[0].call_path.0[0] = "a\nb".to_owned()).contains("a caller"));
    assert!(plan(|plan| plan.faults[0].call_path.0[0] = "x".repeat(513)).contains("a caller"));
    assert!(plan(|plan| plan.faults = vec![plan.faults[0].clone(); 17]).contains("17 faults"));
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        if let Ok(news) = News::read(&bytes) {
            let _ = news.check(&target(TARGET));
        }
    }

    #[test]
    fn no_change_of_a_frame_makes_it_panic(at in 0..400_usize, to in any::<u8>(), whole in any::<bool>()) {
        for news in [plan_news("caller"), crash("host", "BUG in a")] {
            let mut body = news.frame().unwrap().split_off(HEAD_BYTES);
            let at = at % body.len();
            body[at] = to;
            if let Ok(news) = News::read(if whole { &body[..] } else { &body[..at] }) {
                let _ = news.check(&target(TARGET));
            }
        }
    }
}
