//! LibAFL's executor over a [`Runner`].

use std::sync::Arc;

use fault_plan::FaultPlan;
use libafl::{
    Error, HasMetadata,
    executors::{Executor, ExitKind, HasObservers},
    observers::{ExplicitTracking, TimeObserver},
    state::HasExecutions,
};
use libafl_bolts::{impl_serdeany, tuples::RefIndexable};
use serde::{Deserialize, Serialize};

use super::{
    book::{Books, KernelBook},
    feedback::NewCrashFeedback,
    input::PlanInput,
    observers::{CoverageMap, ExecutionObserver, mark_coverage},
    worker::Common,
};
use execution::{Attributed, Execution, Fate, Finding, How, Ran, RunError, Runner};

/// The coverage map with the indices that the scheduler wants.
pub(super) type Coverage = ExplicitTracking<CoverageMap, true, false>;
/// The observers of a campaign.
pub(super) type Observers = (Coverage, (ExecutionObserver, (TimeObserver, ())));

/// Counts that no LibAFL statistic has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    /// Executions whose plan has a fault.
    pub with_faults: u64,
    /// Those of them in which at least one fault fired.
    pub fired: u64,
    /// Executions that ended in a kernel report.
    pub crashed: u64,
    /// Executions that hung.
    pub hung: u64,
    /// Plans that a guest refused.
    pub refused: u64,
    /// Plans given up because guests failed under them, or because the host was too busy to tell whether they hang.
    pub given_up: u64,
    /// Executions with more calls or coverage than a guest has room to record.
    pub incomplete: u64,
    /// Calls left alone because the kernel promises that they do not fail.
    pub guarded: u64,
    /// Covered addresses that are no known place of the coverage function.
    pub unknown_pcs: u64,
}

impl_serdeany!(Counters);

impl std::ops::AddAssign for Counters {
    fn add_assign(&mut self, other: Self) {
        self.with_faults += other.with_faults;
        self.fired += other.fired;
        self.crashed += other.crashed;
        self.hung += other.hung;
        self.refused += other.refused;
        self.given_up += other.given_up;
        self.incomplete += other.incomplete;
        self.guarded += other.guarded;
        self.unknown_pcs += other.unknown_pcs;
    }
}

/// Runs plans in guests.
pub(super) struct PlanExecutor<'a, R> {
    runner: R,
    observers: Observers,
    book: Arc<KernelBook>,
    crashes: NewCrashFeedback,
    common: &'a Common,
    checks: Option<Arc<Books>>,
}

impl<'a, R: Runner> PlanExecutor<'a, R> {
    /// An executor of plans on the kernel of `book` that hands late reports to `crashes`, and what is worth it to
    /// `checks`, where somebody checks.
    pub(super) fn new(
        runner: R,
        observers: Observers,
        book: Arc<KernelBook>,
        crashes: NewCrashFeedback,
        common: &'a Common,
        checks: Option<Arc<Books>>,
    ) -> Self {
        Self { runner, observers, book, crashes, common, checks }
    }

    /// What is known of the kernel.
    pub(super) fn book(&self) -> &KernelBook {
        &self.book
    }

    /// Counts a plan that could not be run to an end.
    ///
    /// # Errors
    ///
    /// The user wants to stop, or guests fail under the fault-free plan as well.
    fn give_up<S: HasMetadata>(&mut self, state: &mut S, plan: &FaultPlan, error: &RunError) -> Result<(), Error> {
        let counters = state.metadata_or_insert_with(Counters::default);
        match error {
            RunError::Stopped => return Err(Error::shutting_down()),
            RunError::Refused(reason) => {
                tracing::debug!(reason, "plan refused");
                counters.refused += 1;
            }
            RunError::Starved => {
                tracing::warn!("{error}");
                counters.given_up += 1;
            }
            RunError::Guests { .. } | RunError::NoExactGuests(_) => {
                let ended = || Error::unknown(execution::chain(error));
                if plan.faults.is_empty() {
                    return Err(ended());
                }
                let Ran { execution, late } = self.runner.run(&self.common.target.fault_free(), How::Fresh);
                self.note_late(&late)?;
                match execution {
                    Ok(_) | Err(RunError::Starved) => {}
                    Err(RunError::Stopped) => return Err(Error::shutting_down()),
                    Err(_) => return Err(ended()),
                }
                tracing::warn!("no guest gets through a plan, leaving it out: {}", execution::chain(error));
                counters.given_up += 1;
            }
        }
        Ok(())
    }

    /// Writes what the kernel reported after the end of earlier executions.
    ///
    /// # Errors
    ///
    /// The folder cannot be written.
    fn note_late(&mut self, late: &[Attributed]) -> Result<(), Error> {
        late.iter().try_for_each(|late| self.crashes.note_late(late))
    }

    /// Takes in the sites that an execution reached. Returns whether one was never seen before.
    fn learn(&mut self, execution: &Execution) -> bool {
        let mut sites = self.book.sites();
        let new = sites.learn(&execution.sites, &execution.hits);
        execution.fired.iter().for_each(|fired| sites.fired(fired.site));
        if execution.guest != Fate::Alive {
            execution.fired.last().into_iter().for_each(|fired| sites.was_fatal(fired.site));
        }
        new
    }

    /// What runs the plans.
    pub(super) fn runner(&mut self) -> &mut R {
        &mut self.runner
    }
}

impl<R> HasObservers for PlanExecutor<'_, R> {
    type Observers = Observers;

    fn observers(&self) -> RefIndexable<&Self::Observers, Self::Observers> {
        RefIndexable::from(&self.observers)
    }

    fn observers_mut(&mut self) -> RefIndexable<&mut Self::Observers, Self::Observers> {
        RefIndexable::from(&mut self.observers)
    }
}

impl<EM, R, S, Z> Executor<EM, PlanInput, S, Z> for PlanExecutor<'_, R>
where
    R: Runner,
    S: HasExecutions + HasMetadata,
{
    fn run_target(&mut self, _: &mut Z, state: &mut S, _: &mut EM, input: &PlanInput) -> Result<ExitKind, Error> {
        if self.common.must_stop() {
            return Err(Error::shutting_down());
        }
        let Ran { execution, late } = self.runner.run(&input.0, How::Warm);
        self.note_late(&late)?;
        let execution = match execution {
            Ok(execution) => execution,
            Err(error) => return self.give_up(state, &input.0, &error).map(|()| ExitKind::Ok),
        };
        *state.executions_mut() += 1;
        // A plan that kills its guest is nothing to mutate further.
        let signal = if execution.guest != Fate::Dead { execution.coverage.as_slice() } else { &[] };
        let unknown_pcs = mark_coverage(self.observers.0.as_mut(), &self.book.kernel.call_sites, signal);
        count(state, input, &execution, unknown_pcs);
        let new_site = self.learn(&execution);
        if let Some(books) = &self.checks {
            books.checks.offer(input, &execution, false);
        }
        let exit_kind = exit_kind(&execution);
        self.observers.1.0.set(execution, new_site);
        Ok(exit_kind)
    }
}

/// LibAFL's kind of exit, which follows from the findings.
fn exit_kind(execution: &Execution) -> ExitKind {
    match execution.findings.iter().find(|finding| finding.report().is_some()) {
        Some(Finding::Hang(_)) => ExitKind::Timeout,
        Some(_) => ExitKind::Crash,
        None => ExitKind::Ok,
    }
}

/// Counts what happened.
fn count<S: HasMetadata>(state: &mut S, input: &PlanInput, execution: &Execution, unknown_pcs: u64) {
    let counters = state.metadata_or_insert_with(Counters::default);
    counters.with_faults += u64::from(!input.0.faults.is_empty());
    counters.fired += u64::from(!execution.fired.is_empty());
    counters.crashed += u64::from(exit_kind(execution) == ExitKind::Crash);
    counters.hung += u64::from(exit_kind(execution) == ExitKind::Timeout);
    counters.guarded += u64::from(execution.guarded);
    counters.unknown_pcs += unknown_pcs;
    if execution.incomplete {
        if counters.incomplete == 0 {
            tracing::warn!("the workload is longer than a guest has room to record: what comes last does not count");
        }
        counters.incomplete += 1;
    }
}
