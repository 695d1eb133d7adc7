//! Plans that the explorers' kernel has run and the checkers' kernel is still to run.
//!
//! ```text
//! explorer ─ offer ─▶ waiting ─ take ─▶ with a checker ─ checked ─▶ gone
//!                      │  ▲                  │
//!          no room     │  └──── put_back ────┘ no guest got through it
//!                      ▼
//!                   forgotten: it may be offered again
//! ```
//!
//! What waits, or is with a checker, is in the journal `queue.jsonl`: it survives the process.

mod queue;
mod queued;

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{Mutex, MutexGuard},
    time::{Duration, Instant},
};

use execution::{Execution, Fate};
use files::{Journal, JournalError};
use libafl::inputs::Input;
use serde::{Deserialize, Serialize};

pub(crate) use self::queued::QueuedPlan;
use self::{
    queue::Queue,
    queued::{News, REASONS, Reason, Shown},
};
use crate::{
    input::PlanInput,
    mutex::locked,
    recent::{RecentSet, digest},
};

/// The number of plans that end in the same reports and are checked before all others. A crash that
/// is easy to make would else leave the checkers no time for anything, as each takes a guest.
const CRASHES_FIRST: u32 = 2;
/// Times that a plan may be put back before it is forgotten.
const MOST_PUT_BACK: u32 = 3;
/// Room for what was new lately, of each kind.
const ROOM: usize = 1 << 18;
/// Records of the journal that are of no use any more, before it is written anew.
const MOST_USELESS: usize = 4096;

/// A record of the journal.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum QueueRecord {
    /// The plan waits.
    Waits(Box<QueuedPlan>),
    /// The plan of this name does not any more.
    Gone(String),
}

/// Counts of checks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct CheckCounts {
    /// Plans run on both kernels, all of whose faults fired on both.
    pub(crate) checked: u64,
    /// Of those, plans whose steps had other results, or of which only one kernel reported
    /// anything.
    pub(crate) different: u64,
    /// Plans of which a fault that fired on the explorers' kernel did not on the checkers'.
    pub(crate) unfired: u64,
    /// Plans that wait.
    pub(crate) waiting: u64,
}

struct Inner {
    waiting: [Queue; REASONS],
    /// Plans that a checker has, by name.
    taken: BTreeMap<String, QueuedPlan>,
    /// Names of the plans that wait or are taken.
    names: HashSet<String>,
    /// Digests of the names of those that were checked.
    checked: RecentSet,
    outcomes: RecentSet,
    hits: RecentSet,
    /// Number of times that each set of reports came.
    crashes: HashMap<u64, u32>,
    counts: CheckCounts,
    journal: Journal,
    /// Records of the journal that are of no use any more.
    useless: usize,
}

/// The plans that wait to be checked.
pub(crate) struct SecondKernelQueue {
    inner: Mutex<Inner>,
}

fn name(plan: &PlanInput) -> String {
    plan.generate_name(None)
}

impl SecondKernelQueue {
    /// Restores the queue whose `records` are in `journal`.
    ///
    /// # Errors
    ///
    /// The journal cannot be written.
    pub(crate) fn restore((journal, records): (Journal, Vec<QueueRecord>)) -> Result<Self, JournalError> {
        let (mut waiting, mut number) = (BTreeMap::new(), HashMap::new());
        for (at, record) in records.into_iter().enumerate() {
            match record {
                QueueRecord::Waits(queued) => {
                    let at = *number.entry(name(&queued.plan)).or_insert(at);
                    waiting.insert(at, *queued);
                }
                QueueRecord::Gone(gone) => {
                    number.remove(&gone).and_then(|at| waiting.remove(&at));
                }
            }
        }
        let mut inner = Inner {
            waiting: Default::default(),
            taken: BTreeMap::new(),
            names: HashSet::new(),
            checked: RecentSet::new(ROOM),
            outcomes: RecentSet::new(ROOM),
            hits: RecentSet::new(ROOM),
            crashes: HashMap::new(),
            counts: CheckCounts::default(),
            journal,
            useless: 0,
        };
        waiting.into_values().for_each(|queued| inner.restore(queued));
        inner.rewrite()?;
        Ok(Self { inner: Mutex::new(inner) })
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        locked(&self.inner)
    }

    /// Takes in an execution of `plan`, once; the plan waits to be checked if there is a reason to.
    /// `is_entry` says that it goes into the corpus.
    ///
    /// # Errors
    ///
    /// The journal cannot be written.
    pub(crate) fn offer(&self, plan: &PlanInput, execution: &Execution, is_entry: bool) -> Result<(), JournalError> {
        let mut inner = self.inner();
        let shown = Shown::of(execution);
        let Some(reason) = inner.reason(shown.news, !shown.reports.is_empty(), is_entry) else { return Ok(()) };
        inner.add_new(QueuedPlan::new(plan, reason, &execution.steps, shown))
    }

    /// Takes in that the sequence `plan` has made a crash in `execution`. It is checked once,
    /// however often its reports came: the checkers' kernel may see the bug in an earlier round,
    /// and call it something else.
    ///
    /// # Errors
    ///
    /// The journal cannot be written.
    pub(crate) fn offer_sequence(&self, plan: &PlanInput, execution: &Execution) -> Result<(), JournalError> {
        self.inner().add_new(QueuedPlan::new(plan, Reason::Crash, &execution.steps, Shown::of(execution)))
    }

    /// Takes the plan to check next. Those of crashes are not taken before they have waited for the
    /// time `crash_age`: they are on disk, and each costs a guest while there is most to be found.
    pub(crate) fn take(&self, crash_age: Duration) -> Option<QueuedPlan> {
        let mut inner = self.inner();
        let due = |queued: &QueuedPlan| queued.reason != Reason::Crash || queued.since.elapsed() >= crash_age;
        let queued = inner.waiting.iter_mut().find_map(|queue| queue.take(due))?;
        inner.taken.insert(name(&queued.plan), queued.clone());
        Some(queued)
    }

    /// Takes in what the checkers' kernel made of a plan.
    ///
    /// # Errors
    ///
    /// The journal cannot be written.
    pub(crate) fn checked(&self, check: &QueuedPlan, execution: &Execution) -> Result<(), JournalError> {
        let mut inner = self.inner();
        if check.is_unfired(execution) {
            inner.counts.unfired += 1;
        } else {
            inner.counts.checked += 1;
            // A guest that died tells no results, nor does a sequence that ended early.
            let no_results = execution.guest == Fate::Dead || execution.has_ended_early(&check.plan.0);
            let steps = check.steps.is_empty() || no_results || check.steps == execution.steps;
            if !steps || check.reports.is_empty() != execution.findings.is_empty() {
                inner.counts.different += 1;
                tracing::debug!(explored = ?check, checked = ?execution.findings, "a plan differs on the two kernels");
            }
        }
        let name = name(&check.plan);
        inner.checked.insert(digest(&name));
        inner.gone(name)
    }

    /// Takes in that the checkers' kernel cannot run a plan, however it is relaxed.
    ///
    /// # Errors
    ///
    /// The journal cannot be written.
    pub(crate) fn refused(&self, check: &QueuedPlan) -> Result<(), JournalError> {
        let mut inner = self.inner();
        inner.counts.unfired += 1;
        let name = name(&check.plan);
        inner.checked.insert(digest(&name));
        inner.gone(name)
    }

    /// Takes in that no guest got through a plan: it waits again, or is forgotten when that came
    /// too often.
    ///
    /// # Errors
    ///
    /// The journal cannot be written.
    pub(crate) fn put_back(&self, check: QueuedPlan) -> Result<(), JournalError> {
        let mut inner = self.inner();
        let name = name(&check.plan);
        let queued = QueuedPlan { put_back: check.put_back + 1, since: Instant::now(), ..check };
        if queued.put_back >= MOST_PUT_BACK {
            return inner.forget(&queued);
        }
        inner.taken.remove(&name);
        inner.names.remove(&name);
        inner.add(queued)
    }

    /// Counts those that were checked, and those that wait.
    pub(crate) fn counts(&self) -> CheckCounts {
        let inner = self.inner();
        let waiting = inner.waiting.iter().map(Queue::len).sum::<usize>() as u64;
        CheckCounts { waiting, ..inner.counts }
    }
}

impl Inner {
    /// Gives the best reason to check what showed `news`, and takes in that it was shown.
    fn reason(&mut self, news: News, has_reports: bool, is_entry: bool) -> Option<Reason> {
        let (new_outcome, new_hits) = (self.outcomes.insert(news.outcome), self.hits.insert(news.hits));
        let rare = has_reports && {
            let times = self.crashes.entry(news.reports).or_default();
            *times += 1;
            *times <= CRASHES_FIRST
        };
        let reasons = [
            (is_entry, Reason::Signal),
            (rare, Reason::Crash),
            (new_outcome, Reason::Outcome),
            (new_hits, Reason::Hits),
        ];
        reasons.into_iter().find_map(|(holds, reason)| holds.then_some(reason))
    }

    /// Has a plan wait that waited when an earlier start ended.
    fn restore(&mut self, queued: QueuedPlan) {
        let News { outcome, hits, reports } = queued.news;
        self.outcomes.insert(outcome);
        self.hits.insert(hits);
        *self.crashes.entry(reports).or_default() += u32::from(queued.reason == Reason::Crash);
        if self.names.insert(name(&queued.plan)) {
            self.waiting[queued.reason as usize].add(queued);
        }
    }

    /// Has a plan wait, unless it waits or was checked.
    fn add_new(&mut self, queued: QueuedPlan) -> Result<(), JournalError> {
        let name = name(&queued.plan);
        if self.names.contains(&name) || self.checked.contains(digest(&name)) {
            return Ok(());
        }
        self.add(queued)
    }

    fn add(&mut self, queued: QueuedPlan) -> Result<(), JournalError> {
        self.journal.append(&QueueRecord::Waits(Box::new(queued.clone())))?;
        self.names.insert(name(&queued.plan));
        match self.waiting[queued.reason as usize].add(queued) {
            Some(worst) => self.forget(&worst),
            None => Ok(()),
        }
    }

    /// Forgets a plan that was not checked, with all by which it was new: it, or one like it, may
    /// be offered again.
    fn forget(&mut self, queued: &QueuedPlan) -> Result<(), JournalError> {
        let News { outcome, hits, reports } = queued.news;
        self.outcomes.remove(outcome);
        self.hits.remove(hits);
        if queued.reason == Reason::Crash {
            self.crashes.remove(&reports);
        }
        self.gone(name(&queued.plan))
    }

    /// Takes in that a plan does not wait any more.
    fn gone(&mut self, name: String) -> Result<(), JournalError> {
        self.taken.remove(&name);
        self.names.remove(&name);
        self.useless += 2;
        if self.useless > MOST_USELESS {
            return self.rewrite();
        }
        self.journal.append(&QueueRecord::Gone(name))
    }

    fn rewrite(&mut self) -> Result<(), JournalError> {
        self.useless = 0;
        let waiting = self.waiting.iter().flat_map(Queue::iter).chain(self.taken.values());
        self.journal.rewrite(waiting.map(|queued| QueueRecord::Waits(Box::new(queued.clone()))))
    }
}

#[cfg(test)]
mod tests;
