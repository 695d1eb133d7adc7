//! `bench both-kernels`: whether plans hold on the checking kernel.
//!
//! Each point of the fault-free workload fails alone, with the first error of its function, on the
//! kernel that explorers run. Of these plans, and of random pairs of them, those whose faults all
//! fired there run on the kernel that checks: as they are, and relaxed where that is not enough.

use std::collections::BTreeMap;

use campaign::{KnownPoints, Relaxed, run_relaxed, unfired};
use execution::{Execution, Fate, How, RunError, Runner, Target};
use fault_plan::{CallPath, Fault, FaultPlan, Scope};
use fuzz::exit::CommandError;
use guests::{
    prepare::{Wanted, prepare},
    project::Project,
    runner::GuestRunner,
};
use serde::Serialize;

use super::{Measured, Session};

const TARGET: &str = "btrfs-remount";
/// The kernel that explorers run.
pub(super) const EXPLORED: &str = "linux-6.12-lean";
/// Fault-free executions that show which points there are.
const FAULT_FREE_RUNS: usize = 4;
/// Pairs of faults that fired alone.
const PAIRS: usize = 60;
/// Distance between the two faults of a pair in the list of all: odd, and no divisor of much.
const STRIDE: usize = 97;

/// Plans of one kind.
#[derive(Debug, Default, Serialize)]
struct Held {
    /// Plans that were made.
    plans: usize,
    /// Those whose faults all fired on the explorers' kernel.
    fired_where_explored: usize,
    /// Of them those whose faults all fired on the checking kernel, as they are.
    as_they_are: usize,
    /// And those that did when relaxed.
    relaxed: usize,
    /// And those that ended the guest before all their faults had fired.
    ended_the_guest: usize,
    /// Runs on the checking kernel that this took.
    runs: u32,
    /// Plans that do not hold, by their faults that did not fire.
    unfired: Vec<FaultPlan>,
}

#[derive(Debug, Serialize)]
pub(super) struct BothKernels {
    measured: Vec<Measured>,
    /// Points that every fault-free execution reached.
    points: usize,
    single_faults: Held,
    pairs: Held,
}

/// Measures.
///
/// # Errors
///
/// The environment or the target; see [`CommandError`].
pub(super) fn both_kernels(session: &Session<'_>) -> Result<BothKernels, CommandError> {
    let target = session.options.target.as_deref().unwrap_or(TARGET);
    let checked = Target::find(&Project::find()?.corpus(), target)?.kernel;
    let mut measured = Vec::new();
    let mut guests = |kernel: &str| -> Result<GuestRunner, CommandError> {
        let wanted = Wanted { kernel: Some(kernel.to_owned()), ..session.options.wanted(target) };
        let prepared = prepare(&wanted, session.stop, session.progress)?;
        measured.push(Measured::of(target, &prepared));
        Ok(GuestRunner::new(&prepared))
    };
    let (mut explorer, mut checker) = (guests(EXPLORED)?, guests(&checked)?);
    let target = Target::find(&Project::find()?.corpus(), target)?;
    let singles = single_faults(&target, &mut explorer)?;
    session.progress.say(&format!("{} single faults on two kernels", singles.len()));
    let mut known = KnownPoints::default();
    let mut single_faults = Held { plans: singles.len(), ..Held::default() };
    let fired = where_explored(&mut explorer, singles, &mut single_faults)?;
    check(&mut checker, &fired, &mut known, &mut single_faults)?;
    let pairs = pairs(&fired);
    session.progress.say(&format!("{} pairs of faults on two kernels", pairs.len()));
    let mut held_pairs = Held { plans: pairs.len(), ..Held::default() };
    let fired = where_explored(&mut explorer, pairs, &mut held_pairs)?;
    check(&mut checker, &fired, &mut known, &mut held_pairs)?;
    Ok(BothKernels { measured, points: single_faults.plans, single_faults, pairs: held_pairs })
}

/// Makes the plans that fail one point alone, of those that every fault-free execution reaches.
pub(super) fn single_faults(target: &Target, explorer: &mut GuestRunner) -> Result<Vec<FaultPlan>, RunError> {
    let mut points: BTreeMap<(u32, Scope, String, Vec<String>), usize> = BTreeMap::new();
    for _ in 0..FAULT_FREE_RUNS {
        let execution = explorer.run(&target.fault_free(), How::Warm).execution?;
        for site in &execution.sites {
            *points.entry((site.step, site.scope, site.function.clone(), site.call_path.clone())).or_default() += 1;
        }
    }
    let always = points.into_iter().filter(|(_, runs)| *runs == FAULT_FREE_RUNS).map(|(point, _)| point);
    let plan = |(step, scope, function, call_path): (u32, Scope, String, Vec<String>)| {
        let error = *target.errors(&function).first()?;
        let fault = Fault::new(function, CallPath(call_path), 1, error);
        let fault = Fault { step: Some(step), task: scope.condition(), ..fault };
        Some(FaultPlan { faults: vec![fault], ..target.fault_free() })
    };
    Ok(always.filter_map(plan).collect())
}

/// Makes pairs of faults, of steps in their order.
fn pairs(singles: &[FaultPlan]) -> Vec<FaultPlan> {
    let count = singles.len();
    let pair = |number: usize| {
        let (first, second) = (number * count / PAIRS, (number * count / PAIRS + STRIDE * (number + 1)) % count);
        let faults = [&singles[first.min(second)].faults[..], &singles[first.max(second)].faults].concat();
        FaultPlan { faults, ..singles[first].clone() }
    };
    (0..PAIRS).filter(|_| count > 0).map(pair).filter(|pair| pair.faults[0] != pair.faults[1]).collect()
}

/// Gives those of `plans` whose faults all fire on the explorers' kernel.
fn where_explored(
    explorer: &mut GuestRunner,
    plans: Vec<FaultPlan>,
    held: &mut Held,
) -> Result<Vec<FaultPlan>, RunError> {
    let mut fired = Vec::new();
    for plan in plans {
        let execution = explorer.run(&plan, How::Warm).execution?;
        if unfired(&plan, &execution).is_empty() {
            fired.push(plan);
        }
    }
    held.fired_where_explored = fired.len();
    Ok(fired)
}

/// Runs `plans` on the checking kernel.
fn check(
    checker: &mut GuestRunner,
    plans: &[FaultPlan],
    known: &mut KnownPoints,
    held: &mut Held,
) -> Result<(), RunError> {
    for plan in plans {
        match run_relaxed(checker, plan, How::Warm, known, |_| false) {
            Ok(relaxed) => count(plan, &relaxed, held),
            Err(RunError::Refused(_)) => held.unfired.push(plan.clone()),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn count(plan: &FaultPlan, relaxed: &Relaxed, held: &mut Held) {
    let Relaxed { plan: ran, execution: Execution { guest, .. }, unfired, runs } = relaxed;
    held.runs += runs;
    if unfired.is_empty() {
        *if ran == plan { &mut held.as_they_are } else { &mut held.relaxed } += 1;
    } else if *guest == Fate::Dead {
        held.ended_the_guest += 1;
    } else {
        let is_unfired = |(index, fault): (usize, &Fault)| unfired.contains(&index).then(|| fault.clone());
        let faults = plan.faults.iter().enumerate().filter_map(is_unfired).collect();
        held.unfired.push(FaultPlan { faults, ..plan.clone() });
    }
}
