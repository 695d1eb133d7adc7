//! Kernel reports: finds them in a console log and names them.
//!
//! A kernel that notices its own defect prints a *report*: a header line ("BUG: KASAN: …", "WARNING: CPU: …"),
//! registers, a call trace. [`first_report`] finds the first one (it is the cause, what follows are its consequences)
//! and gives it a *title* by which duplicates are recognised: what was wrong and in which function, without anything
//! that differs between two runs or two builds.
//!
//! ```text
//! log ─ lines ─▶ clean lines ─ rules ─▶ header ─ frames, skip ─▶ function ─ title ─▶ KernelReport
//! ```
//!
//! What is known about the kernel's messages is data: `rules` (headers), `skip` (functions that never are the
//! culprit). The formats are those of Linux 6.12 and, where they differ, 6.1. A message by which a file system
//! announces an error that it was given, a failed allocation's stack dump or fault injection's own are no reports.

mod frames;
mod lines;
mod rules;
mod skip;
#[cfg(test)]
mod tests;
mod title;

use std::fmt;

use serde::{Deserialize, Serialize};

use rules::{Rule, Wording};
pub use title::title_slug;

/// The most lines of one report that are kept.
const MAX_REPORT_LINES: usize = 400;
/// How far above its header a report can begin.
const MAX_CONTEXT_LINES: usize = 8;
/// The most bytes of a line that are kept; the kernel's own are shorter (`PRINTKRB_RECORD_MAX`, 6.12).
const MAX_LINE_BYTES: usize = 1024;

/// A defect that the kernel reported about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KernelReport {
    /// What was wrong and where: one line of at most 120 characters, equal for duplicates.
    pub title: String,
    /// Which of the kernel's checks it comes from.
    pub kind: ReportKind,
    /// The report's own lines, without the console's time stamps.
    pub text: String,
}

/// Which of the kernel's checks a report comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ReportKind {
    /// A memory access that KASAN (or KFENCE, KMSAN, KCSAN) caught.
    Kasan,
    /// `BUG()`, a fault in kernel mode, corrupted lists, pages or slabs.
    Bug,
    /// `WARN()`.
    Warning,
    /// Locking and context rules: lockdep, RCU usage, sleeping where that is forbidden.
    Lockdep,
    /// Nothing moves: hung task, soft or hard lockup, RCU stall, stuck workqueue.
    Hang,
    /// Memory that nothing points to.
    Kmemleak,
    /// Undefined behaviour.
    Ubsan,
    /// A panic that no other report explains.
    Panic,
}

impl ReportKind {
    /// Its name in files, such as `kasan`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Kasan => "kasan",
            Self::Bug => "bug",
            Self::Warning => "warning",
            Self::Lockdep => "lockdep",
            Self::Hang => "hang",
            Self::Kmemleak => "kmemleak",
            Self::Ubsan => "ubsan",
            Self::Panic => "panic",
        }
    }
}

impl fmt::Display for ReportKind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

impl KernelReport {
    /// The functions of the report's first call trace, innermost first, without compiler suffixes; the one that
    /// faulted comes first. What the kernel marks with `?` is left out, and so are those that printed the report.
    #[must_use]
    pub fn stack(&self) -> Vec<String> {
        let lines: Vec<&str> = self.text.lines().collect();
        frames::call_trace(&lines)
            .iter()
            .map(|frame| frame.function)
            .skip_while(|function| skip::is_reporting(function))
            .map(str::to_owned)
            .collect()
    }
}

/// The first report in `log`, a console log or a part of one; `None` when the kernel reported nothing.
///
/// Lines may have the console's prefixes (`<4>[   12.345678][  T123] `), and other lines may stand in between.
#[must_use]
pub fn first_report(log: &str) -> Option<KernelReport> {
    let lines: Vec<&str> = lines::clean(log).collect();
    let mut at = 0;
    while at < lines.len() {
        let Some(rule) = rules::matching(lines[at]) else {
            at += 1;
            continue;
        };
        let start = start_of(&lines, at);
        let end = end_of(&lines, at, rule);
        if lines[start..at].iter().any(|line| rules::is_expected(line)) {
            at = end;
            continue;
        }
        let title = title::title(rule, &lines[start..at], &lines[at..end]);
        let mut text = String::new();
        for line in &lines[start..end] {
            text.push_str(lines::cut(line, MAX_LINE_BYTES));
            text.push('\n');
        }
        return Some(KernelReport { title, kind: title::kind(rule, &lines[at..end]), text });
    }
    None
}

/// Where the report with its header at `header` begins: at the lines above that announce it.
fn start_of(lines: &[&str], header: usize) -> usize {
    let mut start = header;
    for at in (header.saturating_sub(MAX_CONTEXT_LINES)..header).rev() {
        if lines[at].starts_with(rules::END_TRACE) {
            break;
        }
        if lines[at].contains(rules::CUT_HERE) || rules::is_ruler(lines[at]) || rules::detail(lines[at]).is_some() {
            start = at;
        }
    }
    start
}

/// The first line after the report with its header at `header`.
fn end_of(lines: &[&str], header: usize, rule: &Rule) -> usize {
    let limit = lines.len().min(header + MAX_REPORT_LINES);
    let mut framed = false;
    let mut others = 0;
    for (at, line) in lines.iter().enumerate().take(limit).skip(header + 1) {
        let is_frame = frames::trace_line(line).is_some();
        framed |= is_frame;
        others = if is_frame { 0 } else { others + 1 };
        if line.starts_with(rules::END_TRACE) {
            return at + 1;
        }
        if rules::is_ruler(line) && framed {
            return if rule.wording == Wording::Kasan { at + 1 } else { at };
        }
        if line.starts_with("</TASK>") && rule.wording.ends_with_its_trace() {
            return at + 1;
        }
        // Nothing ends a leak's trace, but a single line in it can be another's.
        if rule.wording == Wording::Leak && framed && others == 2 {
            return at - 1;
        }
        if line.starts_with(rules::PANIC) {
            return at;
        }
        if framed && rules::matching(line).is_some() {
            return at;
        }
    }
    limit
}
