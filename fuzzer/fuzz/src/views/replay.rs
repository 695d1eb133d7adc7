//! Runs of a replay, for people and for scripts.

use std::{
    io::{self, Write},
    ops::Range,
};

use campaign::unfired;
use execution::{Coverage, Execution, Fired};
use fault_plan::{Fault, FaultPlan};
use guest_protocol::WorkloadStep;

/// One run of a replay.
pub(crate) struct Run<'a> {
    /// Its number, from 1.
    pub(crate) number: u32,
    /// Number of all runs.
    pub(crate) of: u32,
    /// The plan as its file has it.
    pub(crate) asked: &'a FaultPlan,
    /// The plan that ran, relaxed where faults did not fire on this kernel.
    pub(crate) plan: &'a FaultPlan,
    /// The target's steps.
    pub(crate) steps: &'a [WorkloadStep],
    /// The execution.
    pub(crate) execution: &'a Execution,
}

impl Run<'_> {
    /// Writes it for people.
    pub(crate) fn write_text(&self, out: &mut dyn Write) -> io::Result<()> {
        let execution = self.execution;
        writeln!(out, "run {} of {}: {} ms", self.number, self.of, execution.wall.as_millis())?;
        self.write_differences(out)?;
        let rounds = self.plan.earlier.len() + 1;
        let mut first = 0;
        for (number, round) in (1..).zip(execution.rounds.iter().chain([execution])) {
            if rounds > 1 {
                writeln!(out, "  round {number} of {rounds}{}", self.before(number))?;
            }
            let end = first + self.faults_of(number);
            self.write_round(round, first..end, out)?;
            first = end;
        }
        let ran = execution.rounds.len() + 1;
        if ran < rounds {
            writeln!(out, "  it ended with round {ran} of {rounds}")?;
        }
        for finding in &execution.findings {
            writeln!(out, "  {}: {}\n      {}", finding.kind, finding.title, finding.key)?;
        }
        if execution.findings.is_empty() {
            writeln!(out, "  completed, with nothing found")?;
        }
        Ok(())
    }

    /// Says in which state the round of this number begins.
    fn before(&self, number: usize) -> &'static str {
        match number.checked_sub(2).and_then(|before| self.plan.earlier.get(before)) {
            None => ":",
            Some(before) if before.reset => ", on the disk put back:",
            Some(_) => ", in the state that it was left in:",
        }
    }

    /// Counts the faults of the round of this number.
    fn faults_of(&self, number: usize) -> usize {
        self.plan.earlier.get(number - 1).map_or(self.plan.faults.len(), |round| round.faults.len())
    }

    /// Writes one round, which has these `faults` of all.
    fn write_round(&self, round: &Execution, faults: Range<usize>, out: &mut dyn Write) -> io::Result<()> {
        if round.steps.is_empty() {
            writeln!(out, "  steps: unknown, the guest did not survive them")?;
        }
        for (step, result) in self.steps.iter().zip(&round.steps) {
            writeln!(out, "  {:<20} {}", step.kind(), result.text())?;
        }
        let fired: Vec<_> = self.execution.fired.iter().filter(|fired| faults.contains(&fired.fault)).collect();
        fired.into_iter().try_for_each(|fired| self.write_fired(fired, out))?;
        let unfired = unfired(self.plan, self.execution);
        unfired.into_iter().filter(|fault| faults.contains(fault)).try_for_each(|fault| self.write_unfired(fault, out))
    }

    fn write_unfired(&self, index: usize, out: &mut dyn Write) -> io::Result<()> {
        let Some(fault) = self.asked.all_faults().nth(index) else { return Ok(()) };
        let Fault { function, occurrence, .. } = fault;
        let conditions = fault.conditions();
        let conditions = if conditions.is_empty() { conditions } else { format!(", {conditions}") };
        let reason = format!("no call {occurrence} of {function} on its call path{conditions}");
        writeln!(out, "  fault {} did not fire: {reason}", index + 1)?;
        fault.call_path.0.iter().try_for_each(|caller| writeln!(out, "      {caller}"))
    }

    /// Says what of the plan is otherwise on this kernel.
    fn write_differences(&self, out: &mut dyn Write) -> io::Result<()> {
        for name in &self.execution.unknown_names {
            writeln!(out, "  this kernel has no function {name}, which was skipped over")?;
        }
        let faults = (1..).zip(self.asked.all_faults().zip(self.plan.all_faults()));
        for (number, (asked, ran)) in faults.filter(|(_, (asked, ran))| asked != ran) {
            let occurrence =
                if asked.occurrence == ran.occurrence { String::new() } else { format!(", call {}", ran.occurrence) };
            let call_path = ran.call_path.0.join(" ");
            writeln!(out, "  fault {number} is relaxed for this kernel: {call_path}{occurrence}")?;
        }
        Ok(())
    }

    fn write_fired(&self, fired: &Fired, out: &mut dyn Write) -> io::Result<()> {
        let fault = self.plan.all_faults().nth(fired.fault);
        let (function, error) =
            fault.map_or(("?", String::new()), |fault| (fault.function.as_str(), fault.error.to_string()));
        let (number, sequence) = (fired.fault + 1, fired.sequence);
        let times = if fired.times > 1 { format!(", one of {} times", fired.times) } else { String::new() };
        let scope = fired.scope.condition().map_or_else(String::new, |scope| format!(", in scope {scope}"));
        writeln!(out, "  fault {number} fired: {function} returned {error}, call {sequence}{scope}{times}")?;
        if !fired.words.is_empty() {
            writeln!(out, "    of {}", fired.words)?;
        }
        fired.call_path.iter().try_for_each(|caller| writeln!(out, "      {caller}"))
    }

    /// Writes it as one line of JSON.
    pub(crate) fn write_json(&self, out: &mut dyn Write) -> io::Result<()> {
        let execution = self.execution;
        let fired = execution.fired.iter().map(fired_json);
        let rounds = execution.rounds.iter().map(|round| {
            serde_json::json!({
                "steps": self.steps_json(round),
                "fired": round.fired.iter().map(fired_json).collect::<Vec<_>>(),
                "titles": titles(round),
            })
        });
        let mut line = serde_json::json!({
            "run": self.number,
            "key": execution.findings.first().map(|finding| &finding.key),
            "title": execution.findings.first().map(|finding| &finding.title),
            "titles": titles(execution),
            "steps": self.steps_json(execution),
            "fired": fired.collect::<Vec<_>>(),
            "unfired": unfired(self.plan, execution).iter().map(|index| index + 1).collect::<Vec<_>>(),
            "unknown_names": execution.unknown_names,
            "relaxed": (self.plan != self.asked).then_some(self.plan),
            "fingerprint": execution.fingerprint(),
            "milliseconds": execution.wall.as_millis(),
            "covered": execution.places(),
            "covered_by": execution.coverage.iter().map(covered_json).collect::<serde_json::Map<_, _>>(),
            "hits": execution.hits.len(),
        });
        if !self.plan.earlier.is_empty() {
            line["earlier_rounds"] = rounds.collect();
        }
        writeln!(out, "{line}")
    }

    fn steps_json(&self, execution: &Execution) -> Vec<serde_json::Value> {
        let steps = self.steps.iter().zip(&execution.steps);
        steps.map(|(step, result)| serde_json::json!({ "step": step.kind(), "result": result })).collect()
    }
}

fn titles(execution: &Execution) -> Vec<&str> {
    execution.findings.iter().map(|finding| finding.title.as_str()).collect()
}

/// Gives the name of tasks, and how many places they covered.
fn covered_json(coverage: &Coverage) -> (String, serde_json::Value) {
    (coverage.role.to_string(), coverage.addresses.len().into())
}

fn fired_json(fired: &Fired) -> serde_json::Value {
    serde_json::json!({
        "fault": fired.fault + 1,
        "sequence": fired.sequence,
        "step": fired.step,
        "task": fired.scope,
        "times": fired.times,
        "call_path": fired.call_path,
        "frames": fired.frames,
        "arguments": fired.arguments,
        "words": fired.words,
    })
}

#[cfg(test)]
pub(super) mod tests {
    use std::time::Duration;

    use execution::Fate;
    use guest_protocol::{Step, StepResult, Timings, TraceRole};

    use super::*;

    const PLAN: &str = r#"{ "version": 1, "target": "t", "faults": [
        { "function": "should_failslab", "call_path": ["kmalloc"], "occurrence": 2, "error": "ENOMEM" } ] }"#;

    pub(in crate::views) fn execution(fired: Vec<Fired>, steps: Vec<StepResult>) -> Execution {
        Execution {
            findings: Vec::new(),
            guest: Fate::Alive,
            steps,
            hits: Vec::new(),
            sites: Vec::new(),
            fired,
            coverage: vec![
                Coverage { role: TraceRole::Workload, addresses: vec![1, 2], overflowed: false },
                Coverage { role: TraceRole::Threads, addresses: vec![2], overflowed: false },
            ],
            guarded: 0,
            unknown_names: Vec::new(),
            incomplete: false,
            console: String::new(),
            wall: Duration::from_millis(30),
            timings: Timings::default(),
            history: Vec::new(),
            rounds: Vec::new(),
        }
    }

    fn written(execution: &Execution, json: bool) -> String {
        written_of(PLAN, execution, json)
    }

    fn written_of(plan: &str, execution: &Execution, json: bool) -> String {
        let plan = FaultPlan::from_json(plan).unwrap();
        let run = Run { number: 1, of: 2, asked: &plan, plan: &plan, steps: &[Step::Sync {}.into()], execution };
        let mut out = Vec::new();
        if json { run.write_json(&mut out) } else { run.write_text(&mut out) }.unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_run_tells_steps_and_faults() {
        let call_path = vec!["kmalloc".to_owned(), "mount".to_owned()];
        let fired = Fired { sequence: 7, call_path, ..fired(0) };
        let run = execution(vec![fired], vec![StepResult::Failed(12)]);
        assert_eq!(
            written(&run, false),
            "run 1 of 2: 30 ms\n  sync                 failed with ENOMEM (12)\n  \
             fault 1 fired: should_failslab returned ENOMEM, call 7\n      kmalloc\n      mount\n  \
             completed, with nothing found\n"
        );
        let line = written(&run, true);
        assert_eq!(line.lines().count(), 1);
        let json: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!((&json["fired"][0]["fault"], &json["covered"], &json["title"]), (&1.into(), &2.into(), &().into()));
        assert_eq!(json["covered_by"], serde_json::json!({ "workload": 2, "threads": 1 }));
    }

    #[test]
    fn what_is_not_known_or_did_not_happen_is_said() {
        let run = Execution { unknown_names: vec!["gone".to_owned()], ..execution(Vec::new(), Vec::new()) };
        assert_eq!(
            written(&run, false),
            "run 1 of 2: 30 ms\n  this kernel has no function gone, which was skipped over\n  \
             steps: unknown, the guest did not survive them\n  \
             fault 1 did not fire: no call 2 of should_failslab on its call path\n      kmalloc\n  \
             completed, with nothing found\n"
        );
        let json: serde_json::Value = serde_json::from_str(&written(&run, true)).unwrap();
        assert_eq!((&json["unfired"][0], &json["unknown_names"][0]), (&1.into(), &"gone".into()));
        assert!(json["relaxed"].is_null());
    }

    #[test]
    fn a_plan_that_was_relaxed_says_how() {
        let asked = FaultPlan::from_json(PLAN).unwrap();
        let plan = FaultPlan::from_json(
            &PLAN.replace("\"kmalloc\"], \"occurrence\": 2", "\"...\", \"mount\"], \"occurrence\": 1"),
        )
        .unwrap();
        let run = execution(vec![fired(0)], Vec::new());
        let run = Run { number: 1, of: 1, asked: &asked, plan: &plan, steps: &[], execution: &run };
        let (mut text, mut json) = (Vec::new(), Vec::new());
        run.write_text(&mut text).unwrap();
        run.write_json(&mut json).unwrap();
        let text = String::from_utf8(text).unwrap();
        assert!(text.contains("  fault 1 is relaxed for this kernel: ... mount, call 1\n"), "{text}");
        let json: serde_json::Value = serde_json::from_slice(&json).unwrap();
        assert_eq!(json["relaxed"]["faults"][0]["call_path"][1], "mount");
    }

    pub(in crate::views) fn fired(fault: usize) -> Fired {
        Fired { fault, sequence: 1, site: 1, step: 1, times: 1, ..Fired::default() }
    }

    #[test]
    fn each_round_is_told_with_its_faults() {
        let fault = r#"{ "function": "should_failslab", "occurrence": 1, "error": "ENOMEM" }"#;
        let plan = format!(
            r#"{{ "version": 1, "target": "t", "rounds": [ {{ "faults": [{fault}] }},
                {{ "faults": [], "reset": true }}, {{ "faults": [{fault}] }} ] }}"#
        );
        let earlier = || execution(vec![fired(0)], vec![StepResult::Failed(12)]);
        let left = execution::Finding::leftover("device left open: f", "device left open after a failure in f", "");
        let all = |rounds, found| Execution {
            rounds,
            findings: vec![found],
            ..execution(vec![fired(0), fired(1)], vec![StepResult::Done(0)])
        };
        let whole = all(vec![earlier(), execution(Vec::new(), vec![StepResult::Done(0)])], left.clone());
        assert_eq!(
            written_of(&plan, &whole, false),
            "run 1 of 2: 30 ms\n  round 1 of 3:\n  sync                 failed with ENOMEM (12)\n  \
             fault 1 fired: should_failslab returned ENOMEM, call 1\n  \
             round 2 of 3, in the state that it was left in:\n  sync                 ok\n  \
             round 3 of 3, on the disk put back:\n  sync                 ok\n  \
             fault 2 fired: should_failslab returned ENOMEM, call 1\n  \
             leftover: device left open after a failure in f\n      device left open: f\n"
        );
        let cut = written_of(&plan, &all(vec![earlier()], left), false);
        assert!(cut.contains("it ended with round 2 of 3"), "{cut}");
        let json: serde_json::Value = serde_json::from_str(&written_of(&plan, &whole, true)).unwrap();
        assert_eq!(json["earlier_rounds"][0]["fired"][0]["fault"], 1);
        assert_eq!(json["titles"][0], "device left open after a failure in f");
    }
}
