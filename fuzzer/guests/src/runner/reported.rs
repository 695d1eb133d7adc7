//! An execution as the agent reports it.

use std::time::Duration;

use execution::{Fate, Finding, Fired, Oracle};
use fault_plan::{Errno, FaultPlan, InjectedError, Round};
use guest_protocol::{LOG_LOST, Leftover, LeftoverKind, Report, WorkloadStep};

use super::{endless::asks, errno::wrong, fsck::complained, leftover::left, losses::lost, text::reports};

/// The part of an execution that belongs to its own plan.
#[derive(Debug)]
pub(super) struct Own {
    pub(super) findings: Vec<Finding>,
    pub(super) guest: Fate,
    pub(super) fired: Vec<Fired>,
    /// The agent's report; nothing when the guest is dead.
    pub(super) report: Option<Box<Report>>,
    pub(super) console: String,
    pub(super) wall: Duration,
    /// The rounds of the guest before; empty when there are no findings.
    pub(super) history: Vec<Round>,
}

/// A plan and the workload that ran under it.
#[derive(Clone, Copy)]
pub(super) struct Executed<'a> {
    pub(super) plan: &'a FaultPlan,
    pub(super) workload: &'a [WorkloadStep],
    /// The oracles that judge.
    pub(super) oracles: &'a [Oracle],
}

/// Gives the execution that the agent reports, in which these faults `fired`, in a guest in which
/// so much was left `before`. `text` is the console's.
pub(super) fn reported(
    executed: Executed<'_>,
    mut report: Box<Report>,
    fired: Vec<Fired>,
    before: &[Leftover],
    text: String,
    wall: Duration,
) -> Own {
    let Executed { plan, workload, oracles } = executed;
    let announced =
        [&report.log, &report.log_before, &text].into_iter().any(|log| kernel_report::has_announcement(log));
    // All that such a warning leaves. The detectors go on, and so may the guest.
    report.leftovers.retain(|leftover| !(announced && leftover.kind == LeftoverKind::Taint));
    // The console has less of each report, and loses none.
    let in_log = if report.log.contains(LOG_LOST) { Vec::new() } else { reports(&report.log) };
    let (found, console) = if in_log.is_empty() { (reports(&text), text) } else { (in_log, report.log.clone()) };
    let mut findings: Vec<_> = found.into_iter().map(Finding::from).collect();
    if findings.is_empty() && only_plain_errors(plan, &fired) {
        let called = [&report.log, &console].into_iter().find_map(|log| kernel_report::corruption(log));
        findings.extend(called.map(Finding::from));
    }
    let guest = match (findings.is_empty(), report.leftovers.is_empty()) {
        (true, true) => Fate::Alive,
        (true, false) => Fate::Unclean,
        (false, _) => Fate::Retired,
    };
    // A kernel that has reported something is not clean, and says so once more.
    if findings.is_empty() {
        let new = report.leftovers.iter().filter(|leftover| !is_old(leftover, before));
        findings.extend(new.map(|leftover| left(leftover, plan, &fired, &report.steps)));
        findings.extend(lost(&report.losses, plan, workload, &fired, &report.steps));
        // Without a fault it is no plan's doing.
        if !fired.is_empty() {
            findings.extend(complained(&report.complaints, plan, &fired, &report.steps));
        }
        if oracles.contains(&Oracle::Errno) {
            findings.extend(wrong(plan, workload, &fired, &report.steps));
        }
    }
    findings.extend(asks(plan, &fired, &report.steps));
    Own { findings, guest, fired, report: Some(report), console, wall, history: Vec::new() }
}

/// Says whether only allocations, reads and writes `fired`, as far as their errors tell: no
/// function was made to call anything damaged.
fn only_plain_errors(plan: &FaultPlan, fired: &[Fired]) -> bool {
    let is_plain = |fired: &Fired| {
        let error = plan.faults.get(fired.fault).map(|fault| fault.error);
        matches!(error, Some(InjectedError::Errno(Errno::ENOMEM | Errno::EIO)))
    };
    !fired.is_empty() && fired.iter().all(is_plain)
}

/// Says whether this was left `before`. The words for it change with every round, as they tell
/// numbers; those of a taint or a work item are its name. A mount that stays holds its disk and its
/// file system.
fn is_old(leftover: &Leftover, before: &[Leftover]) -> bool {
    let has = |kind| before.iter().any(|old| old.kind == kind);
    match leftover.kind {
        LeftoverKind::Taint | LeftoverKind::Work => before.contains(leftover),
        kind @ (LeftoverKind::Device | LeftoverKind::FileSystem) => has(kind) || has(LeftoverKind::Mount),
        kind @ (LeftoverKind::Mount | LeftoverKind::Memory) => has(kind),
    }
}

#[cfg(test)]
mod tests {
    use fault_plan::{CallPath, Fault};

    use super::*;

    const ANNOUNCED: &str = "BTRFS: Transaction aborted (error -12)\n";

    fn leftover(kind: LeftoverKind, text: &str) -> Leftover {
        Leftover { kind, text: text.to_owned() }
    }

    #[test]
    fn what_was_left_before_is_old_in_other_words_too() {
        use LeftoverKind::{Device, FileSystem, Memory, Mount, Taint, Work};
        for (before, now, expected) in [
            (Mount, Mount, true),
            (Mount, Device, true),
            (Mount, FileSystem, true),
            (Memory, Memory, true),
            (Device, FileSystem, false),
            (Device, Mount, false),
            (Mount, Memory, false),
            (Taint, Taint, false),
            (Work, Work, false),
        ] {
            let found = is_old(&leftover(now, "two"), &[leftover(before, "one")]);
            assert_eq!(found, expected, "{before:?} and then {now:?}");
        }
        assert!(is_old(&leftover(Taint, "W"), &[leftover(Taint, "W")]));
    }

    #[test]
    fn corruption_is_a_finding_where_only_plain_errors_fired() {
        let called = |errors: &[InjectedError], console: &str| {
            let fault = |error: &InjectedError| Fault::new("f", CallPath::default(), 1, *error);
            let plan = FaultPlan { faults: errors.iter().map(fault).collect(), ..FaultPlan::fault_free("test") };
            let fired = (0..errors.len()).map(|fault| Fired {
                fault,
                sequence: 1,
                site: 1,
                step: 1,
                times: 1,
                ..Fired::default()
            });
            let fired = fired.collect();
            let found = reported(
                Executed { plan: &plan, workload: &[], oracles: Oracle::ALL },
                Box::default(),
                fired,
                &[],
                console.to_owned(),
                Duration::ZERO,
            );
            (found.findings.iter().map(|finding| finding.key.clone()).collect::<Vec<_>>(), found.guest)
        };
        let [memory, io, damage] = ["ENOMEM", "EIO", "EUCLEAN"].map(|name| InjectedError::from_name(name).unwrap());
        let line = "XFS (ram0): Internal error i != 1 at line 7 of file fs/xfs/f.c.  Caller f+0x3a2/0x900\n";
        let key = "corruption: XFS: Internal error i != N at line N of file fs/xfs/f.c. Caller f".to_owned();
        assert_eq!(called(&[memory, io], line), (vec![key], Fate::Retired));
        for (errors, console) in [(&[memory, damage][..], line), (&[], line), (&[io], ANNOUNCED)] {
            assert_eq!(called(errors, console), (Vec::new(), Fate::Alive), "{errors:?}");
        }
    }

    #[test]
    fn an_announcement_explains_a_taint_wherever_it_stands() {
        let findings = |log: &str, log_before: &str, console: &str| {
            let leftovers = vec![leftover(LeftoverKind::Taint, "W")];
            let (log, log_before) = (log.to_owned(), log_before.to_owned());
            let report = Box::new(Report { log, log_before, leftovers, ..Report::default() });
            let plan = FaultPlan::fault_free("test");
            reported(
                Executed { plan: &plan, workload: &[], oracles: Oracle::ALL },
                report,
                Vec::new(),
                &[],
                console.to_owned(),
                Duration::ZERO,
            )
            .findings
            .len()
        };
        assert_eq!(findings("", "", ""), 1);
        assert_eq!([findings(ANNOUNCED, "", ""), findings("", ANNOUNCED, ""), findings("", "", ANNOUNCED)], [0; 3]);
    }
}
