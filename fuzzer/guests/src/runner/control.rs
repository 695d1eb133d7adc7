//! Control runs: the fault-free plan, now and then, in the guest at hand.

use execution::{Attributed, Execution, Fate, How, RunError};
use fault_plan::{FaultPlan, Round};
use guest_protocol::DISK_PARTS;

use super::{Asked, GuestRunner, attribution::Previous, drift::CONTROL_INTERVAL};

impl GuestRunner {
    /// Compares a fault-free execution with the first ones. Ends a guest that has drifted.
    pub(super) fn control(&mut self, plan: &FaultPlan, execution: &Execution) {
        if plan.faults.is_empty() && self.inject && execution.guest == Fate::Alive {
            let hits: Vec<_> = execution.workload_hits().copied().collect();
            let controlled = self.drift.control(&hits);
            self.usage.controls += 1;
            self.usage.control_off_ppm = controlled.off_ppm;
            if controlled.drifted {
                tracing::debug!(executions = self.drift.executions, "the guest has drifted, replacing it");
                self.usage.drifted += 1;
                self.discard();
            }
        }
    }

    /// Runs the fault-free plan as long as that is due. Findings in this guest are the doing of the
    /// plan before, and so is what comes to light later.
    pub(super) fn control_when_due(&mut self) -> Result<(), RunError> {
        let (previous, guests) = (self.attribution.previous().cloned(), self.usage.guests);
        while self.inject && self.guest.is_some() && self.drift.is_due() {
            let plan = self.prepared.target.fault_free();
            let verify = Some(self.next_part());
            let execution = match self.attempts(|runner| runner.attempt_once(Asked { verify, ..Asked::warm(&plan) })) {
                Ok(execution) => execution,
                Err(RunError::Stopped) => return Err(RunError::Stopped),
                Err(error) => {
                    tracing::warn!("the control plan cannot be run: {}", execution::chain(&error));
                    break;
                }
            };
            let same_guest = previous.clone().filter(|_| self.usage.guests == guests);
            if !self.note_control(same_guest, execution) {
                break;
            }
        }
        Ok(())
    }

    /// Takes in a fault-free `execution` that the runner made by itself, after the execution
    /// `previous` of the same guest. What it found is late. Says whether the guest stays.
    pub(super) fn note_control(&mut self, previous: Option<Previous>, execution: Execution) -> bool {
        let plan = self.prepared.target.fault_free();
        let stays = execution.guest == Fate::Alive;
        // First: a guest that goes may have something left to say.
        self.attribution.restore(previous.clone());
        if execution.findings.is_empty() {
            self.control(&plan, &execution);
        } else {
            self.late.push(of_control(plan, previous, execution));
        }
        if !stays {
            self.discard();
        }
        self.guest.is_some()
    }

    /// Gives the part of the disk that is to be looked at before `plan`, if that is due: a guest
    /// that runs nothing but the fault-free plan has no other control runs.
    pub(super) fn part_when_due(&mut self, plan: &FaultPlan) -> Option<u32> {
        let due =
            plan.faults.is_empty() && self.inject && self.drift.executions % CONTROL_INTERVAL == CONTROL_INTERVAL - 1;
        due.then(|| self.next_part())
    }

    /// Gives the part of the disk that is to be looked at next. Each guest's life is short: all of
    /// them together look at all parts.
    fn next_part(&mut self) -> u32 {
        self.part = (self.part + 1) % DISK_PARTS;
        self.part
    }
}

/// Gives what a control run found to the execution before, where that was in the same guest. Both
/// are a sequence: the control run may be what shows it.
fn of_control(control: FaultPlan, previous: Option<Previous>, execution: Execution) -> Attributed {
    let Execution { findings, fired, console, history, .. } = execution;
    let Some(previous) = previous else {
        return Attributed { plan: control, how: How::Warm, fired, findings, console, history };
    };
    let earlier =
        history.last().cloned().unwrap_or_else(|| Round { faults: previous.plan.faults.clone(), reset: true });
    let plan = FaultPlan { earlier: vec![earlier], ..control };
    Attributed { plan, how: previous.how, fired: previous.fired, findings, console, history }
}
