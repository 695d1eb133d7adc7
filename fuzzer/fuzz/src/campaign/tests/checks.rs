//! In what order plans are checked on the other kernel.

use super::*;
use crate::campaign::checks::Checks;

fn plan(occurrence: u32) -> PlanInput {
    let mut plan = seed("fake", "should_failslab");
    plan.0.faults[0].occurrence = occurrence;
    plan
}

#[test]
fn a_crash_that_is_easy_to_make_does_not_keep_others_from_being_checked() {
    let checks = Checks::default();
    let mut fake = FakeRunner { stop: Stop::new(), executions_left: 1, counters: RunnerCounters::default() };
    let quiet = fake.run(&FaultPlan::fault_free("fake")).unwrap();
    let crashed = |title: &str| Execution { outcome: Outcome::Crashed(warning(title)), ..quiet.clone() };
    for occurrence in 1..=20 {
        checks.offer(&plan(occurrence), &crashed("WARNING in f"), false);
    }
    checks.offer(&plan(21), &quiet, true);
    checks.offer(&plan(22), &crashed("BUG in g"), false);
    let order: Vec<u32> = std::iter::from_fn(|| checks.take()).map(|check| check.plan.0.faults[0].occurrence).collect();
    assert_eq!(order, [21, 1, 2, 22]);
}
