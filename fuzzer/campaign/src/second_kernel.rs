//! Plans that the explorers' kernel has run and the checkers' kernel is still to run.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    hash::{DefaultHasher, Hash, Hasher},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use guest_protocol::StepResult;

use crate::input::PlanInput;
use execution::{Execution, Fate, Finding};

/// The most plans that wait for one reason; beyond that the oldest go.
const MOST_WAITING: usize = 500;

/// The number of plans that end in the same reports and are checked before all others. A crash that
/// is easy to make would else leave the checkers no time for anything, as each takes a guest.
const CRASHES_FIRST: u32 = 2;

/// Why a plan is to be checked, best reason first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reason {
    /// It reached new code or a new site: it is in the corpus. First, as it may have found a thing
    /// that only the checkers' kernel sees, while a report is on disk already.
    Signal,
    /// The kernel reported something that it did not report often before.
    Crash,
    /// The steps' results were new, all together.
    Outcome,
    /// The calls at injection sites were new, all together.
    Hits,
}

const REASONS: usize = 4;

/// A plan to be checked, and what it did where it was explored.
#[derive(Clone, Debug)]
pub(crate) struct QueuedPlan {
    pub(crate) plan: PlanInput,
    steps: Vec<StepResult>,
    reports: Vec<Reported>,
    since: Instant,
}

/// The parts of a finding that are kept.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Reported {
    key: String,
    title: String,
}

impl Reported {
    fn of(finding: &Finding) -> Self {
        Self { key: finding.key.clone(), title: finding.title.clone() }
    }

    /// Gives the function that the title names.
    fn function(&self) -> Option<&str> {
        self.title.rsplit_once(" in ").map(|(_, function)| function)
    }

    fn is_same_function(&self, other: &Self) -> bool {
        self.function().is_some() && self.function() == other.function()
    }
}

impl QueuedPlan {
    /// Gives a crash that both kernels saw in the same function, by two keys: that of the
    /// explorers' kernel, and that of the one on which `execution` was made.
    pub(crate) fn same_crash<'a>(&'a self, execution: &'a Execution) -> Option<(&'a str, &'a str)> {
        self.reports.iter().filter(|explored| !execution.has_key(&explored.key)).find_map(|explored| {
            let same = execution.findings.iter().find(|finding| explored.is_same_function(&Reported::of(finding)))?;
            Some((explored.key.as_str(), same.key.as_str()))
        })
    }
}

/// Counts of checks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct CheckCounts {
    /// Plans run on both kernels.
    pub(crate) checked: u64,
    /// Of those, plans whose steps had other results, or of which only one kernel reported
    /// anything.
    pub(crate) different: u64,
    /// Plans that wait.
    pub(crate) waiting: u64,
}

#[derive(Debug, Default)]
struct Inner {
    waiting: [VecDeque<QueuedPlan>; REASONS],
    taken: HashSet<u64>,
    outcomes: HashSet<u64>,
    hits: HashSet<u64>,
    /// Number of times that each set of reports came.
    crashes: HashMap<u64, u32>,
    checked: u64,
    different: u64,
}

/// The plans that wait to be checked.
#[derive(Debug, Default)]
pub(crate) struct SecondKernelQueue {
    inner: Mutex<Inner>,
}

fn digest(of: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    of.hash(&mut hasher);
    hasher.finish()
}

impl SecondKernelQueue {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes in an execution of `plan`, once; the plan waits to be checked if there is a reason to.
    /// `is_entry` says that it goes into the corpus.
    pub(crate) fn offer(&self, plan: &PlanInput, execution: &Execution, is_entry: bool) {
        let mut inner = self.inner();
        let outcome = digest(execution.steps.iter().map(|step| format!("{step:?}")).collect::<Vec<_>>());
        let mut hits: Vec<_> = execution.hits.iter().map(|hit| (hit.site, hit.count)).collect();
        hits.sort_unstable();
        let (new_outcome, new_hits) = (inner.outcomes.insert(outcome), inner.hits.insert(digest(hits)));
        let reports: Vec<_> = execution.findings.iter().map(Reported::of).collect();
        let rare = !reports.is_empty() && {
            let keys: Vec<_> = reports.iter().map(|report| &report.key).collect();
            let times = inner.crashes.entry(digest(keys)).or_default();
            *times += 1;
            *times <= CRASHES_FIRST
        };
        let reason = if is_entry {
            Reason::Signal
        } else if rare {
            Reason::Crash
        } else if new_outcome {
            Reason::Outcome
        } else if new_hits {
            Reason::Hits
        } else {
            return;
        };
        if inner.taken.contains(&digest(plan)) {
            return;
        }
        let queue = &mut inner.waiting[reason as usize];
        if queue.len() == MOST_WAITING {
            queue.pop_front();
        }
        let (plan, steps) = (plan.clone(), execution.steps.clone());
        queue.push_back(QueuedPlan { plan, steps, reports, since: Instant::now() });
    }

    /// Takes the plan to check next. Those of crashes are not taken before they have waited for the
    /// time `crash_age`: they are on disk, and each costs a guest while there is most to be found.
    pub(crate) fn take(&self, crash_age: Duration) -> Option<QueuedPlan> {
        let mut inner = self.inner();
        loop {
            let due = |(reason, queue): (usize, &mut VecDeque<QueuedPlan>)| {
                let crash = reason == Reason::Crash as usize;
                queue.pop_front_if(|check| !crash || check.since.elapsed() >= crash_age)
            };
            let check = inner.waiting.iter_mut().enumerate().find_map(due)?;
            // One plan may wait for several reasons.
            if inner.taken.insert(digest(&check.plan)) {
                return Some(check);
            }
        }
    }

    /// Takes in what the checkers' kernel made of a plan.
    pub(crate) fn compare(&self, check: &QueuedPlan, execution: &Execution) {
        let mut inner = self.inner();
        inner.checked += 1;
        // A guest that died tells no results.
        let steps = check.steps.is_empty() || execution.guest == Fate::Dead || check.steps == execution.steps;
        if !steps || check.reports.is_empty() != execution.findings.is_empty() {
            inner.different += 1;
            tracing::debug!(explored = ?check, checked = ?execution.findings, "a plan differs on the two kernels");
        }
    }

    /// Counts those that were checked, and those that wait.
    pub(crate) fn counts(&self) -> CheckCounts {
        let inner = self.inner();
        let waiting = inner.waiting.iter().map(VecDeque::len).sum::<usize>() as u64;
        CheckCounts { checked: inner.checked, different: inner.different, waiting }
    }
}

#[cfg(test)]
mod tests;
