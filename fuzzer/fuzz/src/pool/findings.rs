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

/// The kernel reports in `text` that count: up to the first that is more than a warning, and none of our agent's death.
pub(super) fn reports(text: &str) -> Vec<KernelReport> {
    let mut all = report::reports(text);
    all.retain(|report| !report.title.contains(AGENT_DEATH));
    let last = all.iter().position(|report| report.kind != ReportKind::Warning);
    all.truncate(last.map_or(all.len(), |last| last + 1));
    all
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
