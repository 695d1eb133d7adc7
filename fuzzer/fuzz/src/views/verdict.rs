//! The verdict of a replay: is the crash still there?
//!
//! ```text
//!   its key came again in a run ───────────────────────▶ still there
//!   else: a fault did not fire, and the guest lived ───▶ not fired: nothing was checked
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
    /// Faults that did not fire in a run, from 1.
    unfired: BTreeSet<usize>,
    /// Title of another finding.
    other: Option<String>,
}

/// The verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The key came again.
    StillThere,
    /// Every fault fired in every run, and nothing was found.
    Fixed,
    /// Faults never fired on their call paths: the plan tells nothing of this kernel.
    NotFired,
    /// Every fault fired, and something with another key was found.
    Other,
}

impl Tally {
    /// Takes in a run, in which these faults, from 0, did not fire. A guest that died may have done
    /// so before they could.
    pub(crate) fn add(&mut self, execution: &Execution, unfired: &[usize], is_same: bool) {
        self.runs += 1;
        self.again += u32::from(is_same);
        if is_same {
            return;
        }
        if execution.guest != Fate::Dead {
            self.unfired.extend(unfired.iter().map(|index| index + 1));
        }
        self.other = self.other.take().or_else(|| execution.findings.first().map(|found| found.title.clone()));
    }

    /// Gives the verdict.
    pub(crate) fn verdict(&self) -> Verdict {
        match () {
            () if self.again > 0 => Verdict::StillThere,
            () if !self.unfired.is_empty() => Verdict::NotFired,
            () if self.other.is_some() => Verdict::Other,
            () => Verdict::Fixed,
        }
    }

    /// Writes the verdict on the crash of this key and title, for people.
    pub(crate) fn write_text(&self, title: &str, out: &mut dyn Write) -> io::Result<()> {
        let (runs, again) = (self.runs, self.again);
        match self.verdict() {
            Verdict::StillThere => writeln!(out, "still there: \"{title}\" came again in {again} of {runs} runs"),
            Verdict::Fixed => writeln!(
                out,
                "fixed: \"{title}\" came again in 0 of {runs} runs; every fault fired, and nothing was found"
            ),
            Verdict::NotFired => {
                let faults: Vec<_> = self.unfired.iter().map(ToString::to_string).collect();
                let faults = if faults.len() == 1 { "fault" } else { "faults" }.to_owned() + " " + &faults.join(", ");
                writeln!(out, "not fired: {faults} never fired; the plan does not reach \"{title}\" here")
            }
            Verdict::Other => {
                let other = self.other.as_deref().unwrap_or_default();
                writeln!(
                    out,
                    "another finding: \"{other}\"; every fault fired, and \"{title}\" came again in 0 of {runs} runs"
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
            "unfired": self.unfired,
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
        let (verdict, text, json) = told(&[(found(), &[1], false), (quiet(), &[], false)]);
        assert_eq!((verdict, &json["unfired"][0]), (Verdict::NotFired, &2.into()));
        assert_eq!(text, "not fired: fault 2 never fired; the plan does not reach \"BUG in f\" here\n");
        let (verdict, text, json) = told(&[(dead(), &[0], false)]);
        assert_eq!((verdict, &json["other"]), (Verdict::Other, &"BUG in g".into()));
        assert!(text.starts_with("another finding: \"BUG in g\""), "{text}");
    }
}
