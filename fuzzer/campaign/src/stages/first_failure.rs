//! First failures: the deterministic part of the search.

use std::sync::Arc;

use execution::{RunError, Runner};
use libafl::{
    Error,
    executors::HasObservers,
    fuzzer::Evaluator,
    stages::{Restartable, Stage},
};

use crate::{
    executor::PlanExecutor,
    input::PlanInput,
    kernels::KnownKernel,
    matrix::{Reach, Tried},
    observers::{ExecutionObserver, Observed},
};

/// The stage that fails the open cells of the matrix: each point with each error, on top of as few
/// faults as reach it. It does not look at the current corpus entry.
pub(crate) struct FirstFailureStage {
    known: Arc<KnownKernel>,
    reach: Reach,
    most: usize,
}

impl FirstFailureStage {
    /// Makes a stage for the cells in `reach` on the kernel `known`, so many at a time.
    pub(crate) fn new(known: Arc<KnownKernel>, reach: Reach, most: usize) -> Self {
        Self { known, reach, most }
    }
}

fn outcome(observer: &ExecutionObserver) -> Tried {
    match observer.failure() {
        _ if observer.execution().is_some() => Tried::Ran,
        Some(failure) if failure.ends_campaign => Tried::Stopped,
        Some(failure) if matches!(failure.error, RunError::Refused(_)) => Tried::Refused,
        _ => Tried::GivenUp,
    }
}

impl<'a, EM, R: Runner, S, Z> Stage<PlanExecutor<'a, R>, EM, S, Z> for FirstFailureStage
where
    Z: Evaluator<PlanExecutor<'a, R>, EM, PlanInput, S>,
{
    fn perform(
        &mut self,
        fuzzer: &mut Z,
        executor: &mut PlanExecutor<'a, R>,
        state: &mut S,
        manager: &mut EM,
    ) -> Result<(), Error> {
        for _ in 0..self.most {
            let Some(taken) = self.known.matrix().take(self.reach) else { break };
            let evaluated = fuzzer.evaluate_input(state, executor, manager, &PlanInput(taken.plan.clone()));
            let observers = executor.observers();
            let observed = observers.observed();
            let tried = if evaluated.is_ok() { outcome(observed) } else { Tried::Stopped };
            let mut matrix = self.known.matrix();
            if let Some(execution) = observed.execution().filter(|_| tried == Tried::Ran) {
                matrix.missed(&taken, execution);
            }
            matrix.tried(&taken, tried);
            drop(matrix);
            evaluated?;
        }
        Ok(())
    }
}

impl<S> Restartable<S> for FirstFailureStage {
    fn should_restart(&mut self, _: &mut S) -> Result<bool, Error> {
        Ok(true)
    }

    fn clear_progress(&mut self, _: &mut S) -> Result<(), Error> {
        Ok(())
    }
}
