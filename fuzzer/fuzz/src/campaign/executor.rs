//! LibAFL's executor over a [`Runner`].

use std::{sync::Arc, time::Instant};

use fault_plan::FaultPlan;
use kcov_parser::CallSites;
use libafl::{
    Error, HasMetadata,
    executors::{Executor, ExitKind, HasObservers},
    observers::{ExplicitTracking, TimeObserver},
    state::HasExecutions,
};
use libafl_bolts::{impl_serdeany, tuples::RefIndexable};
use serde::{Deserialize, Serialize};

use super::{
    catalogue::Catalogue,
    feedback::NewCrashFeedback,
    input::PlanInput,
    observers::{CoverageMap, ExecutionObserver, mark_coverage},
};
use crate::{
    execution::{ExecuteError, Execution, Outcome, Runner},
    guest::Stop,
    target::Target,
};

/// The coverage map with the indices that the scheduler wants.
pub(super) type Coverage = ExplicitTracking<CoverageMap, true, false>;
/// The observers of a campaign.
pub(super) type Observers = (Coverage, (ExecutionObserver, (TimeObserver, ())));

/// Counts that no LibAFL statistic has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    /// Executions whose plan has a fault.
    pub with_faults: u64,
    /// Those of them in which at least one fault fired.
    pub fired: u64,
    /// Executions that ended in a kernel report.
    pub crashed: u64,
    /// Executions that hung.
    pub hung: u64,
    /// Plans that a guest refused.
    pub refused: u64,
    /// Plans given up because guests failed under them, or because the host was too busy to tell whether they hang.
    pub given_up: u64,
    /// Executions with more calls or coverage than a guest has room to record.
    pub incomplete: u64,
    /// Calls left alone because the kernel promises that they do not fail.
    pub guarded: u64,
    /// Covered addresses that are no known place of the coverage function.
    pub unknown_pcs: u64,
}

impl_serdeany!(Counters);

/// Runs plans in guests.
pub(super) struct PlanExecutor<R> {
    runner: R,
    observers: Observers,
    call_sites: Arc<CallSites>,
    crashes: NewCrashFeedback,
    fault_free: FaultPlan,
    stop: Stop,
    deadline: Option<Instant>,
}

impl<R: Runner> PlanExecutor<R> {
    /// An executor of plans for `target` that marks coverage by `call_sites`, hands late reports to `crashes`, and ends
    /// the campaign once `stop` is set or `deadline` passed.
    pub(super) fn new(
        runner: R,
        observers: Observers,
        call_sites: Arc<CallSites>,
        crashes: NewCrashFeedback,
        target: &Target,
        (stop, deadline): (Stop, Option<Instant>),
    ) -> Self {
        Self { runner, observers, call_sites, crashes, fault_free: target.fault_free(), stop, deadline }
    }

    /// Counts a plan that could not be run to an end.
    ///
    /// # Errors
    ///
    /// The user wants to stop, or guests fail under the fault-free plan as well.
    fn give_up<S: HasMetadata>(&mut self, state: &mut S, plan: &FaultPlan, error: &ExecuteError) -> Result<(), Error> {
        let counters = state.metadata_or_insert_with(Counters::default);
        match error {
            ExecuteError::Stopped => return Err(Error::shutting_down()),
            ExecuteError::Refused(reason) => {
                tracing::debug!(reason, "plan refused");
                counters.refused += 1;
            }
            ExecuteError::Starved => {
                tracing::warn!("{error}");
                counters.given_up += 1;
            }
            ExecuteError::Guest { .. } => {
                let works = !plan.faults.is_empty() && self.runner.run_fresh(&self.fault_free).is_ok();
                if !works {
                    return Err(Error::unknown(crate::chain(error)));
                }
                tracing::warn!("no guest gets through a plan, leaving it out: {}", crate::chain(error));
                counters.given_up += 1;
            }
        }
        Ok(())
    }

    /// Writes what the kernel reported after the end of earlier executions.
    ///
    /// # Errors
    ///
    /// The folder cannot be written.
    pub(super) fn note_late<S: HasMetadata>(&mut self, state: &mut S) -> Result<(), Error> {
        for (plan, execution) in self.runner.take_late() {
            self.crashes.note(state, &PlanInput(plan), &execution)?;
        }
        Ok(())
    }

    /// Where the kernel can report coverage.
    pub(super) fn call_sites(&self) -> &CallSites {
        &self.call_sites
    }

    /// What runs the plans.
    pub(super) fn runner(&mut self) -> &mut R {
        &mut self.runner
    }

    /// Whether the campaign is to end.
    pub(super) fn must_stop(&self) -> bool {
        self.interrupted() || self.deadline.is_some_and(|deadline| Instant::now() >= deadline)
    }

    /// Whether the user interrupted the campaign.
    pub(super) fn interrupted(&self) -> bool {
        self.stop.is_requested()
    }
}

impl<R> HasObservers for PlanExecutor<R> {
    type Observers = Observers;

    fn observers(&self) -> RefIndexable<&Self::Observers, Self::Observers> {
        RefIndexable::from(&self.observers)
    }

    fn observers_mut(&mut self) -> RefIndexable<&mut Self::Observers, Self::Observers> {
        RefIndexable::from(&mut self.observers)
    }
}

impl<EM, R, S, Z> Executor<EM, PlanInput, S, Z> for PlanExecutor<R>
where
    R: Runner,
    S: HasExecutions + HasMetadata,
{
    fn run_target(&mut self, _: &mut Z, state: &mut S, _: &mut EM, input: &PlanInput) -> Result<ExitKind, Error> {
        if self.must_stop() {
            return Err(Error::shutting_down());
        }
        let result = self.runner.run(&input.0);
        self.note_late(state)?;
        let execution = match result {
            Ok(execution) => execution,
            Err(error) => return self.give_up(state, &input.0, &error).map(|()| ExitKind::Ok),
        };
        *state.executions_mut() += 1;
        let unknown_pcs = mark_coverage(self.observers.0.as_mut(), &self.call_sites, &execution.coverage);
        let new_site = count(state, input, &execution, unknown_pcs);
        let exit_kind = match execution.outcome {
            Outcome::Completed => ExitKind::Ok,
            Outcome::Crashed(_) => ExitKind::Crash,
            Outcome::Hung(_) => ExitKind::Timeout,
        };
        self.observers.1.0.set(execution, new_site);
        Ok(exit_kind)
    }
}

/// Counts what happened. Returns whether a site was reached that was never seen before.
fn count<S: HasMetadata>(state: &mut S, input: &PlanInput, execution: &Execution, unknown_pcs: u64) -> bool {
    let counters = state.metadata_or_insert_with(Counters::default);
    counters.with_faults += u64::from(!input.0.faults.is_empty());
    counters.fired += u64::from(!execution.fired.is_empty());
    counters.crashed += u64::from(matches!(execution.outcome, Outcome::Crashed(_)));
    counters.hung += u64::from(matches!(execution.outcome, Outcome::Hung(_)));
    counters.guarded += u64::from(execution.guarded);
    counters.unknown_pcs += unknown_pcs;
    if execution.incomplete {
        if counters.incomplete == 0 {
            tracing::warn!("the workload is longer than a guest has room to record: what comes last does not count");
        }
        counters.incomplete += 1;
    }
    let catalogue = state.metadata_or_insert_with(Catalogue::default);
    let new_site = catalogue.learn(&execution.new_sites, &execution.hits);
    execution.fired.iter().for_each(|fired| catalogue.fired(fired.site));
    new_site
}
