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
    let crashed = |title: &str| Execution { findings: vec![warning(title)], ..quiet.clone() };
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
fn what_both_kernels_report_in_one_function_is_one_crash() {
    let crashed = |title: &str| Execution { findings: vec![warning(title)], ..fake::quiet() };
    let checks = SecondKernelQueue::default();
    checks.offer(&plan(1), &crashed("general protection fault in f"), false);
    let check = checks.take(Duration::ZERO).unwrap();
    let judged = "KASAN: slab-use-after-free Read in f";
    assert_eq!(check.same_crash(&crashed(judged)), Some(("general protection fault in f", judged)));
    assert_eq!(check.same_crash(&crashed("KASAN: slab-use-after-free Read in g")), None);
    assert_eq!(check.same_crash(&crashed("general protection fault in f")), None, "it has the same key");
}
