//! `bench exact`: whether executions that are to repeat exactly do.
//!
//! Of each target plans run several times, each in a fresh guest: what is known to crash, the
//! fault-free plan, and single faults spread over the workload.

use std::{collections::BTreeSet, time::Instant};

use execution::{Execution, How, RunError, Runner};
use fault_plan::{CallPath, Fault, FaultPlan};
use fuzz::exit::CommandError;
use guests::{
    prepare::{Wanted, prepare},
    prepared::Prepared,
    runner::GuestRunner,
};
use serde::Serialize;

use super::{Measured, Session, middle};

const TARGETS: [&str; 3] = ["selftest", "btrfs-mount", "btrfs-rw"];
/// Plans of each target.
const PLANS: usize = 7;
/// Executions of each plan.
const RUNS: usize = 10;

/// One plan.
#[derive(Debug, Serialize)]
struct Repeated {
    plan: FaultPlan,
    /// Titles that it ended in, nothing among them when the kernel had nothing to report.
    titles: BTreeSet<Option<String>>,
    /// Executions that differ in hits, coverage, results or reports.
    different_executions: usize,
    /// From nothing to the end of listening to the fresh guest, on the host; median.
    execution_ms: f64,
}

#[derive(Debug, Serialize)]
pub(super) struct Exact {
    measured: Vec<Measured>,
    runs_each: usize,
    plans: usize,
    /// Plans whose executions all had the same title.
    one_title: usize,
    /// Plans whose executions all were the same.
    one_execution: usize,
    repeated: Vec<Repeated>,
}

/// Measures.
///
/// # Errors
///
/// The environment or a target; see [`CommandError`].
pub(super) fn exact(session: &Session<'_>) -> Result<Exact, CommandError> {
    let Session { options, stop, progress } = session;
    let (mut measured, mut repeated) = (Vec::new(), Vec::new());
    for target in options.targets(&TARGETS) {
        let wanted = Wanted { exact: true, ..options.wanted(target) };
        let prepared = prepare(&wanted, stop, *progress)?;
        let mut runner = GuestRunner::new(&prepared);
        measured.push(Measured::of(target, &prepared));
        let plans = plans(&prepared, &mut runner)?;
        progress.say(&format!("{target}: {} plans, {RUNS} exact executions of each", plans.len()));
        for plan in plans {
            repeated.push(repeat(&mut runner, plan)?);
        }
    }
    let count = |same: fn(&Repeated) -> bool| repeated.iter().filter(|plan| same(plan)).count();
    Ok(Exact {
        measured,
        runs_each: RUNS,
        plans: repeated.len(),
        one_title: count(|plan| plan.titles.len() == 1),
        one_execution: count(|plan| plan.different_executions == 1),
        repeated,
    })
}

/// Chooses the plans of a target to run.
fn plans(prepared: &Prepared, runner: &mut GuestRunner) -> Result<Vec<FaultPlan>, CommandError> {
    let target = &prepared.target;
    let free = target.fault_free();
    let mut plans = vec![free.clone()];
    plans.extend(target.known()?.into_iter().map(|known| known.plan));
    let Some((function, error)) = target.functions.iter().find_map(|function| {
        let error = target.errors(&function.name).first()?;
        Some((function.name.clone(), *error))
    }) else {
        return Ok(plans);
    };
    let execution = runner.run(&free, How::Fresh).execution?;
    let calls = calls_of(&function, &execution);
    let singles = u32::try_from(PLANS.saturating_sub(plans.len())).unwrap_or(0);
    for number in 0..singles {
        let occurrence = 1 + (calls.saturating_sub(1)) * number / singles.max(2).saturating_sub(1);
        let fault = Fault::new(function.clone(), CallPath::default(), occurrence, error);
        plans.push(FaultPlan { faults: vec![fault], ..free.clone() });
    }
    Ok(plans)
}

/// Counts the calls of `function` in a guest's first execution, which describes all sites.
fn calls_of(function: &str, execution: &Execution) -> u32 {
    let sites: BTreeSet<u64> =
        execution.sites.iter().filter(|site| site.function == function).map(|site| site.site).collect();
    execution.hits.iter().filter(|hit| sites.contains(&hit.site)).map(|hit| hit.count).sum()
}

fn repeat(runner: &mut GuestRunner, plan: FaultPlan) -> Result<Repeated, RunError> {
    let (mut titles, mut executions, mut times) = (BTreeSet::new(), BTreeSet::new(), Vec::new());
    for _ in 0..RUNS {
        let start = Instant::now();
        let execution = runner.run(&plan, How::Fresh).execution?;
        times.push(start.elapsed().as_secs_f64() * 1e3);
        titles.insert(execution.findings.first().map(|report| report.title.clone()));
        executions.insert(execution.fingerprint());
    }
    let execution_ms = middle(times).unwrap_or(f64::NAN);
    Ok(Repeated { plan, titles, different_executions: executions.len(), execution_ms })
}
