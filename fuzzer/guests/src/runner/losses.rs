//! Findings of what the disk does not hold.

use execution::{Finding, FindingKind, Fired};
use fault_plan::FaultPlan;
use guest_protocol::{Loss, LossKind, StepResult, WorkloadStep};

use super::leftover::{after_failure, evidence};

/// Words for data that is lost, and of which no step told.
const SWALLOWED: &str = "error swallowed, data lost";
const LOST: &str = "data lost";
const STALE: &str = "stale data";

/// Gives the key's and the title's first words for a kind of loss.
fn words(kind: LossKind) -> &'static str {
    match kind {
        LossKind::Lost => LOST,
        LossKind::Stale => STALE,
        LossKind::Unmountable => "file system does not mount again",
    }
}

/// Makes a finding of the first loss of each kind, after an execution of `plan` in which these
/// faults `fired` and the steps of the `workload` had these `results`. An error is swallowed when
/// data is lost after a fault, and each step did what it does without one.
pub(super) fn lost(
    losses: &[Loss],
    plan: &FaultPlan,
    workload: &[WorkloadStep],
    fired: &[Fired],
    results: &[StepResult],
) -> Vec<Finding> {
    let untold = !fired.is_empty() && WorkloadStep::defect(workload, results).is_none();
    let mut found: Vec<Finding> = Vec::new();
    for kind in [LossKind::Unmountable, LossKind::Stale, LossKind::Lost] {
        let of_kind: Vec<_> = losses.iter().filter(|loss| loss.kind == kind).map(|loss| loss.text.as_str()).collect();
        if of_kind.is_empty() {
            continue;
        }
        let text = evidence(&of_kind.join("\n"), plan, fired, results);
        let swallowed = untold && kind == LossKind::Lost;
        let chosen = if swallowed { SWALLOWED } else { words(kind) };
        found.push(after_failure(FindingKind::Data, chosen, text, fired));
    }
    found
}

/// Gives the other keys by which the failed call of this key shows. Which words it gets is chance:
/// what is not written back is lost where it was acknowledged, and what was on the disk before
/// where another fault kept it from that.
pub(super) fn also_shows(key: &str) -> impl Iterator<Item = String> {
    const SHOWS: [&str; 3] = [SWALLOWED, LOST, STALE];
    let known = key.split_once(": ").filter(|(words, _)| SHOWS.contains(words));
    let others = move |(words, caller)| {
        SHOWS.into_iter().filter(move |other| *other != words).map(move |other| format!("{other}: {caller}"))
    };
    known.into_iter().flat_map(others)
}

#[cfg(test)]
mod tests {
    use guest_protocol::Step;

    use super::*;

    fn keys(losses: &[LossKind], result: StepResult, fired: bool) -> Vec<String> {
        let losses: Vec<_> = losses.iter().map(|kind| Loss { kind: *kind, text: "f: byte 1".to_owned() }).collect();
        let path = ["__kmalloc_noprof", "flush_block"].map(str::to_owned).to_vec();
        let fault = Fired { fault: 0, sequence: 1, site: 1, step: 1, times: 1, call_path: path, ..Fired::default() };
        let fired = if fired { vec![fault] } else { Vec::new() };
        let workload = [WorkloadStep::from(Step::Sync {})];
        let found = lost(&losses, &FaultPlan::fault_free("t"), &workload, &fired, &[result]);
        assert!(found.iter().all(|found| found.kind == FindingKind::Data && found.text.contains("f: byte 1")));
        found.into_iter().map(|found| found.key).collect()
    }

    #[test]
    fn lost_data_is_a_swallowed_error_when_no_step_told_of_it() {
        use LossKind::{Lost, Stale, Unmountable};
        let (done, failed) = (StepResult::Done(0), StepResult::Failed(5));
        assert_eq!(keys(&[Lost, Lost], done, true), ["error swallowed, data lost: flush_block"]);
        assert_eq!(keys(&[Lost], failed, true), ["data lost: flush_block"]);
        assert_eq!(keys(&[Lost], done, false), ["data lost"]);
        assert_eq!(keys(&[Lost, Stale], failed, true), ["stale data: flush_block", "data lost: flush_block"]);
        assert_eq!(keys(&[Unmountable], done, true), ["file system does not mount again: flush_block"]);
        assert!(keys(&[], done, true).is_empty());
    }

    #[test]
    fn a_call_that_loses_data_shows_in_several_ways() {
        let shows = |key| also_shows(key).collect::<Vec<_>>();
        assert_eq!(shows("stale data: f"), ["error swallowed, data lost: f", "data lost: f"]);
        assert_eq!(shows("error swallowed, data lost: f"), ["data lost: f", "stale data: f"]);
        assert!(shows("file system does not mount again: f").is_empty() && shows("stale data").is_empty());
    }
}
