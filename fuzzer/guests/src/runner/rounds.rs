//! Rounds in the state that the one before left; and plans with earlier rounds, all of which one
//! guest runs: the guest at hand, which goes on, or a fresh one, which goes.

use std::time::Duration;

use execution::{Execution, Fate, Finding, Fired, How, RunError};
use fault_plan::FaultPlan;

use super::{
    GuestRunner,
    attempt::{Asked, Failed},
    attribution::{Judgement, Verdict},
};
use crate::qemu::GuestError;

/// What all rounds so far have shown.
#[derive(Default)]
struct Sequence {
    rounds: Vec<Execution>,
    findings: Vec<Finding>,
    fired: Vec<Fired>,
    console: String,
    wall: Duration,
    /// Number of faults in the rounds so far.
    faults: usize,
}

impl Sequence {
    /// Takes in a round of a plan with so many `faults`.
    fn add(&mut self, execution: Execution, faults: usize) {
        self.findings.extend(execution.findings.iter().cloned());
        let offset = self.faults;
        let fired = execution.fired.iter().cloned().map(|fired| Fired { fault: fired.fault + offset, ..fired });
        self.fired.extend(fired);
        self.faults += faults;
        self.console += &execution.console;
        self.wall += execution.wall;
        self.rounds.push(execution);
    }

    /// Gives the execution of the whole: the last round that ran, with what all have shown.
    fn execution(self) -> Option<Execution> {
        let Self { mut rounds, findings, fired, console, wall, .. } = self;
        let last = rounds.pop()?;
        rounds.iter_mut().for_each(|round| round.coverage = Vec::new());
        Some(Execution { rounds, findings, fired, console, wall, ..last })
    }
}

impl GuestRunner {
    /// Runs `plan` in the state that the run before left. There is one attempt: a fresh guest would
    /// be in another state.
    pub(super) fn run_next(&mut self, plan: &FaultPlan) -> Result<Execution, RunError> {
        if !self.unclean {
            return Err(RunError::NoNext);
        }
        let asked = Asked { how: How::Next, keep: true, leave: true, ..Asked::warm(plan) };
        self.attempt_once(asked).map_err(|failed| {
            self.discard();
            match failed {
                Failed::Refused(reason) => RunError::Refused(reason),
                Failed::Trouble(_) if self.prepared.stop.is_requested() => RunError::Stopped,
                Failed::Spoilt | Failed::Trouble(_) => RunError::NoNext,
            }
        })
    }

    /// Adds to the `execution` what the guest at hand says after it. One that says something goes.
    pub(super) fn listen(&mut self, execution: &mut Execution) {
        let Some(guest) = &mut self.guest else { return };
        let text = guest.late_console();
        if let Some(late) = self.attribution.last_words(text) {
            execution.findings.extend(late.findings);
            execution.console += &late.console;
            execution.guest = Fate::Retired;
            self.discard();
        }
    }

    /// Runs a plan with earlier rounds. It ends with the round in which the kernel dies or reports
    /// something. The guest at hand is not asked what the disk holds, nor for leaks: what was left
    /// by earlier rounds would count.
    pub(super) fn run_rounds(&mut self, plan: &FaultPlan, how: How) -> Result<Execution, RunError> {
        if how == How::Warm {
            if self.unclean {
                self.discard();
            }
            self.control_when_due()?;
            return self.attempts(|runner| runner.sequence(plan, how));
        }
        let how = if how == How::Next { How::Fresh } else { how };
        let execution = self.attempts(|runner| {
            runner.discard();
            runner.sequence(plan, how)
        });
        self.discard();
        execution
    }

    fn sequence(&mut self, plan: &FaultPlan, how: How) -> Result<Execution, Failed> {
        let mut sequence = Sequence::default();
        let (warm, mut keep) = (how == How::Warm, false);
        let rounds = plan.earlier.iter().map(|round| (&round.faults, !round.reset)).chain([(&plan.faults, false)]);
        for (number, (faults, leave)) in rounds.enumerate() {
            let round = FaultPlan { earlier: Vec::new(), faults: faults.clone(), ..plan.clone() };
            let Judgement { verdict, late } = self
                .attempt(Asked { look: !warm, check: !warm, how, keep, leave, number, ..Asked::warm(&round) })
                .map_err(Failed::Trouble)?;
            // Before the first round there was nothing of this plan.
            if sequence.rounds.is_empty() {
                late.into_iter().for_each(|late| self.note_late(late));
            } else {
                for late in late {
                    sequence.findings.extend(late.findings);
                    sequence.console += &late.console;
                }
            }
            match verdict {
                Verdict::Ran(own) => {
                    let mut execution = self.execution(&round, *own);
                    if number == plan.earlier.len() && !warm {
                        self.find_leaks(&round, how, number, &mut execution);
                    }
                    // A disk that something holds cannot be put back.
                    keep = leave || execution.guest == Fate::Unclean;
                    sequence.add(execution, faults.len());
                }
                Verdict::Refused(reason) => return Err(Failed::Refused(reason)),
                Verdict::Trouble(trouble) => return Err(Failed::Trouble(trouble)),
                Verdict::Spoilt if sequence.findings.is_empty() => return Err(Failed::Spoilt),
                Verdict::Spoilt => {
                    self.discard();
                    break;
                }
            }
            if self.guest.is_none() {
                break;
            }
        }
        let mut execution = sequence.execution().ok_or(Failed::Trouble(GuestError::Lost))?;
        if !warm {
            self.listen(&mut execution);
        }
        if self.guest.is_none() && execution.guest != Fate::Dead {
            execution.guest = Fate::Retired;
        }
        Ok(execution)
    }
}
