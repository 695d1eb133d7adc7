//! Findings of loops that never end while a call in them fails.
//!
//! A loop that asks again whenever it gets no memory would hang its guest until the deadline. The
//! program that injects lets calls through once a fault has fired [`MOST_FIRES`] times, and the
//! workload goes on. What the loop was is in the note of the last call that failed. One that waits
//! before it asks again does not get so far, and its step does not return.

use abi::MOST_FIRES;
use execution::{Finding, FindingKind, Fired};
use fault_plan::{FOR_EVER, FaultPlan};
use guest_protocol::StepResult;

use super::leftover::{after_failure, evidence};

/// Fires of a fault that lasts, from which on a step that does not return is one that asks again.
const ASKED_AGAIN: u32 = 8;

/// Makes a finding of the first fault that `fired` as often as the program allows.
pub(super) fn asks(plan: &FaultPlan, fired: &[Fired], results: &[StepResult]) -> Option<Finding> {
    let looping = fired.iter().find(|fired| fired.times >= MOST_FIRES)?;
    Some(endless(plan, looping, fired, results, "last"))
}

/// Makes a finding of the fault for ever that `fired` again and again in this `step`, which does
/// not return.
pub(super) fn waits(plan: &FaultPlan, fired: &[Fired], step: u32) -> Option<Finding> {
    let lasts = |fired: &Fired| plan.faults.get(fired.fault).is_some_and(|fault| fault.times == FOR_EVER);
    let asks = |fired: &&Fired| fired.times >= ASKED_AGAIN && fired.step == step && lasts(fired);
    Some(endless(plan, fired.iter().find(asks)?, fired, &[], "first"))
}

/// The finding of a loop in which a call fails that `looping` tells of, the `which` of them.
fn endless(plan: &FaultPlan, looping: &Fired, fired: &[Fired], results: &[StepResult], which: &str) -> Finding {
    let function = plan.faults.get(looping.fault).map_or("?", |fault| fault.function.as_str());
    let seen = format!(
        "{function} failed {} times in step {}, and was called again each time; below is the {which} call",
        looping.times, looping.step
    );
    let text = evidence(&seen, plan, fired, results);
    after_failure(FindingKind::Loop, "endless loop", text, std::slice::from_ref(looping))
}

#[cfg(test)]
mod tests {
    use fault_plan::{CallPath, Errno, Fault, InjectedError};
    use guest_protocol::FiredFault;
    use kcov_parser::Symbols;

    use super::{super::fired::named, *};

    #[test]
    fn a_call_that_is_made_again_whenever_it_fails_is_a_finding() {
        let mut plan = FaultPlan::fault_free("t");
        let error = InjectedError::Errno(Errno::ENOMEM);
        let fault = Fault::new("should_failslab", CallPath::default(), 1, error);
        plan.faults = vec![fault.clone(), Fault { times: FOR_EVER, ..fault }];
        let path = |path: &str| path.split(' ').map(str::to_owned).collect();
        let fired = |fault, times, callers: &str| {
            let fired = FiredFault { fault, times, step: 2, call_path: path(callers), ..FiredFault::default() };
            named(&fired, String::new(), &Symbols::default())
        };
        let (first, often) = (fired(0, 1, "kmem_cache_alloc_noprof f"), "kmem_cache_alloc_noprof asks g");
        assert_eq!(asks(&plan, &[first.clone(), fired(1, MOST_FIRES - 1, often)], &[]), None);
        let found = asks(&plan, &[first, fired(1, MOST_FIRES, often)], &[]).unwrap();
        assert_eq!((found.key.as_str(), found.kind), ("endless loop: asks", FindingKind::Loop));
        assert!(found.text.contains("should_failslab failed 8192 times in step 2"), "{}", found.text);
        assert!(!found.is_report() && found.stack[1] == "asks", "{found:?}");

        let slowly = |fault, times| [fired(fault, times, often)];
        let found = waits(&plan, &slowly(1, ASKED_AGAIN), 2).unwrap();
        assert_eq!((found.key.as_str(), found.kind), ("endless loop: asks", FindingKind::Loop));
        assert!(found.text.contains("failed 8 times in step 2"), "{}", found.text);
        assert_eq!(waits(&plan, &slowly(1, ASKED_AGAIN), 3), None, "another step does not return");
        assert_eq!(waits(&plan, &slowly(1, ASKED_AGAIN - 1), 2), None);
        assert_eq!(waits(&plan, &slowly(0, ASKED_AGAIN), 2), None, "it failed once, and not for that");
    }
}
