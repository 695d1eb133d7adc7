//! One run of a workload under one fault plan, and the seam between the search and whatever runs it.

use std::time::Duration;

use fault_plan::FaultPlan;
use guest_protocol::{Hit, SiteDescription, StepResult, Timings};
use sha2::{Digest, Sha256};
use thiserror::Error;

use crate::{guest::GuestError, hex::hex, report::KernelReport};

/// A fault that fired.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fired {
    /// Index in the plan, from 0.
    pub fault: usize,
    /// Position of the call among all calls of the execution, from 1.
    pub sequence: u32,
    /// Number of the site, as in [`Hit::site`].
    pub site: u64,
    /// The callers, innermost first.
    pub call_path: Vec<String>,
}

/// How an execution ended. A harness error is no ending: it is an [`ExecuteError`].
#[derive(Clone, Debug)]
pub enum Outcome {
    /// All steps returned and the kernel had nothing to report.
    Completed,
    /// The kernel reported a bug.
    Crashed(KernelReport),
    /// The deadline passed, or the kernel's own detectors found a hang.
    Hung(KernelReport),
}

impl Outcome {
    /// The report of a crash or hang.
    #[must_use]
    pub fn report(&self) -> Option<&KernelReport> {
        match self {
            Self::Completed => None,
            Self::Crashed(report) | Self::Hung(report) => Some(report),
        }
    }
}

/// What one execution did.
#[derive(Clone, Debug)]
pub struct Execution {
    /// How it ended. Of several kernel reports this has the first.
    pub outcome: Outcome,
    /// The reports after the first one, up to the first that is more than a warning: what comes after that are its
    /// consequences.
    pub more_reports: Vec<KernelReport>,
    /// One result for each step; empty when the guest died.
    pub steps: Vec<StepResult>,
    /// The sites reached; empty when the guest died.
    pub hits: Vec<Hit>,
    /// What stands behind site numbers not described before.
    pub new_sites: Vec<SiteDescription>,
    /// The faults that fired, also when the guest died.
    pub fired: Vec<Fired>,
    /// Addresses of the basic blocks that ran, each once, up to its death when the guest died.
    pub coverage: Vec<u64>,
    /// Calls left alone because the kernel promises that they do not fail.
    pub guarded: u32,
    /// Whether there was more to count or to cover than the guest has room for.
    pub incomplete: bool,
    /// Kernel log or console text of the execution.
    pub console: String,
    /// Time on the host from request to reply.
    pub wall: Duration,
    /// Where the time went in the guest.
    pub timings: Timings,
}

impl Execution {
    /// All kernel reports that count, in their order.
    pub fn reports(&self) -> impl Iterator<Item = &KernelReport> {
        self.outcome.report().into_iter().chain(&self.more_reports)
    }

    /// Whether the guest lived to tell of it.
    #[must_use]
    pub fn guest_lives(&self) -> bool {
        !self.steps.is_empty()
    }

    /// Whether the kernel reported something with this title.
    #[must_use]
    pub fn has_title(&self, title: &str) -> bool {
        self.reports().any(|report| report.title == title)
    }

    /// A hash of all that an execution shows but times: how it ended, the steps' results, the faults that fired, each
    /// site's hits and the coverage. Two executions that have the same did the same.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        let mut hits: Vec<_> = self.hits.iter().map(|hit| (hit.site, hit.count, hit.first_sequence)).collect();
        hits.sort_unstable();
        let mut coverage = self.coverage.clone();
        coverage.sort_unstable();
        let titles: Vec<_> = self.reports().map(|report| &report.title).collect();
        let shown = format!("{titles:?} {:?} {:?} {} {hits:?} {coverage:?}", self.steps, self.fired, self.guarded);
        hex(&Sha256::digest(shown)[..8])
    }
}

/// Why there is no execution to speak of. Never a finding.
#[derive(Debug, Error)]
pub enum ExecuteError {
    /// The plan cannot be run on this kernel.
    #[error("the plan is refused: {0}")]
    Refused(String),
    /// It looks hung again and again, but the host did not let the guests run.
    #[error("the host is too busy to tell whether the plan hangs")]
    Starved,
    /// Guests failed again and again.
    #[error("{attempts} guests in a row failed")]
    Guest {
        /// How many.
        attempts: usize,
        /// The last one's trouble.
        #[source]
        source: GuestError,
    },
    /// The user wants to stop.
    #[error("stopped")]
    Stopped,
}

/// What runs plans: guests, or a fake in unit tests.
pub trait Runner {
    /// Runs `plan` in whatever guest is at hand.
    ///
    /// # Errors
    ///
    /// See [`ExecuteError`].
    fn run(&mut self, plan: &FaultPlan) -> Result<Execution, ExecuteError>;

    /// Runs `plan` as the first execution of a fresh guest, and waits for what the kernel has to say after it.
    ///
    /// # Errors
    ///
    /// See [`ExecuteError`].
    fn run_fresh(&mut self, plan: &FaultPlan) -> Result<Execution, ExecuteError>;

    /// Runs `plan` in a fresh guest whose executions repeat exactly, where there are such guests.
    ///
    /// # Errors
    ///
    /// See [`ExecuteError`].
    fn run_exact(&mut self, _plan: &FaultPlan) -> Result<Option<Execution>, ExecuteError> {
        Ok(None)
    }

    /// Executions that turned out to have ended in a kernel report only after they had completed, with their plans.
    fn take_late(&mut self) -> Vec<(FaultPlan, Execution)> {
        Vec::new()
    }

    /// The sites of faults that were the last of their execution and cost the guest, of executions by [`Self::run`] since this was
    /// asked last.
    fn take_fatal(&mut self) -> Vec<u64> {
        Vec::new()
    }

    /// What happened to guests so far.
    fn counters(&self) -> RunnerCounters;
}

/// What happened to guests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RunnerCounters {
    /// Guests started.
    pub guests: u64,
    /// Executions lost to trouble of guest or host, and tried again.
    pub harness_errors: u64,
    /// Guests replaced because something was left in use after the clean-up, or their disk could not be put back.
    pub leftovers: u64,
    /// Fault-free executions that were compared with the first ones.
    pub controls: u64,
    /// Calls by which the last of them was off, in a million of them.
    pub control_off_ppm: u64,
    /// Guests replaced because such an execution was another one than at first.
    pub drifted: u64,
    /// The most executions of one guest.
    pub longest_life: u64,
}
