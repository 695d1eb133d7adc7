//! LibAFL's executor over a [`Runner`].

use std::{sync::Arc, time::Instant};

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
    input::PlanInput,
    observers::{CoverageMap, ExecutionObserver, mark_coverage},
};
use crate::{
    execution::{ExecuteError, Execution, Outcome, Runner},
    guest::Stop,
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
    stop: Stop,
    deadline: Option<Instant>,
}

impl<R: Runner> PlanExecutor<R> {
    /// An executor that marks coverage by `call_sites` and ends the campaign once `stop` is set or `deadline` passed.
    pub(super) fn new(
        runner: R,
        observers: Observers,
        call_sites: Arc<CallSites>,
        stop: Stop,
        deadline: Option<Instant>,
    ) -> Self {
        Self { runner, observers, call_sites, stop, deadline }
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
        let execution = match self.runner.run(&input.0) {
            Ok(execution) => execution,
            Err(ExecuteError::Stopped) => return Err(Error::shutting_down()),
            Err(ExecuteError::Refused(reason)) => {
                tracing::debug!(reason, "plan refused");
                state.metadata_or_insert_with(Counters::default).refused += 1;
                return Ok(ExitKind::Ok);
            }
            Err(error @ ExecuteError::Guest { .. }) => return Err(Error::unknown(crate::chain(&error))),
        };
        *state.executions_mut() += 1;
        let unknown_pcs = mark_coverage(self.observers.0.as_mut(), &self.call_sites, &execution.coverage);
        count(state, input, &execution, unknown_pcs);
        let exit_kind = match execution.outcome {
            Outcome::Completed => ExitKind::Ok,
            Outcome::Crashed(_) => ExitKind::Crash,
            Outcome::Hung(_) => ExitKind::Timeout,
        };
        self.observers.1.0.set(execution);
        Ok(exit_kind)
    }
}

fn count<S: HasMetadata>(state: &mut S, input: &PlanInput, execution: &Execution, unknown_pcs: u64) {
    let counters = state.metadata_or_insert_with(Counters::default);
    counters.with_faults += u64::from(!input.0.faults.is_empty());
    counters.fired += u64::from(!execution.fired.is_empty());
    counters.crashed += u64::from(matches!(execution.outcome, Outcome::Crashed(_)));
    counters.hung += u64::from(matches!(execution.outcome, Outcome::Hung(_)));
    counters.guarded += u64::from(execution.guarded);
    counters.unknown_pcs += unknown_pcs;
    let catalogue = state.metadata_or_insert_with(Catalogue::default);
    for fired in &execution.fired {
        if let Some(fault) = input.0.faults.get(fired.fault) {
            catalogue.fired(&fault.function, &fired.call_path);
        }
    }
}
