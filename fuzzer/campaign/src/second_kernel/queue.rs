//! The plans that wait for one reason, best first, in bounded memory.

use std::collections::BTreeMap;

use super::QueuedPlan;

/// The most plans that wait for one reason.
pub(super) const MOST_WAITING: usize = 500;

/// Plans in the order in which they are to be checked: those with few faults first, and of these
/// the one that has waited longest.
#[derive(Debug, Default)]
pub(super) struct Queue {
    plans: BTreeMap<(usize, u64), QueuedPlan>,
    /// Number of plans that were ever added.
    added: u64,
}

impl Queue {
    /// Adds a plan. Gives the worst one where there is no room for all.
    pub(super) fn add(&mut self, queued: QueuedPlan) -> Option<QueuedPlan> {
        self.added += 1;
        self.plans.insert((queued.plan.0.faults.len(), self.added), queued);
        if self.plans.len() > MOST_WAITING { self.plans.pop_last().map(|(_, worst)| worst) } else { None }
    }

    /// Takes the best plan that is `due`.
    pub(super) fn take(&mut self, due: impl Fn(&QueuedPlan) -> bool) -> Option<QueuedPlan> {
        let key = *self.plans.iter().find(|(_, queued)| due(queued))?.0;
        self.plans.remove(&key)
    }

    /// Gives all plans, best first.
    pub(super) fn iter(&self) -> impl Iterator<Item = &QueuedPlan> {
        self.plans.values()
    }

    /// Counts them.
    pub(super) fn len(&self) -> usize {
        self.plans.len()
    }
}
