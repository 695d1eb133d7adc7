//! Findings of the oracles.

use std::fmt;

use fault_plan::one_line;
use kernel_report::{KernelReport, ReportKind};
use serde::{Deserialize, Serialize};
use strum::IntoStaticStr;

/// Observation of an oracle in an execution, or in what came after it.
///
/// Findings alone decide whether an execution is a crash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Oracle that saw it.
    pub kind: FindingKind,
    /// Identity: equal for one bug, whatever the run, the build or the kernel; different for two.
    pub key: String,
    /// One line for people.
    pub title: String,
    /// Evidence: the kernel's own lines, or what the oracle saw. `kernel_report::read` gives a
    /// report's structure.
    pub text: String,
    /// Functions of the first call trace, innermost first; empty when there is none.
    pub stack: Vec<String>,
    /// Keys that it has when another of several causes made it: each of the faults that fired may
    /// be the one that left something.
    pub also: Vec<String>,
}

/// Oracle that a finding comes from: a check of the kernel, as [`ReportKind`] has them, or one of
/// the agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, IntoStaticStr)]
#[serde(rename_all = "kebab-case")]
#[strum(serialize_all = "kebab-case")]
pub enum FindingKind {
    /// A memory access that KASAN (or KFENCE, KMSAN, KCSAN) caught.
    Kasan,
    /// `BUG()`, a fault in kernel mode, corrupted lists, pages, slabs or file systems.
    Bug,
    /// `WARN()`.
    Warning,
    /// Locking and context rules.
    Lockdep,
    /// Nothing moves: the kernel's own detectors saw it, or the deadline passed.
    Hang,
    /// Memory that nothing points to.
    Kmemleak,
    /// Undefined behaviour.
    Ubsan,
    /// A panic that no other report explains.
    Panic,
    /// Something that was still in use when the workload had ended and was cleaned up.
    Leftover,
    /// The disk does not hold what was acknowledged, or holds what nobody wrote.
    Data,
    /// A step returned what its system call never may.
    Errno,
    /// The file system's own checker complains of the disk.
    Fsck,
    /// Memory that each run of the plan allocates and does not free.
    Leak,
    /// The kernel asks again and again for what fails each time.
    Loop,
}

impl From<ReportKind> for FindingKind {
    fn from(kind: ReportKind) -> Self {
        match kind {
            ReportKind::Kasan => Self::Kasan,
            ReportKind::Bug => Self::Bug,
            ReportKind::Warning => Self::Warning,
            ReportKind::Lockdep => Self::Lockdep,
            ReportKind::Hang => Self::Hang,
            ReportKind::Kmemleak => Self::Kmemleak,
            ReportKind::Ubsan => Self::Ubsan,
            ReportKind::Panic => Self::Panic,
        }
    }
}

impl FindingKind {
    /// Gives its name in files, such as `kasan`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

impl fmt::Display for FindingKind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

impl From<KernelReport> for Finding {
    fn from(report: KernelReport) -> Self {
        let stack = report.stack();
        let KernelReport { kind, key, title, text, .. } = report;
        Self { kind: kind.into(), key, title, text, stack, also: Vec::new() }
    }
}

impl Finding {
    /// Makes the finding of something that was left in use.
    #[must_use]
    pub fn leftover(key: impl Into<String>, title: impl Into<String>, text: impl Into<String>) -> Self {
        Self::seen(FindingKind::Leftover, key, title, text)
    }

    /// Makes a finding of an oracle of the fuzzer's, that is without a call trace. Key and title
    /// become one printable line each.
    #[must_use]
    pub fn seen(kind: FindingKind, key: impl Into<String>, title: impl Into<String>, text: impl Into<String>) -> Self {
        let (key, title) = (one_line(&key.into()), one_line(&title.into()));
        Self { kind, key, title, text: text.into(), stack: Vec::new(), also: Vec::new() }
    }

    /// Says whether the kernel reported it, or hangs.
    #[must_use]
    pub fn is_report(&self) -> bool {
        use FindingKind::{Data, Errno, Fsck, Leak, Leftover, Loop};
        !matches!(self.kind, Leftover | Data | Errno | Fsck | Leak | Loop)
    }

    /// Says whether `key` is this finding's. Files of older versions have a title in its place.
    #[must_use]
    pub fn has_key(&self, key: &str) -> bool {
        self.key == key || self.title == key || self.also.iter().any(|also| also == key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_check_of_the_kernel_has_one_name() {
        for kind in [ReportKind::Hang, ReportKind::Kasan, ReportKind::Kmemleak] {
            assert_eq!(FindingKind::from(kind).to_string(), kind.as_str());
        }
    }

    #[test]
    fn a_report_keeps_its_parts_and_a_leftover_is_no_crash() {
        let text = "WARNING: CPU: 0 PID: 1 at fs/f.c:7 f+0x1/0x2\nCall Trace:\n f+0x1/0x2\n g+0x1/0x2\n";
        let report = kernel_report::first_report(text).unwrap();
        let finding = Finding::from(report.clone());
        assert_eq!((&finding.key, &finding.title, &finding.text), (&report.key, &report.title, &report.text));
        assert_eq!(finding.stack, ["f", "g"]);
        assert!(finding.is_report() && finding.has_key(&report.key) && finding.has_key("WARNING in f"));
        assert!(!finding.has_key("WARNING in g"));
        let leftover = Finding::leftover("leftover: mount", "a mount", "");
        assert!(!leftover.is_report() && leftover.has_key("leftover: mount"));
    }

    #[test]
    fn a_guest_writes_no_second_line_into_a_title() {
        let hostile = "work does not end: f\nBcc: x@evil\u{1b}[2J";
        let finding = Finding::leftover(hostile, hostile, hostile);
        let plain = "work does not end: f?Bcc: x@evil?[2J";
        assert_eq!((finding.key.as_str(), finding.title.as_str(), finding.text.as_str()), (plain, plain, hostile));
    }
}
