//! The loop of one client's search.
//!
//! ```text
//! fault-free runs ─▶ first plans ─▶ ┌▶ alone:  each point that the workload reaches, each error
//!                                   │  then    explorer: LibAFL's next entry, through the stages
//!                                   │          checker:  points behind faults, the queue, an entry
//!                                   └─ report ◀┘
//!                                          └─ the campaign ends ─▶ last words, last triage and minimising, last report
//! ```
//!
//! Alone comes first on every kernel: what one fault shows needs no second one, and no plan of
//! another kernel. A checker then owes its own kernel the points behind faults, and after that the
//! explorers what they came across.

use std::{
    cell::Cell,
    fs,
    ops::RangeInclusive,
    time::{Duration, Instant},
};

use libafl::{
    Error,
    corpus::Testcase,
    executors::{ExitKind, HasObservers},
    feedbacks::Feedback,
    fuzzer::{Evaluator, ExecuteInputResult, ExecutesInput, Fuzzer, HasFeedback, HasObjective},
    inputs::Input,
};

use super::{
    broker::Manager,
    report::{Reporter, When},
    shared::Shared,
    state::State,
};
use crate::{
    error::{CampaignError, ends_search},
    executor::PlanExecutor,
    input::PlanInput,
    kernels::{KnownKernel, Role},
    matrix::Reach,
    observers::{Observed, Observers},
    plans::FirstPlan,
    second_kernel::{QueuedPlan, SecondKernelQueue},
    stages::{MinimiseStage, TriageStage},
};
use execution::{Fate, Fired, RunError, Runner};
use fault_plan::Relaxer;

/// Fault-free executions at the start, at least and at most. Coverage in which they differ is
/// noise, and counts as known. Most of it is of kernel threads.
const FAULT_FREE_RUNS: RangeInclusive<usize> = 8..=32;
/// Of these, executions in a row without anything new that end them.
const QUIET_RUNS: usize = 4;
/// The age at which a crash's plan is checked, and its reproducer tried, while there are other
/// plans to run. So a crash's neighbours are found before it is known how well the crash comes
/// again.
const LATER: Duration = Duration::from_secs(5);

/// One part in so many of a client's time is for crashes, and a checker's for what explorers came
/// across, while its own kernel is owed points.
const OTHERS_SHARE: u32 = 8;

/// The loop of a client, and the parts that it turns.
pub(super) struct SearchLoop<'a, R, Z, F, X, I> {
    pub(super) client: usize,
    pub(super) role: Role,
    pub(super) shared: &'a Shared,
    pub(super) known: &'a KnownKernel,
    pub(super) fuzzer: Z,
    pub(super) executor: PlanExecutor<'a, R>,
    pub(super) state: State,
    pub(super) manager: &'a mut Manager<State>,
    /// Says that the plans to begin with are loaded.
    pub(super) loading: &'a Cell<bool>,
    /// The stage that fails points alone.
    pub(super) first: F,
    /// The stages of an explorer.
    pub(super) exploring: X,
    /// The stage of a checker with points behind faults.
    pub(super) behind: F,
    /// The stage of a checker with points of chance.
    pub(super) chance: F,
    /// The stages of a checker that has nothing to check.
    pub(super) idle: I,
    pub(super) triage: TriageStage<'a>,
    pub(super) minimise: MinimiseStage<'a>,
    pub(super) reporter: Reporter<'a>,
}

impl<'a, R, Z, F, X, I> SearchLoop<'a, R, Z, F, X, I>
where
    R: Runner,
    Z: Fuzzer<PlanExecutor<'a, R>, Manager<State>, PlanInput, State, F>
        + Fuzzer<PlanExecutor<'a, R>, Manager<State>, PlanInput, State, X>
        + Fuzzer<PlanExecutor<'a, R>, Manager<State>, PlanInput, State, I>
        + Evaluator<PlanExecutor<'a, R>, Manager<State>, PlanInput, State>
        + ExecutesInput<PlanExecutor<'a, R>, Manager<State>, PlanInput, State>
        + HasFeedback<Feedback: Feedback<Manager<State>, PlanInput, Observers, State>>
        + HasObjective<Objective: Feedback<Manager<State>, PlanInput, Observers, State>>,
{
    /// Searches until the campaign ends.
    ///
    /// # Errors
    ///
    /// The folder cannot be written, or guests fail.
    pub(super) fn run(mut self) -> Result<(), CampaignError> {
        let searched = self.begin().and_then(|()| self.search());
        self.triage.finish(self.executor.runner())?;
        let ended = match searched {
            Ok(()) | Err(Error::ShuttingDown) if !self.shared.lifecycle.is_interrupted() => {
                self.minimise.finish(self.executor.runner())
            }
            other => other,
        };
        self.report(When::End)?;
        match ended {
            Ok(()) | Err(Error::ShuttingDown) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Runs the plans that the client begins with.
    fn begin(&mut self) -> Result<(), Error> {
        let fault_free = PlanInput(self.shared.target.fault_free());
        self.absorb_noise(&fault_free)?;
        self.report(When::Now)?;
        self.loading.set(true);
        self.evaluate(&fault_free)?;
        let explorer = self.role == Role::Explorer;
        if explorer {
            let twice = PlanInput::twice(&fault_free.0.target);
            self.fuzzer.evaluate_input(&mut self.state, &mut self.executor, self.manager, &twice)?;
        }
        self.loading.set(false);
        let plans = if explorer { self.shared.first_plans(self.client) } else { Vec::new() };
        plans.into_iter().try_for_each(|first| self.load(&first))
    }

    /// Runs a plan that the campaign begins with. A seed is kept. A plan of an earlier start is
    /// kept if it still earns its place, and else its file is removed.
    fn load(&mut self, first: &FirstPlan) -> Result<(), Error> {
        self.loading.set(first.is_seed);
        let plan = PlanInput::from_file(&first.path)?;
        let Self { fuzzer, executor, state, manager, .. } = self;
        let (result, _) = fuzzer.evaluate_input(state, executor, manager, &plan)?;
        self.loading.set(false);
        // One that cost its guest shows no coverage, perhaps by chance.
        let ran =
            self.executor.observers().observed().execution().is_some_and(|execution| execution.guest == Fate::Alive);
        if ran && !first.is_seed && result != ExecuteInputResult::Corpus {
            tracing::debug!(path = %first.path.display(), "reaches nothing that plans before it do not: left out");
            fs::remove_file(&first.path).map_err(|error| Error::unknown(format!("cannot remove a plan: {error}")))?;
        }
        Ok(())
    }

    /// Runs the fault-free plan a few times and takes all it covers for known.
    fn absorb_noise(&mut self, plan: &PlanInput) -> Result<(), Error> {
        let (mut runs, mut quiet) = (0, 0);
        while runs < *FAULT_FREE_RUNS.start() || (quiet < QUIET_RUNS && runs < *FAULT_FREE_RUNS.end()) {
            runs += 1;
            let (solution, exit_kind) = self.ask_objective(plan)?;
            let Self { fuzzer, executor, state, manager, known, .. } = &mut *self;
            let observers = executor.observers();
            if !solution {
                let feedback = fuzzer.feedback_mut();
                feedback.is_interesting(state, manager, plan, &*observers, &exit_kind)?;
                feedback.append_metadata(state, manager, &*observers, &mut Testcase::from(plan.clone()))?;
            }
            if let Some(execution) = observers.observed().execution() {
                let news = known.note_fault_free(execution);
                quiet = if news == 0 { quiet + 1 } else { 0 };
            }
        }
        Ok(())
    }

    fn search(&mut self) -> Result<(), Error> {
        let mut others = Duration::ZERO;
        // When every plan that the mutations make has run already, nothing reaches the executor.
        while !self.shared.lifecycle.must_end() {
            self.report(When::Due)?;
            let Self { fuzzer, executor, state, manager, .. } = self;
            let alone = self.known.matrix().has_open(Reach::Alone);
            match self.role {
                Role::Explorer if alone => {
                    fuzzer.fuzz_one(&mut self.first, executor, state, manager)?;
                    self.do_others(&mut others)?;
                }
                Role::Explorer => {
                    fuzzer.fuzz_one(&mut self.exploring, executor, state, manager)?;
                    self.shared.turn();
                }
                Role::Checker if self.known.matrix().has_open(Reach::Behind) => {
                    let stage = if alone { &mut self.first } else { &mut self.behind };
                    fuzzer.fuzz_one(stage, executor, state, manager)?;
                    self.do_others(&mut others)?;
                }
                Role::Checker => self.check_or_search()?,
            }
        }
        Ok(())
    }

    /// Does what else a client does that owes its own kernel points, in a share of its time: large
    /// targets have thousands of them, and what was found must not wait for all. It has `spent` so
    /// much until now.
    fn do_others(&mut self, spent: &mut Duration) -> Result<(), Error> {
        if *spent > self.shared.start.elapsed() / OTHERS_SHARE {
            return Ok(());
        }
        let started = Instant::now();
        if self.role == Role::Explorer || !self.check()? {
            self.triage.triage(self.executor.runner(), LATER)?;
            self.minimise.minimise(self.executor.runner())?;
        }
        *spent += started.elapsed();
        Ok(())
    }

    /// Does what a checker does that owes its own kernel nothing but points of chance.
    fn check_or_search(&mut self) -> Result<(), Error> {
        let checked = self.check()?;
        let Self { fuzzer, executor, state, manager, .. } = self;
        if self.known.matrix().has_open(Reach::Any) {
            fuzzer.fuzz_one(&mut self.chance, executor, state, manager)?;
        } else if !checked {
            fuzzer.fuzz_one(&mut self.idle, executor, state, manager)?;
        }
        Ok(())
    }

    /// Runs the next plan that waits for this kernel. Returns whether there was one.
    fn check(&mut self) -> Result<bool, Error> {
        let Some(queue) = &self.shared.second_kernel else { return Ok(false) };
        let Some(queued) = queue.take(LATER) else { return Ok(false) };
        self.check_plan(queue, queued)?;
        self.triage.triage(self.executor.runner(), LATER)?;
        self.minimise.minimise(self.executor.runner())?;
        self.triage.triage_exactly(self.executor.runner())?;
        Ok(true)
    }

    /// Runs a plan that waits for this kernel, relaxed until its faults fire.
    fn check_plan(&mut self, queue: &SecondKernelQueue, queued: QueuedPlan) -> Result<(), Error> {
        self.evaluate(&queued.plan)?;
        let mut relaxer = Relaxer::new(&queued.plan.0);
        while let Some(candidate) = self.relaxed(&queued, &mut relaxer) {
            self.evaluate(&candidate)?;
        }
        let observers = self.executor.observers();
        let observed = observers.observed();
        match (observed.execution(), observed.failure()) {
            (Some(execution), _) => {
                queue.checked(&queued, execution).map_err(ends_search)?;
                let same = queued.same_crash(execution);
                same.map_or(Ok(()), |(explored, judged)| self.shared.crashes.same(explored, judged))
            }
            (None, Some(failure)) if failure.ends_campaign => Ok(()),
            (None, Some(failure)) if matches!(failure.error, RunError::Refused(_)) => {
                queue.refused(&queued).map_err(ends_search)
            }
            (None, Some(_)) => queue.put_back(queued).map_err(ends_search),
            (None, None) => Ok(()),
        }
    }

    /// Gives what may run in place of a plan that was refused, or of which a fault did not fire
    /// that fired where it was explored. After a guest's death more might have fired.
    fn relaxed(&self, queued: &QueuedPlan, relaxer: &mut Relaxer) -> Option<PlanInput> {
        let observers = self.executor.observers();
        let fired: &[Fired] = match (observers.observed().execution(), observers.observed().failure()) {
            (Some(execution), _) if execution.guest != Fate::Dead && queued.is_unfired(execution) => &execution.fired,
            (None, Some(failure)) if matches!(failure.error, RunError::Refused(_)) => &[],
            _ => return None,
        };
        let has_fired = |index| fired.iter().any(|fired| fired.fault == index);
        relaxer.next(has_fired, &self.known.matrix().reachable()).cloned().map(PlanInput)
    }

    /// Runs `plan`, the fault-free one or one that waits for this kernel. Of the latter those with
    /// earlier rounds are none to search on from: of them, only the objective is asked.
    fn evaluate(&mut self, plan: &PlanInput) -> Result<(), Error> {
        if !plan.0.earlier.is_empty() {
            return self.ask_objective(plan).map(drop);
        }
        self.fuzzer.evaluate_input(&mut self.state, &mut self.executor, self.manager, plan).map(drop)
    }

    /// Runs `plan` and asks the objective. Returns whether it is a solution, and how it ended.
    fn ask_objective(&mut self, plan: &PlanInput) -> Result<(bool, ExitKind), Error> {
        let Self { fuzzer, executor, state, manager, .. } = self;
        let exit_kind = fuzzer.execute_input(state, executor, manager, plan)?;
        let observers = executor.observers();
        let solution = fuzzer.objective_mut().is_interesting(state, manager, plan, &*observers, &exit_kind)?;
        Ok((solution, exit_kind))
    }

    fn report(&mut self, when: When) -> Result<(), Error> {
        let usage = self.executor.runner().usage();
        self.reporter.report(&mut self.state, self.manager, usage, when)
    }
}
