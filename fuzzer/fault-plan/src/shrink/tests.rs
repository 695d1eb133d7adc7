//! Shrinking by oracles that know what makes a crash, and by such as know nothing.

use std::hash::{DefaultHasher, Hash, Hasher};

use proptest::prelude::*;

use super::*;
use crate::{ArgumentCondition, Errno, InjectedError, Operand, Operator, Scope};

fn names(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

fn fault(path: &str, occurrence: u32) -> Fault {
    Fault::new("f", CallPath(names(path)), occurrence, InjectedError::Errno(Errno::ENOMEM))
}

fn plan(faults: &[Fault]) -> FaultPlan {
    FaultPlan { faults: faults.to_vec(), ..FaultPlan::fault_free("t") }
}

fn point(call_path: &[String], step: u32) -> Point<'_> {
    Point { function: "f", call_path, truncated: false, step, scope: Scope::Workload, calls: 1 }
}

/// Shrinks a plan by an oracle. `paths` are the points in step 1, and each fault fires at the first
/// that it matches. Gives the result and the number of tries.
fn shrunk(plan: &FaultPlan, paths: &[&str], mut holds: impl FnMut(&FaultPlan) -> bool) -> (FaultPlan, u32) {
    let paths: Vec<_> = paths.iter().map(|path| names(path)).collect();
    let points: Vec<_> = paths.iter().map(|path| point(path, 1)).collect();
    let (mut shrink, mut tries) = (Shrink::new(plan), 0);
    loop {
        let current = shrink.plan().clone();
        let fires = |fault: &Fault| points.iter().find(|point| fault.call_path.matches(point.call_path)).copied();
        let fired: Vec<_> = (0..).zip(current.all_faults()).filter_map(|(i, fault)| Some((i, fires(fault)?))).collect();
        let shown = Shown { fired: &fired, points: &points };
        let Some(candidate) = shrink.next(&shown) else { return (current, tries) };
        let holds = holds(candidate);
        tries += 1;
        shrink.keep(holds, &shown);
    }
}

fn has(plan: &FaultPlan, path: &str) -> bool {
    plan.all_faults().any(|fault| fault.call_path.matches(&names(path)))
}

#[test]
fn faults_that_are_not_needed_go() {
    let paths = ["k a m", "k b m", "k c m", "k d m"];
    let all = plan(&paths.map(|path| fault(path, 1)));
    let (result, tries) = shrunk(&all, &paths, |plan| has(plan, "k b m") && has(plan, "k d m"));
    assert_eq!(result, plan(&[fault("k b", 1), fault("k d", 1)]), "the shortest paths that select one point");
    assert!(tries <= 20, "{tries}");
    assert_eq!(shrunk(&all, &paths, |_| true), (plan(&[]), 1), "it needs no fault at all");
}

#[test]
fn rounds_that_are_not_needed_go_and_the_last_one_may() {
    let round = |path: &str| Round { faults: vec![fault(path, 1)], reset: true };
    let paths = ["k a m", "k b m"];
    let earlier = ["k b m", "k a m", "k b m", "k b m"].map(round).to_vec();
    let long = FaultPlan { earlier, ..plan(&[fault("k b m", 1)]) };
    let needs = |plan: &FaultPlan| {
        let rounds: Vec<_> = plan.rounds().collect();
        let fails = |faults: &Vec<Fault>, path: &str| faults.iter().any(|fault| fault.call_path.matches(&names(path)));
        let first = rounds.iter().position(|faults| fails(faults, "k a m"));
        first.is_some_and(|first| rounds[first..].iter().any(|faults| fails(faults, "k b m")))
    };
    let (result, _) = shrunk(&long, &paths, needs);
    assert_eq!(result.earlier, [Round { faults: vec![fault("k a", 1)], reset: true }]);
    assert_eq!(result.faults, [fault("k b", 1)]);
    let (result, _) = shrunk(&long, &paths, |plan| has(plan, "k a m"));
    assert_eq!(result, plan(&[fault("k a", 1)]), "what ran after it was not needed");
}

/// Sixteen equal rounds of which three are needed: equal candidates are tried once.
#[test]
fn repetitions_take_few_tries() {
    let round = Round { faults: vec![fault("k a m", 1)], reset: true };
    let long = FaultPlan { earlier: vec![round; 16], ..plan(&[fault("k a m", 1)]) };
    let (result, tries) = shrunk(&long, &["k a m"], |plan| plan.earlier.len() >= 3 && has(plan, "k a m"));
    assert_eq!(result.earlier.len(), 3);
    assert!(tries <= 40, "{tries}");
}

#[test]
fn conditions_go_one_by_one_and_a_step_only_if_the_point_is_in_no_other() {
    let condition = ArgumentCondition {
        argument: 1,
        field: None,
        mask: Operand::Number(u64::MAX),
        operator: Operator::Equal,
        value: Operand::Number(8),
    };
    let full = Fault {
        step: Some(1),
        task: Some(Scope::Workload),
        arguments: vec![condition],
        after: Some(2),
        times: FOR_EVER,
        ..fault("k a m", 1)
    };
    let all = plan(&[full.clone(), fault("k b m", 1)]);
    let both = |plan: &FaultPlan| has(plan, "k a m") && has(plan, "k b m");
    let (result, _) = shrunk(&all, &["k a m", "k b m"], both);
    assert_eq!(result, plan(&[fault("k a", 1), fault("k b", 1)]));
    let (result, _) = shrunk(&all, &["k a m", "k b m"], |plan| both(plan) && plan.faults[0].times >= 3);
    assert_eq!(result.faults[0].times, 4);
    let path = names("k a m");
    let points = [point(&path, 1), point(&path, 2)];
    let shown = Shown { fired: &[(0, points[0])], points: &points };
    let others = fewer_conditions(&full, Some(points[0]), &shown);
    assert!(others.iter().all(|other| other.step.is_some()), "step 2 has that point too");
}

#[test]
fn a_wide_pattern_gives_way_to_a_lower_occurrence_at_its_point() {
    let paths = ["k c m", "k a m"];
    // The oracle's crash is the first call below `c`, which is the third of all.
    let holds = |plan: &FaultPlan| match &plan.faults[..] {
        [fault] if fault.call_path.matches(&names("k a m")) => fault.occurrence == 3,
        [fault] => fault.call_path.matches(&names("k c m")) && fault.occurrence == 1,
        _ => false,
    };
    let (result, _) = shrunk(&plan(&[fault("k", 3)]), &paths, holds);
    assert_eq!(result, plan(&[fault("k c", 1)]));
}

#[test]
fn a_path_is_cut_or_has_a_gap_and_selects_no_more_than_before() {
    let shortest_of = |path: &str, others: &[&str]| {
        let paths: Vec<_> = [path].iter().chain(others).map(|path| names(path)).collect();
        let points: Vec<_> = paths.iter().map(|path| point(path, 1)).collect();
        shortest(&fault(path, 1), &points[0], &points).map(|path| path.0.join(" "))
    };
    assert_eq!(shortest_of("k a b m", &["k c m"]).as_deref(), Some("k a"));
    assert_eq!(shortest_of("k a b m", &["j c m"]).as_deref(), Some("k"));
    assert_eq!(shortest_of("k a b m", &[]).as_deref(), Some(""), "the function has no other point");
    assert_eq!(shortest_of("k a b d c m", &["k a b d e m", "k b d c m"]).as_deref(), Some("k a ... c"));
    assert_eq!(shortest_of("k a b c m", &["k a b d m"]).as_deref(), Some("... c"));
    assert_eq!(shortest_of("k a", &["k a b", "j"]).as_deref(), Some("k"), "as it is, both match");
    assert_eq!(shortest_of("k", &["k a b", "j"]), None);
}

/// What an execution of the candidate shows decides whether its path still selects one point.
#[test]
fn a_shorter_path_that_turns_out_to_match_elsewhere_is_not_kept() {
    let (path, other) = (names("k a m"), names("k b m"));
    let mut shrink = Shrink::new(&plan(&[fault("k a m", 1)]));
    let known = [point(&path, 1)];
    let fired = [(0, known[0])];
    let shown = Shown { fired: &fired, points: &known };
    assert_eq!(shrink.next(&shown), Some(&plan(&[])));
    assert!(!shrink.keep(false, &shown));
    assert_eq!(shrink.next(&shown), Some(&plan(&[fault("", 1)])));
    let more = [known[0], point(&other, 1)];
    let shown = Shown { fired: &fired, points: &more };
    assert!(!shrink.keep(true, &shown), "it matches `k b m` as well");
    assert_eq!(shrink.next(&shown), Some(&plan(&[fault("k a", 1)])));
    assert!(shrink.keep(true, &shown));
    assert_eq!(shrink.next(&shown), None);
}

fn any_faults(most: usize) -> impl Strategy<Value = Vec<Fault>> {
    let path = prop::collection::vec("[a-c]", 0..5).prop_map(CallPath);
    let conditions = (prop::option::of(1u32..3), any::<bool>(), prop_oneof![Just(1), 2u32..9, Just(FOR_EVER)]);
    prop::collection::vec((path, 1u32..40, conditions), 0..most).prop_map(|faults| {
        let with = |(number, (call_path, occurrence, (step, after, times))): (u32, (CallPath, u32, _))| {
            let after = (after && number > 0).then_some(number);
            Fault { call_path, step, after, times, ..fault("", occurrence) }
        };
        (0..).zip(faults).map(with).collect()
    })
}

proptest! {
    /// The oracle says yes or no by chance, but always the same of one plan.
    #[test]
    fn any_oracle_ends_with_a_plan_that_holds_and_is_no_larger(
        faults in any_faults(6),
        earlier in prop::collection::vec((any_faults(3), any::<bool>()), 0..6),
        paths in prop::collection::vec("[a-c]( [a-c]){0,4}", 0..6),
        (seed, share) in (any::<u64>(), 0u64..100),
    ) {
        let earlier = earlier.into_iter().map(|(faults, reset)| Round { faults, reset }).collect();
        let input = FaultPlan { earlier, ..plan(&faults) };
        let oracle = |plan: &FaultPlan| {
            let mut hasher = DefaultHasher::new();
            (seed, plan).hash(&mut hasher);
            *plan == input || hasher.finish() % 100 < share
        };
        let paths: Vec<&str> = paths.iter().map(String::as_str).collect();
        let mut seen = HashSet::new();
        let mut is_sound = true;
        let (result, tries) = shrunk(&input, &paths, |candidate| {
            is_sound &= seen.insert(candidate.clone()) && candidate.check().is_ok() && size(candidate) < size(&input);
            oracle(candidate)
        });
        prop_assert!(is_sound && tries <= 1000);
        prop_assert!(oracle(&result));
        prop_assert!(result == input || size(&result) < size(&input));
        prop_assert_eq!(shrunk(&input, &paths, oracle), (result, tries), "it is the same every time");
    }
}

/// A crash that comes by chance, in one of several runs of two faults: the rounds stay alike.
#[test]
fn a_round_that_is_repeated_is_made_simpler_in_all_rounds_at_once() {
    let paths = ["k a m", "k b m", "k c m"];
    let faults = ["k a m", "k b m", "k c m"].map(|path| fault(path, 3)).to_vec();
    let long = FaultPlan { earlier: vec![Round { faults: faults.clone(), reset: true }; 8], ..plan(&faults) };
    let makes = |faults: &Vec<Fault>| {
        ["k a m", "k c m"].iter().all(|path| faults.iter().any(|fault| fault.call_path.matches(&names(path))))
    };
    let (result, tries) = shrunk(&long, &paths, |plan| plan.rounds().filter(|faults| makes(faults)).count() >= 5);
    assert!(result.is_repeated(), "{result:?}");
    assert_eq!((result.earlier.len(), result.count()), (4, 2));
    assert_eq!(result.faults, [fault("k a", 1), fault("k c", 1)]);
    assert!(tries <= 25, "{tries}");
}
