//! Sequences to try for a crash that its plan does not make again.

use fault_plan::{FaultPlan, Round};

use crate::input::PlanInput;

/// The most rounds of a history that are tried before a plan. All sequences together have twice as
/// many rounds, which take half a minute on a kernel that checks.
pub(crate) const MOST_EARLIER_ROUNDS: usize = 64;

/// Gives the sequences to try, the shortest first: the last 1, 2, 4, … rounds of `history`, then the
/// last round of `plan`.
pub(super) fn sequences(plan: &PlanInput, history: &[Round]) -> Vec<PlanInput> {
    let most = history.len().min(MOST_EARLIER_ROUNDS);
    let mut lengths: Vec<usize> =
        (0..usize::BITS).map(|power| 1 << power).take_while(|length| *length < most).collect();
    lengths.push(most);
    let sequence = |length: usize| FaultPlan { earlier: history[history.len() - length..].to_vec(), ..plan.0.clone() };
    // What was tried already is not tried again.
    lengths.into_iter().map(|length| PlanInput(sequence(length))).filter(|sequence| sequence != plan).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake;

    #[test]
    fn suffixes_double_up_to_all_there_is() {
        let plan = PlanInput(fake::plan(fake::caller(1), 1));
        let history = |rounds: u32| -> Vec<Round> {
            let round = |number| Round { faults: fake::plan(fake::caller(2), number).faults, reset: true };
            (1..=rounds).map(round).collect()
        };
        let lengths = |plan, rounds| {
            let sequences = sequences(plan, &history(rounds));
            assert!(sequences.iter().all(|sequence| sequence.0.earlier == history(rounds)[rounds as usize - sequence.0.earlier.len()..]));
            sequences.iter().map(|sequence| sequence.0.earlier.len()).collect::<Vec<_>>()
        };
        assert!(lengths(&plan, 0).is_empty());
        assert_eq!(lengths(&plan, 1), [1]);
        assert_eq!(lengths(&plan, 6), [1, 2, 4, 6]);
        assert_eq!(lengths(&plan, 200), [1, 2, 4, 8, 16, 32, 64]);
        let sequence = PlanInput(FaultPlan { earlier: history(1), ..plan.0.clone() });
        assert!(lengths(&sequence, 1).is_empty(), "that is the plan itself");
    }
}
