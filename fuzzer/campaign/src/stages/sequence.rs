//! Sequences to try for a crash that its plan does not make again.

use fault_plan::{FaultPlan, Round};

use crate::input::PlanInput;

/// The most rounds of a history that are tried before a plan. All sequences together have some
/// three times as many rounds, which take a minute on a kernel that checks.
pub(crate) const MOST_EARLIER_ROUNDS: usize = 64;

/// Numbers of times that the last round is run again. Freed memory that is used after all shows
/// only while nothing else has it. Measured with a use after free of btrfs: one run of the round
/// shows it in 1 of 16 guests, four in half of them.
const REPETITIONS: [usize; 2] = [8, 32];

/// Gives the sequences to try, the shortest first: the last 1, 2, 4, … rounds of `history`, then
/// the last round of `plan`; and the plan with its last round several times.
pub(super) fn sequences(plan: &PlanInput, history: &[Round]) -> Vec<PlanInput> {
    let most = history.len().min(MOST_EARLIER_ROUNDS);
    let doubled = (0..usize::BITS).map(|power| 1 << power).take_while(|length| *length < most);
    let mut sequences: Vec<_> =
        doubled.chain([most]).map(|length| history[history.len() - length..].to_vec()).collect();
    if !history.is_empty() {
        sequences.extend(REPETITIONS.map(|times| repeated(&plan.0, history, times)));
    }
    sequences.sort_by_key(Vec::len);
    sequences.dedup();
    let sequences = sequences.into_iter().map(|earlier| PlanInput(FaultPlan { earlier, ..plan.0.clone() }));
    // What was tried already is not tried again.
    sequences.filter(|sequence| sequence != plan).collect()
}

/// Gives the rounds before the last one when `plan` runs that one so often again, each time in the
/// kind of state in which it ran.
fn repeated(plan: &FaultPlan, history: &[Round], times: usize) -> Vec<Round> {
    let reset = plan.earlier.last().or_else(|| history.last()).is_some_and(|before| before.reset);
    let again = Round { faults: plan.faults.clone(), reset };
    let room = MOST_EARLIER_ROUNDS.saturating_sub(plan.earlier.len());
    plan.earlier.iter().cloned().chain(std::iter::repeat_n(again, times.min(room))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake;

    fn history(rounds: u32) -> Vec<Round> {
        let round = |number| Round { faults: fake::plan(fake::caller(2), number).faults, reset: true };
        (1..=rounds).map(round).collect()
    }

    fn lengths(plan: &PlanInput, rounds: u32) -> Vec<usize> {
        sequences(plan, &history(rounds)).iter().map(|sequence| sequence.0.earlier.len()).collect()
    }

    #[test]
    fn suffixes_double_up_to_all_there_is_and_the_last_round_is_repeated() {
        let plan = PlanInput(fake::plan(fake::caller(1), 1));
        assert!(lengths(&plan, 0).is_empty());
        assert_eq!(lengths(&plan, 1), [1, 8, 32]);
        assert_eq!(lengths(&plan, 6), [1, 2, 4, 6, 8, 32]);
        assert_eq!(lengths(&plan, 200), [1, 2, 4, 8, 8, 16, 32, 32, 64]);
        let suffix = &sequences(&plan, &history(6))[1].0;
        assert_eq!((&suffix.earlier[..], &suffix.faults), (&history(6)[4..], &plan.0.faults));
    }

    #[test]
    fn a_sequence_is_not_tried_again_and_repeats_in_its_state() {
        let kept = vec![Round { reset: false, ..history(1).remove(0) }];
        let plan = PlanInput(FaultPlan { earlier: kept.clone(), ..fake::plan(fake::caller(1), 1) });
        let sequences = sequences(&plan, &kept);
        let lengths: Vec<_> = sequences.iter().map(|sequence| sequence.0.earlier.len()).collect();
        assert_eq!(lengths, [9, 33], "the only suffix is the plan itself");
        let rounds = &sequences[0].0.earlier;
        assert_eq!(rounds[..1], kept);
        assert!(rounds[1..].iter().all(|round| !round.reset && round.faults == plan.0.faults));
    }
}
