//! New injection sites as a reason to keep a plan.

use std::{borrow::Cow, cell::Cell, rc::Rc, sync::Arc};

use execution::{Execution, Fate};
use libafl::{
    Error, HasMetadata,
    corpus::Testcase,
    executors::ExitKind,
    feedbacks::{Feedback, StateInitializer},
    schedulers::minimizer::IsFavoredMetadata,
};
use libafl_bolts::Named;

use crate::{input::PlanInput, kernels::KnownKernel, observers::Observers};

/// Makes the two feedbacks on the sites of the kernel `known`: the one that is asked about each
/// execution, and the one that makes use of its answer.
pub(crate) fn sites_feedbacks(known: &Arc<KnownKernel>) -> (LearntSitesFeedback, NewSiteFeedback) {
    let is_new = Rc::new(Cell::new(false));
    let learnt = LearntSitesFeedback { known: Arc::clone(known), is_new: Rc::clone(&is_new) };
    (learnt, NewSiteFeedback { known: Arc::clone(known), is_new })
}

/// The feedback that learns the sites of each execution. Never interesting.
pub(crate) struct LearntSitesFeedback {
    known: Arc<KnownKernel>,
    is_new: Rc<Cell<bool>>,
}

impl LearntSitesFeedback {
    /// Takes in the sites that an execution reached. Returns whether one was never seen before.
    fn learn(&self, execution: &Execution) -> bool {
        let mut sites = self.known.sites();
        let new = sites.learn(&execution.sites, &execution.hits);
        execution.fired.iter().for_each(|fired| sites.fired(fired.site));
        if execution.guest != Fate::Alive {
            execution.fired.last().into_iter().for_each(|fired| sites.was_fatal(fired.site));
        }
        new
    }
}

impl Named for LearntSitesFeedback {
    fn name(&self) -> &Cow<'static, str> {
        const { &Cow::Borrowed("learnt sites") }
    }
}

impl<S> StateInitializer<S> for LearntSitesFeedback {}

impl<EM, S> Feedback<EM, PlanInput, Observers, S> for LearntSitesFeedback {
    fn is_interesting(
        &mut self,
        _: &mut S,
        _: &mut EM,
        _: &PlanInput,
        observers: &Observers,
        _: &ExitKind,
    ) -> Result<bool, Error> {
        self.is_new.set(observers.1.0.execution().is_some_and(|execution| self.learn(execution)));
        Ok(false)
    }
}

/// The feedback that is interested in an execution that reached a site never seen before.
///
/// It notes for each corpus entry which sites it reached. It has LibAFL's scheduler favour the
/// entry when a site was new: it is the plan under which that one is to fail first.
pub(crate) struct NewSiteFeedback {
    known: Arc<KnownKernel>,
    is_new: Rc<Cell<bool>>,
}

impl Named for NewSiteFeedback {
    fn name(&self) -> &Cow<'static, str> {
        const { &Cow::Borrowed("new site") }
    }
}

impl<S> StateInitializer<S> for NewSiteFeedback {}

impl<EM, S> Feedback<EM, PlanInput, Observers, S> for NewSiteFeedback {
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
        let hits = observers.1.0.execution().map_or(&[][..], |execution| &execution.hits);
        testcase.add_metadata(self.known.sites().reached(hits));
        if self.is_new.get() {
            testcase.add_metadata(IsFavoredMetadata {});
        }
        Ok(())
    }
}
