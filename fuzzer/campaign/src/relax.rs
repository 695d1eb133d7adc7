//! Plans on another kernel than the one on which they were found.
//!
//! Kernels inline differently, so that a fault's call path may be another one there. A plan runs as
//! it is. When a fault did not fire, [`Relaxer`] makes candidates from the points that this kernel
//! is known to reach. A checker knows them from its campaign, [`run_relaxed`] from runs of its own.

use std::{collections::HashMap, sync::Arc};

use execution::{Execution, Fate, How, RunError, Runner};
use fault_plan::{FaultPlan, Point, Relaxer};
use guest_protocol::SiteDescription;

/// The points that a kernel is known to reach.
#[derive(Debug, Default)]
pub struct KnownPoints {
    /// By the sites' numbers, with the most calls in an execution.
    points: HashMap<u64, (Arc<SiteDescription>, u32)>,
    /// True when the fault-free plan has run.
    fault_free: bool,
}

impl KnownPoints {
    /// Takes in the points that an execution reached.
    pub(crate) fn learn(&mut self, execution: &Execution) {
        execution.rounds.iter().for_each(|round| self.learn(round));
        for site in &execution.sites {
            self.points.entry(site.site).or_insert_with(|| (Arc::clone(site), 0));
        }
        for hit in &execution.hits {
            if let Some((_, calls)) = self.points.get_mut(&hit.site) {
                *calls = hit.count.max(*calls);
            }
        }
    }

    /// Gives them.
    pub(crate) fn points(&self) -> Vec<Point<'_>> {
        self.points.values().map(|(site, calls)| point(site, *calls)).collect()
    }
}

fn point(site: &SiteDescription, calls: u32) -> Point<'_> {
    let SiteDescription { function, call_path, truncated, step, scope, .. } = site;
    Point { function, call_path, truncated: *truncated, step: *step, scope: *scope, calls }
}

/// The outcome of a plan that was relaxed as far as it had to be.
#[derive(Debug)]
pub struct Relaxed {
    /// The plan as it ran at last: as it was, or the candidate of which most faults fired.
    pub plan: FaultPlan,
    /// Its execution.
    pub execution: Execution,
    /// Faults of it that did not fire, by index from 0 among those of all rounds; none when the
    /// plan holds on this kernel.
    pub unfired: Vec<usize>,
    /// Runs that it took, the fault-free one not counted.
    pub runs: u32,
}

/// Gives the indices, from 0 among those of all rounds, of the faults of `plan` that did not fire
/// in its `execution`.
#[must_use]
pub fn unfired(plan: &FaultPlan, execution: &Execution) -> Vec<usize> {
    let has_fired = |index: &usize| execution.fired.iter().any(|fired| fired.fault == *index);
    (0..plan.all_faults().count()).filter(|index| !has_fired(index)).collect()
}

/// Runs `plan`, and where some of its faults do not fire, candidates for it until all do, or an
/// execution `is_enough`. A guest that died ends this: what did not fire may have come later.
///
/// The fault-free plan runs once if `known` comes from no run of it.
///
/// # Errors
///
/// Those of the runner. That the plan is refused counts only where no candidate runs.
pub fn run_relaxed(
    runner: &mut dyn Runner,
    plan: &FaultPlan,
    how: How,
    known: &mut KnownPoints,
    is_enough: impl Fn(&Execution) -> bool,
) -> Result<Relaxed, RunError> {
    let mut relaxer = Relaxer::new(plan);
    let mut next = plan.clone();
    let mut best: Result<Relaxed, RunError> = Err(RunError::Stopped);
    for runs in 1.. {
        let mut open: Vec<usize> = (0..next.all_faults().count()).collect();
        match runner.run(&next, how).execution {
            Ok(execution) => {
                known.learn(&execution);
                open = unfired(&next, &execution);
                let is_over = open.is_empty() || execution.guest == Fate::Dead || is_enough(&execution);
                if best.as_ref().map_or(true, |best| is_over || open.len() < best.unfired.len()) {
                    best = Ok(Relaxed { plan: next, execution, unfired: open.clone(), runs });
                }
                if is_over {
                    break;
                }
            }
            Err(RunError::Refused(reason)) if runs == 1 => best = Err(RunError::Refused(reason)),
            Err(RunError::Refused(_)) => {}
            Err(error) => return Err(error),
        }
        if !known.fault_free {
            known.learn(&runner.run(&FaultPlan::fault_free(&*plan.target), how).execution?);
            known.fault_free = true;
        }
        let has_fired = |index: usize| !open.contains(&index);
        let Some(candidate) = relaxer.next(has_fired, &known.points()) else { break };
        next = candidate.clone();
    }
    best
}
