//! One run of a workload under one fault plan.

use std::{
    collections::{BTreeSet, HashSet},
    sync::Arc,
    time::Duration,
};

use fault_plan::{FaultPlan, Round, Scope};
use guest_protocol::{Hit, SiteDescription, StepResult, Timings, TraceRole};
use sha2::{Digest, Sha256};

use crate::{Finding, FrameReturn};

/// A fault that fired.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fired {
    /// Index among the faults of all rounds of the plan, from 0.
    pub fault: usize,
    /// Position of the call among all calls of the execution, from 1; always of the first time.
    pub sequence: u32,
    /// Number of the site, as in [`Hit::site`].
    pub site: u64,
    /// Step of the workload that the call was in, from 1.
    pub step: u32,
    /// Scope of the call.
    pub scope: Scope,
    /// Number of times that it fired. The rest is of the first time, or of the last one of as many
    /// as the program allows.
    pub times: u32,
    /// The callers, innermost first.
    pub call_path: Vec<String>,
    /// Return addresses into the callers, innermost first, such as `kmem_cache_alloc+0x2a`: symbol
    /// with the compiler's suffixes, and bytes from its start. They are the running kernel's. One
    /// that no symbol has is a plain number.
    pub frames: Vec<String>,
    /// The registers of the call's arguments, whether the function has as many or not.
    pub arguments: Vec<u64>,
    /// Those of them that matter, in words, such as `size 64 bytes, flags GFP_KERNEL`. Empty where
    /// the function's group names none.
    pub words: String,
    /// What the functions of the call path returned after it fired; empty unless the run was
    /// [`How::Traced`](crate::How::Traced).
    pub returns: Vec<FrameReturn>,
}

/// The state in which an execution left its guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It runs the next plan.
    Alive,
    /// It answered, and something is left in use. It runs another plan only to see what comes of
    /// that: [`How::Next`](crate::How::Next).
    Unclean,
    /// It answered, and is not fit for another plan: its kernel reported something.
    Retired,
    /// It died or hung.
    Dead,
}

/// Code that tasks of one kind ran.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Coverage {
    /// The tasks.
    pub role: TraceRole,
    /// Addresses of the basic blocks that ran, each once; up to its death when the guest is dead.
    pub addresses: Vec<u64>,
    /// True when the guest had no room for all of them.
    pub overflowed: bool,
}

/// The record of one execution. Of a plan with rounds, findings and faults that fired are those of
/// all rounds, and the rest is of the last one that ran.
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
    /// The faults that fired, of all rounds, also when the guest is dead.
    pub fired: Vec<Fired>,
    /// The code that ran, by the tasks that ran it.
    pub coverage: Vec<Coverage>,
    /// Calls left alone because the kernel promises that they do not fail.
    pub guarded: u32,
    /// Names in the plan's call paths that the kernel has no function of: it inlined them, and they
    /// were skipped over. Empty when the guest is dead.
    pub unknown_names: Vec<String>,
    /// True when the guest had no room for all counts or all coverage.
    pub incomplete: bool,
    /// Kernel log or console text of the execution.
    pub console: String,
    /// The rounds of its guest before this plan, first to last; the last ones where there were too
    /// many. Empty when there are no findings.
    pub history: Vec<Round>,
    /// The executions of the plan's earlier rounds, each as if it were all, without coverage.
    pub rounds: Vec<Execution>,
    /// Time on the host from request to reply.
    pub wall: Duration,
    /// Time in the guest, by phase.
    pub timings: Timings,
}

impl Execution {
    /// Gives the hits of the workload's own task. What other tasks do for it differs from run to
    /// run. A site that is not described counts as the workload's.
    pub fn workload_hits(&self) -> impl Iterator<Item = &Hit> {
        let others: HashSet<u64> =
            self.sites.iter().filter(|site| !site.scope.is_workload()).map(|site| site.site).collect();
        self.hits.iter().filter(move |hit| !others.contains(&hit.site))
    }

    /// Says whether something has ended it before the last round of its `plan`.
    #[must_use]
    pub fn has_ended_early(&self, plan: &FaultPlan) -> bool {
        self.rounds.len() < plan.earlier.len()
    }

    /// Says whether a finding has this key.
    #[must_use]
    pub fn has_key(&self, key: &str) -> bool {
        self.findings.iter().any(|finding| finding.has_key(key))
    }

    /// Gives the addresses of the basic blocks that ran, each once for each role.
    pub fn covered(&self) -> impl Iterator<Item = (TraceRole, u64)> + '_ {
        self.coverage.iter().flat_map(|covered| covered.addresses.iter().map(|address| (covered.role, *address)))
    }

    /// Counts the basic blocks that ran, whoever ran them.
    #[must_use]
    pub fn places(&self) -> usize {
        self.covered().map(|(_, address)| address).collect::<BTreeSet<_>>().len()
    }

    /// Hashes all that an execution shows but times: findings, the steps' results, the faults that
    /// fired, each site's hits and the coverage. Equal hashes mean equal executions.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        let mut hits: Vec<_> = self.hits.iter().map(|hit| (hit.site, hit.count, hit.first_sequence)).collect();
        hits.sort_unstable();
        let mut coverage: Vec<_> = self.covered().collect();
        coverage.sort_unstable();
        let keys: Vec<_> = self.findings.iter().map(|finding| &finding.key).collect();
        let shown = format!("{keys:?} {:?} {:?} {} {hits:?} {coverage:?}", self.steps, self.fired, self.guarded);
        hex::encode(&Sha256::digest(shown)[..8])
    }
}
