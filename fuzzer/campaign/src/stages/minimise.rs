//! Minimising the plans of crashes, in a bounded share of a client's time.
//!
//! LibAFL's `StdTMinMutationalStage` shortens an entry of the corpus by mutations of chance, and
//! keeps what shows the same observations. A crash is in no corpus, and its plan has to make the
//! same key in fresh guests. So this is a stage of its own, over [`Minimizer`].

use std::{
    cell::RefCell,
    rc::Rc,
    time::{Duration, Instant},
};

use execution::{Execution, FindingKind, How, Runner};
use fault_plan::FaultPlan;
use libafl::{
    Error,
    stages::{Restartable, Stage},
};

use super::triage::{TRIES, TriageStage};
use crate::{
    crashes::{Cause, MinimizedMeta, Taken},
    executor::PlanExecutor,
    input::PlanInput,
    minimise::{Demand, Minimized, Minimizer},
};

/// One part in this many of a client's time is for minimising.
const SHARE: u32 = 10;
/// Time for what is left when the search has ended: a short campaign finds more than its share is
/// enough for.
const AT_END: Duration = Duration::from_secs(60);

/// Time after which a crash waits for those that were not begun yet, or are as young: most take
/// seconds. One of many rounds, or a hang, takes minutes.
const QUICK: Duration = Duration::from_secs(20);

/// Time after which no simpler plan is looked for, so that the slow ones do not keep each other
/// waiting.
const MOST_TIME: Duration = Duration::from_secs(180);

/// A crash under way. A campaign that ends leaves it for the next start, which begins it anew.
struct Job {
    taken: Taken,
    /// None until the crash has come once.
    minimizer: Option<Minimizer>,
    /// Runs in which it did not.
    in_vain: u32,
    spent: Duration,
}

#[derive(Default)]
struct Work {
    /// What is under way. At most one is quick; the first of the others goes on.
    jobs: Vec<Job>,
    spent: Duration,
}

impl Work {
    /// Gives what to go on with: what is quick, or `new`, or what has waited longest.
    fn next(&mut self, new: impl FnOnce() -> Option<Taken>) -> Option<Job> {
        let quick = self.jobs.iter().position(|job| job.spent < QUICK).map(|at| self.jobs.remove(at));
        let begin = |taken| Job { taken, minimizer: None, in_vain: 0, spent: Duration::ZERO };
        quick.or_else(|| new().map(begin)).or_else(|| (!self.jobs.is_empty()).then(|| self.jobs.remove(0)))
    }
}

/// The stage that makes the reproducers of crashes as simple as they can be. Clones share the
/// crash that is under way.
#[derive(Clone)]
pub(crate) struct MinimiseStage<'a> {
    triage: TriageStage<'a>,
    start: Instant,
    work: Rc<RefCell<Work>>,
}

impl<'a> MinimiseStage<'a> {
    /// Makes a stage for the crashes that `triage` has made again.
    pub(crate) fn new(triage: TriageStage<'a>) -> Self {
        Self { triage, start: Instant::now(), work: Rc::default() }
    }

    /// Goes on while the client's share of time lasts.
    ///
    /// # Errors
    ///
    /// The folder cannot be written, or the user wants to stop.
    pub(crate) fn minimise<R: Runner>(&self, runner: &mut R) -> Result<(), Error> {
        while self.work.borrow().spent < self.start.elapsed() / SHARE && self.step(runner)? {}
        Ok(())
    }

    /// Minimises what is left and tries what else came to light, for a time, at the end of a
    /// search.
    ///
    /// # Errors
    ///
    /// The folder cannot be written, or the user wants to stop.
    pub(crate) fn finish<R: Runner>(&self, runner: &mut R) -> Result<(), Error> {
        let started = Instant::now();
        let has_time = || started.elapsed() < AT_END;
        let mut more = true;
        while more {
            self.triage.triage_while(runner, Duration::ZERO, has_time)?;
            more = false;
            while has_time() && self.step(runner)? {
                more = true;
            }
        }
        Ok(())
    }

    /// Runs one plan. Returns whether there was one.
    fn step<R: Runner>(&self, runner: &mut R) -> Result<bool, Error> {
        if (self.triage.is_interrupted)() {
            return Err(Error::shutting_down());
        }
        let mut work = self.work.borrow_mut();
        let new = || self.triage.crashes.take_unminimised(self.triage.objective.kernel());
        let Some(mut job) = work.next(new) else { return Ok(false) };
        let was_quick = job.spent < QUICK;
        let started = Instant::now();
        let is_done = self.run(&mut job, runner)?;
        let taken = started.elapsed();
        (job.spent, work.spent) = (job.spent + taken, work.spent + taken);
        if let Some(minimizer) = job.minimizer.as_mut().filter(|_| job.spent > MOST_TIME) {
            minimizer.hurry();
        }
        if is_done {
            let (key, plan) = self.write(job)?;
            let started = Instant::now();
            self.look_closer(runner, &key, &plan)?;
            work.spent += started.elapsed();
        } else {
            // A slow one goes on until it ends, and then the one that became slow after it.
            let at = if was_quick { work.jobs.len() } else { 0 };
            work.jobs.insert(at, job);
        }
        Ok(true)
    }

    /// Runs the next plan for a crash. Returns whether that was all.
    fn run<R: Runner>(&self, job: &mut Job, runner: &mut R) -> Result<bool, Error> {
        let Job { taken, minimizer, in_vain, .. } = job;
        let next = minimizer.as_mut().map_or_else(|| Some(taken.plan.0.clone()), Minimizer::next_plan);
        let Some(plan) = next else { return Ok(true) };
        let execution = self.triage.tried(&taken.title, runner.run(&plan, How::Fresh))?;
        if let Some(execution) = &execution {
            self.triage.objective.note(&PlanInput(plan.clone()), execution)?;
        }
        match minimizer {
            Some(minimizer) => minimizer.ran(execution),
            None => match execution.filter(|execution| execution.has_key(&taken.key)) {
                Some(execution) => *minimizer = Some(begun(taken, &execution)),
                None => *in_vain += 1,
            },
        }
        Ok(*in_vain == TRIES)
    }

    /// Writes what came of a crash. Gives its key and its plan.
    fn write(&self, job: Job) -> Result<(String, FaultPlan), Error> {
        let Job { taken, minimizer, in_vain, .. } = job;
        let count = taken.plan.0.count();
        let executions = minimizer.as_ref().map_or(in_vain, Minimizer::runs);
        let simpler = minimizer.and_then(Minimizer::finish);
        let kernel = self.triage.objective.kernel();
        let unchanged = MinimizedMeta { executions, faults: [count; 2] };
        let Some(Minimized { plan, execution, tried, reproduced }) = simpler else {
            self.triage.crashes.minimised(kernel, &taken, unchanged, None)?;
            return Ok((taken.key, taken.plan.0));
        };
        let cause = Cause::as_tried(&plan, &execution);
        let faults = [count, cause.plan.count()];
        tracing::info!(title = taken.title, "minimised: {executions} tries, {count} faults → {}", faults[1]);
        let minimized = MinimizedMeta { faults, ..unchanged };
        self.triage.crashes.minimised(kernel, &taken, minimized, Some((&cause, tried, reproduced)))?;
        Ok((taken.key, cause.plan))
    }

    /// Finds out where the errors of a crash's faults went, in two more runs: the first one tells
    /// where probes are to stand. Of a leak a third one finds out who allocated the memory.
    fn look_closer<R: Runner>(&self, runner: &mut R, key: &str, plan: &FaultPlan) -> Result<(), Error> {
        let Some(first) = self.triage.tried(key, runner.run(plan, How::Fresh))? else { return Ok(()) };
        self.triage.objective.note(&PlanInput(plan.clone()), &first)?;
        let tried = |how, runner: &mut R| {
            let execution = self.triage.tried(key, runner.run(plan, how))?;
            Ok::<_, Error>(execution.filter(|execution| execution.has_key(key)))
        };
        if let Some(traced) = tried(How::Traced, runner)? {
            self.triage.crashes.traced(key, &traced.fired)?;
        }
        let leak = |execution: &Execution| {
            execution.findings.iter().find(|found| found.kind == FindingKind::Leak && found.has_key(key)).cloned()
        };
        if leak(&first).is_some()
            && let Some(found) = tried(How::Searched, runner)?.as_ref().and_then(leak)
        {
            self.triage.crashes.searched(key, &found)?;
        }
        Ok(())
    }
}

/// Begins with the plan of a crash that came in this execution. It has to come as often as it did
/// at its triage. Where it came each time then, one try says enough of a candidate.
fn begun(taken: &Taken, execution: &Execution) -> Minimizer {
    let confirmed = Demand { runs: TRIES, needed: taken.reproduced.clamp(1, TRIES) };
    let candidate = if confirmed.needed == TRIES { Demand { runs: 1, needed: 1 } } else { confirmed };
    Minimizer::new(&taken.plan.0, &taken.key, execution, candidate, confirmed)
}

impl<EM, R: Runner, S, Z> Stage<PlanExecutor<'_, R>, EM, S, Z> for MinimiseStage<'_> {
    fn perform(&mut self, _: &mut Z, executor: &mut PlanExecutor<'_, R>, _: &mut S, _: &mut EM) -> Result<(), Error> {
        self.minimise(executor.runner())
    }
}

impl<S> Restartable<S> for MinimiseStage<'_> {
    fn should_restart(&mut self, _: &mut S) -> Result<bool, Error> {
        Ok(true)
    }

    fn clear_progress(&mut self, _: &mut S) -> Result<(), Error> {
        Ok(())
    }
}

#[cfg(test)]
mod tests;
