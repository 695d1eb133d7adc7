//! What makes an execution worth keeping, and what makes it a finding.

use std::{borrow::Cow, collections::BTreeMap, sync::Arc};

use libafl::{
    Error, HasMetadata,
    corpus::Testcase,
    executors::ExitKind,
    feedbacks::{Feedback, StateInitializer},
};
use libafl_bolts::{Named, impl_serdeany};
use serde::{Deserialize, Serialize};

use super::{catalogue::Reached, crash::Crash, executor::Observers, folder::CampaignFolder, input::PlanInput};
use crate::execution::Execution;

/// Interesting is an execution that reached an injection site never seen before. Notes for each corpus entry which
/// sites it reached.
#[derive(Debug, Default)]
pub(super) struct NewSiteFeedback;

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
        let hits = observers.1.0.execution().map_or(&[][..], |execution| &execution.hits);
        testcase.add_metadata(Reached::new(hits));
        Ok(())
    }
}

/// The titles of the crashes that the campaign has, and what is known of their reproducers.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct CrashTitles(pub(super) BTreeMap<String, Standing>);

impl_serdeany!(CrashTitles);

/// What is known of a crash's reproducer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Standing {
    /// It was not tried yet; so many others were, in vain.
    Untried(u32),
    /// It made the crash again.
    Reproduced,
    /// It did not, and so many with it.
    Doubtful(u32),
}

/// How many plans are tried as the reproducer of one crash.
const MOST_CANDIDATES: u32 = 4;

impl CrashTitles {
    /// How many plans were tried in vain for a crash for which another one is welcome; nothing where none is.
    fn wanted(&self, title: &str) -> Option<u32> {
        match self.0.get(title) {
            None => Some(0),
            Some(Standing::Doubtful(tried)) if *tried < MOST_CANDIDATES => Some(*tried),
            Some(_) => None,
        }
    }

    /// Takes in how often the reproducer of a crash made it again.
    pub(super) fn tried(&mut self, title: &str, reproduced: u32) {
        let before = if let Some(Standing::Untried(before)) = self.0.get(title) { *before } else { 0 };
        let standing = if reproduced > 0 { Standing::Reproduced } else { Standing::Doubtful(before + 1) };
        self.0.insert(title.to_owned(), standing);
    }
}

/// Crashes whose reproducers were not tried yet.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Untried(pub(super) Vec<(String, PlanInput)>);

impl_serdeany!(Untried);

/// A finding is a kernel report or hang with a title that the campaign does not have, or has without a plan that makes it
/// again. It is on disk before it counts.
#[derive(Clone, Debug)]
pub(super) struct NewCrashFeedback {
    folder: Arc<CampaignFolder>,
}

impl NewCrashFeedback {
    /// Findings are written to `folder`.
    #[must_use]
    pub(super) fn new(folder: Arc<CampaignFolder>) -> Self {
        Self { folder }
    }
}

impl Named for NewCrashFeedback {
    fn name(&self) -> &Cow<'static, str> {
        const { &Cow::Borrowed("crashes") }
    }
}

impl<S> StateInitializer<S> for NewCrashFeedback {}

impl<EM, S: HasMetadata> Feedback<EM, PlanInput, Observers, S> for NewCrashFeedback {
    fn is_interesting(
        &mut self,
        state: &mut S,
        _: &mut EM,
        input: &PlanInput,
        observers: &Observers,
        _: &ExitKind,
    ) -> Result<bool, Error> {
        observers.1.0.execution().map_or(Ok(false), |execution| self.note(state, input, execution))
    }
}

impl NewCrashFeedback {
    /// Writes the crashes that `execution` ended in, those whose titles are new or whose reproducers are no good.
    /// Returns whether there is one.
    ///
    /// # Errors
    ///
    /// The folder cannot be written.
    pub(super) fn note<S: HasMetadata>(
        &self,
        state: &mut S,
        input: &PlanInput,
        execution: &Execution,
    ) -> Result<bool, Error> {
        let mut found = false;
        for report in execution.reports() {
            let title = &report.title;
            let Some(before) = state.metadata_or_insert_with(CrashTitles::default).wanted(title) else { continue };
            let crash = Crash { report, plan: &input.0, execution };
            self.folder.write_crash(&crash).map_err(|error| Error::unknown(crate::chain(&error)))?;
            tracing::info!(title, "{}", if before == 0 { "new crash" } else { "another plan for a known crash" });
            let titles = state.metadata_or_insert_with(CrashTitles::default);
            titles.0.insert(title.clone(), Standing::Untried(before));
            state.metadata_or_insert_with(Untried::default).0.push((title.clone(), input.clone()));
            found = true;
        }
        Ok(found)
    }
}
