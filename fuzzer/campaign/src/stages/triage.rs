//! Triage: how well does a crash's reproducer make it again?
//!
//! Memory that was damaged shows it differently each time. So a crash that never came again, and
//! whose reproducer makes one and the same other crash each time, is that one.
//!
//! A report may come late, or only in a guest that has run something else before. So where a plan
//! does not make its crash again, the last rounds of the guest's history are tried before it.

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, Instant},
};

use execution::{Execution, How, Ran, RunError, Runner};
use libafl::{
    Error,
    stages::{Restartable, Stage},
};

use super::sequence::sequences;
use crate::{
    crashes::{Cause, Crashes, Taken},
    error::ends_search,
    executor::PlanExecutor,
    input::PlanInput,
    objective::CrashObjective,
    second_kernel::SecondKernelQueue,
};

/// The age of a campaign at which reproducers begin to be tried exactly.
const EXACT_AFTER: Duration = Duration::from_secs(120);

/// Time after which no longer sequence is tried for a crash: a few dozen rounds of a large workload
/// on a kernel that checks.
const SEQUENCES_TIME: Duration = Duration::from_secs(60);

/// Fresh guests in which a new reproducer is tried.
pub(crate) const TRIES: u32 = 3;

/// What came of the tries of a reproducer.
#[derive(Default)]
struct Tries {
    /// How often it was tried, which is fewer where guests fail.
    tries: u32,
    /// In how many of these the crash came again.
    reproduced: u32,
    /// The keys that came in each try, if the crash never did.
    instead: BTreeSet<String>,
}

impl Tries {
    /// Takes in one more.
    fn take(&mut self, key: &str, execution: &Execution) {
        let keys: BTreeSet<String> = execution.findings.iter().map(|finding| finding.key.clone()).collect();
        self.tries += 1;
        self.reproduced += u32::from(execution.has_key(key));
        if self.reproduced > 0 {
            self.instead.clear();
        } else if self.tries == 1 {
            self.instead = keys;
        } else {
            self.instead.retain(|known| keys.contains(known));
        }
    }
}

/// The stage that tries the reproducers of new crashes in fresh guests and notes how often each
/// made its crash again.
#[derive(Clone)]
pub(crate) struct TriageStage<'a> {
    pub(super) objective: CrashObjective,
    pub(super) crashes: Arc<Crashes>,
    offers: Option<&'a SecondKernelQueue>,
    start: Instant,
    pub(super) is_interrupted: &'a dyn Fn() -> bool,
}

impl<'a> TriageStage<'a> {
    /// Makes a stage that tries those of `crashes` that are on the kernel of `objective`, which
    /// writes what else comes to light. Where somebody checks, sequences that make a crash are
    /// offered to the queue `offers`. The campaign has begun at `start`, and `is_interrupted` says
    /// that there is no time for more.
    pub(crate) fn new(
        objective: CrashObjective,
        crashes: Arc<Crashes>,
        offers: Option<&'a SecondKernelQueue>,
        start: Instant,
        is_interrupted: &'a dyn Fn() -> bool,
    ) -> Self {
        Self { objective, crashes, offers, start, is_interrupted }
    }

    /// Tries every reproducer that was not tried yet and whose crash has been known for the time
    /// `age`, but of those of other hosts one: the search must go on however many they have. One
    /// with which all guests fail is left for the next start.
    ///
    /// # Errors
    ///
    /// The folder cannot be written, or the campaign is interrupted.
    pub(crate) fn triage<R: Runner>(&self, runner: &mut R, age: Duration) -> Result<(), Error> {
        self.triage_while(runner, age, || true)
    }

    /// Does so while it `has_time` for one more crash or longer sequence. The next start tries the
    /// other crashes.
    ///
    /// # Errors
    ///
    /// The folder cannot be written, or the campaign is interrupted.
    pub(super) fn triage_while<R: Runner>(
        &self,
        runner: &mut R,
        age: Duration,
        has_time: impl Fn() -> bool,
    ) -> Result<(), Error> {
        while has_time() {
            if (self.is_interrupted)() {
                return Err(Error::shutting_down());
            }
            let Some(mut taken) = self.crashes.take_untried(self.objective.kernel(), age) else { return Ok(()) };
            let Tries { tries, reproduced, instead } = match self.tries(runner, &mut taken, &has_time) {
                Ok(tries) => tries,
                Err(error) => {
                    self.crashes.put_back(&taken);
                    return Err(error);
                }
            };
            tracing::info!(title = taken.title, "reproduced {reproduced} of {tries} times in fresh guests");
            self.crashes.tried(&taken, tries, reproduced)?;
            self.crashes.only_makes(&taken, &instead)?;
            if taken.foreign {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Tries the reproducer of a crash, and where it seldom makes the crash again, sequences of
    /// what its guest had run.
    fn tries<R: Runner>(&self, runner: &mut R, taken: &mut Taken, has_time: &dyn Fn() -> bool) -> Result<Tries, Error> {
        let tries = self.tries_of(runner, taken, &taken.plan, TRIES)?;
        if tries.tries < TRIES || is_often(tries.reproduced) {
            return Ok(tries);
        }
        Ok(self.sequence(runner, taken, tries.reproduced, has_time)?.unwrap_or(tries))
    }

    /// Runs `plan` so often in fresh guests.
    fn tries_of<R: Runner>(&self, runner: &mut R, taken: &Taken, plan: &PlanInput, often: u32) -> Result<Tries, Error> {
        let mut tries = Tries::default();
        for _ in 0..often {
            let Some(execution) = self.tried(&taken.title, runner.run(&plan.0, How::Fresh))? else { break };
            tries.take(&taken.key, &execution);
            self.objective.note(plan, &execution)?;
        }
        Ok(tries)
    }

    /// Finds the shortest sequence of what the guest of a crash had run that often makes it again,
    /// or else the one that does most often, if that is more than `reproduced` times. Writes it as
    /// the crash's reproducer, and gives its tries.
    fn sequence<R: Runner>(
        &self,
        runner: &mut R,
        taken: &mut Taken,
        reproduced: u32,
        has_time: &dyn Fn() -> bool,
    ) -> Result<Option<Tries>, Error> {
        let started = Instant::now();
        let mut best: Option<(PlanInput, Execution, Tries)> = None;
        for sequence in sequences(&taken.plan, &taken.history) {
            if (self.is_interrupted)() {
                return Err(Error::shutting_down());
            }
            if started.elapsed() > SEQUENCES_TIME || !has_time() {
                tracing::info!(title = taken.title, "no time for longer sequences");
                break;
            }
            let Some(execution) = self.tried(&taken.title, runner.run(&sequence.0, How::Fresh))? else { continue };
            self.objective.note(&sequence, &execution)?;
            if !execution.has_key(&taken.key) {
                continue;
            }
            let mut tries = self.tries_of(runner, taken, &sequence, TRIES - 1)?;
            tries.take(&taken.key, &execution);
            let again = tries.reproduced;
            if again > best.as_ref().map_or(reproduced, |(.., best)| best.reproduced) {
                best = Some((sequence, execution, tries));
            }
            if is_often(again) {
                break;
            }
        }
        let Some((sequence, execution, tries)) = best else { return Ok(None) };
        tracing::info!(title = taken.title, rounds = sequence.0.earlier.len() + 1, "made by a sequence");
        let cause = Cause::of(&sequence.0, &execution);
        self.crashes.is_made_by(self.objective.kernel(), taken, &cause)?;
        if let Some(queue) = self.offers {
            queue.offer_sequence(&PlanInput(cause.plan.clone()), &execution).map_err(ends_search)?;
        }
        // From now on the sequence stands for the crash.
        taken.plan = PlanInput(cause.plan);
        Ok(Some(tries))
    }

    /// Ends the runner's guest at the end of a search, and writes what it had still to say.
    ///
    /// # Errors
    ///
    /// The folder cannot be written.
    pub(crate) fn finish<R: Runner>(&self, runner: &mut R) -> Result<(), Error> {
        self.objective.note_late(&runner.finish())
    }

    /// Tries one reproducer in a guest that repeats exactly, when the search has had its first
    /// time: such guests have to be booted.
    ///
    /// # Errors
    ///
    /// The folder cannot be written, or the user wants to stop.
    pub(crate) fn triage_exactly<R: Runner>(&self, runner: &mut R) -> Result<(), Error> {
        if self.start.elapsed() <= EXACT_AFTER {
            return Ok(());
        }
        let Some(taken) = self.crashes.take_inexact(self.objective.kernel()) else { return Ok(()) };
        let title = &taken.title;
        if let Some(execution) = self.tried(title, runner.run(&taken.plan.0, How::Exact))? {
            let again = execution.has_key(&taken.key);
            let how = if again { "again" } else { "not again" };
            tracing::info!(title, "came {how} in a guest that counts instructions");
            // First: a plan that makes the crash exactly is not to be tried once more.
            self.crashes.tried_exactly(&taken, again)?;
            self.objective.note(&taken.plan, &execution)?;
        }
        Ok(())
    }

    /// Gives the execution of a crash's plan, if there was one.
    pub(super) fn tried(&self, title: &str, ran: Ran) -> Result<Option<Execution>, Error> {
        let Ran { execution, late } = ran;
        self.objective.note_late(&late)?;
        match execution {
            Ok(execution) => Ok(Some(execution)),
            Err(RunError::Stopped) => Err(Error::shutting_down()),
            Err(RunError::NoSuchGuests(reason)) => {
                tracing::debug!(title, reason, "not tried in such a guest");
                Ok(None)
            }
            Err(error) => {
                tracing::warn!(title, "the reproducer cannot be tried: {}", execution::chain(&error));
                Ok(None)
            }
        }
    }
}

/// Says whether a crash that came again so often of [`TRIES`] times mostly does.
fn is_often(reproduced: u32) -> bool {
    reproduced * 2 > TRIES
}

impl<EM, R: Runner, S, Z> Stage<PlanExecutor<'_, R>, EM, S, Z> for TriageStage<'_> {
    fn perform(&mut self, _: &mut Z, executor: &mut PlanExecutor<'_, R>, _: &mut S, _: &mut EM) -> Result<(), Error> {
        self.triage(executor.runner(), Duration::ZERO)?;
        self.triage_exactly(executor.runner())
    }
}

impl<S> Restartable<S> for TriageStage<'_> {
    fn should_restart(&mut self, _: &mut S) -> Result<bool, Error> {
        Ok(true)
    }

    fn clear_progress(&mut self, _: &mut S) -> Result<(), Error> {
        Ok(())
    }
}

#[cfg(test)]
mod tests;
