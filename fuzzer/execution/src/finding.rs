//! Findings of the oracles.

use kernel_report::{KernelReport, ReportKind};

/// Observation of an oracle in an execution, or in what came after it.
///
/// Findings alone decide whether an execution is a crash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding {
    /// A defect that the kernel reported about itself.
    Report(KernelReport),
    /// A hang: the kernel's own detectors saw it, or the deadline passed.
    Hang(KernelReport),
    /// Something that was still in use when the workload had ended and was cleaned up: its
    /// description. It costs the guest and is counted; no crash is written for it.
    Leftover(String),
}

impl From<KernelReport> for Finding {
    fn from(report: KernelReport) -> Self {
        if report.kind == ReportKind::Hang { Self::Hang(report) } else { Self::Report(report) }
    }
}

impl Finding {
    /// Gives the kernel's report or the report of the hang. Only these two become crashes.
    #[must_use]
    pub fn report(&self) -> Option<&KernelReport> {
        match self {
            Self::Report(report) | Self::Hang(report) => Some(report),
            Self::Leftover(_) => None,
        }
    }

    /// Gives one line for people.
    #[must_use]
    pub fn title(&self) -> &str {
        match self {
            Self::Report(report) | Self::Hang(report) => &report.title,
            Self::Leftover(what) => what,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hang_is_told_by_its_kind_and_a_leftover_is_no_crash() {
        let report = |kind| KernelReport { title: "title".to_owned(), kind, text: String::new() };
        assert!(matches!(report(ReportKind::Hang).into(), Finding::Hang(_)));
        let finding = Finding::from(report(ReportKind::Kasan));
        assert!(matches!(finding, Finding::Report(_)) && finding.report().is_some());
        let leftover = Finding::Leftover("a mount".to_owned());
        assert_eq!((leftover.report(), leftover.title()), (None, "a mount"));
    }
}
