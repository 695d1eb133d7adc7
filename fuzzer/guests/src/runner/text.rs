//! Kernel reports in a guest's text, and text that stands in the console and in the log.

use std::time::Duration;

use kernel_report::{KernelReport, ReportKind};

/// Words by which the kernel reports that process 1, our agent, ended: trouble, no finding.
const AGENT_DEATH: &str = "Attempted to kill init";

/// Lines of the console among which one of the log is looked for: a guest may send many of both.
const LINES_AHEAD: usize = 64;

/// Gives the kernel reports in `text` that count: up to the first that is more than a warning, and
/// none of our agent's death.
pub(super) fn reports(text: &str) -> Vec<KernelReport> {
    let mut all = kernel_report::reports(text);
    all.retain(|report| !report.title.contains(AGENT_DEATH));
    let last = all.iter().position(|report| report.kind != ReportKind::Warning);
    all.truncate(last.map_or(all.len(), |last| last + 1));
    all
}

/// Makes the report of a guest that did not answer within `deadline` and whose kernel says nothing;
/// `stack` is what its processor was at.
pub(super) fn silent_hang(target: &str, deadline: Duration, stack: &str) -> KernelReport {
    KernelReport {
        title: kernel_report::hanging_function(stack).map_or_else(
            || "hang: the deadline passed without a word of the kernel".to_owned(),
            |function| format!("hang in {function}"),
        ),
        kind: ReportKind::Hang,
        text: format!("no reply within {} s, target {target}; the processor was at:\n{stack}", deadline.as_secs()),
    }
}

/// Gives how many bytes at the start of `console` print `log`. The console has a time before each
/// line and leaves out lines of little weight.
pub(super) fn bytes_of(log: &str, console: &str) -> usize {
    let mut printed = 0;
    for line in log.lines().filter(|line| !line.trim().is_empty()) {
        let mut end = printed;
        let found = console[printed..].split_inclusive('\n').take(LINES_AHEAD).any(|on_console| {
            end += on_console.len();
            on_console.trim_end().ends_with(line.trim_end())
        });
        if found {
            printed = end;
        }
    }
    printed
}
