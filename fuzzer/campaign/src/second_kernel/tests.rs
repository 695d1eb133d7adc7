//! In what order plans are checked on the other kernel.

use super::*;
use crate::fake::{self, seed, warning};

fn plan(occurrence: u32) -> PlanInput {
    let mut plan = seed("fake", "should_failslab");
    plan.0.faults[0].occurrence = occurrence;
    plan
}

#[test]
fn a_crash_that_is_easy_to_make_does_not_keep_others_from_being_checked() {
    let checks = SecondKernelQueue::default();
    let quiet = fake::quiet();
    let crashed = |title: &str| Execution { findings: vec![warning(title).into()], ..quiet.clone() };
    for occurrence in 1..=20 {
        checks.offer(&plan(occurrence), &crashed("WARNING in f"), false);
    }
    checks.offer(&plan(21), &quiet, true);
    checks.offer(&plan(22), &crashed("BUG in g"), false);
    let occurrence = |check: QueuedPlan| check.plan.0.faults[0].occurrence;
    assert_eq!(checks.take(Duration::from_secs(60)).map(occurrence), Some(21));
    assert!(checks.take(Duration::from_secs(60)).is_none(), "crashes are not that old");
    let order: Vec<u32> = std::iter::from_fn(|| checks.take(Duration::ZERO)).map(occurrence).collect();
    assert_eq!(order, [1, 2, 22]);
}

#[test]
fn one_check_of_the_source_is_one_crash_whatever_function_it_was_made_part_of() {
    let quiet = fake::quiet();
    let crashed = |function: &str, line: u32| {
        let text = format!("WARNING: CPU: 0 PID: 1 at fs/f.h:{line} {function}+0x1/0x2\n");
        let report = KernelReport { text, ..warning(&format!("WARNING in {function}")) };
        Execution { findings: vec![report.into()], ..quiet.clone() }
    };
    let checks = SecondKernelQueue::default();
    checks.offer(&plan(1), &crashed("caller", 7), false);
    let check = checks.take(Duration::ZERO).unwrap();
    assert_eq!(check.same_crash(&crashed("inlined", 7)), Some(("WARNING in caller", "WARNING in inlined")));
    assert_eq!(check.same_crash(&crashed("inlined", 8)), None);
    assert_eq!(check.same_crash(&crashed("caller", 7)), None, "it has the same title");
}
