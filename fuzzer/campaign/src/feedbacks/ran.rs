//! Plans that ran, so that the search does not run them again.

use std::{borrow::Cow, cell::RefCell, rc::Rc};

use libafl::{
    Error,
    executors::ExitKind,
    feedbacks::{Feedback, StateInitializer},
    fuzzer::InputFilter,
};
use libafl_bolts::Named;

use crate::{
    input::PlanInput,
    observers::{Observed, Observers},
    recent::{RecentSet, digest},
};

/// Plans that are remembered at least: four hours of a guest that runs twenty in a second. Then a
/// plan may run once more, which costs less than to leave out one that never ran.
const ROOM: usize = 1 << 18;

/// Makes the feedback that notes which plans ran, and the filter that lets no such plan run again.
pub(crate) fn ran() -> (RanFeedback, RanFilter) {
    let plans = Rc::new(RefCell::new(RecentSet::new(ROOM)));
    (RanFeedback(Rc::clone(&plans)), RanFilter(plans))
}

/// The feedback that notes each plan that ran. Never interesting.
pub(crate) struct RanFeedback(Rc<RefCell<RecentSet>>);

impl Named for RanFeedback {
    fn name(&self) -> &Cow<'static, str> {
        const { &Cow::Borrowed("ran") }
    }
}

impl<S> StateInitializer<S> for RanFeedback {}

impl<EM, S> Feedback<EM, PlanInput, Observers, S> for RanFeedback {
    fn is_interesting(
        &mut self,
        _: &mut S,
        _: &mut EM,
        plan: &PlanInput,
        observers: &Observers,
        _: &ExitKind,
    ) -> Result<bool, Error> {
        if observers.observed().execution().is_some() {
            self.0.borrow_mut().insert(digest(plan));
        }
        Ok(false)
    }
}

/// LibAFL's filter of what the mutations make.
pub(crate) struct RanFilter(Rc<RefCell<RecentSet>>);

impl<EM, S> InputFilter<EM, PlanInput, S> for RanFilter {
    fn should_execute(&mut self, plan: &PlanInput, _: &mut S, _: &mut EM) -> Result<bool, Error> {
        Ok(!self.0.borrow().contains(digest(plan)))
    }
}

#[cfg(test)]
mod tests {
    use execution::RunError;

    use super::*;
    use crate::fake;

    #[test]
    fn only_a_plan_that_ran_is_left_out() {
        let (mut feedback, mut filter) = ran();
        let plan = |occurrence| PlanInput(fake::plan(fake::caller(1), occurrence));
        let mut observed = |occurrence, runs: bool| {
            let mut observers = fake::observers();
            if runs {
                observers.observed_mut().set(fake::quiet(), 0);
            } else {
                observers.observed_mut().fail(RunError::Starved, false);
            }
            let kind = ExitKind::Ok;
            let plan = plan(occurrence);
            Feedback::<(), _, _, ()>::is_interesting(&mut feedback, &mut (), &mut (), &plan, &observers, &kind).unwrap()
        };
        assert!(!observed(1, true) && !observed(2, false));
        let mut runs = |occurrence| filter.should_execute(&plan(occurrence), &mut (), &mut ()).unwrap();
        assert!(!runs(1));
        assert!(runs(2) && runs(2), "no guest got through it, and asking is not running");
    }
}
