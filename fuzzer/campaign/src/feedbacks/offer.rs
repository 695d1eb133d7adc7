//! Plans for the checkers' kernel.

use std::borrow::Cow;

use libafl::{
    Error,
    corpus::Testcase,
    executors::ExitKind,
    feedbacks::{Feedback, StateInitializer},
};
use libafl_bolts::Named;

use crate::{
    error::ends_search,
    input::PlanInput,
    observers::{Observed, Observers},
    second_kernel::SecondKernelQueue,
};

/// The feedback around another one that offers each execution to the checkers' kernel, with the
/// other one's verdict.
///
/// LibAFL asks the objective first, and asks the feedback about what is no solution. So the one
/// around the objective offers the solutions, and the one around the feedback all other executions.
pub(crate) struct OfferFeedback<'a, F> {
    inner: F,
    /// True when it is the one around the objective.
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
        if let (Some(queue), Some(execution)) = (self.queue, observers.observed().execution())
            && (interesting || !self.solutions)
        {
            let plan = input.fired_only(execution);
            queue.offer(&plan, execution, interesting && !self.solutions).map_err(ends_search)?;
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use execution::Execution;
    use libafl::feedbacks::ConstFeedback;

    use super::*;
    use crate::fake;

    /// Asks objective and feedback with these verdicts as LibAFL does, about one execution of each
    /// plan.
    fn ask(queue: &SecondKernelQueue, occurrences: &[u32], objective: bool, feedback: bool) {
        let mut objective = OfferFeedback::solutions(ConstFeedback::new(objective), Some(queue));
        let mut feedback = OfferFeedback::others(ConstFeedback::new(feedback), Some(queue));
        for occurrence in occurrences {
            let plan = PlanInput(fake::plan(fake::caller(1), *occurrence));
            let mut observers = fake::observers();
            let fired = fake::fired(0, 1);
            observers.observed_mut().set(Execution { fired: vec![fired], ..fake::quiet() }, 0);
            let ask = |feedback: &mut OfferFeedback<'_, ConstFeedback>| {
                let kind = ExitKind::Ok;
                Feedback::<(), _, _, ()>::is_interesting(feedback, &mut (), &mut (), &plan, &observers, &kind).unwrap()
            };
            if !ask(&mut objective) {
                ask(&mut feedback);
            }
        }
    }

    fn waiting(queue: &SecondKernelQueue) -> Vec<u32> {
        let next = || queue.take(Duration::ZERO).map(|queued| queued.plan.0.faults[0].occurrence);
        std::iter::from_fn(next).collect()
    }

    #[test]
    fn each_execution_is_offered_once_with_the_verdict() {
        let queue = fake::queue();
        ask(&queue, &[1, 2], false, false);
        assert_eq!(queue.counts().waiting, 1, "the second one shows nothing new");
        ask(&queue, &[3, 4], false, true);
        assert_eq!(queue.counts().waiting, 3, "an entry has a reason to wait, and waits once");
        assert_eq!(waiting(&queue), [3, 4, 1], "entries come first");
        let queue = fake::queue();
        ask(&queue, &[5], true, true);
        assert_eq!(waiting(&queue), [5], "a solution is offered although no feedback is asked");
    }
}
