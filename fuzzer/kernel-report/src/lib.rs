//! Kernel reports: finds them in a console log and names them.
//!
//! A kernel that notices its own defect prints a *report*: a header line ("BUG: KASAN: …",
//! "WARNING: CPU: …"), registers, a call trace. [`first_report`] finds the first one (it is mostly
//! the cause, and what follows are its consequences) and [`reports`] all of them. Each gets a
//! *key* by which duplicates are recognised, without anything that differs between two runs or two
//! builds, and a *title* for people: what was wrong and in which function.
//!
//! ```text
//! log ─ lines ─▶ clean lines ─ rules ─▶ header ─ stacks, skip ─▶ function ─ title, key, structure
//! ```
//!
//! Facts about the kernel's messages are data: `rules` (headers), `skip` (functions that never are
//! the culprit). The formats are those of Linux 6.12 and, where they differ, 6.1. Some messages are
//! no reports: a file system's announcement of an error that it was given, a failed allocation's
//! stack dump, and fault injection's own. What a file system's checker says of a disk afterwards is
//! titled here as well.

mod access;
mod complaint;
mod frames;
mod key;
mod lines;
#[cfg(test)]
mod mutations;
mod notes;
mod rules;
mod silence;
mod skip;
mod slab;
mod stacks;
mod standstill;
mod structure;
#[cfg(test)]
mod tests;
mod title;

use std::{collections::HashSet, fmt};

use serde::{Deserialize, Serialize};
use strum::IntoStaticStr;

pub use complaint::{complaint_title, with_complaint};
pub use frames::Frame;
pub use notes::{Note, NoteKind, corruption, notes};
use rules::{Rule, Wording};
pub use silence::{STEP_RAN, hung_step, read, silent_hang};
pub use stacks::{Stack, StackRole};
pub use structure::{Access, Guilty};
pub use title::slug;

/// The most lines of one report that are kept.
const MAX_REPORT_LINES: usize = 400;
/// Most lines above its header at which a report can begin.
const MAX_CONTEXT_LINES: usize = 8;
/// The most bytes of a line that are kept; the kernel's own are shorter (`PRINTKRB_RECORD_MAX`,
/// 6.12).
const MAX_LINE_BYTES: usize = 1024;

/// A defect that the kernel reported about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KernelReport {
    /// Identity: equal for reports of one defect, one printable line of at most 400 bytes. That of
    /// a check in the kernel's source has its place, `check: fs/f.c:7`, for want of its text.
    pub key: String,
    /// Defect and place: one line of at most 120 characters.
    pub title: String,
    /// Check of the kernel that it comes from.
    pub kind: ReportKind,
    /// The report's own lines, without the console's time stamps. [`read`] makes the report of it
    /// again.
    pub text: String,
    /// Function that it blames; `None` where the report shows only who noticed.
    pub guilty: Option<Guilty>,
    /// Access to memory that it is about.
    pub access: Option<Access>,
    /// Stacks in it, in their order. The first whose role is not [`StackRole::Lock`] mostly is the
    /// call trace.
    pub stacks: Vec<Stack>,
    /// True when the log ends within the report, or lost or garbled lines of it: its stacks are not
    /// to be relied on.
    pub truncated: bool,
}

/// Which of the kernel's checks a report comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, IntoStaticStr)]
#[serde(rename_all = "kebab-case")]
#[strum(serialize_all = "kebab-case")]
pub enum ReportKind {
    /// A memory access that KASAN (or KFENCE, KMSAN, KCSAN) caught.
    Kasan,
    /// `BUG()`, a fault in kernel mode, corrupted lists, pages, slabs or file systems.
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
        self.into()
    }
}

impl fmt::Display for ReportKind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

impl KernelReport {
    /// The functions of the report's first call trace, innermost first, without compiler suffixes;
    /// the one that faulted comes first. What the kernel marks with `?` is left out, and so are
    /// those that printed the report.
    #[must_use]
    pub fn stack(&self) -> Vec<String> {
        let lines: Vec<&str> = self.text.lines().collect();
        stacks::call_trace(&lines)
            .iter()
            .map(|frame| frame.function)
            .skip_while(|function| skip::is_reporting(function))
            .map(str::to_owned)
            .collect()
    }
}

/// The first report in `log`, a console log or a part of one; `None` when the kernel reported
/// nothing.
///
/// Lines may have the console's prefixes (`<4>[   12.345678][  T123] `), and other lines may stand
/// in between.
#[must_use]
pub fn first_report(log: &str) -> Option<KernelReport> {
    Reports::new(log).next()
}

/// Says whether `log` has a warning that only announces an error which was given from outside. It
/// is no report, and yet taints the kernel.
#[must_use]
pub fn has_announcement(log: &str) -> bool {
    lines::clean(log).any(rules::is_expected)
}

/// Finds on the call path of a failed call, innermost caller first, the function that says most:
/// the first that is no allocator, nor another service that everybody uses.
#[must_use]
pub fn telling_caller(call_path: &[String]) -> Option<&str> {
    call_path
        .iter()
        .map(String::as_str)
        .find(|function| !skip::is_skipped(function, false) && !skip::is_service(function))
}

/// All reports in `log` as [`first_report`] finds them, in the order in which they were printed; of
/// those that share a key the first. A panic that only follows from a report before it is left
/// out.
#[must_use]
pub fn reports(log: &str) -> Vec<KernelReport> {
    let mut keys = HashSet::new();
    Reports::new(log).filter(|report| keys.insert(report.key.clone())).collect()
}

/// Finds a line in `log` by which the kernel is no longer fit to judge: a detector of it has
/// switched itself off, or memory ran out. That is no defect of the kernel's.
#[must_use]
pub fn impairment(log: &str) -> Option<&str> {
    lines::clean(log).find(|line| rules::is_impaired(line))
}

/// Says whether the kernel panicked for want of memory, which is no report.
#[must_use]
pub fn is_out_of_memory(log: &str) -> bool {
    lines::clean(log).any(rules::is_out_of_memory)
}

/// Finds one report after the other.
struct Reports<'log> {
    lines: Vec<&'log str>,
    /// The first line that belongs to no report so far.
    next: usize,
    found: bool,
}

impl<'log> Reports<'log> {
    fn new(log: &'log str) -> Self {
        Self { lines: lines::clean(log).collect(), next: 0, found: false }
    }
}

impl Iterator for Reports<'_> {
    type Item = KernelReport;

    fn next(&mut self) -> Option<KernelReport> {
        let lines = &self.lines;
        loop {
            let (at, rule) = (self.next..lines.len()).find_map(|at| Some((at, rules::matching(lines[at])?)))?;
            if self.found && rules::is_consequence(lines[at]) || rules::is_out_of_memory(lines[at]) {
                self.next = at + 1;
                continue;
            }
            let start = start_of(lines, at).max(self.next);
            let end = end_of(lines, at, rule);
            let (end, ended) = (end.unwrap_or_else(|| limit_of(lines, at)), end.is_some());
            self.next = end;
            if lines[start..at].iter().any(|line| rules::is_expected(line)) {
                continue;
            }
            self.found = true;
            let (context, body) = (&lines[start..at], &lines[at..end]);
            let mut text = String::new();
            for line in &lines[start..end] {
                text.push_str(lines::cut(line, MAX_LINE_BYTES));
                text.push('\n');
            }
            return Some(report(rule, context, body, ended, text));
        }
    }
}

/// Makes the report whose header, by `rule`, is the first of `body`; `context` stands above it.
/// `ended` says whether something but the log's end ended it.
fn report(rule: &Rule, context: &[&str], body: &[&str], ended: bool, text: String) -> KernelReport {
    let blamed = title::blamed(rule, context, body);
    let title = title::title(rule, context, body, blamed);
    let sections = stacks::sections(body);
    KernelReport {
        key: key::key(rule, context, body, &title),
        title,
        kind: title::kind(rule, body),
        text,
        guilty: structure::guilty(rule, context, body, blamed),
        access: access::access(rule, context, body),
        truncated: structure::is_truncated(rule, body, &sections, ended),
        stacks: sections.iter().map(stacks::Section::stack).collect(),
    }
}

/// Finds the start of the report with its header at `header`: the lines above that announce it.
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

/// Gives the line up to which a report with its header at `header` can go.
fn limit_of(lines: &[&str], header: usize) -> usize {
    lines.len().min(header + MAX_REPORT_LINES)
}

/// Finds the first line after the report with its header at `header`; `None` when nothing ends it
/// before its limit.
fn end_of(lines: &[&str], header: usize, rule: &Rule) -> Option<usize> {
    let limit = limit_of(lines, header);
    let mut last_frame = header;
    for (at, line) in lines.iter().enumerate().take(limit).skip(header + 1) {
        if frames::stack_line(line).is_some() {
            last_frame = at;
        }
        let framed = last_frame > header;
        // Lines that announce the next report belong to that one.
        let before_next = || start_of(lines, at).max(last_frame + 1);
        if line.starts_with(rules::END_TRACE) {
            return Some(at + 1);
        }
        if rules::is_ruler(line) && framed {
            let opens = lines.get(at + 1).is_some_and(|next| rules::matching(next).is_some());
            return Some(if rule.wording == Wording::Kasan && !opens { at + 1 } else { before_next() });
        }
        if line.starts_with("</TASK>") && rule.wording.ends_with_its_trace() {
            return Some(at + 1);
        }
        // Nothing ends a leak's trace, but a single line in it can be another's.
        if rule.wording == Wording::Leak && framed && at - last_frame == 2 {
            return Some(at - 1);
        }
        if line.starts_with(rules::PANIC) {
            return Some(at);
        }
        // Until its trace is there, most headers are further lines of the same report.
        let another = |other: &Rule| {
            framed || matches!(rule.wording, Wording::Alone(_)) || matches!(other.wording, Wording::Kasan)
        };
        if rules::matching(line).is_some_and(another) {
            return Some(before_next());
        }
    }
    None
}
