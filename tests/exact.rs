//! Clones that repeat exactly. A test program of its own, so that no other guest runs meanwhile:
//! where the host's processors are contended, a few executions in a hundred differ.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[allow(dead_code, reason = "the other test program uses the rest")]
mod common;

use execution::How;
use fault_plan::{Fault, Scope};

use common::{SLAB, exact_guests, fault, guests, plan, steps_target};

#[test]
fn exact_executions_are_the_same_even_when_they_end_the_guest() {
    let folder = steps_target(&["occurrence", "thread", "work_item", "null_deref"], SLAB);
    let mut guest = exact_guests(folder.path());
    let mut campaigns = guests(folder.path());
    let plans = [
        plan(&[]),
        plan(&[fault(&["...", "selftest_occurrence_alloc"], 3)]),
        // These end the guest.
        plan(&[fault(&["...", "selftest_index_grow"], 1)]),
        plan(&[Fault { task: Some(Scope::Worker), ..fault(&["...", "selftest_job_alloc"], 1) }]),
    ];
    for (number, plan) in plans.iter().enumerate() {
        let first = guest.run_fresh(plan);
        assert_eq!(!first.findings.is_empty(), number >= 2, "{number}: {:?}", first.findings);
        for _ in 0..4 {
            let again = guest.run_fresh(plan);
            assert_eq!(again.hits, first.hits, "{number}");
            assert_eq!(again.coverage, first.coverage, "{number}");
            assert_eq!(again.fingerprint(), first.fingerprint(), "{number}");
        }
        let by_the_way = campaigns.ran(plan, How::Exact).execution.unwrap();
        assert_eq!(by_the_way.fingerprint(), first.fingerprint(), "{number}");
    }
}
