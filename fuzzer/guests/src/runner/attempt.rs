//! Attempts to run a plan in a guest, one after the other when guests fail.

use execution::{Execution, How, Oracle, RunError, Target};
use fault_plan::FaultPlan;
use guest_protocol::Execute;

use super::{
    GuestRunner,
    attribution::{Judgement, Request, Verdict},
    fitness::{self, Unfit},
    retry::Retry,
    traced,
};
use crate::qemu::GuestError;

/// A round that a guest is asked to run.
#[derive(Clone, Copy)]
pub(super) struct Asked<'a> {
    pub(super) plan: &'a FaultPlan,
    pub(super) how: How,
    /// True to run it in the state that the execution before left.
    pub(super) keep: bool,
    /// True to leave the state for the next one.
    pub(super) leave: bool,
    /// Part of the disk to look at first, and whether the guest is as it was at first.
    pub(super) verify: Option<u32>,
    /// True to compare what the disk holds afterwards.
    pub(super) look: bool,
    /// True to have the file system's checker read the disk afterwards.
    pub(super) check: bool,
    /// True to have kmemleak look afterwards.
    pub(super) search: bool,
    /// Its number among the plan's rounds, from 0.
    pub(super) number: usize,
}

impl<'a> Asked<'a> {
    pub(super) fn warm(plan: &'a FaultPlan) -> Self {
        let (keep, leave, look, check, search) = (false, false, false, false, false);
        Self { plan, how: How::Warm, keep, leave, verify: None, look, check, search, number: 0 }
    }
}

/// Why there is no execution of one attempt.
pub(super) enum Failed {
    /// This kernel cannot run the plan; the reason.
    Refused(String),
    /// An effect of an earlier execution came to light.
    Spoilt,
    /// Guest or host failed.
    Trouble(GuestError),
}
impl GuestRunner {
    /// Has the guest at hand execute what is asked, and judges what the host sees of it.
    pub(super) fn attempt(&mut self, asked: Asked<'_>) -> Result<Judgement, GuestError> {
        let Asked { plan, how, keep, leave, verify, look, check, search, number } = asked;
        let trace = if how == How::Traced { self.stacks.of(number) } else { Vec::new() };
        self.next_id += 1;
        let request = Execute {
            id: self.next_id,
            plan: self.prepared.target.bounded(plan),
            keep,
            leave,
            verify,
            inject: self.inject,
            coverage: self.coverage,
            look: look && self.inject && self.has(Oracle::Data),
            check: check && self.inject && self.checks(),
            search,
            trace: trace.clone(),
            describe_all_sites: self.describe_all,
        };
        let deadline = self.deadline;
        let mut traces = std::mem::take(&mut self.reader.traces);
        let observed = self.guest().map(|guest| guest.execute(&request, deadline, &mut traces));
        self.reader.traces = traces;
        let observed = observed?;
        self.drift.executed();
        self.usage.longest_life = self.usage.longest_life.max(self.drift.executions);
        tracing::trace!(wall = ?observed.wall, end = ?observed.end, "executed");
        let (steps, symbols) = (&self.prepared.target.steps, &self.prepared.symbols);
        let Target { functions, oracles, .. } = &*self.prepared.target;
        // A step that does not return is told of earlier.
        let deadline = deadline.min(observed.wall);
        let request = Request { plan, how, keep, inject: self.inject, deadline, steps, symbols, functions, oracles };
        if how != How::Traced {
            self.stacks.note(number, observed.log.as_ref());
            return Ok(self.attribution.judge(&request, observed));
        }
        let seen = observed.log.clone().zip(observed.returns.clone());
        let mut judgement = self.attribution.judge(&request, observed);
        if let (Verdict::Ran(own), Some((log, returns))) = (&mut judgement.verdict, seen) {
            traced::add(own, plan, &trace, &log, &returns);
        }
        Ok(judgement)
    }

    /// Has the guest at hand execute what is asked, once.
    pub(super) fn attempt_once(&mut self, asked: Asked<'_>) -> Result<Execution, Failed> {
        let verdict = match self.attempt(asked) {
            Ok(Judgement { verdict, late }) => {
                late.into_iter().for_each(|late| self.note_late(late));
                verdict
            }
            Err(error) => Verdict::Trouble(error),
        };
        match verdict {
            Verdict::Ran(own) => match fitness::unfit_before(&own) {
                Some(unfit) => {
                    self.count_unfit(&unfit);
                    // What a guest with a wrong disk says yet is nobody's doing.
                    if matches!(unfit, Unfit::Drifted(_)) {
                        self.attribution.fresh_guest();
                    }
                    Err(Failed::Spoilt)
                }
                None => Ok(self.execution(asked.plan, *own)),
            },
            Verdict::Refused(reason) => Err(Failed::Refused(reason)),
            Verdict::Spoilt => Err(Failed::Spoilt),
            Verdict::Trouble(trouble) => Err(Failed::Trouble(trouble)),
        }
    }

    /// Makes one `attempt` after the other, each in a fresh guest, when guests fail.
    pub(super) fn attempts(
        &mut self,
        mut attempt: impl FnMut(&mut Self) -> Result<Execution, Failed>,
    ) -> Result<Execution, RunError> {
        let mut retry = Retry::default();
        let stop = self.prepared.stop.clone();
        loop {
            if stop.is_requested() {
                return Err(RunError::Stopped);
            }
            let trouble = match attempt(self) {
                Ok(execution) => return Ok(execution),
                Err(Failed::Refused(reason)) => return Err(RunError::Refused(reason)),
                Err(Failed::Spoilt) => GuestError::Lost,
                Err(Failed::Trouble(_)) if stop.is_requested() => return Err(RunError::Stopped),
                Err(Failed::Trouble(trouble)) => {
                    self.usage.harness_errors += 1;
                    tracing::warn!("guest trouble, trying again in a fresh guest: {}", execution::chain(&trouble));
                    trouble
                }
            };
            self.discard();
            // The debugger has seen it, and may have ended the guest.
            if self.debugger.is_some() {
                return Err(RunError::Guests { attempts: 1, source: Box::new(trouble) });
            }
            let pause = retry.after(trouble)?;
            // The channel is disconnected when the user wants to stop, which is looked at next.
            let _ = stop.receiver().recv_timeout(pause);
        }
    }
}
