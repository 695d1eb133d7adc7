//! Plans for the checkers' kernel.

use std::borrow::Cow;

use libafl::{
    Error,
    corpus::Testcase,
    executors::ExitKind,
    feedbacks::{Feedback, StateInitializer},
};
use libafl_bolts::Named;

use crate::{input::PlanInput, observers::Observers, second_kernel::SecondKernelQueue};

/// The feedback around another one that offers each execution to the checkers' kernel, with the other
/// one's verdict.
///
/// LibAFL asks the objective first, and asks the feedback about what is no solution. So the one around
/// the objective offers the solutions, and the one around the feedback all other executions.
pub(crate) struct OfferFeedback<'a, F> {
    inner: F,
    /// Whether it is the one around the objective.
    solutions: bool,
    queue: Option<&'a SecondKernelQueue>,
}

impl<'a, F> OfferFeedback<'a, F> {
    /// Makes the one around the objective, that offers solutions to `queue`, where somebody checks.
    pub(crate) fn solutions(inner: F, queue: Option<&'a SecondKernelQueue>) -> Self {
        Self { inner, solutions: true, queue }
    }

    /// Makes the one around the feedback, that offers what is no solution.
    pub(crate) fn others(inner: F, queue: Option<&'a SecondKernelQueue>) -> Self {
        Self { inner, solutions: false, queue }
    }
}

impl<F: Named> Named for OfferFeedback<'_, F> {
    fn name(&self) -> &Cow<'static, str> {
        self.inner.name()
    }
}

impl<F: StateInitializer<S>, S> StateInitializer<S> for OfferFeedback<'_, F> {
    fn init_state(&mut self, state: &mut S) -> Result<(), Error> {
        self.inner.init_state(state)
    }
}

impl<EM, F, S> Feedback<EM, PlanInput, Observers, S> for OfferFeedback<'_, F>
where
    F: Feedback<EM, PlanInput, Observers, S>,
{
    fn is_interesting(
        &mut self,
        state: &mut S,
        manager: &mut EM,
        input: &PlanInput,
        observers: &Observers,
        exit_kind: &ExitKind,
    ) -> Result<bool, Error> {
        let interesting = self.inner.is_interesting(state, manager, input, observers, exit_kind)?;
        if let (Some(queue), Some(execution)) = (self.queue, observers.1.0.execution())
            && (interesting || !self.solutions)
        {
            queue.offer(input, execution, interesting && !self.solutions);
        }
        Ok(interesting)
    }

    fn append_metadata(
        &mut self,
        state: &mut S,
        manager: &mut EM,
        observers: &Observers,
        testcase: &mut Testcase<PlanInput>,
    ) -> Result<(), Error> {
        self.inner.append_metadata(state, manager, observers, testcase)
    }
}
