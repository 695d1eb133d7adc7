//! Fitness of a guest to judge plans, as its reports tell. None of it is a finding.

use guest_protocol::{Defect, Report};

use super::{GuestRunner, reported::Own};

/// Why a guest is not fit to judge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Unfit {
    /// Its disk was another one than at first.
    Drifted(String),
    /// A detector of its kernel is off, its memory ran short, or a table of it is full.
    Worn(String),
}

impl GuestRunner {
    /// Counts a guest that is not fit, and is about to go.
    pub(super) fn count_unfit(&mut self, unfit: &Unfit) {
        let (counter, reason) = match unfit {
            Unfit::Drifted(reason) => (&mut self.usage.drifted, reason),
            Unfit::Worn(reason) => (&mut self.usage.worn, reason),
        };
        *counter += 1;
        tracing::info!(reason, executions = self.drift.executions, "the guest is not fit to judge, replacing it");
    }
}

/// Says why the guest was not fit when its execution began, so that this tells nothing. What it
/// found is true where only a detector was off.
pub(super) fn unfit_before(own: &Own) -> Option<Unfit> {
    let report = own.report.as_deref()?;
    let disk = report.defects.iter().find_map(|defect| match defect {
        Defect::Disk(what) => Some(Unfit::Drifted(what.clone())),
        Defect::Detector(_) => None,
    });
    let detector = report.defects.iter().find_map(|defect| match defect {
        Defect::Disk(_) => None,
        Defect::Detector(what) => Some(what.as_str()),
    });
    let detector = detector.or_else(|| kernel_report::impairment(&report.log_before));
    let worn = detector.filter(|_| own.findings.is_empty()).map(|what| Unfit::Worn(what.to_owned()));
    disk.or(worn)
}

/// Says why the guest is not fit for another plan, although nothing was found.
pub(super) fn worn_after(report: &Report) -> Option<String> {
    if report.lost_hits > 0 {
        return Some(format!("no room for the injection sites of {} calls", report.lost_hits));
    }
    kernel_report::impairment(&report.log).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use execution::{Fate, Finding};

    use super::*;

    fn own(findings: Vec<Finding>, report: Report) -> Own {
        Own {
            findings,
            guest: Fate::Alive,
            fired: Vec::new(),
            report: Some(Box::new(report)),
            console: String::new(),
            wall: Duration::ZERO,
            history: Vec::new(),
        }
    }

    #[test]
    fn a_guest_is_fit_until_something_is_off_or_full() {
        assert_eq!(unfit_before(&own(Vec::new(), Report::default())), None);
        assert_eq!(worn_after(&Report::default()), None);
        let off = "BUG: MAX_LOCKDEP_CHAINS too low!\nturning off the locking correctness validator.\n";
        let during = Report { log: off.to_owned(), ..Report::default() };
        assert_eq!(worn_after(&during).as_deref(), Some("BUG: MAX_LOCKDEP_CHAINS too low!"));
        assert_eq!(unfit_before(&own(Vec::new(), during)), None, "this plan was still judged");
        assert!(worn_after(&Report { lost_hits: 7, ..Report::default() }).unwrap().contains('7'));
        let before = || Report { log_before: off.to_owned(), ..Report::default() };
        assert!(matches!(unfit_before(&own(Vec::new(), before())), Some(Unfit::Worn(_))));
        let found = Finding::leftover("a mount", "a mount", "");
        assert_eq!(unfit_before(&own(vec![found.clone()], before())), None, "what was found is true");
        let disk = Report { defects: vec![Defect::Disk("block 7".to_owned())], ..Report::default() };
        assert_eq!(unfit_before(&own(vec![found], disk)), Some(Unfit::Drifted("block 7".to_owned())));
        let dead = Own { report: None, ..own(Vec::new(), Report::default()) };
        assert_eq!(unfit_before(&dead), None);
    }
}
