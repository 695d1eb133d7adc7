//! `fuzz replay FILE`: runs a plan or reproducer in fresh guests and says what happened.

use std::{
    collections::BTreeSet,
    fs,
    io::{self, Write},
};

use fault_plan::{FaultPlan, Reproducer};
use guest_protocol::{Step, StepResult};

use execution::{Execution, How, Runner, Stop, chain};
use guests::{
    prepare::{Wanted, prepare},
    runner::GuestRunner,
};

use crate::{
    exit::{Answer, CommandError},
    options::ReplayOptions,
};

struct Asked {
    plan: FaultPlan,
    title: Option<String>,
    kernel: Option<String>,
}

fn read(options: &ReplayOptions) -> Result<Asked, CommandError> {
    let path = options.file.display();
    let text = fs::read_to_string(&options.file)
        .map_err(|error| CommandError::Input(format!("cannot read {path}: {error}")))?;
    let refuse = |error: fault_plan::PlanError| CommandError::Input(format!("{path}: {}", chain(&error)));
    if Reproducer::is_one(&text) {
        let reproducer = Reproducer::from_json(&text).map_err(refuse)?;
        Ok(Asked { plan: reproducer.plan, title: Some(reproducer.title), kernel: Some(reproducer.kernel) })
    } else {
        Ok(Asked { plan: FaultPlan::from_json(&text).map_err(refuse)?, title: None, kernel: None })
    }
}

/// Replays. The answer is no when a reproducer's title did not come again in every run (a plan without a title has
/// nothing to come again), or when runs that are to be the same were not.
///
/// # Errors
///
/// The file is refused, or the environment; see [`CommandError`].
pub fn replay(
    options: &ReplayOptions,
    stop: &Stop,
    out: &mut dyn Write,
    say: &mut dyn FnMut(&str),
) -> Result<Answer, CommandError> {
    let asked = read(options)?;
    let wanted = Wanted {
        kernel: options.guest.kernel.clone().or_else(|| asked.kernel.clone()),
        accel: options.guest.accel,
        exact: options.exact,
        ..Wanted::new(options.target.as_ref().unwrap_or(&asked.plan.target))
    };
    let prepared = prepare(&wanted, stop, say)?;
    let mut runner = GuestRunner::new(&prepared);
    asked
        .plan
        .check_against(&prepared.template().about.ready.functions)
        .map_err(|error| CommandError::Input(format!("{}: {}", options.file.display(), chain(&error))))?;
    let mut again = 0;
    let mut fingerprints = BTreeSet::new();
    for run in 1..=options.runs {
        let execution = runner.run(&asked.plan, How::Fresh).execution?;
        let same = asked.title.as_deref().is_some_and(|wanted| execution.has_title(wanted));
        again += u32::from(same);
        fingerprints.insert(execution.fingerprint());
        if options.json {
            write_json(run, &execution, &prepared.target.steps, out)?;
        } else {
            write_run(run, options.runs, &asked.plan, &execution, &prepared.target.steps, out)?;
        }
    }
    if !options.json {
        if let Some(title) = &asked.title {
            writeln!(out, "\"{title}\" came again in {again} of {} runs", options.runs)?;
        }
        if options.exact && options.runs > 1 {
            writeln!(out, "{} different executions in {} runs", fingerprints.len(), options.runs)?;
        }
    }
    let reproduced = asked.title.is_none() || again == options.runs;
    let repeated = !options.exact || fingerprints.len() == 1;
    Ok(if reproduced && repeated { Answer::Yes } else { Answer::No })
}

fn result_text(result: StepResult) -> String {
    match result {
        StepResult::Done(0) => "ok".to_owned(),
        StepResult::Done(value) => format!("ok, {value}"),
        StepResult::Failed(number) => {
            let name = fault_plan::Errno::from_number(i64::from(number)).map(fault_plan::Errno::name);
            format!("failed with {} ({number})", name.unwrap_or("an unknown error"))
        }
        StepResult::Skipped => "skipped: the disk is not mounted".to_owned(),
    }
}

fn write_run(
    run: u32,
    runs: u32,
    plan: &FaultPlan,
    execution: &Execution,
    steps: &[Step],
    out: &mut dyn Write,
) -> io::Result<()> {
    writeln!(out, "run {run} of {runs}: {} ms", execution.wall.as_millis())?;
    if execution.steps.is_empty() {
        writeln!(out, "  steps: unknown, the guest did not survive them")?;
    }
    for (step, result) in steps.iter().zip(&execution.steps) {
        writeln!(out, "  {:<20} {}", step.kind(), result_text(*result))?;
    }
    if execution.fired.is_empty() && !plan.faults.is_empty() {
        writeln!(out, "  no fault fired")?;
    }
    for fired in &execution.fired {
        let fault = plan.faults.get(fired.fault);
        let (function, error) =
            fault.map_or(("?", String::new()), |fault| (fault.function.as_str(), fault.error.to_string()));
        writeln!(out, "  fault {} fired: {function} returned {error}, call {}", fired.fault + 1, fired.sequence)?;
        for caller in &fired.call_path {
            writeln!(out, "      {caller}")?;
        }
    }
    for report in execution.reports() {
        writeln!(out, "  {}: {}", report.kind, report.title)?;
    }
    if !execution.is_crash() {
        writeln!(out, "  completed, the kernel had nothing to report")?;
    }
    Ok(())
}

fn write_json(run: u32, execution: &Execution, steps: &[Step], out: &mut dyn Write) -> io::Result<()> {
    let steps: Vec<_> = steps
        .iter()
        .zip(&execution.steps)
        .map(|(step, result)| serde_json::json!({ "step": step.kind(), "result": result }))
        .collect();
    let fired: Vec<_> = execution
        .fired
        .iter()
        .map(|fired| {
            serde_json::json!({
                "fault": fired.fault + 1, "sequence": fired.sequence, "call_path": fired.call_path,
            })
        })
        .collect();
    let line = serde_json::json!({
        "run": run, "title": execution.reports().next().map(|report| &report.title), "steps": steps, "fired": fired,
        "fingerprint": execution.fingerprint(), "milliseconds": execution.wall.as_millis(), "covered": execution.coverage.len(), "hits": execution.hits.len(),
    });
    writeln!(out, "{line}")
}
