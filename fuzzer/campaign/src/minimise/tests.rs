//! Minimising by guests in which a crash comes as often as a test says.

use super::*;
use crate::fake;

const KEY: &str = "BUG in f";

/// An execution of `plan` in which each fault fires at a site of its own.
fn execution(plan: &FaultPlan, crashes: bool) -> Execution {
    let fired = fake::all_fired(plan).collect();
    let findings = if crashes { vec![fake::warning(KEY)] } else { Vec::new() };
    let site = |site| {
        let callers = fake::caller(site);
        let callers: Vec<&str> = callers.iter().map(String::as_str).collect();
        fake::description(site, "should_failslab", &callers, 1)
    };
    Execution { findings, fired, sites: (1..9).map(site).collect(), ..fake::quiet() }
}

fn plan(sites: &[u64]) -> FaultPlan {
    let fault = |site: &u64| fake::plan(fake::caller(*site), 1).faults.remove(0);
    FaultPlan { faults: sites.iter().map(fault).collect(), ..FaultPlan::fault_free("fake") }
}

/// Minimises; `comes` says of each run whether the crash comes, by the plan and the number of runs
/// of it before. Gives the outcome and the number of runs.
fn minimised(
    plan: &FaultPlan,
    demands: [u32; 2],
    comes: impl Fn(&FaultPlan, usize) -> bool,
) -> (Option<Minimized>, u32) {
    let [candidate, confirmed] = demands.map(|runs| Demand { runs, needed: runs });
    let mut minimizer = Minimizer::new(plan, KEY, &execution(plan, true), candidate, confirmed);
    let mut ran: Vec<FaultPlan> = Vec::new();
    while let Some(next) = minimizer.next_plan() {
        assert_eq!(minimizer.next_plan().as_ref(), Some(&next), "asking changes nothing");
        let before = ran.iter().filter(|plan| **plan == next).count();
        minimizer.ran(Some(execution(&next, comes(&next, before))));
        ran.push(next);
    }
    let runs = minimizer.runs();
    (minimizer.finish(), runs)
}

fn fails_at(plan: &FaultPlan, sites: &[u64]) -> bool {
    sites.iter().all(|site| fake::fails_at(plan, *site))
}

#[test]
fn the_simplest_plan_is_confirmed() {
    let (outcome, runs) = minimised(&plan(&[1, 2, 3]), [1, 3], |plan, _| fails_at(plan, &[1, 3]));
    let Minimized { plan, execution, tried, reproduced } = outcome.unwrap();
    assert_eq!((plan.faults.len(), tried, reproduced), (2, 3, 3));
    assert!(fails_at(&plan, &[1, 3]) && execution.has_key(KEY));
    assert!(runs <= 20, "{runs}");
}

#[test]
fn a_plan_that_nothing_simpler_stands_for_stays() {
    let first = plan(&[1]);
    let (outcome, runs) = minimised(&first, [1, 3], |plan, _| *plan == first);
    assert!(outcome.is_none());
    assert!(runs <= 4, "{runs}");
}

/// One of two faults is enough in the first run only.
#[test]
fn what_held_by_chance_is_found_out_and_candidates_run_as_often_as_they_have_to() {
    let both = plan(&[1, 2]);
    let comes = |plan: &FaultPlan, before| fails_at(plan, &[1, 2]) || (fails_at(plan, &[1]) && before == 0);
    let (outcome, _) = minimised(&both, [1, 3], comes);
    assert!(outcome.is_none_or(|of| of.plan.faults.len() == 2), "it takes both");
    let (outcome, _) = minimised(&both, [3, 3], comes);
    assert!(outcome.is_none_or(|of| of.plan.faults.len() == 2));
}

#[test]
fn whoever_is_in_a_hurry_gets_what_is_simplest_by_then() {
    let all = plan(&[1, 2, 3, 4]);
    let demand = Demand { runs: 1, needed: 1 };
    let mut minimizer = Minimizer::new(&all, KEY, &execution(&all, true), demand, demand);
    while let Some(next) = minimizer.next_plan() {
        minimizer.ran(Some(execution(&next, fails_at(&next, &[1]))));
        if minimizer.faults()[1] == 2 {
            minimizer.hurry();
        }
    }
    assert_eq!(minimizer.faults(), [4, 2]);
    assert_eq!(minimizer.finish().unwrap().plan, plan(&[1, 2]));
}

#[test]
fn a_plan_that_cannot_be_run_is_none() {
    let both = plan(&[1, 2]);
    let demand = Demand { runs: 1, needed: 1 };
    let mut minimizer = Minimizer::new(&both, KEY, &execution(&both, true), demand, demand);
    while minimizer.next_plan().is_some() {
        minimizer.ran(None);
    }
    assert_eq!(minimizer.faults(), [2, 2]);
    assert!(minimizer.finish().is_none());
}
