//! Crashes, and the plans that made them.

use std::fs;

use execution::{Execution, FindingKind};
use kernel_report::slug;

use super::*;
use crate::fake::{self, kernel, seed, warning};

/// Crashes of a folder, found on whatever kernel is asked for.
struct Found {
    folder: tempfile::TempDir,
    crashes: Crashes,
    execution: Execution,
}

impl Found {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let opened = Arc::new(fake::open(folder.path()));
        let crashes = Crashes::restore(opened, Duration::from_secs(100), None).unwrap();
        Self { folder, crashes, execution: fake::quiet() }
    }

    fn found(&mut self, title: &str, kernel: &CampaignKernel, plan: &PlanInput) -> bool {
        self.execution.findings = vec![warning(title)];
        self.crashes.note(kernel, &Cause::of(&plan.0, &self.execution)).unwrap()
    }

    fn meta(&self, title: &str) -> CrashMeta {
        let path = self.folder.path().join("crashes").join(slug(title)).join("meta.json");
        serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
    }
}

fn plans() -> [PlanInput; 2] {
    [seed("fake", "should_failslab"), PlanInput(FaultPlan::fault_free("fake"))]
}

#[test]
fn a_plan_that_makes_its_crash_only_exactly_is_not_tried_for_ever() {
    let (mut found, lean, [plan, other]) = (Found::new(), kernel("lean"), plans());
    assert!(found.found("BUG in f", &lean, &plan));
    let found_ms = found.meta("BUG in f").found_ms.unwrap();
    assert!((100_000..130_000).contains(&found_ms), "earlier starts count: {found_ms}");
    assert!(found.crashes.take_untried(&lean, Duration::from_secs(60)).is_none(), "it is not that old");
    let untried = found.crashes.take_untried(&lean, Duration::ZERO).unwrap();
    found.crashes.tried(&untried, 3, 0).unwrap();
    let inexact = found.crashes.take_inexact(&lean).unwrap();
    found.crashes.tried_exactly(&inexact, true).unwrap();
    assert!(!found.found("BUG in f", &lean, &plan) && !found.found("BUG in f", &lean, &other));
    assert!(found.crashes.take_untried(&lean, Duration::ZERO).is_none() && found.crashes.take_inexact(&lean).is_none());
    assert_eq!((found.meta("BUG in f").exact, found.meta("BUG in f").reproduced), (Some(true), 0));
}

#[test]
fn the_step_of_a_fault_that_fired_is_written() {
    let (mut found, lean, [plan, _]) = (Found::new(), kernel("lean"), plans());
    found.execution.fired = vec![execution::Fired { step: 3, ..fake::fired(0, 7) }];
    assert!(found.found("BUG in f", &lean, &plan));
    assert_eq!(found.meta("BUG in f").fired[0].step, Some(3));
}

#[test]
fn what_is_known_of_an_earlier_plan_is_not_said_of_the_next_one() {
    let (mut found, lean, [plan, other]) = (Found::new(), kernel("lean"), plans());
    assert!(found.found("BUG in f", &lean, &plan));
    let untried = found.crashes.take_untried(&lean, Duration::ZERO).unwrap();
    found.crashes.tried(&untried, 3, 0).unwrap();
    let under_way = found.crashes.take_inexact(&lean).unwrap();
    assert!(found.found("BUG in f", &lean, &other), "another plan is welcome");
    found.crashes.tried_exactly(&under_way, true).unwrap();
    assert_eq!(found.meta("BUG in f").exact, None, "that was the first one's");
    let untried = found.crashes.take_untried(&lean, Duration::ZERO).unwrap();
    assert_eq!(untried.plan, other);
    found.crashes.tried(&untried, 3, 3).unwrap();
    assert!(found.crashes.take_inexact(&lean).is_none(), "it is to be as simple as it can be");
    let minimal = found.crashes.take_unminimised(&lean).unwrap();
    let outcome = MinimizedMeta { executions: 4, faults: [1, 1] };
    found.crashes.minimised(&lean, &minimal, outcome, None).unwrap();
    assert_eq!((found.meta("BUG in f").minimized, minimal.plan), (Some(outcome), other.clone()));
    assert_eq!(found.crashes.take_inexact(&lean).unwrap().plan, other);
    assert!(found.crashes.take_inexact(&lean).is_none());
}

#[test]
fn a_simpler_plan_has_no_program_yet() {
    let (mut found, lean, [plan, other]) = (Found::new(), kernel("lean"), plans());
    assert!(found.found("BUG in f", &lean, &plan));
    let untried = found.crashes.take_untried(&lean, Duration::ZERO).unwrap();
    found.crashes.tried(&untried, 3, 3).unwrap();
    let folder = found.folder.path().join("crashes").join(slug("BUG in f"));
    write_programs(&folder, &[(PROGRAM, "int main".to_owned())], CrashRepro::default()).unwrap();
    let minimal = found.crashes.take_unminimised(&lean).unwrap();
    let (outcome, cause) = (MinimizedMeta { executions: 4, faults: [1, 0] }, Cause::of(&other.0, &found.execution));
    found.crashes.minimised(&lean, &minimal, outcome, Some((&cause, 3, 3))).unwrap();
    let meta = found.meta("BUG in f");
    assert_eq!((meta.minimized, meta.repro), (Some(outcome), None));
    assert!(!folder.join("repro.c").exists());
}

#[test]
fn a_crash_is_another_one_only_on_another_kernel_and_never_both_ways() {
    let (mut found, lean, check, [plan, _]) = (Found::new(), kernel("lean"), kernel("check"), plans());
    assert!(found.found("BUG in f", &lean, &plan));
    for title in ["KASAN in f", "WARNING in f"] {
        assert!(found.found(title, &check, &plan));
    }
    found.crashes.same("BUG in f", "gone in f").unwrap();
    found.crashes.same("KASAN in f", "WARNING in f").unwrap();
    assert_eq!(found.crashes.len(), 3, "nothing is the same yet");
    found.crashes.same("BUG in f", "KASAN in f").unwrap();
    found.crashes.same("KASAN in f", "BUG in f").unwrap();
    assert_eq!(found.crashes.len(), 2);
    assert_eq!(found.meta("BUG in f").same_as.as_deref(), Some("KASAN in f"));
    assert_eq!(found.meta("KASAN in f").same_as, None);
}

#[test]
fn a_key_is_one_crash_whatever_its_title() {
    let (mut found, lean, check, [plan, _]) = (Found::new(), kernel("lean"), kernel("check"), plans());
    let mut note = |key: &str, title: &str, kernel| {
        found.execution.findings = vec![Finding { key: key.to_owned(), ..warning(title) }];
        found.crashes.note(kernel, &Cause::of(&plan.0, &found.execution)).unwrap()
    };
    assert!(note("check: f: WARN_ON(a)", "WARNING in f", &lean));
    assert!(note("check: f: WARN_ON(b)", "WARNING in f", &lean), "another check in that function");
    assert!(note("access: null pointer in f", "BUG: kernel NULL pointer dereference in f", &lean));
    assert!(!note("access: null pointer in f", "KASAN: null-ptr-deref in f", &check), "it is known");
    assert_eq!(fs::read_dir(found.folder.path().join("crashes")).unwrap().count(), 3);
    let meta = found.meta("check: f: WARN_ON(b)");
    assert_eq!((meta.key.as_str(), meta.title.as_str()), ("check: f: WARN_ON(b)", "WARNING in f"));
    let file = found.folder.path().join("crashes").join(slug(&meta.key)).join("reproducer.json");
    let reproducer = Reproducer::from_json(&fs::read_to_string(file).unwrap()).unwrap();
    assert_eq!((reproducer.key, reproducer.title), (meta.key, meta.title));
}

#[test]
fn the_kernel_that_judges_has_the_last_word() {
    let (mut found, lean, judge, [plan, other]) = (Found::new(), kernel("lean"), kernel("fake"), plans());
    assert!(found.found("access: f", &lean, &plan));
    let under_way = found.crashes.take_untried(&lean, Duration::ZERO).unwrap();
    assert!(!found.found("access: f", &lean, &other), "one plan is enough");
    assert!(found.found("access: f", &judge, &plan));
    found.crashes.tried(&under_way, 3, 3).unwrap();
    assert_eq!(found.meta("access: f").tried, 0, "that was on the other kernel");
    assert!(!found.found("access: f", &judge, &other) && !found.found("access: f", &lean, &other));
    assert!(found.crashes.take_untried(&lean, Duration::ZERO).is_none());
    let untried = found.crashes.take_untried(&judge, Duration::ZERO).unwrap();
    found.crashes.tried(&untried, 3, 2).unwrap();
    assert_eq!((found.crashes.len(), found.meta("access: f").reproduced), (1, 2));
}

fn news(title: &str, plan: &FaultPlan) -> CrashNews {
    CrashNews { kind: FindingKind::Bug, reproducer: fake::reproducer(title, plan) }
}

#[test]
fn a_title_that_two_hosts_see_has_one_folder() {
    let folder = tempfile::tempdir().unwrap();
    let opened = || Arc::new(fake::open(folder.path()));
    let crashes = Crashes::restore(opened(), Duration::ZERO, None).unwrap();
    let (kernel, plan) = (kernel("fake"), seed("fake", "should_failslab"));
    let mut execution = fake::quiet();
    let mut found = |title: &str| {
        execution.findings = vec![warning(title)];
        crashes.note(&kernel, &Cause::of(&plan.0, &execution)).unwrap()
    };
    let meta = |title: &str| {
        let path = folder.path().join("crashes").join(slug(title)).join("meta.json");
        serde_json::from_str::<CrashMeta>(&fs::read_to_string(path).unwrap()).unwrap()
    };
    crashes.note_foreign("away", &news("BUG in theirs", &FaultPlan::fault_free("fake"))).unwrap();
    assert!(!found("BUG in theirs"), "it is known");
    assert!(found("BUG in ours"));
    crashes.note_foreign("away", &news("BUG in ours", &FaultPlan::fault_free("fake"))).unwrap();
    assert_eq!(crashes.len(), 2);
    assert_eq!(fs::read_dir(folder.path().join("crashes")).unwrap().count(), 2);
    assert_eq!(meta("BUG in theirs").origin.as_deref(), Some("away"));
    let ours = folder.path().join("crashes").join(slug("BUG in ours"));
    assert!(meta("BUG in ours").origin.is_none() && ours.join("report.txt").is_file());

    let taken = slug("BUG in ours");
    assert_eq!(slug(&taken), taken, "two titles, one folder");
    crashes.note_foreign("away", &news(&taken, &plan.0)).unwrap();
    assert_eq!(meta("BUG in ours").title, "BUG in ours");
    assert_eq!(crashes.len(), 2);

    let try_in_vain = || {
        let untried = crashes.take_untried(&kernel, Duration::ZERO).unwrap();
        let title = untried.title.clone();
        crashes.tried(&untried, 3, 0).unwrap();
        title
    };
    assert_eq!([try_in_vain(), try_in_vain()], ["BUG in ours", "BUG in theirs"], "both are tried here");
    crashes.note_foreign("away", &news("BUG in ours", &FaultPlan::fault_free("fake"))).unwrap();
    assert!(ours.join("report.txt").is_file(), "what this host saw for itself stays");
    assert!(found("BUG in theirs"), "a plan of this host is welcome for what could not be made again");
    assert!(meta("BUG in theirs").origin.is_none());
    let inexact = crashes.take_inexact(&kernel).unwrap();
    assert_eq!(inexact.title, "BUG in ours");
    crashes.tried_exactly(&inexact, true).unwrap();
    assert_eq!(meta("BUG in ours").exact, Some(true));
    assert!(!found("BUG in ours"), "a plan that makes it again is all that is wanted");
    drop(crashes);
    let crashes = Crashes::restore(opened(), Duration::ZERO, None).unwrap();
    assert_eq!(crashes.len(), 2);
    assert_eq!(crashes.take_untried(&kernel, Duration::ZERO).unwrap().title, "BUG in theirs");
    assert!(crashes.take_inexact(&kernel).is_none(), "it was tried exactly");
}

#[test]
fn others_are_told_of_what_this_host_finds_and_of_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let (sender, told) = crossbeam::channel::unbounded();
    let crashes = Crashes::restore(Arc::new(fake::open(folder.path())), Duration::ZERO, Some(sender)).unwrap();
    let (plan, execution) = (FaultPlan::fault_free("fake"), fake::quiet());
    crashes.note_foreign("away", &news("BUG in theirs", &plan)).unwrap();
    for title in ["BUG in ours", "BUG in ours", "BUG in theirs"] {
        let found = Execution { findings: vec![warning(title)], ..execution.clone() };
        crashes.note(&kernel("fake"), &Cause::of(&plan, &found)).unwrap();
    }
    let reproducer = fake::reproducer("BUG in ours", &plan);
    assert_eq!(told.try_iter().collect::<Vec<_>>(), [CrashNews { kind: FindingKind::Warning, reproducer }]);
}

/// A leftover of two faults that a single one makes as well is no crash of its own.
#[test]
fn a_leftover_with_a_cause_that_is_known_is_that_crash() {
    let folder = tempfile::tempdir().unwrap();
    let crashes = Crashes::restore(Arc::new(fake::open(folder.path())), Duration::ZERO, None).unwrap();
    let leftover = |key: &str, also: &[&str]| Finding {
        also: also.iter().map(ToString::to_string).collect(),
        ..Finding::leftover(key, key, "")
    };
    let note = |finding: Finding| {
        let (plan, findings) = (fake::plan(fake::caller(1), 1), vec![finding]);
        let execution = Execution { findings, ..fake::quiet() };
        crashes.note(&kernel("fake"), &Cause::of(&plan, &execution)).unwrap()
    };
    assert!(note(leftover("left: f", &[])));
    assert!(!note(leftover("left: g", &["left: f"])), "f is known to leave it");
    assert!(note(leftover("left: g", &["left: h"])));
    assert_eq!(crashes.len(), 2);
}
