//! The campaign's own stages, beside LibAFL's mutational one.

use std::{sync::Arc, time::Duration};

use libafl::{
    Error, HasMetadata,
    corpus::HasCurrentCorpusId,
    fuzzer::Evaluator,
    stages::{Restartable, Stage},
    state::{HasCorpus, HasCurrentTestcase, HasRand},
};
use libafl_bolts::rands::StdRand;
use rand::seq::SliceRandom;

use super::{
    book::KernelBook,
    catalogue::{Reached, SiteIndex},
    executor::PlanExecutor,
    feedback::NewCrashFeedback,
    input::PlanInput,
    mutators::MOST_FAULTS,
};
use execution::{Execution, How, Ran, RunError, Runner, Target};

/// First failures made for one corpus entry at a time.
const FIRST_FAILURES: usize = 16;

/// When in a campaign reproducers begin to be tried exactly.
const EXACT_AFTER: Duration = Duration::from_secs(120);

/// Fresh guests in which a new reproducer is tried.
pub(super) const TRIES: u32 = 3;

/// Fails each discovered site once, at its first call, before chance has its turn: the deterministic part of the
/// search. A corpus entry is the plan under which the site was reached.
pub(super) struct FirstFailureStage {
    target: Arc<Target>,
    book: Arc<KernelBook>,
}

impl FirstFailureStage {
    /// A stage for `target` that knows the sites of `book`.
    #[must_use]
    pub(super) fn new(target: Arc<Target>, book: Arc<KernelBook>) -> Self {
        Self { target, book }
    }

    /// Sites to fail next, each with its plan.
    fn next_plans<S>(&self, state: &mut S) -> Result<Vec<(SiteIndex, PlanInput)>, Error>
    where
        S: HasCorpus<PlanInput> + HasCurrentTestcase<PlanInput> + HasMetadata + HasRand<Rand = StdRand>,
    {
        let reached = state.current_testcase()?.metadata_map().get::<Reached>().map(Reached::calls).unwrap_or_default();
        let parent = state.current_input_cloned()?;
        if parent.0.faults.len() >= MOST_FAULTS {
            return Ok(Vec::new());
        }
        let mut generator = *state.rand_mut();
        let catalogue = self.book.sites();
        let mut sites: Vec<_> =
            reached.iter().map(|calls| calls.site).filter(|site| !catalogue.attempted(*site)).collect();
        sites.shuffle(&mut generator);
        sites.truncate(FIRST_FAILURES);
        let mut plans = Vec::new();
        for index in sites {
            let Some(site) = catalogue.get(index) else { continue };
            let Some(error) = self.target.errors(&site.function).first() else { continue };
            let mut plan = parent.0.clone();
            plan.faults.push(site.fault(1, *error));
            plans.push((index, PlanInput(plan)));
        }
        *state.rand_mut() = generator;
        Ok(plans)
    }
}

impl<E, EM, S, Z> Stage<E, EM, S, Z> for FirstFailureStage
where
    S: HasCorpus<PlanInput> + HasCurrentTestcase<PlanInput> + HasMetadata + HasRand<Rand = StdRand>,
    Z: Evaluator<E, EM, PlanInput, S>,
{
    fn perform(&mut self, fuzzer: &mut Z, executor: &mut E, state: &mut S, manager: &mut EM) -> Result<(), Error> {
        for (site, plan) in self.next_plans(state)? {
            fuzzer.evaluate_filtered(state, executor, manager, &plan)?;
            self.book.sites().attempt(site);
        }
        Ok(())
    }
}

impl<S: HasCurrentCorpusId> Restartable<S> for FirstFailureStage {
    fn should_restart(&mut self, _: &mut S) -> Result<bool, Error> {
        Ok(true)
    }

    fn clear_progress(&mut self, _: &mut S) -> Result<(), Error> {
        Ok(())
    }
}

/// Tries the reproducers of new crashes in fresh guests and notes how often each made its crash again.
#[derive(Clone)]
pub(super) struct TriageStage {
    crashes: NewCrashFeedback,
}

impl TriageStage {
    /// A stage that tries the crashes found by `crashes`, and notes there what else it comes across.
    #[must_use]
    pub(super) fn new(crashes: NewCrashFeedback) -> Self {
        Self { crashes }
    }

    /// Tries every reproducer that was not tried yet and whose crash has been known for the time `age`, but of those of other
    /// hosts one: the search must go on however many they have. One with which all guests fail is left for the next start.
    ///
    /// # Errors
    ///
    /// The folder cannot be written, or the user wants to stop.
    pub(super) fn triage<R: Runner>(&self, runner: &mut R, age: Duration) -> Result<(), Error> {
        let crashes = self.crashes.crashes();
        while let Some(untried) = crashes.take_untried(self.crashes.kernel(), age) {
            let title = &untried.title;
            let (mut tries, mut reproduced) = (0, 0);
            for _ in 0..TRIES {
                match self.tried(title, runner.run(&untried.plan.0, How::Fresh)) {
                    Ok(Some(execution)) => {
                        tries += 1;
                        reproduced += u32::from(execution.has_title(title));
                        self.crashes.note(&untried.plan, &execution)?;
                    }
                    Ok(None) => break,
                    Err(error) => {
                        crashes.put_back(untried);
                        return Err(error);
                    }
                }
            }
            tracing::info!(title, "reproduced {reproduced} of {tries} times in fresh guests");
            let foreign = untried.foreign;
            crashes.tried(untried, tries, reproduced)?;
            if foreign {
                break;
            }
        }
        Ok(())
    }

    /// Tries one reproducer in a guest that repeats exactly, when the search has had its first time: such guests have to be
    /// booted.
    ///
    /// # Errors
    ///
    /// The folder cannot be written, or the user wants to stop.
    pub(super) fn triage_exactly<R: Runner>(&self, runner: &mut R) -> Result<(), Error> {
        if !self.crashes.is_older_than(EXACT_AFTER) {
            return Ok(());
        }
        let crashes = self.crashes.crashes();
        let Some(inexact) = crashes.take_inexact(self.crashes.kernel()) else { return Ok(()) };
        let title = &inexact.title;
        if let Some(execution) = self.tried(title, runner.run(&inexact.plan.0, How::Exact))? {
            let again = execution.has_title(title);
            let how = if again { "again" } else { "not again" };
            tracing::info!(title, "came {how} in a guest that counts instructions");
            // First: a plan that makes the crash exactly is not to be tried once more.
            crashes.tried_exactly(&inexact, again)?;
            self.crashes.note(&inexact.plan, &execution)?;
        }
        Ok(())
    }
}

impl TriageStage {
    /// Gives the execution of a crash's plan, if there was one.
    fn tried(&self, title: &str, ran: Ran) -> Result<Option<Execution>, Error> {
        let Ran { execution, late } = ran;
        late.iter().try_for_each(|late| self.crashes.note_late(late))?;
        match execution {
            Ok(execution) => Ok(Some(execution)),
            Err(RunError::Stopped) => Err(Error::shutting_down()),
            Err(RunError::NoExactGuests(reason)) => {
                tracing::debug!(title, reason, "not tried exactly");
                Ok(None)
            }
            Err(error) => {
                tracing::warn!(title, "the reproducer cannot be tried: {}", execution::chain(&error));
                Ok(None)
            }
        }
    }
}

impl<EM, R: Runner, S, Z> Stage<PlanExecutor<'_, R>, EM, S, Z> for TriageStage {
    fn perform(&mut self, _: &mut Z, executor: &mut PlanExecutor<'_, R>, _: &mut S, _: &mut EM) -> Result<(), Error> {
        self.triage(executor.runner(), Duration::ZERO)?;
        self.triage_exactly(executor.runner())
    }
}

impl<S> Restartable<S> for TriageStage {
    fn should_restart(&mut self, _: &mut S) -> Result<bool, Error> {
        Ok(true)
    }

    fn clear_progress(&mut self, _: &mut S) -> Result<(), Error> {
        Ok(())
    }
}
