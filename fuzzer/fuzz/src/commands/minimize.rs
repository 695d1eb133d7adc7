//! `fuzz minimize FILE`: makes a plan or reproducer as simple as one that makes the same crash.
//!
//! ```text
//! FILE ─▶ does its crash come? ─▶ simpler plans ─▶ confirmed ─▶ fewer steps ─▶ OUT, a reproducer
//!                │ no
//!                ▼
//!         the answer is no
//! ```

mod steps;

use std::{io::Write, sync::Arc};

use campaign::{CONFIRMATIONS, Demand, KnownPoints, Minimized, Minimizer, run_relaxed};
use execution::{Execution, How, RunError, Runner, Stop, Target, chain};
use fault_plan::{FaultPlan, REPRODUCER_VERSION, Reproducer};
use guests::{
    prepare::{Wanted, prepare},
    prepared::Prepared,
    progress::{ProgressSink, Task},
    runner::GuestRunner,
};

use self::steps::Steps;
use super::replay::{Asked, chosen, read};
use crate::{
    exit::{Answer, CommandError, write_result},
    options::MinimizeOptions,
    views::{plan::write_plan, progress::Progress},
};

/// Fresh guests in which the crash has to come once, to begin with.
const FIRST_RUNS: u32 = 3;

/// A crash that came, and the plan that it came with.
struct Crash {
    plan: FaultPlan,
    execution: Execution,
    key: String,
    title: String,
}

/// The plan as simple as it gets, and its target.
struct Found {
    plan: FaultPlan,
    target: Arc<Target>,
}

/// Minimises. The answer is no when the crash does not come in the first place.
///
/// # Errors
///
/// The file is refused, or the environment; see [`CommandError`].
pub fn minimize(
    options: &MinimizeOptions,
    stop: &Stop,
    out: &mut dyn Write,
    progress: &Progress,
) -> Result<Answer, CommandError> {
    let file = &options.input.file;
    let asked = read(&options.input)?;
    let wanted = Wanted {
        kernel: options.guest.kernel.clone().or_else(|| asked.kernel.clone()),
        accel: options.guest.accel,
        ..Wanted::new(chosen(&options.input, &asked.plan, asked.target.as_ref(), progress)?)
    };
    let prepared = prepare(&wanted, stop, progress)?;
    asked
        .plan
        .check_against(&prepared.template().about().ready.functions)
        .map_err(|error| CommandError::Input(format!("{}: {}", file.display(), chain(&error))))?;
    let mut runner = GuestRunner::new(&prepared);
    let Some(crash) = first(&asked, &mut runner)? else {
        let what = asked.crash.map_or_else(|| "no crash".to_owned(), |(_, title)| format!("not \"{title}\""));
        writeln!(out, "{}: it made {what} in {FIRST_RUNS} fresh guests", file.display())?;
        return Ok(Answer::No);
    };
    let task = progress.begin(&prepared.target.name, &format!("minimising \"{}\"", crash.title));
    let minimized = simplest(&crash, options.runs, &mut runner, &*task)?;
    let mut result = Found { plan: crash.plan.clone(), target: Arc::clone(&prepared.target) };
    let mut execution = &crash.execution;
    if let Some(simpler) = &minimized {
        (result.plan, execution) = (simpler.plan.clone(), &simpler.execution);
    }
    if !options.keep_steps {
        let Found { plan, target } = &result;
        let steps = Steps { wanted: &wanted, target, plan, key: &crash.key, runs: options.runs, stop };
        if let Some((plan, target)) = steps.fewest(execution, &*task)? {
            result = Found { plan, target };
        }
    }
    drop(task);
    let to = options.out.clone().unwrap_or_else(|| file.with_extension("minimized.json"));
    let written = reproducer(&crash, &result, &prepared).to_json();
    write_result(&to, &written)?;
    writeln!(out, "\"{}\" is made by", crash.title)?;
    write_plan(&result.plan, out)?;
    writeln!(out, "in {} of {} steps", result.target.steps.len(), prepared.target.steps.len())?;
    writeln!(out, "written to {}", to.display())?;
    Ok(Answer::Yes)
}

/// Runs the plan until its crash comes: that of the reproducer, or the first that a plan makes.
fn first(asked: &Asked, runner: &mut GuestRunner) -> Result<Option<Crash>, CommandError> {
    let mut known = KnownPoints::default();
    let wanted = |execution: &Execution| match &asked.crash {
        Some((key, _)) => execution.has_key(key),
        None => !execution.findings.is_empty(),
    };
    for _ in 0..FIRST_RUNS {
        let relaxed = run_relaxed(runner, &asked.plan, How::Fresh, &mut known, wanted)?;
        let execution = relaxed.execution;
        let found = execution.findings.iter().find(|finding| match &asked.crash {
            Some((key, _)) => finding.has_key(key),
            None => true,
        });
        if let Some(finding) = found {
            let key = asked.crash.as_ref().map_or(&finding.key, |(key, _)| key).clone();
            let title = finding.title.clone();
            return Ok(Some(Crash { plan: relaxed.plan, execution, key, title }));
        }
    }
    Ok(None)
}

/// Gives the simplest plan that makes the crash, where there is one.
fn simplest(
    crash: &Crash,
    runs: u32,
    runner: &mut GuestRunner,
    task: &dyn Task,
) -> Result<Option<Minimized>, CommandError> {
    let each_of = |runs| Demand { runs, needed: runs };
    let (candidate, confirmed) = (each_of(runs), each_of(runs.max(CONFIRMATIONS)));
    let mut minimizer = Minimizer::new(&crash.plan, &crash.key, &crash.execution, candidate, confirmed);
    while let Some(plan) = minimizer.next_plan() {
        task.update(&state_of(&minimizer), None);
        minimizer.ran(match runner.run(&plan, How::Fresh).execution {
            Ok(execution) => Some(execution),
            Err(RunError::Stopped) => return Err(RunError::Stopped.into()),
            // Such a plan is no simpler one: whatever kept it from running.
            Err(_) => None,
        });
    }
    task.note(&state_of(&minimizer));
    Ok(minimizer.finish())
}

fn state_of(minimizer: &Minimizer) -> String {
    let [before, now] = minimizer.faults();
    format!("{} runs, {before} faults → {now}", minimizer.runs())
}

fn reproducer(crash: &Crash, Found { plan, target }: &Found, prepared: &Prepared) -> Reproducer {
    Reproducer {
        reproducer_version: REPRODUCER_VERSION,
        key: crash.key.clone(),
        title: crash.title.clone(),
        kernel: prepared.kernel.meta.name.clone(),
        kernel_build_id: prepared.kernel.meta.build_id.clone(),
        plan: plan.clone(),
        target: Some(target.narrowed(plan).definition()),
    }
}
