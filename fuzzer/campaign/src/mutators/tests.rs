use execution::Execution;
use fault_plan::{Errno, InjectedError};
use guest_protocol::Hit;
use proptest::prelude::*;

use super::*;
use crate::fake;

fn target() -> Target {
    fake::target(fake::TWO_ERRORS)
}

fn world() -> (Matrix, Vec<Calls>) {
    let points = [(1, vec!["a", "x"], 3), (2, vec!["a", "y"], 1), (3, vec!["b"], 5), (4, vec!["b"], 2)];
    let step = |site: u64| if site == 4 { 2 } else { 1 };
    let description = |(site, path, _): &(u64, Vec<&str>, u32)| fake::description(*site, "f", path, step(*site));
    let hit = |(site, _, count): &(u64, Vec<&str>, u32)| Hit { site: *site, count: *count, first_sequence: 1 };
    let sites = points.iter().map(description).collect();
    let execution = Execution { sites, hits: points.iter().map(hit).collect(), ..fake::quiet() };
    let mut matrix = fake::matrix(target());
    matrix.learn(&FaultPlan::fault_free("t"), &execution, 0);
    let reached = matrix.reached(&execution.hits).calls();
    (matrix, reached)
}

fn fault(path: &[&str], occurrence: u32) -> Fault {
    let call_path = CallPath(path.iter().map(ToString::to_string).collect());
    Fault::new("f", call_path, occurrence, InjectedError::Errno(Errno::ENOMEM))
}

#[test]
fn calls_are_counted_over_all_paths_and_steps_that_match() {
    let (matrix, reached) = world();
    let target = target();
    let context = Context { target: &target, matrix: &matrix, reached: &reached, other: &[] };
    assert_eq!(context.calls(&fault(&["a"], 1)), 4);
    assert_eq!(context.calls(&fault(&[], 1)), 11);
    assert_eq!(context.calls(&Fault { function: "g".to_owned(), ..fault(&[], 1) }), 0);
    let in_step = |step| context.calls(&Fault { step: Some(step), ..fault(&["b"], 1) });
    assert_eq!([1, 2, 3].map(in_step), [5, 2, 0], "a fault with a step counts the calls in it");
}

#[test]
fn a_fault_free_plan_can_only_grow() {
    let (matrix, reached) = world();
    let target = target();
    let context = Context { target: &target, matrix: &matrix, reached: &reached, other: &[] };
    let mut rng = StdRand::with_seed(1);
    let none_of = [drop_fault, move_occurrence, change_error, lengthen_path, shorten_path, splice];
    for change in none_of.into_iter().chain([change_times, change_after]) {
        assert!(change(&mut FaultPlan::fault_free("t"), &context, &mut rng).is_none());
    }
    let mut plan = FaultPlan::fault_free("t");
    add_fault(&mut plan, &context, &mut rng).unwrap();
    assert_eq!(plan.faults.len(), 1);
}

#[test]
fn a_plan_goes_on_after_its_own_faults_or_after_those_of_another() {
    let (matrix, reached) = world();
    let target = target();
    let other = [fault(&["b"], 2)];
    let context = Context { target: &target, matrix: &matrix, reached: &reached, other: &other };
    let own = vec![fault(&["a", "x"], 1)];
    let begun = FaultPlan { faults: own.clone(), ..FaultPlan::fault_free("t") };
    for (change, before, last) in [(go_on as Change, &own[..], &[][..]), (go_on_after_another, &other, &own)] {
        let (mut plan, mut rng) = (begun.clone(), StdRand::with_seed(1));
        change(&mut plan, &context, &mut rng).unwrap();
        assert_eq!((plan.earlier.len(), &plan.earlier[0].faults[..], &plan.faults[..]), (1, before, last));
        assert!(!plan.earlier[0].reset, "the disk stays as it is");
        plan.check().unwrap();
        for _ in 1..MOST_EARLIER {
            change(&mut plan, &context, &mut rng).unwrap();
        }
        let changed = plan.clone();
        assert!(change(&mut plan, &context, &mut rng).is_none(), "each round costs an execution");
        assert_eq!(plan, changed);
        add_fault(&mut plan, &context, &mut rng).unwrap();
        assert_eq!(plan.earlier, changed.earlier, "what is changed is the last round");
    }
}

proptest! {
    /// A mutated plan is accepted, and each of its faults matches a call that was made.
    #[test]
    fn mutated_plans_are_plans_that_fire(seed in any::<u64>(), steps in prop::collection::vec(0usize..9, 1..30)) {
        let (matrix, reached) = world();
        let target = target();
        let other = [Fault { after: Some(5), ..fault(&["b"], 2) }];
        let context = Context { target: &target, matrix: &matrix, reached: &reached, other: &other };
        let changes = [
            add_fault, drop_fault, move_occurrence, change_error, lengthen_path, shorten_path, splice, change_times,
            change_after,
        ];
        let mut rng = StdRand::with_seed(seed);
        let mut plan = FaultPlan::fault_free("t");
        plan.faults.push(fault(&["a", "x"], 1));
        for step in steps {
            changes[step](&mut plan, &context, &mut rng);
            plan.check().unwrap();
            prop_assert!(!plan.faults.is_empty() && plan.faults.len() <= MOST_FAULTS);
            for fault in &plan.faults {
                prop_assert!(context.calls(fault) >= fault.occurrence, "{fault:?}");
                prop_assert!(target.errors("f").contains(&fault.error));
            }
        }
    }
}
