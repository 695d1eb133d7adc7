//! The plans that a campaign begins with.

use std::{borrow::Cow, cell::Cell, rc::Rc};

use libafl::{
    Error,
    executors::ExitKind,
    feedbacks::{Feedback, StateInitializer},
};
use libafl_bolts::Named;

use crate::{input::PlanInput, observers::Observers};

/// The feedback that is interested in all that runs while a client loads the plans to begin with:
/// they are kept although they reach nothing new.
pub(crate) struct LoadingFeedback {
    loading: Rc<Cell<bool>>,
}

impl LoadingFeedback {
    /// Makes the feedback of a client that says with `loading` whether it loads.
    pub(crate) fn new(loading: Rc<Cell<bool>>) -> Self {
        Self { loading }
    }
}

impl Named for LoadingFeedback {
    fn name(&self) -> &Cow<'static, str> {
        const { &Cow::Borrowed("loading") }
    }
}

impl<S> StateInitializer<S> for LoadingFeedback {}

impl<EM, S> Feedback<EM, PlanInput, Observers, S> for LoadingFeedback {
    fn is_interesting(
        &mut self,
        _: &mut S,
        _: &mut EM,
        _: &PlanInput,
        _: &Observers,
        _: &ExitKind,
    ) -> Result<bool, Error> {
        Ok(self.loading.get())
    }
}
