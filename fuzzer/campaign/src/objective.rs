//! The objective of the search: crashes. All that is written of them passes through here.

use std::{borrow::Cow, sync::Arc};

use execution::{Attributed, Execution, Fate, How, RunError};
use libafl::{
    Error,
    executors::ExitKind,
    feedbacks::{Feedback, StateInitializer},
};
use libafl_bolts::Named;

use crate::{
    crashes::{Cause, Crashes},
    error::ends_search,
    input::PlanInput,
    kernels::{CampaignKernel, KnownKernel},
    observers::{Observed, Observers},
};

/// The objective that takes for a solution a kernel report or hang with a key that the campaign
/// does not have, or has without a plan that makes it again. It is on disk before it counts.
#[derive(Clone)]
pub(crate) struct CrashObjective {
    crashes: Arc<Crashes>,
    known: Arc<KnownKernel>,
}

impl CrashObjective {
    /// Makes the objective that writes to `crashes` the findings on the kernel `known`.
    pub(crate) fn new(crashes: Arc<Crashes>, known: Arc<KnownKernel>) -> Self {
        Self { crashes, known }
    }

    /// Gives the kernel on which crashes are found.
    pub(crate) fn kernel(&self) -> &CampaignKernel {
        &self.known.kernel
    }

    /// Writes the crashes that `execution` ended in. Returns whether one was worth it.
    ///
    /// # Errors
    ///
    /// The folder cannot be written.
    pub(crate) fn note(&self, plan: &PlanInput, execution: &Execution) -> Result<bool, Error> {
        let found = self.crashes.note(self.kernel(), &Cause::of(&plan.0, execution))?;
        if found && plan.0.is_fault_free() {
            tracing::warn!("the kernel reports something although no fault is injected");
        }
        Ok(found)
    }

    /// Writes the crashes among the late effects of earlier executions, and takes in that each cost
    /// its guest.
    ///
    /// # Errors
    ///
    /// The folder cannot be written.
    pub(crate) fn note_late(&self, late: &[Attributed]) -> Result<(), Error> {
        for late in late {
            if late.how == How::Warm {
                let last = late.fired.last().into_iter();
                last.for_each(|fired| self.known.matrix().was_fatal(fired.site, &late.plan, fired.fault));
            }
            self.crashes.note(self.kernel(), &Cause::of_late(late))?;
        }
        Ok(())
    }
}

impl Named for CrashObjective {
    fn name(&self) -> &Cow<'static, str> {
        const { &Cow::Borrowed("crashes") }
    }
}

impl<S> StateInitializer<S> for CrashObjective {}

impl<EM, S> Feedback<EM, PlanInput, Observers, S> for CrashObjective {
    /// Ends the search where no other plan would do better than one that could not be run.
    fn is_interesting(
        &mut self,
        _: &mut S,
        _: &mut EM,
        input: &PlanInput,
        observers: &Observers,
        _: &ExitKind,
    ) -> Result<bool, Error> {
        let observer = observers.observed();
        self.note_late(observer.late())?;
        if let Some(failure) = observer.failure() {
            return match &failure.error {
                RunError::Stopped => Err(Error::shutting_down()),
                error if failure.ends_campaign => Err(ends_search(error)),
                _ => Ok(false),
            };
        }
        let Some(execution) = observer.execution() else { return Ok(false) };
        // A solution does not get into LibAFL's corpus. But a plan that left the guest alive may
        // have reached what none did before.
        Ok(self.note(input, execution)? && execution.guest == Fate::Dead)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use fault_plan::FaultPlan;

    use super::*;
    use crate::{
        fake::{self, warning},
        kernels::Role,
    };

    struct Found {
        _folder: tempfile::TempDir,
        objective: CrashObjective,
        crashes: Arc<Crashes>,
    }

    fn found() -> Found {
        let folder = tempfile::tempdir().unwrap();
        let opened = Arc::new(fake::open(folder.path()));
        let known = fake::kernels().get(&opened, &fake::kernel("fake"), Role::Explorer).unwrap();
        let crashes = Arc::new(Crashes::restore(opened, Duration::ZERO, None).unwrap());
        Found { _folder: folder, objective: CrashObjective::new(Arc::clone(&crashes), known), crashes }
    }

    fn verdict(objective: &mut CrashObjective, observers: &Observers) -> Result<bool, Error> {
        let plan = PlanInput(FaultPlan::fault_free("fake"));
        Feedback::<(), _, _, ()>::is_interesting(objective, &mut (), &mut (), &plan, observers, &ExitKind::Ok)
    }

    #[test]
    fn a_solution_is_a_new_crash_that_cost_the_guest() {
        let Found { mut objective, crashes, .. } = found();
        let mut judge = |title: &str, guest| {
            let mut observers = fake::observers();
            let findings = vec![warning(title)];
            observers.observed_mut().set(Execution { findings, guest, ..fake::quiet() }, 0);
            verdict(&mut objective, &observers).unwrap()
        };
        assert!(judge("BUG in f", Fate::Dead));
        assert!(!judge("BUG in f", Fate::Dead), "it is known");
        assert!(!judge("WARNING in f", Fate::Alive), "its plan may be worth keeping");
        assert_eq!(crashes.len(), 2, "both are written");
    }

    #[test]
    fn late_effects_are_written_also_when_the_run_failed_and_the_search_ends() {
        let late = |title: &str| Attributed {
            plan: FaultPlan::fault_free("fake"),
            how: How::Fresh,
            fired: Vec::new(),
            findings: vec![warning(title)],
            console: String::new(),
            history: Vec::new(),
        };
        let Found { mut objective, crashes, .. } = found();
        let mut judge = |title: &str, error, ends| {
            let mut observers = fake::observers();
            observers.observed_mut().add_late(vec![late(title)]);
            observers.observed_mut().fail(error, ends);
            verdict(&mut objective, &observers)
        };
        assert!(matches!(judge("WARNING in f", RunError::Stopped, true), Err(Error::ShuttingDown)));
        let lost = || RunError::Guests { attempts: 5, source: "lost".into() };
        let error = judge("WARNING in g", lost(), true).unwrap_err().to_string();
        assert!(error.contains("5 guests in a row failed: lost"), "{error}");
        assert!(!judge("WARNING in h", lost(), false).unwrap(), "another plan may do better");
        assert_eq!(crashes.len(), 3);
    }
}
