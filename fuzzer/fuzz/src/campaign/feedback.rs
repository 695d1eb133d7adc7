//! What makes an execution worth keeping, and what makes it a finding.

use std::{borrow::Cow, collections::BTreeSet, sync::Arc};

use libafl::{
    Error, HasMetadata,
    corpus::Testcase,
    executors::ExitKind,
    feedbacks::{Feedback, StateInitializer},
};
use libafl_bolts::{Named, impl_serdeany};
use serde::{Deserialize, Serialize};

use super::{
    catalogue::{Catalogue, Reached},
    crash::Crash,
    executor::Observers,
    folder::CampaignFolder,
    input::PlanInput,
};
use crate::execution::Execution;

/// Interesting is an execution that reached an injection site never seen before. Also keeps the catalogue, and
/// notes for each corpus entry which sites it reached.
#[derive(Debug, Default)]
pub(super) struct NewSiteFeedback;

impl Named for NewSiteFeedback {
    fn name(&self) -> &Cow<'static, str> {
        const { &Cow::Borrowed("sites") }
    }
}

impl<S> StateInitializer<S> for NewSiteFeedback {}

impl<EM, S: HasMetadata> Feedback<EM, PlanInput, Observers, S> for NewSiteFeedback {
    fn is_interesting(
        &mut self,
        state: &mut S,
        _: &mut EM,
        _: &PlanInput,
        observers: &Observers,
        _: &ExitKind,
    ) -> Result<bool, Error> {
        let Some(execution) = observers.1.0.execution() else { return Ok(false) };
        Ok(state.metadata_or_insert_with(Catalogue::default).learn(&execution.new_sites, &execution.hits))
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

/// The titles of the crashes that the campaign has.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct CrashTitles(pub(super) BTreeSet<String>);

impl_serdeany!(CrashTitles);

/// Crashes whose reproducers were not tried yet.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Untried(pub(super) Vec<(String, PlanInput)>);

impl_serdeany!(Untried);

/// A finding is a kernel report or hang with a title that the campaign does not have. It is on disk before it counts.
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
    /// Writes the crash that `execution` ended in, if it did and its title is new. Returns whether it was.
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
        let Some(report) = execution.outcome.report() else { return Ok(false) };
        if state.metadata_or_insert_with(CrashTitles::default).0.contains(&report.title) {
            return Ok(false);
        }
        let crash = Crash { title: &report.title, plan: &input.0, execution };
        self.folder.write_crash(&crash).map_err(|error| Error::unknown(crate::chain(&error)))?;
        tracing::info!(title = report.title, "new crash");
        state.metadata_or_insert_with(CrashTitles::default).0.insert(report.title.clone());
        state.metadata_or_insert_with(Untried::default).0.push((report.title.clone(), input.clone()));
        Ok(true)
    }
}
