//! `bench tasks`: coverage of children, kernel threads and work items beside the workload's: places
//! that it adds, its noise, its cost.
//!
//! The fault-free plan runs in one guest. Blocks with the coverage of all tasks and blocks with the
//! workload's alone take turns.

use std::collections::BTreeSet;

use execution::Execution;
use fault_plan::FaultPlan;
use fuzz::exit::CommandError;
use guest_protocol::{Recorded, TraceRole};
use guests::{prepare::prepare, runner::GuestRunner};
use serde::Serialize;

use super::{Measured, Session, cost::timed, middle};

const TARGET: &str = "btrfs-rw";
/// Executions of a block, of which the first does not count.
const BLOCK: usize = 6;
/// Executions after which the later ones with news are counted.
const LEARNT: [usize; 4] = [8, 16, 32, 64];

/// Tasks of one kind, over all executions.
#[derive(Debug, Serialize)]
struct OfRole {
    role: TraceRole,
    /// Places that they covered.
    places: usize,
    /// Those of them in functions whose name begins like the file system's.
    file_system_places: usize,
    /// Executions that filled the trace.
    overflowed: usize,
    /// Share of the executions after the first 8, 16, 32 and 64 in which they covered a place that
    /// they had not covered before.
    with_news: Vec<f64>,
}

#[derive(Debug, Serialize)]
pub(super) struct Tasks {
    measured: Measured,
    executions: usize,
    roles: Vec<OfRole>,
    /// Places that the workload covered, and those that any task did.
    workload_places: usize,
    all_places: usize,
    /// The same, in the file system's functions.
    workload_file_system_places: usize,
    all_file_system_places: usize,
    /// As in `with_news`, of any task.
    with_news: Vec<f64>,
    /// Median on the host.
    execution_ms: f64,
    workload_only_execution_ms: f64,
    /// Median in the guest, until the work that the steps caused has ended.
    settle_ms: f64,
}

/// Measures.
///
/// # Errors
///
/// The environment or the target; see [`CommandError`].
pub(super) fn tasks(session: &Session<'_>) -> Result<Tasks, CommandError> {
    let Session { options, stop, progress } = session;
    let wanted = options.wanted(TARGET);
    let prepared = prepare(&wanted, stop, *progress)?;
    let target = wanted.target.to_string();
    let file_system = target.split('-').next().unwrap_or_default().to_owned();
    let in_file_system = |pc: &u64| {
        let location = prepared.symbols.resolve(pc.wrapping_sub(1));
        location.is_some_and(|location| location.function.starts_with(&file_system))
    };
    let plan = prepared.target.fault_free();
    let mut runner = GuestRunner::new(&prepared);
    progress.say(&format!("{target}: {} executions", options.executions));
    let Runs { all, took, workload_only } = take_turns(&mut runner, &plan, options.executions as usize)?;
    let places = |of: &dyn Fn(TraceRole) -> bool| {
        let covered = all.iter().flat_map(Execution::covered).filter(|(role, _)| of(*role));
        covered.map(|(_, pc)| pc).collect::<BTreeSet<u64>>()
    };
    let (workload, any) = (places(&|role| role == TraceRole::Workload), places(&|_| true));
    let in_it = |places: &BTreeSet<u64>| places.iter().filter(|pc| in_file_system(pc)).count();
    let of_role = |role| {
        let places = places(&|other| other == role);
        let full = |execution: &&Execution| execution.coverage.iter().any(|own| own.role == role && own.overflowed);
        OfRole {
            role,
            places: places.len(),
            file_system_places: in_it(&places),
            overflowed: all.iter().filter(full).count(),
            with_news: with_news(&all, |other| other == role),
        }
    };
    let settle_ms = all.iter().map(|execution| f64_ms(execution.timings.settle_ns)).collect();
    Ok(Tasks {
        measured: Measured::of(&target, &prepared),
        executions: all.len(),
        roles: TraceRole::ALL.into_iter().map(of_role).collect(),
        workload_places: workload.len(),
        all_places: any.len(),
        workload_file_system_places: in_it(&workload),
        all_file_system_places: in_it(&any),
        with_news: with_news(&all, |_| true),
        execution_ms: middle(took).unwrap_or(f64::NAN),
        workload_only_execution_ms: middle(workload_only).unwrap_or(f64::NAN),
        settle_ms: middle(settle_ms).unwrap_or(f64::NAN),
    })
}

/// The executions, and milliseconds that they took on the host.
#[derive(Default)]
struct Runs {
    /// With the coverage of all tasks.
    all: Vec<Execution>,
    took: Vec<f64>,
    workload_only: Vec<f64>,
}

fn take_turns(runner: &mut GuestRunner, plan: &FaultPlan, executions: usize) -> Result<Runs, CommandError> {
    let mut runs = Runs::default();
    while runs.all.len() < executions {
        for recorded in [Recorded::All, Recorded::Workload] {
            runner.coverage = recorded;
            for number in 0..BLOCK {
                let run = timed(runner, plan)?;
                let took = (number > 0).then_some(run.took_ms);
                if recorded == Recorded::All {
                    runs.took.extend(took);
                    runs.all.push(run.execution);
                } else {
                    runs.workload_only.extend(took);
                }
            }
        }
    }
    Ok(runs)
}

fn f64_ms(nanoseconds: u64) -> f64 {
    std::time::Duration::from_nanos(nanoseconds).as_secs_f64() * 1e3
}

/// Gives the share of executions with news in these tasks, after each number of [`LEARNT`].
fn with_news(executions: &[Execution], of: impl Fn(TraceRole) -> bool) -> Vec<f64> {
    let mut seen = BTreeSet::new();
    let mut news = Vec::new();
    for execution in executions {
        let before = seen.len();
        seen.extend(execution.covered().filter(|(role, _)| of(*role)));
        news.push(seen.len() > before);
    }
    let share = |learnt: usize| {
        let later = news.get(learnt..).unwrap_or_default();
        let new = later.iter().filter(|new| **new).count();
        #[expect(clippy::cast_precision_loss, reason = "a share; counts stay below 2^52")]
        let share = new as f64 / later.len().max(1) as f64;
        share
    };
    LEARNT.map(share).to_vec()
}
