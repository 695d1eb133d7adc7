//! Whatever runs plans, seen from the search.

use std::error::Error;

use fault_plan::{FaultPlan, Round};
use thiserror::Error;

use crate::{Execution, Finding, Fired};

/// Runs plans: guests, or a fake in unit tests.
pub trait Runner {
    /// Runs `plan` in the kind of guest that `how` says. A plan with earlier rounds has a fresh
    /// guest, which goes afterwards, unless any guest will do.
    fn run(&mut self, plan: &FaultPlan, how: How) -> Ran;

    /// Ends the guest at hand, after which nothing more comes to light. Gives the effects of
    /// earlier plans that did so meanwhile.
    fn finish(&mut self) -> Vec<Attributed>;

    /// Gives counts of guests so far, and the memory that the present one has.
    fn usage(&self) -> Usage;
}

/// The kind of guest that a plan is run in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// Whatever guest is at hand.
    Warm,
    /// The guest of the run before, in the state that it left it in: its disk is not put back, and
    /// whatever something holds is held. The runner keeps it until a run that is no such one.
    Next,
    /// A fresh guest, which runs nothing before; the runner also waits for what its kernel has to
    /// say after the execution.
    Fresh,
    /// A fresh guest with probes where the calls on the call paths of the faults return to that
    /// fired in the run before. That must have been a run of the same plan.
    Traced,
    /// A fresh guest whose executions repeat exactly, where there are such guests.
    Exact,
    /// A fresh guest whose kernel notes who allocates, where there are such guests. Where the plan
    /// leaks, that kernel is asked which of the memory nothing points to. That takes seconds.
    Searched,
}

/// The outcome of a run.
#[derive(Debug)]
pub struct Ran {
    /// The execution of the plan, or why there is none.
    pub execution: Result<Execution, RunError>,
    /// Effects of earlier plans that came to light meanwhile. They are here also when the run
    /// failed.
    pub late: Vec<Attributed>,
}

impl From<Result<Execution, RunError>> for Ran {
    fn from(execution: Result<Execution, RunError>) -> Self {
        Self { execution, late: Vec::new() }
    }
}

/// Findings that came to light after the end of the execution that caused them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attributed {
    /// The plan that ran then: the last one in that guest, or the fault-free one where none had
    /// run.
    pub plan: FaultPlan,
    /// The kind of run that it was.
    pub how: How,
    /// The faults that fired then.
    pub fired: Vec<Fired>,
    /// The findings, never none.
    pub findings: Vec<Finding>,
    /// The text that they were found in.
    pub console: String,
    /// The rounds of that guest before the plan's last one, first to last; the last ones where
    /// there were too many.
    pub history: Vec<Round>,
}

/// Why there is no execution. Never a finding.
#[derive(Debug, Error)]
pub enum RunError {
    /// The plan cannot be run on this kernel.
    #[error("the plan is refused: {0}")]
    Refused(String),
    /// It looks hung again and again, but the host did not let the guests run.
    #[error("the host is too busy to tell whether the plan hangs")]
    Starved,
    /// Guests failed again and again.
    #[error("{attempts} guests in a row failed")]
    Guests {
        /// Number of guests that failed.
        attempts: usize,
        /// Error of the last guest.
        source: Box<dyn Error + Send + Sync>,
    },
    /// There is no guest in the state that the run before left.
    #[error("the guest of the run before is gone")]
    NoNext,
    /// There are no guests of the kind asked for.
    #[error("there are no such guests: {0}")]
    NoSuchGuests(String),
    /// The user wants to stop.
    #[error("stopped")]
    Stopped,
}

/// Counts of guests, and the memory of the present one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Guests started.
    pub guests: u64,
    /// Executions lost to trouble of guest or host, and tried again.
    pub harness_errors: u64,
    /// Executions that left something in use, or a disk that could not be put back.
    pub leftovers: u64,
    /// Executions in such a state, to see what comes of it, and those that brought it about again.
    pub aftermath_executions: u64,
    /// Milliseconds that these took.
    pub aftermath_ms: u64,
    /// Fault-free executions that were compared with the first ones.
    pub controls: u64,
    /// Calls by which the last of them was off, in a million of them.
    pub control_off_ppm: u64,
    /// Guests replaced because such an execution was another one than at first, or their disk was.
    pub drifted: u64,
    /// Guests replaced because a detector of their kernel had switched itself off, memory had run
    /// short, or their table of injection sites was full.
    pub worn: u64,
    /// The most executions of one guest.
    pub longest_life: u64,
    /// Memory that the present guest's process has of its own, in KiB.
    pub guest_kib: u64,
}
