//! A plan to be checked, with what is to be compared.

use std::time::Instant;

use execution::{Execution, Finding};
use fault_plan::Scope;
use guest_protocol::StepResult;
use serde::{Deserialize, Serialize};

use crate::{input::PlanInput, recent::digest};

/// Why a plan is to be checked, best reason first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Reason {
    /// It reached new code or a new point: it is in the corpus. First, as it may have found a thing
    /// that only the checkers' kernel sees, while a report is on disk already.
    Signal,
    /// The kernel reported something that it did not report often before.
    Crash,
    /// The steps' results were new, all together.
    Outcome,
    /// The calls at points were new, all together.
    Hits,
}

pub(super) const REASONS: usize = 4;

/// A plan to be checked, and what it did where it was explored.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct QueuedPlan {
    pub(crate) plan: PlanInput,
    pub(super) reason: Reason,
    pub(super) steps: Vec<StepResult>,
    pub(super) reports: Vec<Reported>,
    pub(super) put_back: u32,
    /// The digests by which it was new.
    pub(super) news: News,
    #[serde(skip, default = "Instant::now")]
    pub(super) since: Instant,
}

/// Digests of what an execution showed.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct News {
    pub(super) outcome: u64,
    pub(super) hits: u64,
    pub(super) reports: u64,
}

/// What an execution has shown.
pub(super) struct Shown {
    pub(super) reports: Vec<Reported>,
    pub(super) news: News,
}

/// Functions of a call trace, from the innermost, into which one of the kernels may have compiled
/// the function that the other one names.
const INLINED: usize = 4;

/// The parts of a finding that are kept.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(super) struct Reported {
    pub(super) key: String,
    pub(super) title: String,
    pub(super) stack: Vec<String>,
    /// True when an oracle saw it, and the kernel neither reported it nor hangs. Queues have the
    /// name of the first such oracle.
    #[serde(rename = "is_leftover")]
    pub(super) by_oracle: bool,
}

impl Reported {
    /// Gives the parts of `finding`.
    pub(super) fn of(finding: &Finding) -> Self {
        let stack = finding.stack.iter().take(INLINED).cloned().collect();
        let by_oracle = !finding.is_report();
        Self { key: finding.key.clone(), title: finding.title.clone(), stack, by_oracle }
    }

    /// Gives the function that the title names.
    fn function(&self) -> Option<&str> {
        self.title.rsplit_once(" in ").map(|(_, function)| function)
    }

    /// Says whether it is `other`, made by the same plan on another kernel: an oracle saw the same
    /// kind of thing, it is in the same function, or it has the same words and one of the two does
    /// not know the function or has compiled it into another one.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        if self.by_oracle || other.by_oracle {
            // The plan is the same, and so is the kind of thing that the oracle saw.
            let kind = |key: &str| key.split_once(": ").map_or(key, |(kind, _)| kind).to_owned();
            return self.by_oracle == other.by_oracle && kind(&self.key) == kind(&other.key);
        }
        let words = |key: &str| key.rsplit_once(" in ").map_or(key, |(words, _)| words).to_owned();
        match (self.function(), other.function()) {
            (Some(ours), Some(theirs)) if ours == theirs => true,
            _ if words(&self.key) != words(&other.key) => false,
            (Some(ours), Some(theirs)) => {
                self.stack.iter().any(|function| function == theirs)
                    || other.stack.iter().any(|function| function == ours)
            }
            _ => true,
        }
    }
}

impl Shown {
    /// Gives what `execution` has shown.
    pub(super) fn of(execution: &Execution) -> Self {
        let reports: Vec<_> = execution.findings.iter().map(Reported::of).collect();
        Self { news: News::of(execution, &reports), reports }
    }
}

impl QueuedPlan {
    /// Makes the check of `plan`, whose `steps` had these results and which has `shown` that.
    pub(super) fn new(plan: &PlanInput, reason: Reason, steps: &[StepResult], shown: Shown) -> Self {
        let Shown { reports, news } = shown;
        Self { plan: plan.clone(), reason, steps: steps.to_vec(), reports, put_back: 0, news, since: Instant::now() }
    }

    /// Gives a crash that both kernels saw, by two keys: that of the explorers' kernel, and that of
    /// the one on which `execution` was made.
    pub(crate) fn same_crash<'a>(&'a self, execution: &'a Execution) -> Option<(&'a str, &'a str)> {
        self.reports.iter().filter(|explored| !execution.has_key(&explored.key)).find_map(|explored| {
            let same = execution.findings.iter().find(|finding| explored.is_same(&Reported::of(finding)))?;
            Some((explored.key.as_str(), same.key.as_str()))
        })
    }

    /// Says whether `execution` shows less than the explorers saw: all faults of the plan fired
    /// there, and one of them did not here, although all rounds ran.
    pub(crate) fn is_unfired(&self, execution: &Execution) -> bool {
        !execution.has_ended_early(&self.plan.0) && execution.fired.len() < self.plan.0.all_faults().count()
    }
}

impl News {
    /// Gives the digests of `execution`, in which there were these `reports`.
    fn of(execution: &Execution, reports: &[Reported]) -> Self {
        // Those of other tasks are others in every run. A failure of theirs is the plan's.
        let mut elsewhere: Vec<_> =
            execution.fired.iter().filter(|fired| fired.scope != Scope::Workload).map(|fired| fired.site).collect();
        elsewhere.sort_unstable();
        let mut hits: Vec<_> = execution.workload_hits().map(|hit| (hit.site, hit.count)).collect();
        hits.sort_unstable();
        let keys: Vec<_> = reports.iter().map(|report| &report.key).collect();
        Self { outcome: digest(&execution.steps), hits: digest((hits, elsewhere)), reports: digest(keys) }
    }
}
