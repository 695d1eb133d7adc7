//! LibAFL's executor over a [`Runner`]. It runs plans and fills the observers; feedbacks and
//! objective make of that what they will.

use fault_plan::FaultPlan;
use libafl::{
    Error,
    executors::{Executor, ExitKind, HasObservers},
    observers::map::MapObserver,
    state::HasExecutions,
};
use libafl_bolts::tuples::RefIndexable;

use crate::{
    input::PlanInput,
    kernels::CampaignKernel,
    observers::{CoverageMap, Observed, Observers},
};
use execution::{Attributed, Execution, Fate, FindingKind, How, Ran, RunError, Runner};

/// The executor of plans.
pub(crate) struct PlanExecutor<'a, R> {
    runner: R,
    observers: Observers,
    kernel: CampaignKernel,
    must_end: &'a dyn Fn() -> bool,
}

impl<'a, R: Runner> PlanExecutor<'a, R> {
    /// Makes an executor of plans on `kernel`, which stops when the campaign `must_end`.
    pub(crate) fn new(runner: R, observers: Observers, kernel: CampaignKernel, must_end: &'a dyn Fn() -> bool) -> Self {
        Self { runner, observers, kernel, must_end }
    }

    /// Gives what runs the plans.
    pub(crate) fn runner(&mut self) -> &mut R {
        &mut self.runner
    }

    /// Takes in that `plan` could not be run. Where guests failed, the fault-free plan says whether
    /// it is the plan's doing.
    fn fail(&mut self, plan: &FaultPlan, error: RunError) {
        let observer = self.observers.observed_mut();
        match error {
            RunError::Stopped => observer.fail(error, true),
            RunError::Refused(_) | RunError::Starved | RunError::NoNext => observer.fail(error, false),
            RunError::Guests { .. } | RunError::NoSuchGuests(_) if plan.is_fault_free() => {
                observer.fail(error, true);
            }
            RunError::Guests { .. } | RunError::NoSuchGuests(_) => {
                let probe = FaultPlan::fault_free(&plan.target);
                let Ran { execution, late } = self.runner.run(&probe, How::Fresh);
                observer.add_late(late);
                match execution {
                    Ok(execution) => {
                        observer.add_late(reported(probe, execution));
                        observer.fail(error, false);
                    }
                    Err(RunError::Starved) => observer.fail(error, false),
                    Err(RunError::Stopped) => observer.fail(RunError::Stopped, true),
                    Err(_) => observer.fail(error, true),
                }
            }
        }
    }
}

impl<R> HasObservers for PlanExecutor<'_, R> {
    type Observers = Observers;

    fn observers(&self) -> RefIndexable<&Self::Observers, Self::Observers> {
        RefIndexable::from(&self.observers)
    }

    fn observers_mut(&mut self) -> RefIndexable<&mut Self::Observers, Self::Observers> {
        RefIndexable::from(&mut self.observers)
    }
}

impl<EM, R: Runner, S: HasExecutions, Z> Executor<EM, PlanInput, S, Z> for PlanExecutor<'_, R> {
    fn run_target(&mut self, _: &mut Z, state: &mut S, _: &mut EM, input: &PlanInput) -> Result<ExitKind, Error> {
        if (self.must_end)() {
            self.fail(&input.0, RunError::Stopped);
            return Ok(ExitKind::Ok);
        }
        let Ran { execution, late } = self.runner.run(&input.0, How::Warm);
        self.observers.observed_mut().add_late(late);
        match execution {
            Ok(execution) => {
                *state.executions_mut() += 1;
                let exit_kind = exit_kind(&execution);
                // A plan that kills its guest is nothing to mutate further.
                let unknown_pcs = match execution.guest {
                    Fate::Dead => 0,
                    _ => mark_coverage(&mut self.observers.0, &self.kernel, &execution),
                };
                self.observers.observed_mut().set(execution, unknown_pcs);
                Ok(exit_kind)
            }
            Err(error) => {
                self.fail(&input.0, error);
                Ok(ExitKind::Ok)
            }
        }
    }
}

/// Gives what the `execution` of a plan in a fresh guest reports, beside the run that it is for.
fn reported(plan: FaultPlan, execution: Execution) -> Vec<Attributed> {
    let Execution { findings, fired, console, history, .. } = execution;
    let attributed = Attributed { plan, how: How::Fresh, fired, findings, console, history };
    (!attributed.findings.is_empty()).then_some(attributed).into_iter().collect()
}

/// Gives LibAFL's kind of exit, which follows from the findings.
pub(crate) fn exit_kind(execution: &Execution) -> ExitKind {
    match execution.findings.first().map(|finding| finding.kind) {
        Some(FindingKind::Hang) => ExitKind::Timeout,
        Some(_) => ExitKind::Crash,
        None => ExitKind::Ok,
    }
}

/// Marks in `map` what `execution` covered. Returns how many addresses are no known call site.
fn mark_coverage(map: &mut CoverageMap, kernel: &CampaignKernel, execution: &Execution) -> u64 {
    let mut unknown = 0;
    for (role, pc) in execution.covered() {
        match kernel.index_of(role, pc) {
            Some(index) => map.as_mut().set(index, 1),
            None => unknown += 1,
        }
    }
    unknown
}

#[cfg(test)]
mod tests {
    use execution::Finding;

    use super::*;
    use crate::fake;

    #[test]
    fn the_kind_of_exit_follows_from_the_findings() {
        let report = |kind| Finding { kind, ..fake::warning("title") };
        let kind = |findings| exit_kind(&Execution { findings, ..fake::quiet() });
        assert_eq!(kind(Vec::new()), ExitKind::Ok);
        assert_eq!(kind(vec![Finding::leftover("mount", "a mount", "")]), ExitKind::Crash);
        assert_eq!(kind(vec![report(FindingKind::Kasan), report(FindingKind::Hang)]), ExitKind::Crash);
        assert_eq!(kind(vec![report(FindingKind::Hang)]), ExitKind::Timeout);
    }
}
