//! `fuzz replay FILE`: runs a plan or reproducer in fresh guests and says what happened.

mod debug;
mod script;
pub(super) mod target;

pub(super) use self::target::chosen;

use std::{collections::BTreeSet, fs, io::Write};

use fault_plan::{FaultPlan, Reproducer};

use campaign::{KnownPoints, Relaxed, run_relaxed};
use execution::{Execution, How, RunError, Runner as _, Stop, chain};
use guests::{
    prepare::{Wanted, prepare},
    runner::GuestRunner,
};

use crate::{
    exit::{Answer, CommandError},
    options::{InputOptions, ReplayOptions},
    views::{
        leaks,
        progress::Progress,
        replay::Run,
        verdict::{Tally, Verdict},
        way::Way,
    },
};

/// A plan or reproducer as a file has it.
pub(super) struct Asked {
    pub(super) plan: FaultPlan,
    /// Key and title of the crash that is to come again.
    pub(super) crash: Option<(String, String)>,
    pub(super) kernel: Option<String>,
    /// Definition of the target, where the file carries one.
    pub(super) target: Option<serde_json::Value>,
}

/// Reads it.
///
/// # Errors
///
/// It is neither a plan nor a reproducer.
pub(super) fn read(options: &InputOptions) -> Result<Asked, CommandError> {
    let path = options.file.display();
    let text = fs::read_to_string(&options.file)
        .map_err(|error| CommandError::Input(format!("cannot read {path}: {error}")))?;
    let refuse = |error: fault_plan::PlanError| CommandError::Input(format!("{path}: {}", chain(&error)));
    if Reproducer::is_one(&text) {
        let reproducer = Reproducer::from_json(&text).map_err(refuse)?;
        let crash = Some((reproducer.identity().to_owned(), reproducer.title));
        Ok(Asked { plan: reproducer.plan, crash, kernel: Some(reproducer.kernel), target: reproducer.target })
    } else {
        Ok(Asked { plan: FaultPlan::from_json(&text).map_err(refuse)?, crash: None, kernel: None, target: None })
    }
}

/// Replays. Where faults do not fire, the plan is relaxed: another kernel may inline differently.
///
/// The answer is no when a reproducer's key did not come again in any run, when faults of a plan
/// without one did not fire, or when runs that are to be the same were not.
///
/// # Errors
///
/// The file is refused, or the environment; see [`CommandError`].
pub fn replay(
    options: &ReplayOptions,
    stop: &Stop,
    out: &mut dyn Write,
    progress: &Progress,
) -> Result<Answer, CommandError> {
    let asked = read(&options.input)?;
    let wanted = Wanted {
        kernel: options.guest.kernel.clone().or_else(|| asked.kernel.clone()),
        accel: options.guest.accel,
        exact: options.exact || options.gdb.is_some(),
        ..Wanted::new(chosen(&options.input, &asked.plan, asked.target.as_ref(), progress)?)
    };
    let prepared = prepare(&wanted, stop, progress)?;
    let mut runner = GuestRunner::new(&prepared);
    asked
        .plan
        .check_against(&prepared.template().about().ready.functions)
        .map_err(|error| CommandError::Input(format!("{}: {}", options.input.file.display(), chain(&error))))?;
    let is_same = |execution: &Execution| asked.crash.as_ref().is_some_and(|(key, _)| execution.has_key(key));
    let (mut tally, mut known, mut last) = (Tally::default(), KnownPoints::default(), None);
    let mut fingerprints = BTreeSet::new();
    for number in 1..=options.runs {
        let relaxed = run_relaxed(&mut runner, &asked.plan, How::Fresh, &mut known, is_same)?;
        let Relaxed { plan, execution, unfired, .. } = &relaxed;
        tally.add(execution, unfired, is_same(execution));
        fingerprints.insert(execution.fingerprint());
        let (asked, steps) = (&asked.plan, &prepared.target.steps);
        let run = Run { number, of: options.runs, asked, plan, steps, execution };
        if options.json {
            run.write_json(out)?
        } else {
            run.write_text(out)?
        }
        last = Some(relaxed);
    }
    if let (Some(at), Some(relaxed)) = (options.gdb, last.as_ref()) {
        let debugged = debug::Debugged { prepared: &prepared, at, fault: options.fault, hit: options.at_hit };
        return debugged.run(&mut runner, (&relaxed.plan, &relaxed.execution), out, progress);
    }
    if let Some(Relaxed { plan, .. }) = last.as_ref().filter(|last| leaks::is_leak(&last.execution)) {
        search(&mut runner, plan, options.json, out, progress)?;
    }
    if let Some(Relaxed { plan, runs, .. }) = last.filter(|_| options.trace) {
        if runs > 1 {
            // The last run may have been of another candidate.
            runner.run(&plan, How::Fresh).execution?;
        }
        let execution = &runner.run(&plan, How::Traced).execution?;
        let way = Way { plan: &plan, execution, again: asked.crash.as_ref().map(|_| is_same(execution)) };
        if options.json { way.write_json(out)? } else { way.write_text(out)? }
    }
    if let Some((key, title)) = &asked.crash {
        if options.json { tally.write_json(key, out)? } else { tally.write_text(title, out)? }
    }
    if options.exact && options.runs > 1 && !options.json {
        writeln!(out, "{} different executions in {} runs", fingerprints.len(), options.runs)?;
    }
    let reproduced = match asked.crash {
        Some(_) => tally.verdict() == Verdict::StillThere,
        None => tally.all_checked(),
    };
    let repeated = !options.exact || fingerprints.len() == 1;
    Ok(if reproduced && repeated { Answer::Yes } else { Answer::No })
}

/// Says who allocated what `plan` leaks, in one more run.
fn search(
    runner: &mut GuestRunner,
    plan: &FaultPlan,
    json: bool,
    out: &mut dyn Write,
    progress: &Progress,
) -> Result<(), CommandError> {
    match runner.run(plan, How::Searched).execution {
        Ok(execution) if json => leaks::write_json(&execution, out)?,
        Ok(execution) => leaks::write_text(&execution, out)?,
        Err(RunError::NoSuchGuests(reason)) => {
            progress.say(&format!("who allocated what leaks is not known: {reason}"))
        }
        Err(error) => return Err(error.into()),
    }
    Ok(())
}
