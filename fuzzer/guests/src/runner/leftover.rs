//! Findings of what a workload left in use.

use std::fmt::Write as _;

use execution::{Attributed, Finding, FindingKind, Fired};
use fault_plan::FaultPlan;
use guest_protocol::{Leftover, LeftoverKind, StepResult};

use super::GuestRunner;

/// Gives the key's and the title's first words for a kind of leftover.
fn words(kind: LeftoverKind) -> &'static str {
    match kind {
        LeftoverKind::Mount => "mount left",
        LeftoverKind::Device => "device left open",
        LeftoverKind::FileSystem => "file system state left",
        LeftoverKind::Memory => "memory does not come back",
        LeftoverKind::Taint => "kernel tainted without a report",
        LeftoverKind::Work => "work does not end",
    }
}

/// Gives the caller whose failure a fault was.
pub(super) fn telling(fired: &Fired) -> Option<&str> {
    kernel_report::telling_caller(&fired.call_path)
}

/// Makes the finding of a leftover of `plan`, of which these faults fired and whose steps had these
/// results, where they are known. Its key is the kind of thing and the place of the last fault:
/// what the unwinding after it forgot.
pub(super) fn left(leftover: &Leftover, plan: &FaultPlan, fired: &[Fired], steps: &[StepResult]) -> Finding {
    let words = words(leftover.kind);
    // Work that does not end says itself which function is wrong.
    if leftover.kind == LeftoverKind::Work {
        let text = evidence(&leftover.text, plan, fired, steps);
        return Finding::leftover(leftover.text.clone(), leftover.text.clone(), text);
    }
    let text = evidence(&leftover.text, plan, fired, steps);
    after_failure(FindingKind::Leftover, words, text, fired)
}

/// Makes a finding that has the call path of the last fault for its stack.
pub(super) fn seen(kind: FindingKind, key: String, title: String, text: String, fired: &[Fired]) -> Finding {
    let stack = fired.last().map_or_else(Vec::new, |fired| fired.call_path.clone());
    Finding { stack, ..Finding::seen(kind, key, title, text) }
}

/// Makes a finding that is called by `words` and the place of the last fault.
pub(super) fn after_failure(kind: FindingKind, words: &str, text: String, fired: &[Fired]) -> Finding {
    let last = fired.last();
    let (key, title) = match (last, last.and_then(telling)) {
        (None, _) => (words.to_owned(), format!("{words} without a failure")),
        (_, None) => (format!("{words}: ?"), format!("{words} after a failure")),
        (_, Some(caller)) => (format!("{words}: {caller}"), format!("{words} after a failure in {caller}")),
    };
    let mut finding = seen(kind, key, title, text, fired);
    let earlier = fired.iter().rev().skip(1).filter_map(telling);
    finding.also = earlier.map(|caller| format!("{words}: {caller}")).collect();
    finding
}

/// Says what was `seen`, which faults fired and what each step returned.
pub(super) fn evidence(seen: &str, plan: &FaultPlan, fired: &[Fired], steps: &[StepResult]) -> String {
    let mut text = format!("{seen}\n");
    for fired in fired {
        let fault = plan.faults.get(fired.fault);
        let (function, error) =
            fault.map_or(("?", String::new()), |fault| (fault.function.as_str(), fault.error.to_string()));
        // Writing to a string does not fail.
        let _ = writeln!(text, "{function} returned {error} (call {}):", fired.sequence);
        for caller in &fired.call_path {
            let _ = writeln!(text, "  {caller}");
        }
    }
    for (number, step) in (1..).zip(steps) {
        let _ = match step {
            StepResult::Done(value) => writeln!(text, "step {number} returned {value}"),
            StepResult::Failed(error) => writeln!(text, "step {number} failed with error {error}"),
            StepResult::Skipped => writeln!(text, "step {number} was skipped"),
        };
    }
    text
}

impl GuestRunner {
    /// Keeps what came to light late.
    pub(super) fn note_late(&mut self, late: Attributed) {
        self.count_leftovers(&late.findings);
        for report in late.findings.iter().filter(|finding| finding.is_report()) {
            tracing::info!(title = report.title, "a late report, by the execution before");
        }
        self.late.push(late);
    }

    pub(super) fn count_leftovers(&mut self, findings: &[Finding]) {
        if findings.iter().any(|finding| finding.kind == FindingKind::Leftover) {
            tracing::debug!(?findings, "the guest is not clean after the workload");
            self.usage.leftovers += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use fault_plan::{CallPath, Errno, Fault, InjectedError};

    use super::*;

    #[test]
    fn a_leftover_is_named_by_its_kind_and_the_caller_that_was_failed() {
        let leftover = |kind| Leftover { kind, text: "btrfs does not forget".to_owned() };
        let path =
            ["__kmalloc_cache_node_noprof", "bdi_alloc", "super_setup_bdi_name", "super_setup_bdi", "btrfs_get_tree"];
        let path: Vec<String> = path.map(str::to_owned).into();
        let error = InjectedError::Errno(Errno::ENOMEM);
        let fault = Fault::new("should_failslab", CallPath::default(), 1, error);
        let plan = FaultPlan { faults: vec![fault], ..FaultPlan::fault_free("t") };
        let fired =
            [Fired { fault: 0, sequence: 38, site: 1, step: 1, times: 1, call_path: path.clone(), ..Fired::default() }];
        let found =
            left(&leftover(LeftoverKind::Device), &plan, &fired, &[StepResult::Failed(12), StepResult::Skipped]);
        assert_eq!(found.key, "device left open: super_setup_bdi");
        assert_eq!(found.title, "device left open after a failure in super_setup_bdi");
        assert_eq!(found.stack, path);
        for part in
            ["btrfs does not forget", "should_failslab returned ENOMEM (call 38)", "step 1 failed with error 12"]
        {
            assert!(found.text.contains(part), "{part} in {}", found.text);
        }
        let endless = Leftover { kind: LeftoverKind::Work, text: "work does not end: late_run".to_owned() };
        let found = left(&endless, &plan, &fired, &[]);
        assert_eq!((found.key.as_str(), found.also.len()), ("work does not end: late_run", 0));
        let found = left(&leftover(LeftoverKind::Memory), &plan, &[], &[]);
        assert_eq!((found.key.as_str(), found.stack.len()), ("memory does not come back", 0));
        assert_eq!(found.title, "memory does not come back without a failure");
    }
}
