//! What the console and the log of fired faults say of an execution.

use std::time::Duration;

use kcov_parser::Symbols;

use crate::{
    execution::{Fired, Outcome},
    guest::{self, FiredLog},
    report::{self, KernelReport, ReportKind},
};

/// How the kernel reports that process 1, our agent, ended: trouble, no finding.
const AGENT_DEATH: &str = "Attempted to kill init";

/// A hang is no finding when the guest waited for a processor of the host for more than one part in this many of the
/// time: its clock goes on meanwhile, and detectors and deadlines see a kernel that stands still.
pub(super) const STARVED: u32 = 2;

/// The kernel reports in `text` that count: up to the first that is more than a warning, and none of our agent's death.
pub(super) fn reports(text: &str) -> Vec<KernelReport> {
    let mut all = report::reports(text);
    all.retain(|report| !report.title.contains(AGENT_DEATH));
    let last = all.iter().position(|report| report.kind != ReportKind::Warning);
    all.truncate(last.map_or(all.len(), |last| last + 1));
    all
}

/// Whether nothing but hangs was `found` in an execution of the time `wall`, and may be the doing of the host, for which the
/// guest waited as long as `starved` says.
pub(super) fn is_starved(found: &[KernelReport], wall: Duration, starved: Duration) -> bool {
    let hangs = !found.is_empty() && found.iter().all(|report| report.kind == ReportKind::Hang);
    hangs && starved * STARVED > wall
}

/// The outcome by the first of the reports, and the others.
pub(super) fn outcome_of(mut reports: Vec<KernelReport>) -> (Outcome, Vec<KernelReport>) {
    let others = reports.split_off(reports.len().min(1));
    let outcome = match reports.pop() {
        None => Outcome::Completed,
        Some(report) if report.kind == ReportKind::Hang => Outcome::Hung(report),
        Some(report) => Outcome::Crashed(report),
    };
    (outcome, others)
}

pub(super) fn fired_of(log: &FiredLog, symbols: &Symbols) -> Vec<Fired> {
    // A return address may be the first one after its function: what called lies one byte before.
    let name = |address: &u64| {
        let location = symbols.resolve(address.wrapping_sub(1));
        location.map_or_else(|| "?".to_owned(), |location| location.function.to_owned())
    };
    let fired = |fired: &guest::Fired| Fired {
        fault: fired.fault as usize,
        sequence: fired.sequence,
        site: fired.site,
        call_path: fired.stack.iter().map(name).collect(),
    };
    log.fired.iter().map(fired).collect()
}

/// The report of a guest that did not answer within `deadline` and of which the kernel says nothing; `stack` is what its
/// processor was at.
pub(super) fn silent_hang(target: &str, deadline: Duration, stack: &str) -> KernelReport {
    KernelReport {
        title: report::hanging_function(stack).map_or_else(
            || "hang: the deadline passed without a word of the kernel".to_owned(),
            |function| format!("hang in {function}"),
        ),
        kind: ReportKind::Hang,
        text: format!("no reply within {} s, target {target}; the processor was at:\n{stack}", deadline.as_secs()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOFT_LOCKUP: &str = "watchdog: BUG: soft lockup - CPU#0 stuck for 11s! [agent:1]\n\
        RIP: 0010:selftest_request_wait+0x1/0x2\nKernel panic - not syncing: softlockup: hung tasks\n";
    const WARNING: &str = "WARNING: CPU: 0 PID: 7 at fs/x.c:1 late_work+0x1/0x2\n";

    #[test]
    fn a_hang_in_a_guest_that_was_not_let_run_is_the_hosts_however_it_was_noticed() {
        let wall = Duration::from_secs(20);
        let (half, more) = (wall / 2, wall / 2 + Duration::from_millis(1));
        let by_kernel = reports(SOFT_LOCKUP);
        assert_eq!(by_kernel.iter().map(|report| report.kind).collect::<Vec<_>>(), [ReportKind::Hang]);
        for hang in [by_kernel, vec![silent_hang("test", wall, "")]] {
            assert!(is_starved(&hang, wall, more), "{hang:?}");
            assert!(!is_starved(&hang, wall, half), "{hang:?}");
        }
        assert!(!is_starved(&[], wall, more), "nothing was reported");
        assert!(
            !is_starved(&reports(&format!("{WARNING}{SOFT_LOCKUP}")), wall, more),
            "a warning is no matter of time"
        );
    }
}
