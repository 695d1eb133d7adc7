//! One run of a workload under one fault plan.

use std::{sync::Arc, time::Duration};

use guest_protocol::{Hit, SiteDescription, StepResult, Timings};
use kernel_report::KernelReport;
use sha2::{Digest, Sha256};

use crate::Finding;

/// A fault that fired.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fired {
    /// Index in the plan, from 0.
    pub fault: usize,
    /// Position of the call among all calls of the execution, from 1.
    pub sequence: u32,
    /// Number of the site, as in [`Hit::site`].
    pub site: u64,
    /// Step of the workload that the call was in, from 1.
    pub step: u32,
    /// The callers, innermost first.
    pub call_path: Vec<String>,
}

/// The state in which an execution left its guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It runs the next plan.
    Alive,
    /// It answered, and is not fit for another plan: its kernel reported something, or something is
    /// left in use.
    Retired,
    /// It died or hung.
    Dead,
}

/// The record of one execution.
#[derive(Clone, Debug)]
pub struct Execution {
    /// The findings, in their order. Kernel reports end with the first that is more than a warning:
    /// those after it are its consequences.
    pub findings: Vec<Finding>,
    /// The state of its guest.
    pub guest: Fate,
    /// One result for each step; empty when the guest is dead.
    pub steps: Vec<StepResult>,
    /// The sites reached; empty when the guest is dead.
    pub hits: Vec<Hit>,
    /// Descriptions of the sites reached. A site that no guest has described yet is missing.
    pub sites: Vec<Arc<SiteDescription>>,
    /// The faults that fired, also when the guest is dead.
    pub fired: Vec<Fired>,
    /// Addresses of the basic blocks that ran, each once; up to its death when the guest is dead.
    pub coverage: Vec<u64>,
    /// Calls left alone because the kernel promises that they do not fail.
    pub guarded: u32,
    /// Names in the plan's call paths that the kernel has no function of: it inlined them, and they
    /// were skipped over. Empty when the guest is dead.
    pub unknown_names: Vec<String>,
    /// True when the guest had no room for all counts or all coverage.
    pub incomplete: bool,
    /// Kernel log or console text of the execution.
    pub console: String,
    /// Time on the host from request to reply.
    pub wall: Duration,
    /// Time in the guest, by phase.
    pub timings: Timings,
}

impl Execution {
    /// Gives the kernel reports and hangs that count, in their order.
    pub fn reports(&self) -> impl Iterator<Item = &KernelReport> {
        self.findings.iter().filter_map(Finding::report)
    }

    /// Says whether the kernel reported something or hung.
    #[must_use]
    pub fn is_crash(&self) -> bool {
        self.reports().next().is_some()
    }

    /// Says whether a report has this title.
    #[must_use]
    pub fn has_title(&self, title: &str) -> bool {
        self.reports().any(|report| report.title == title)
    }

    /// Hashes all that an execution shows but times: findings, the steps' results, the faults that
    /// fired, each site's hits and the coverage. Equal hashes mean equal executions.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        let mut hits: Vec<_> = self.hits.iter().map(|hit| (hit.site, hit.count, hit.first_sequence)).collect();
        hits.sort_unstable();
        let mut coverage = self.coverage.clone();
        coverage.sort_unstable();
        let titles: Vec<_> = self.findings.iter().map(Finding::title).collect();
        let shown = format!("{titles:?} {:?} {:?} {} {hits:?} {coverage:?}", self.steps, self.fired, self.guarded);
        hex::encode(&Sha256::digest(shown)[..8])
    }
}
