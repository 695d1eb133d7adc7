//! Where the errors of a plan's faults went, for people and for scripts.

use std::io::{self, Write};

use execution::{Execution, Fired, FrameReturn, Mark, UNSEEN};
use fault_plan::FaultPlan;

/// A traced run of a replay.
pub(crate) struct Way<'a> {
    /// The plan that ran.
    pub(crate) plan: &'a FaultPlan,
    /// The execution.
    pub(crate) execution: &'a Execution,
    /// True when it made the crash again that the replay is of; nothing where it is of none.
    pub(crate) again: Option<bool>,
}

impl Way<'_> {
    /// Writes it for people.
    pub(crate) fn write_text(&self, out: &mut dyn Write) -> io::Result<()> {
        writeln!(out, "where the errors went, in one more run:")?;
        if self.again == Some(false) {
            writeln!(out, "  the crash did not come again in this run")?;
        }
        for (index, fault) in self.plan.all_faults().enumerate() {
            let (number, function, error) = (index + 1, &fault.function, fault.error);
            match self.fired(index) {
                None => writeln!(out, "  fault {number} did not fire in this run")?,
                Some(fired) if fired.returns.is_empty() => {
                    writeln!(out, "  fault {number} fired on another call path in this run")?;
                }
                Some(fired) => {
                    writeln!(out, "  fault {number}: {function} returned {error}")?;
                    // Where the kernel is entered no probe can stand.
                    let seen =
                        fired.returns.iter().rposition(|frame| frame.returned != UNSEEN).map_or(0, |last| last + 1);
                    fired.returns[..seen].iter().try_for_each(|frame| write_frame(frame, out))?;
                }
            }
        }
        Ok(())
    }

    /// Writes it as one line of JSON.
    pub(crate) fn write_json(&self, out: &mut dyn Write) -> io::Result<()> {
        let faults = self.plan.all_faults().enumerate().map(|(index, fault)| {
            serde_json::json!({
                "fault": index + 1,
                "function": fault.function,
                "error": fault.error.to_string(),
                "fired": self.fired(index).is_some(),
                "frames": self.fired(index).map_or(&[][..], |fired| &fired.returns),
            })
        });
        let trace: Vec<_> = faults.collect();
        writeln!(out, "{}", serde_json::json!({ "trace": trace, "again": self.again }))
    }

    fn fired(&self, index: usize) -> Option<&Fired> {
        self.execution.fired.iter().find(|fired| fired.fault == index)
    }
}

fn write_frame(frame: &FrameReturn, out: &mut dyn Write) -> io::Result<()> {
    let FrameReturn { function, returned, mark } = frame;
    let value = format!("[{returned}]");
    match mark {
        None => writeln!(out, "      {value:<20} {function}"),
        Some(Mark::Swallowed) => {
            writeln!(out, "    ! {value:<20} {function} swallowed it: it succeeded although what it called failed")
        }
        Some(Mark::Changed) => writeln!(out, "    ! {value:<20} {function} changed it to another error"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::replay::tests::{execution, fired};
    use super::*;

    fn written(execution: &Execution, again: Option<bool>, json: bool) -> String {
        let plan = FaultPlan::from_json(
            r#"{ "version": 1, "target": "t", "faults": [
            { "function": "should_failslab", "occurrence": 1, "error": "ENOMEM" },
            { "function": "should_failslab", "occurrence": 2, "error": "ENOMEM" } ] }"#,
        );
        let (plan, mut out) = (plan.unwrap(), Vec::new());
        let way = Way { plan: &plan, execution, again };
        if json { way.write_json(&mut out) } else { way.write_text(&mut out) }.unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn each_frame_is_told_with_its_value() {
        let frame = |function: &str, returned: &str, mark| FrameReturn {
            function: function.to_owned(),
            returned: returned.to_owned(),
            mark,
        };
        let returns = vec![
            frame("kmalloc", "NULL", None),
            frame("open", "-EIO", Some(Mark::Changed)),
            frame("mount", "0", Some(Mark::Swallowed)),
            frame("entry", UNSEEN, None),
        ];
        let mut traced = fired(0);
        traced.returns = returns;
        let run = execution(vec![traced], Vec::new());
        assert_eq!(
            written(&run, Some(true), false),
            "where the errors went, in one more run:\n  fault 1: should_failslab returned ENOMEM\n      \
             [NULL]               kmalloc\n    ! [-EIO]               open changed it to another error\n    \
             ! [0]                  mount swallowed it: it succeeded although what it called failed\n  \
             fault 2 did not fire in this run\n"
        );
        let json: serde_json::Value = serde_json::from_str(&written(&run, Some(true), true)).unwrap();
        let frame = &json["trace"][0]["frames"][2];
        assert_eq!((&frame["function"], &frame["returned"]), (&"mount".into(), &"0".into()));
        assert_eq!((&frame["mark"], &json["trace"][1]["fired"]), (&"swallowed".into(), &false.into()));
        let other = written(&execution(vec![fired(1)], Vec::new()), Some(false), false);
        assert!(other.contains("the crash did not come again in this run\n"), "{other}");
        assert!(other.contains("fault 2 fired on another call path in this run\n"), "{other}");
    }
}
