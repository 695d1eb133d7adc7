//! An execution as the agent reports it.

use std::time::Duration;

use execution::{Fate, Finding, Fired};
use fault_plan::{FaultPlan, Round};
use guest_protocol::{LOG_LOST, Leftover, LeftoverKind, Report};

use super::{leftover::left, text::reports};

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

/// Gives the execution of `plan` that the agent reports, in a guest in which so much was left
/// `before`. `text` is the console's.
pub(super) fn reported(
    plan: &FaultPlan,
    report: Box<Report>,
    before: &[Leftover],
    text: String,
    wall: Duration,
) -> Own {
    // The console has less of each report, and loses none.
    let in_log = if report.log.contains(LOG_LOST) { Vec::new() } else { reports(&report.log) };
    let (found, console) = if in_log.is_empty() { (reports(&text), text) } else { (in_log, report.log.clone()) };
    let mut findings: Vec<_> = found.into_iter().map(Finding::from).collect();
    let guest = match (findings.is_empty(), report.leftovers.is_empty()) {
        (true, true) => Fate::Alive,
        (true, false) => Fate::Unclean,
        (false, _) => Fate::Retired,
    };
    let fired = report.fired.iter().map(|fired| Fired {
        fault: fired.fault as usize,
        sequence: fired.sequence,
        site: fired.site,
        step: fired.step,
        call_path: fired.call_path.clone(),
    });
    let fired: Vec<_> = fired.collect();
    // A kernel that has reported something is not clean, and says so once more.
    if findings.is_empty() {
        let announced = kernel_report::has_announcement(&report.log);
        let explained = |leftover: &Leftover| leftover.kind == LeftoverKind::Taint && announced;
        let new = report.leftovers.iter().filter(|leftover| !before.contains(leftover) && !explained(leftover));
        findings.extend(new.map(|leftover| left(leftover, plan, &fired, &report.steps)));
    }
    Own { findings, guest, fired, report: Some(report), console, wall, history: Vec::new() }
}
