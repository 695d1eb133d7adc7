//! The rounds that a guest has run since its birth.

use std::collections::VecDeque;

use fault_plan::{Fault, MAX_ROUNDS, Round};

/// The most rounds that are kept, the last ones: with one more they are a plan, which can be
/// replayed.
const MOST_ROUNDS: usize = MAX_ROUNDS - 1;

/// The rounds of a guest, first to last.
#[derive(Debug, Default)]
pub(super) struct History {
    rounds: VecDeque<Round>,
    /// Number of rounds that are kept no more.
    forgotten: u64,
}

impl History {
    /// Takes in a round with these `faults`, before which the disk was put back unless the state
    /// was to be kept. Gives the number of rounds before it.
    pub(super) fn run(&mut self, faults: &[Fault], keep: bool) -> u64 {
        if let Some(before) = self.rounds.back_mut() {
            before.reset = !keep;
        }
        let at = self.forgotten + self.rounds.len() as u64;
        self.rounds.push_back(Round { faults: faults.to_vec(), reset: true });
        if self.rounds.len() > MOST_ROUNDS {
            self.rounds.pop_front();
            self.forgotten += 1;
        }
        at
    }

    /// Gives the rounds before the one that `run` gave the number `at`.
    pub(super) fn before(&self, at: u64) -> Vec<Round> {
        let kept = usize::try_from(at.saturating_sub(self.forgotten)).unwrap_or(usize::MAX);
        self.rounds.iter().take(kept).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_history_is_what_came_before_and_says_which_state_was_kept() {
        let mut history = History::default();
        assert_eq!((history.run(&[], false), history.run(&[], true), history.run(&[], false)), (0, 1, 2));
        let resets = |at| history.before(at).iter().map(|round| round.reset).collect::<Vec<_>>();
        assert_eq!((resets(0), resets(1), resets(2)), (vec![], vec![false], vec![false, true]));
    }

    #[test]
    fn a_history_is_bounded() {
        let mut history = History::default();
        (0..MOST_ROUNDS + 5).for_each(|_| {
            history.run(&[], false);
        });
        let at = history.run(&[], true);
        let before = history.before(at);
        assert_eq!((at, before.len()), (MOST_ROUNDS as u64 + 5, MOST_ROUNDS - 1));
        assert!(!before[before.len() - 1].reset && before[0].reset);
    }
}
