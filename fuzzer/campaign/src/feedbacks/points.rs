//! New points as a reason to keep a plan.

use std::{borrow::Cow, cell::Cell, rc::Rc, sync::Arc};

use libafl::{
    Error, HasMetadata,
    corpus::Testcase,
    executors::ExitKind,
    feedbacks::{Feedback, StateInitializer},
    schedulers::minimizer::IsFavoredMetadata,
};
use libafl_bolts::Named;

use crate::{
    input::PlanInput,
    kernels::KnownKernel,
    observers::{Observed, Observers},
};

/// Makes the two feedbacks on the points of the kernel `known`: the one that is asked about each
/// execution, and the one that makes use of its answer.
pub(crate) fn points_feedbacks(known: &Arc<KnownKernel>) -> (LearntPointsFeedback, NewPointFeedback) {
    let is_new = Rc::new(Cell::new(false));
    let learnt = LearntPointsFeedback { known: Arc::clone(known), is_new: Rc::clone(&is_new) };
    (learnt, NewPointFeedback { known: Arc::clone(known), is_new })
}

/// The feedback that learns the points of each execution. Never interesting.
pub(crate) struct LearntPointsFeedback {
    known: Arc<KnownKernel>,
    is_new: Rc<Cell<bool>>,
}

impl Named for LearntPointsFeedback {
    fn name(&self) -> &Cow<'static, str> {
        const { &Cow::Borrowed("learnt points") }
    }
}

impl<S> StateInitializer<S> for LearntPointsFeedback {}

impl<EM, S> Feedback<EM, PlanInput, Observers, S> for LearntPointsFeedback {
    fn is_interesting(
        &mut self,
        _: &mut S,
        _: &mut EM,
        plan: &PlanInput,
        observers: &Observers,
        _: &ExitKind,
    ) -> Result<bool, Error> {
        let execution = observers.observed().execution();
        self.is_new.set(execution.is_some_and(|execution| self.known.learn(&plan.0, execution)));
        Ok(false)
    }
}

/// The feedback that is interested in an execution that reached a point never seen before.
///
/// It notes for each corpus entry which points it reached. It has LibAFL's scheduler favour the
/// entry when a point was new: it is the plan under which that one is to fail first.
pub(crate) struct NewPointFeedback {
    known: Arc<KnownKernel>,
    is_new: Rc<Cell<bool>>,
}

impl Named for NewPointFeedback {
    fn name(&self) -> &Cow<'static, str> {
        const { &Cow::Borrowed("new point") }
    }
}

impl<S> StateInitializer<S> for NewPointFeedback {}

impl<EM, S> Feedback<EM, PlanInput, Observers, S> for NewPointFeedback {
    fn is_interesting(
        &mut self,
        _: &mut S,
        _: &mut EM,
        _: &PlanInput,
        _: &Observers,
        _: &ExitKind,
    ) -> Result<bool, Error> {
        Ok(self.is_new.get())
    }

    fn append_metadata(
        &mut self,
        _: &mut S,
        _: &mut EM,
        observers: &Observers,
        testcase: &mut Testcase<PlanInput>,
    ) -> Result<(), Error> {
        let hits = observers.observed().execution().map_or(&[][..], |execution| &execution.hits);
        testcase.add_metadata(self.known.matrix().reached(hits));
        if self.is_new.get() {
            testcase.add_metadata(IsFavoredMetadata {});
        }
        Ok(())
    }
}
