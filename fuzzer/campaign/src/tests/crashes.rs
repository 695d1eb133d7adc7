//! What becomes of crashes and of the plans that made them.

use super::*;
use crate::crashes::{Cause, Crashes};
use kernel_report::title_slug;

/// Crashes of a folder, found on whatever kernel is asked for.
struct Bench {
    folder: tempfile::TempDir,
    crashes: Crashes,
    execution: Execution,
}

impl Bench {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let opened = Arc::new(CampaignFolder::open(folder.path(), "fake", "fake").unwrap().0);
        let mut fake = FakeRunner::new(&Stop::new(), 1);
        let execution = fake.execute(&FaultPlan::fault_free("fake")).unwrap();
        Self { folder, crashes: Crashes::restore(opened, Duration::from_secs(100)).unwrap(), execution }
    }

    fn found(&mut self, title: &str, kernel: &CampaignKernel, plan: &PlanInput) -> bool {
        self.execution.findings = vec![warning(title).into()];
        self.crashes.note(kernel, &Cause::of(&plan.0, &self.execution)).unwrap()
    }

    fn meta(&self, title: &str) -> CrashMeta {
        let path = self.folder.path().join("crashes").join(title_slug(title)).join("meta.json");
        serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
    }
}

fn kernel(name: &str) -> CampaignKernel {
    let call_sites = Arc::new(CallSites::from_offsets(TEXT_START, vec![0]));
    CampaignKernel { name: name.to_owned(), build_id: name.to_owned(), call_sites }
}

fn plans() -> [PlanInput; 2] {
    [seed("fake", "should_failslab"), PlanInput(FaultPlan::fault_free("fake"))]
}

#[test]
fn a_plan_that_makes_its_crash_only_exactly_is_not_tried_for_ever() {
    let (mut bench, lean, [plan, other]) = (Bench::new(), kernel("lean"), plans());
    assert!(bench.found("BUG in f", &lean, &plan));
    let found_ms = bench.meta("BUG in f").found_ms.unwrap();
    assert!((100_000..130_000).contains(&found_ms), "earlier starts count: {found_ms}");
    assert!(bench.crashes.take_untried(&lean, Duration::from_secs(60)).is_none(), "it is not that old");
    let untried = bench.crashes.take_untried(&lean, Duration::ZERO).unwrap();
    bench.crashes.tried(untried, 3, 0).unwrap();
    let inexact = bench.crashes.take_inexact(&lean).unwrap();
    bench.crashes.tried_exactly(&inexact, true).unwrap();
    assert!(!bench.found("BUG in f", &lean, &plan) && !bench.found("BUG in f", &lean, &other));
    assert!(bench.crashes.take_untried(&lean, Duration::ZERO).is_none() && bench.crashes.take_inexact(&lean).is_none());
    assert_eq!((bench.meta("BUG in f").exact, bench.meta("BUG in f").reproduced), (Some(true), 0));
}

#[test]
fn what_is_known_of_an_earlier_plan_is_not_said_of_the_next_one() {
    let (mut bench, lean, [plan, other]) = (Bench::new(), kernel("lean"), plans());
    assert!(bench.found("BUG in f", &lean, &plan));
    let untried = bench.crashes.take_untried(&lean, Duration::ZERO).unwrap();
    bench.crashes.tried(untried, 3, 0).unwrap();
    let under_way = bench.crashes.take_inexact(&lean).unwrap();
    assert!(bench.found("BUG in f", &lean, &other), "another plan is welcome");
    bench.crashes.tried_exactly(&under_way, true).unwrap();
    assert_eq!(bench.meta("BUG in f").exact, None, "that was the first one's");
    let untried = bench.crashes.take_untried(&lean, Duration::ZERO).unwrap();
    assert_eq!(untried.plan, other);
    bench.crashes.tried(untried, 3, 3).unwrap();
    assert_eq!(bench.crashes.take_inexact(&lean).unwrap().plan, other);
    assert!(bench.crashes.take_inexact(&lean).is_none());
}

#[test]
fn a_crash_is_another_one_only_on_another_kernel_and_never_both_ways() {
    let (mut bench, lean, check, [plan, _]) = (Bench::new(), kernel("lean"), kernel("check"), plans());
    assert!(bench.found("BUG in f", &lean, &plan));
    for title in ["KASAN in f", "WARNING in f"] {
        assert!(bench.found(title, &check, &plan));
    }
    bench.crashes.same("BUG in f", "gone in f").unwrap();
    bench.crashes.same("KASAN in f", "WARNING in f").unwrap();
    assert_eq!(bench.crashes.len(), 3, "nothing is the same yet");
    bench.crashes.same("BUG in f", "KASAN in f").unwrap();
    bench.crashes.same("KASAN in f", "BUG in f").unwrap();
    assert_eq!(bench.crashes.len(), 2);
    assert_eq!(bench.meta("BUG in f").same_as.as_deref(), Some("KASAN in f"));
    assert_eq!(bench.meta("KASAN in f").same_as, None);
}
