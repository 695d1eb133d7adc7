//! Runs of a replay, for people and for scripts.

use std::io::{self, Write};

use execution::{Execution, Fired};
use fault_plan::{Errno, FaultPlan};
use guest_protocol::{Step, StepResult};

/// One run of a replay.
pub(crate) struct Run<'a> {
    /// Its number, from 1.
    pub(crate) number: u32,
    /// Number of all runs.
    pub(crate) of: u32,
    /// The plan.
    pub(crate) plan: &'a FaultPlan,
    /// The target's steps.
    pub(crate) steps: &'a [Step],
    /// The execution.
    pub(crate) execution: &'a Execution,
}

impl Run<'_> {
    /// Writes it for people.
    pub(crate) fn write_text(&self, out: &mut dyn Write) -> io::Result<()> {
        let execution = self.execution;
        writeln!(out, "run {} of {}: {} ms", self.number, self.of, execution.wall.as_millis())?;
        if execution.steps.is_empty() {
            writeln!(out, "  steps: unknown, the guest did not survive them")?;
        }
        for (step, result) in self.steps.iter().zip(&execution.steps) {
            writeln!(out, "  {:<20} {}", step.kind(), result_text(*result))?;
        }
        if execution.fired.is_empty() && !self.plan.faults.is_empty() {
            writeln!(out, "  no fault fired")?;
        }
        execution.fired.iter().try_for_each(|fired| self.write_fired(fired, out))?;
        for report in execution.reports() {
            writeln!(out, "  {}: {}\n      {}", report.kind, report.title, report.key)?;
        }
        if !execution.is_crash() {
            writeln!(out, "  completed, the kernel had nothing to report")?;
        }
        Ok(())
    }

    fn write_fired(&self, fired: &Fired, out: &mut dyn Write) -> io::Result<()> {
        let fault = self.plan.faults.get(fired.fault);
        let (function, error) =
            fault.map_or(("?", String::new()), |fault| (fault.function.as_str(), fault.error.to_string()));
        writeln!(out, "  fault {} fired: {function} returned {error}, call {}", fired.fault + 1, fired.sequence)?;
        fired.call_path.iter().try_for_each(|caller| writeln!(out, "      {caller}"))
    }

    /// Writes it as one line of JSON.
    pub(crate) fn write_json(&self, out: &mut dyn Write) -> io::Result<()> {
        let execution = self.execution;
        let steps = self.steps.iter().zip(&execution.steps);
        let steps: Vec<_> =
            steps.map(|(step, result)| serde_json::json!({ "step": step.kind(), "result": result })).collect();
        let fired = execution.fired.iter().map(|fired| {
            serde_json::json!({
                "fault": fired.fault + 1, "sequence": fired.sequence, "call_path": fired.call_path,
            })
        });
        let line = serde_json::json!({
            "run": self.number,
            "key": execution.reports().next().map(|report| &report.key),
            "title": execution.reports().next().map(|report| &report.title),
            "steps": steps,
            "fired": fired.collect::<Vec<_>>(),
            "fingerprint": execution.fingerprint(),
            "milliseconds": execution.wall.as_millis(),
            "covered": execution.coverage.len(),
            "hits": execution.hits.len(),
        });
        writeln!(out, "{line}")
    }
}

fn result_text(result: StepResult) -> String {
    match result {
        StepResult::Done(0) => "ok".to_owned(),
        StepResult::Done(value) => format!("ok, {value}"),
        StepResult::Failed(number) => {
            let name = Errno::from_number(i64::from(number)).map(Errno::name);
            format!("failed with {} ({number})", name.unwrap_or("an unknown error"))
        }
        StepResult::Skipped => "skipped: the disk is not mounted".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use execution::Fate;
    use guest_protocol::Timings;

    use super::*;

    const PLAN: &str = r#"{ "version": 1, "target": "t", "faults": [
        { "function": "should_failslab", "call_path": ["kmalloc"], "occurrence": 2, "error": "ENOMEM" } ] }"#;

    fn execution(fired: Vec<Fired>, steps: Vec<StepResult>) -> Execution {
        Execution {
            findings: Vec::new(),
            guest: Fate::Alive,
            steps,
            hits: Vec::new(),
            sites: Vec::new(),
            fired,
            coverage: vec![1, 2],
            guarded: 0,
            incomplete: false,
            console: String::new(),
            wall: Duration::from_millis(30),
            timings: Timings::default(),
        }
    }

    fn written(execution: &Execution, json: bool) -> String {
        let plan = FaultPlan::from_json(PLAN).unwrap();
        let run = Run { number: 1, of: 2, plan: &plan, steps: &[Step::Sync {}], execution };
        let mut out = Vec::new();
        if json { run.write_json(&mut out) } else { run.write_text(&mut out) }.unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_run_tells_steps_and_faults() {
        let call_path = vec!["kmalloc".to_owned(), "mount".to_owned()];
        let fired = Fired { fault: 0, sequence: 7, site: 1, call_path };
        let run = execution(vec![fired], vec![StepResult::Failed(12)]);
        assert_eq!(
            written(&run, false),
            "run 1 of 2: 30 ms\n  sync                 failed with ENOMEM (12)\n  \
             fault 1 fired: should_failslab returned ENOMEM, call 7\n      kmalloc\n      mount\n  \
             completed, the kernel had nothing to report\n"
        );
        let line = written(&run, true);
        assert_eq!(line.lines().count(), 1);
        let json: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!((&json["fired"][0]["fault"], &json["covered"], &json["title"]), (&1.into(), &2.into(), &().into()));
    }

    #[test]
    fn what_is_not_known_or_did_not_happen_is_said() {
        let text = written(&execution(Vec::new(), Vec::new()), false);
        assert!(text.contains("steps: unknown") && text.contains("no fault fired"), "{text}");
    }
}
