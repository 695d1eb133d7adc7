//! One plan after the other, each in one guest after the other as long as they fail.

use std::time::Duration;

use fault_plan::FaultPlan;

use super::{
    GuestPool, RunInfo,
    findings::{is_starved, outcome_of, reports, silent_hang},
};
use crate::{
    execution::{ExecuteError, Execution, Outcome, Runner, RunnerCounters},
    guest::{Guest, GuestError, GuestRun, RunEnd},
    report::KernelReport,
};

/// How long an execution waits before it is tried again when guests fail; when it was tried once more than that, it is an error.
/// What the host lacks for a moment (processes, memory, files) it has again after some seconds.
const PAUSES: [Duration; 4] =
    [Duration::ZERO, Duration::from_millis(200), Duration::from_secs(2), Duration::from_secs(10)];

/// How often a hang of which the host may be the cause is tried again.
const STARVED_ATTEMPTS: u32 = 2;

/// What one attempt at an execution amounts to.
enum Verdict {
    /// An execution to speak of.
    Done(Box<Execution>),
    /// An effect of an earlier execution came to light: the guest is none to judge this one by.
    Spoilt,
    /// The guest or the host failed.
    Trouble(GuestError),
}

impl GuestPool {
    /// What `run` amounts to.
    fn verdict(&mut self, plan: &FaultPlan, run: GuestRun) -> Result<Verdict, ExecuteError> {
        if self.note_late(&run) {
            return Ok(Verdict::Spoilt);
        }
        let info = RunInfo { console: run.console, wall: run.wall };
        let starved = || Verdict::Trouble(GuestError::Starved { wall: run.wall, waited: run.starved });
        let is_starved = |found: &[KernelReport]| is_starved(found, run.wall, run.starved);
        Ok(match run.end {
            RunEnd::Completed(_) if run.starved > Duration::ZERO && is_starved(&reports(&info.console)) => starved(),
            RunEnd::Completed(report) => Verdict::Done(Box::new(self.completed(plan, *report, info))),
            RunEnd::Refused(reason) => return Err(ExecuteError::Refused(reason)),
            RunEnd::Died { fired } => {
                let found = reports(&info.console);
                if found.is_empty() {
                    return Ok(Verdict::Trouble(GuestError::Lost));
                }
                if is_starved(&found) {
                    return Ok(starved());
                }
                Verdict::Done(Box::new(self.lost_running(found, fired.as_ref(), info)))
            }
            RunEnd::Hung { fired, stack } => {
                let mut found = reports(&info.console);
                if found.is_empty() {
                    found.push(silent_hang(&self.target.name, self.deadline, &stack));
                }
                if is_starved(&found) {
                    return Ok(starved());
                }
                Verdict::Done(Box::new(self.lost_running(found, fired.as_ref(), info)))
            }
            RunEnd::DiedBefore { .. } | RunEnd::Unclean(_) => Verdict::Trouble(GuestError::Lost),
        })
    }

    /// Runs `plan`, in one guest after the other when they fail.
    pub(super) fn attempts(&mut self, plan: &FaultPlan) -> Result<Execution, ExecuteError> {
        let (mut attempts, mut starved) = (0, 0);
        loop {
            if self.stop.is_requested() {
                return Err(ExecuteError::Stopped);
            }
            let pause = PAUSES.get(attempts);
            attempts += 1;
            let verdict = match self.attempt(plan) {
                Ok(run) => self.verdict(plan, run)?,
                Err(error) => Verdict::Trouble(error),
            };
            let trouble = match verdict {
                Verdict::Done(execution) => return Ok(*execution),
                Verdict::Spoilt => GuestError::Lost,
                Verdict::Trouble(_) if self.stop.is_requested() => return Err(ExecuteError::Stopped),
                Verdict::Trouble(trouble) => {
                    self.counters.harness_errors += 1;
                    tracing::warn!("guest trouble, trying again in a fresh guest: {}", crate::chain(&trouble));
                    trouble
                }
            };
            self.discard();
            starved += u32::from(matches!(trouble, GuestError::Starved { .. }));
            if starved == STARVED_ATTEMPTS {
                return Err(ExecuteError::Starved);
            }
            let Some(pause) = pause else {
                return Err(ExecuteError::Guest { attempts, source: trouble });
            };
            // Disconnected when the user wants to stop, which is looked at next.
            let _ = self.stop.receiver().recv_timeout(*pause);
        }
    }
}

impl Runner for GuestPool {
    fn run(&mut self, plan: &FaultPlan) -> Result<Execution, ExecuteError> {
        if !plan.faults.is_empty() {
            self.check_control()?;
        }
        self.attempts(plan)
    }

    fn run_fresh(&mut self, plan: &FaultPlan) -> Result<Execution, ExecuteError> {
        self.discard();
        self.fresh = true;
        let execution = self.attempts(plan);
        self.fresh = false;
        let mut execution = execution?;
        // Whoever asks for the next execution may not have heard of them.
        execution.new_sites.iter().for_each(|site| _ = self.described.remove(&site.site));
        let late = self.guest.as_mut().map(Guest::late_console).unwrap_or_default();
        if matches!(execution.outcome, Outcome::Completed) {
            (execution.outcome, execution.more_reports) = outcome_of(reports(&late));
            if execution.outcome.report().is_some() {
                execution.console += &late;
                self.discard();
            }
        }
        Ok(execution)
    }

    fn run_exact(&mut self, plan: &FaultPlan) -> Result<Option<Execution>, ExecuteError> {
        self.exact.run(plan)
    }

    fn take_late(&mut self) -> Vec<(FaultPlan, Execution)> {
        std::mem::take(&mut self.late)
    }

    fn take_fatal(&mut self) -> Vec<u64> {
        std::mem::take(&mut self.fatal)
    }

    fn counters(&self) -> RunnerCounters {
        self.counters
    }
}
