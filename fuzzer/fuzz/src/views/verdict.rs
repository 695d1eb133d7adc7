//! The verdict of a replay: is the crash still there?
//!
//! ```text
//!   its key came again in a run ───────────────────────▶ still there
//!   else: no run had every fault fire, or its guest die ▶ not fired: nothing was checked
//!   else: something else was found ────────────────────▶ another finding
//!   else ──────────────────────────────────────────────▶ fixed
//! ```

use std::{
    collections::BTreeSet,
    io::{self, Write},
};

use execution::{Execution, Fate};

/// What the runs of a reproducer have shown so far.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    runs: u32,
    again: u32,
    /// Runs in which every fault fired, or the guest died: they checked something.
    checked: u32,
    /// Faults that fired in none of the other runs, from 1; nothing before the first of them.
    unfired: Option<BTreeSet<usize>>,
    /// Title of another finding.
    other: Option<String>,
}

/// The verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The key came again.
    StillThere,
    /// Every fault fired in a run at least, and nothing was found.
    Fixed,
    /// No run had every fault fire on its call path: the plan tells nothing of this kernel.
    NotFired,
    /// Every fault fired in a run at least, and something with another key was found.
    Other,
}

impl Tally {
    /// Takes in a run, in which these faults, from 0, did not fire. A guest that died may have done
    /// so before they could.
    pub(crate) fn add(&mut self, execution: &Execution, unfired: &[usize], is_same: bool) {
        self.runs += 1;
        if is_same {
            self.again += 1;
            return;
        }
        if execution.guest == Fate::Dead || unfired.is_empty() {
            self.checked += 1;
        } else {
            let missed = unfired.iter().map(|index| index + 1);
            self.unfired = Some(match self.unfired.take() {
                Some(before) => missed.filter(|number| before.contains(number)).collect(),
                None => missed.collect(),
            });
        }
        self.other = self.other.take().or_else(|| execution.findings.first().map(|found| found.title.clone()));
    }

    /// Gives the faults that fired in no run, from 1.
    fn never_fired(&self) -> Vec<usize> {
        let checked = self.checked + self.again > 0;
        self.unfired.iter().flatten().filter(|_| !checked).copied().collect()
    }

    /// Says whether in each run every fault fired, or the guest died first.
    pub(crate) fn all_checked(&self) -> bool {
        self.checked == self.runs
    }

    /// Gives the verdict.
    pub(crate) fn verdict(&self) -> Verdict {
        match () {
            () if self.again > 0 => Verdict::StillThere,
            () if self.checked == 0 && self.runs > 0 => Verdict::NotFired,
            () if self.other.is_some() => Verdict::Other,
            () => Verdict::Fixed,
        }
    }

    /// Writes the verdict on the crash of this key and title, for people.
    pub(crate) fn write_text(&self, title: &str, out: &mut dyn Write) -> io::Result<()> {
        let (runs, again) = (self.runs, self.again);
        let some = if self.checked < runs { format!(" in {} of them", self.checked) } else { String::new() };
        match self.verdict() {
            Verdict::StillThere => writeln!(out, "still there: \"{title}\" came again in {again} of {runs} runs"),
            Verdict::Fixed => writeln!(
                out,
                "fixed: \"{title}\" came again in 0 of {runs} runs; every fault fired{some}, and nothing was found"
            ),
            Verdict::NotFired => {
                let faults: Vec<_> = self.never_fired().iter().map(ToString::to_string).collect();
                let what = match faults.as_slice() {
                    [] => "no run had every fault fire".to_owned(),
                    [fault] => format!("fault {fault} never fired"),
                    faults => format!("faults {} never fired", faults.join(", ")),
                };
                writeln!(out, "not fired: {what}; the plan does not reach \"{title}\" here")
            }
            Verdict::Other => {
                let other = self.other.as_deref().unwrap_or_default();
                writeln!(
                    out,
                    "another finding: \"{other}\"; every fault fired{some}, and \"{title}\" came again in 0 of {runs} runs"
                )
            }
        }
    }

    /// Writes the verdict on the crash of this key as one line of JSON.
    pub(crate) fn write_json(&self, key: &str, out: &mut dyn Write) -> io::Result<()> {
        let verdict = match self.verdict() {
            Verdict::StillThere => "still-there",
            Verdict::Fixed => "fixed",
            Verdict::NotFired => "not-fired",
            Verdict::Other => "other",
        };
        let line = serde_json::json!({
            "verdict": verdict,
            "key": key,
            "again": self.again,
            "runs": self.runs,
            "unfired": self.never_fired(),
            "other": self.other,
        });
        writeln!(out, "{line}")
    }
}

#[cfg(test)]
mod tests {
    use execution::Finding;

    use super::super::replay::tests::execution;
    use super::*;

    fn told(runs: &[(Execution, &[usize], bool)]) -> (Verdict, String, serde_json::Value) {
        let mut tally = Tally::default();
        for (run, unfired, is_same) in runs {
            tally.add(run, unfired, *is_same);
        }
        let (mut text, mut json) = (Vec::new(), Vec::new());
        tally.write_text("BUG in f", &mut text).unwrap();
        tally.write_json("f", &mut json).unwrap();
        (tally.verdict(), String::from_utf8(text).unwrap(), serde_json::from_slice(&json).unwrap())
    }

    #[test]
    fn a_crash_is_still_there_fixed_or_was_not_looked_for() {
        let quiet = || execution(Vec::new(), Vec::new());
        let found = || Execution { findings: vec![Finding::leftover("k", "BUG in g", "")], ..quiet() };
        let dead = || Execution { guest: Fate::Dead, ..found() };
        let (verdict, text, json) = told(&[(quiet(), &[0], false), (dead(), &[], true)]);
        assert_eq!((verdict, &json["verdict"]), (Verdict::StillThere, &"still-there".into()));
        assert_eq!(text, "still there: \"BUG in f\" came again in 1 of 2 runs\n");
        let (verdict, text, json) = told(&[(quiet(), &[], false), (quiet(), &[], false)]);
        assert_eq!((verdict, &json["verdict"], &json["runs"]), (Verdict::Fixed, &"fixed".into(), &2.into()));
        assert!(text.starts_with("fixed: \"BUG in f\" came again in 0 of 2 runs; every fault fired"), "{text}");
        let (verdict, text, _) = told(&[(quiet(), &[1], false), (quiet(), &[], false)]);
        assert_eq!(verdict, Verdict::Fixed, "it fired in one of two runs");
        assert!(text.contains("every fault fired in 1 of them"), "{text}");
        let (verdict, text, json) = told(&[(quiet(), &[0], false), (quiet(), &[1], false)]);
        assert_eq!((verdict, &json["unfired"]), (Verdict::NotFired, &serde_json::json!([])), "each fired in a run");
        assert!(text.starts_with("not fired: no run had every fault fire; "), "{text}");
        let (verdict, text, json) = told(&[(found(), &[1], false), (quiet(), &[0, 1], false)]);
        assert_eq!((verdict, &json["unfired"][0]), (Verdict::NotFired, &2.into()));
        assert_eq!(text, "not fired: fault 2 never fired; the plan does not reach \"BUG in f\" here\n");
        let (verdict, text, json) = told(&[(dead(), &[0], false)]);
        assert_eq!((verdict, &json["other"]), (Verdict::Other, &"BUG in g".into()));
        assert!(text.starts_with("another finding: \"BUG in g\""), "{text}");
    }
}
