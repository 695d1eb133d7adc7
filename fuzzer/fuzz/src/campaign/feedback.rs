//! What makes an execution worth keeping, and what makes it a finding.

use std::{borrow::Cow, sync::Arc, time::Duration};

use libafl::{
    Error, HasMetadata,
    corpus::Testcase,
    executors::ExitKind,
    feedbacks::{Feedback, StateInitializer},
};
use libafl_bolts::Named;

use super::{
    CampaignKernel,
    book::{Books, KernelBook},
    catalogue::Reached,
    crashes::Crashes,
    executor::Observers,
    input::PlanInput,
};
use crate::execution::Execution;

/// Interesting is an execution that reached an injection site never seen before. Notes for each corpus entry which
/// sites it reached.
pub(super) struct NewSiteFeedback {
    checks: Option<Arc<Books>>,
}

impl NewSiteFeedback {
    /// Hands the corpus entries on to `checks`, where somebody checks.
    #[must_use]
    pub(super) fn new(checks: Option<Arc<Books>>) -> Self {
        Self { checks }
    }
}

impl Named for NewSiteFeedback {
    fn name(&self) -> &Cow<'static, str> {
        const { &Cow::Borrowed("sites") }
    }
}

impl<S> StateInitializer<S> for NewSiteFeedback {}

impl<EM, S> Feedback<EM, PlanInput, Observers, S> for NewSiteFeedback {
    fn is_interesting(
        &mut self,
        _: &mut S,
        _: &mut EM,
        _: &PlanInput,
        observers: &Observers,
        _: &ExitKind,
    ) -> Result<bool, Error> {
        Ok(observers.1.0.has_new_site())
    }

    fn append_metadata(
        &mut self,
        _: &mut S,
        _: &mut EM,
        observers: &Observers,
        testcase: &mut Testcase<PlanInput>,
    ) -> Result<(), Error> {
        let execution = observers.1.0.execution();
        testcase.add_metadata(Reached::new(execution.map_or(&[][..], |execution| &execution.hits)));
        if let (Some(books), Some(plan), Some(execution)) = (&self.checks, testcase.input(), execution) {
            books.checks.offer(plan, execution, true);
        }
        Ok(())
    }
}

/// A finding is a kernel report or hang with a title that the campaign does not have, or has without a plan that makes it
/// again. It is on disk before it counts.
#[derive(Clone)]
pub(super) struct NewCrashFeedback {
    books: Arc<Books>,
    book: Arc<KernelBook>,
}

impl NewCrashFeedback {
    /// Findings on the kernel of `book` are written to `books`.
    #[must_use]
    pub(super) fn new(books: Arc<Books>, book: Arc<KernelBook>) -> Self {
        Self { books, book }
    }

    /// Where the findings are.
    pub(super) fn crashes(&self) -> &Crashes {
        &self.books.crashes
    }

    /// The kernel on which they are found.
    pub(super) fn kernel(&self) -> &CampaignKernel {
        &self.book.kernel
    }

    /// Whether this start of the campaign is older than `age`.
    pub(super) fn is_older_than(&self, age: Duration) -> bool {
        self.books.age() > age
    }

    /// Writes the crashes that `execution` ended in. Returns whether one was worth it.
    ///
    /// # Errors
    ///
    /// The folder cannot be written.
    pub(super) fn note(&self, plan: &PlanInput, execution: &Execution) -> Result<bool, Error> {
        self.crashes().note(self.kernel(), plan, execution)
    }
}

impl Named for NewCrashFeedback {
    fn name(&self) -> &Cow<'static, str> {
        const { &Cow::Borrowed("crashes") }
    }
}

impl<S> StateInitializer<S> for NewCrashFeedback {}

impl<EM, S> Feedback<EM, PlanInput, Observers, S> for NewCrashFeedback {
    fn is_interesting(
        &mut self,
        _: &mut S,
        _: &mut EM,
        input: &PlanInput,
        observers: &Observers,
        _: &ExitKind,
    ) -> Result<bool, Error> {
        observers.1.0.execution().map_or(Ok(false), |execution| self.note(input, execution))
    }
}
