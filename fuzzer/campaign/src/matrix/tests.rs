//! Points, the fewest faults that reach them, and cells.

use std::path::Path;

use execution::Fired;
use fault_plan::{Errno, InjectedError, Round};

use super::*;
use crate::fake;

const ENOMEM: InjectedError = InjectedError::Errno(Errno::ENOMEM);

fn matrix_in(folder: &Path) -> Matrix {
    let (journal, records) = Journal::open(&folder.join("matrix.jsonl")).unwrap();
    Matrix::restore(Arc::new(fake::target(fake::TWO_ERRORS)), journal, records)
}

/// An execution that reached the sites of these numbers, in this order.
fn reaching(sites: &[u64]) -> Execution {
    let description = |site: &u64| fake::description(*site, "f", &[&format!("caller_{site}")], 1);
    let hit = |(site, sequence): (&u64, u32)| Hit { site: *site, count: 1, first_sequence: sequence };
    Execution {
        sites: sites.iter().map(description).collect(),
        hits: sites.iter().zip(1..).map(hit).collect(),
        ..fake::quiet()
    }
}

/// Runs `plan`: its last round reaches `sites`, and the fault `index` of the plan fires at the site
/// `fired.1`.
fn run(matrix: &mut Matrix, plan: &FaultPlan, sites: &[u64], fired: &[(usize, u64)]) {
    let mut execution = reaching(sites);
    let sequence = |site: u64| u32::try_from(sites.iter().position(|known| *known == site).unwrap()).unwrap() + 1;
    let fired = fired.iter().map(|(fault, site)| Fired { sequence: sequence(*site), ..fake::fired(*fault, *site) });
    execution.fired = fired.collect();
    execution.rounds = plan.earlier.iter().map(|_| fake::quiet()).collect();
    matrix.learn(plan, &execution, 5);
    matrix.fired(plan, &execution, 7);
}

fn fault_free() -> FaultPlan {
    FaultPlan::fault_free("fake")
}

#[test]
fn every_point_of_the_workload_is_failed_alone_with_each_error_and_then_those_behind() {
    let folder = tempfile::tempdir().unwrap();
    let mut matrix = matrix_in(folder.path());
    run(&mut matrix, &fault_free(), &[1, 2], &[]);
    assert!(matrix.has_open(Reach::Alone));
    let mut plans = Vec::new();
    while let Some(taken) = matrix.take(Reach::Alone) {
        assert!(matrix.is_failing_alone(), "the last one is not over when it is taken");
        assert_eq!(taken.plan.faults.len(), 1);
        let site: u64 = if taken.plan.faults[0].call_path.0 == ["caller_1"] { 1 } else { 2 };
        // A failure of 1 is followed by a call that the workload does not make by itself.
        let sites = if site == 1 { vec![1, 9] } else { vec![1, 2] };
        run(&mut matrix, &taken.plan, &sites, &[(0, site)]);
        matrix.tried(&taken, Tried::Ran);
        plans.push(taken.plan);
    }
    assert!(!matrix.is_failing_alone());
    assert_eq!(plans.len(), 4, "two points, two errors");
    let counts = matrix.counts();
    assert_eq!((counts.points, counts.cells, counts.cells_failed, counts.alone_left), (3, 6, 4, 0));
    let behind = matrix.take(Reach::Any).unwrap();
    assert_eq!(behind.plan.faults.len(), 2);
    assert_eq!(behind.plan.faults[0], plans[0].faults[0], "the fault that reaches it");
    assert_eq!(matrix.get(2).unwrap().found_s, 5);
    assert_eq!(matrix.get(0).unwrap().cells[0].failed_s, Some(7));
}

#[test]
fn a_point_failed_on_top_of_other_faults_is_still_to_be_failed_alone() {
    let folder = tempfile::tempdir().unwrap();
    let mut matrix = matrix_in(folder.path());
    run(&mut matrix, &fault_free(), &[1, 2], &[]);
    let faults = [0, 1].map(|index| matrix.get(index).unwrap().fault(1, ENOMEM));
    let both = FaultPlan { faults: faults.into(), ..fault_free() };
    run(&mut matrix, &both, &[1, 2], &[(0, 1), (1, 2)]);
    assert_eq!((matrix.counts().points_failed, matrix.counts().cells_failed), (2, 0));
    let alone = FaultPlan { faults: both.faults[..1].to_vec(), ..fault_free() };
    run(&mut matrix, &alone, &[1, 2], &[(0, 1)]);
    assert_eq!((matrix.counts().cells_failed, matrix.counts().alone_left), (1, 3));
}

#[test]
fn fewer_faults_that_reach_a_point_open_its_cells_again() {
    let folder = tempfile::tempdir().unwrap();
    let mut matrix = matrix_in(folder.path());
    run(&mut matrix, &fault_free(), &[1], &[]);
    let fault = matrix.get(0).unwrap().fault(1, ENOMEM);
    let one = FaultPlan { faults: vec![fault.clone()], ..fault_free() };
    run(&mut matrix, &one, &[1, 9], &[(0, 1)]);
    assert_eq!(matrix.get(1).unwrap().reached_by, [fault]);
    let two = FaultPlan { faults: [one.faults.clone(), vec![matrix.get(1).unwrap().fault(1, ENOMEM)]].concat(), ..one };
    run(&mut matrix, &two, &[1, 9], &[(0, 1), (1, 9)]);
    assert_eq!(matrix.counts().cells_failed, 2);
    run(&mut matrix, &fault_free(), &[9, 1], &[]);
    assert!(matrix.get(1).unwrap().reached_by.is_empty());
    assert_eq!(matrix.counts().cells_failed, 1, "it is to be failed alone");
}

#[test]
fn a_point_that_the_state_after_a_round_reaches_is_failed_after_that_round() {
    let folder = tempfile::tempdir().unwrap();
    let mut matrix = matrix_in(folder.path());
    run(&mut matrix, &fault_free(), &[1], &[]);
    let fault = matrix.get(0).unwrap().fault(1, ENOMEM);
    let earlier = vec![Round { faults: vec![fault.clone()], reset: false }];
    let twice = FaultPlan { earlier: earlier.clone(), ..fault_free() };
    run(&mut matrix, &twice, &[1, 9], &[(0, 1)]);
    assert_eq!(matrix.counts().cells_failed, 0, "the fault of an earlier round failed nothing in the last one");
    let point = matrix.get(1).unwrap();
    assert_eq!((&point.earlier, &point.reached_by[..], point.fault_free), (&earlier, &[][..], 0));
    let point = point.fault(1, ENOMEM);
    assert!(matrix.get(0).unwrap().earlier.is_empty(), "it needs none");
    while let Some(taken) = matrix.take(Reach::Alone) {
        assert!(taken.plan.earlier.is_empty());
        run(&mut matrix, &taken.plan, &[1], &[(0, 1)]);
        matrix.tried(&taken, Tried::Ran);
    }
    let behind = matrix.take(Reach::Behind).unwrap();
    assert_eq!(behind.plan, FaultPlan { faults: vec![point], ..twice });
    run(&mut matrix, &behind.plan, &[1, 9], &[(0, 1), (1, 9)]);
    matrix.tried(&behind, Tried::Ran);
    assert_eq!((matrix.get(1).unwrap().cells[0].faults, matrix.counts().cells_failed), (Some(2), 3));
    matrix.rewrite().unwrap();
    drop(matrix);
    let mut matrix = matrix_in(folder.path());
    assert_eq!(matrix.get(1).unwrap().earlier, earlier, "a later start knows it");
    // A fault less, but in a round more, is no shorter way; a round less is one.
    run(&mut matrix, &FaultPlan { faults: vec![fault], ..fault_free() }, &[1, 9], &[(0, 1)]);
    assert!(matrix.get(1).unwrap().earlier.is_empty());
    run(&mut matrix, &FaultPlan { earlier: vec![Round::default()], ..fault_free() }, &[9, 1], &[]);
    assert!(matrix.get(1).unwrap().earlier.is_empty());
}

#[test]
fn points_that_their_fault_reaches_no_more_are_left_out_together() {
    let mut matrix = fake::matrix(fake::target(fake::TWO_ERRORS));
    run(&mut matrix, &fault_free(), &[1], &[]);
    let fault = matrix.get(0).unwrap().fault(1, ENOMEM);
    let once: Vec<u64> = (1..40).collect();
    run(&mut matrix, &FaultPlan { faults: vec![fault], ..fault_free() }, &once, &[(0, 1)]);
    let mut alone = matrix.take(Reach::Alone).unwrap();
    run(&mut matrix, &alone.plan, &[1], &[(0, 1)]);
    matrix.tried(&alone, Tried::Ran);
    let mut executions = 0;
    while let Some(taken) = matrix.take(Reach::Behind) {
        executions += 1;
        // From now on the fault is followed by one call.
        let fails = taken.plan.faults[1].call_path.0 == ["caller_2"];
        let mut execution = reaching(&[1, 2]);
        execution.fired = vec![fake::fired(0, 1)];
        execution.fired.extend(fails.then(|| Fired { sequence: 2, ..fake::fired(1, 2) }));
        matrix.learn(&taken.plan, &execution, 8);
        matrix.fired(&taken.plan, &execution, 8);
        if !fails {
            matrix.missed(&taken, &execution);
        }
        matrix.tried(&taken, Tried::Ran);
        alone = taken;
    }
    assert_eq!(executions, 2 + 8, "two errors at the point that is reached, and not two runs of each other cell");
    let counts = matrix.counts();
    assert_eq!((counts.cells, counts.cells_unreached), (78, 74));
    let back = FaultPlan { faults: alone.plan.faults[..1].to_vec(), ..fault_free() };
    run(&mut matrix, &back, &[1, 30], &[(0, 1)]);
    assert!(matrix.has_open(Reach::Behind), "the point is there again");
}

#[test]
fn points_of_other_scopes_are_points_of_their_own_and_are_failed_there() {
    let folder = tempfile::tempdir().unwrap();
    let mut matrix = matrix_in(folder.path());
    let mut execution = reaching(&[1, 2]);
    for (site, scope) in execution.sites.iter_mut().zip([Scope::Workload, Scope::Worker]) {
        let same_path = vec!["caller_1".to_owned()];
        *site = Arc::new(SiteDescription { scope, call_path: same_path, ..SiteDescription::clone(site) });
    }
    matrix.learn(&fault_free(), &execution, 5);
    let tasks: Vec<_> =
        std::iter::from_fn(|| matrix.take(Reach::Alone)).map(|taken| taken.plan.faults[0].task).collect();
    assert_eq!(tasks, [None, None, Some(Scope::Worker), Some(Scope::Worker)]);
    let text = serde_json::to_string(matrix.get(0).unwrap()).unwrap();
    assert!(!text.contains("scope"), "records of the workload's own points look as they did: {text}");
    assert_eq!(serde_json::from_str::<Point>(&text).unwrap().scope, Scope::Workload);
    assert!(serde_json::to_string(matrix.get(1).unwrap()).unwrap().contains("\"scope\":\"worker\""));
}

#[test]
fn a_cell_is_taken_once_and_given_up_in_the_end() {
    let folder = tempfile::tempdir().unwrap();
    for tried in [Tried::Ran, Tried::GivenUp] {
        let mut matrix = fake::matrix(fake::target(fake::TWO_ERRORS));
        run(&mut matrix, &fault_free(), &[1], &[]);
        let (first, second) = (matrix.take(Reach::Any).unwrap(), matrix.take(Reach::Any).unwrap());
        assert_ne!(first.plan, second.plan);
        assert!(matrix.take(Reach::Any).is_none(), "both are taken");
        let mut times = 0;
        matrix.tried(&second, Tried::Refused);
        matrix.tried(&first, Tried::Stopped);
        while let Some(taken) = matrix.take(Reach::Any) {
            times += 1;
            matrix.tried(&taken, tried);
        }
        assert_eq!((times, matrix.counts().cells_unreached, matrix.counts().cells_failed), (3, 2, 0));
    }
    drop(folder);
}

#[test]
fn a_matrix_survives_whatever_instant_its_process_ends_at() {
    let folder = tempfile::tempdir().unwrap();
    let mut matrix = matrix_in(folder.path());
    run(&mut matrix, &fault_free(), &[1, 2], &[]);
    let taken = matrix.take(Reach::Any).unwrap();
    run(&mut matrix, &taken.plan, &[1, 2], &[(0, 1)]);
    matrix.tried(&taken, Tried::Ran);
    let in_flight = matrix.take(Reach::Any).unwrap();
    let counts = matrix.counts();
    drop(matrix);
    for _ in 0..2 {
        let mut later = matrix_in(folder.path());
        assert_eq!(later.counts(), counts);
        later.learn(&fault_free(), &reaching(&[2, 1]), 9);
        assert_eq!(later.counts().points, 2, "both are known, whatever their numbers");
        assert_eq!(later.take(Reach::Any).unwrap().plan, in_flight.plan, "it was not tried");
        later.rewrite().unwrap();
    }
}

#[test]
fn a_point_where_most_faults_cost_the_guest_is_known_for_it() {
    let folder = tempfile::tempdir().unwrap();
    let mut matrix = matrix_in(folder.path());
    run(&mut matrix, &fault_free(), &[1, 2], &[]);
    let plan = FaultPlan { faults: vec![matrix.get(0).unwrap().fault(1, ENOMEM)], ..fault_free() };
    for _ in 0..3 {
        assert!(!matrix.is_fatal(&plan));
        run(&mut matrix, &plan, &[1, 2], &[(0, 1)]);
        matrix.was_fatal(1, &plan, 0);
    }
    assert!(matrix.is_fatal(&plan));
    (0..3).for_each(|_| run(&mut matrix, &plan, &[1, 2], &[(0, 1)]));
    assert!(!matrix.is_fatal(&plan), "half of them are not most");
}

#[test]
fn calls_are_packed_small_and_come_out_as_they_were() {
    let mut matrix = fake::matrix(fake::target(fake::TWO_ERRORS));
    let numbers: Vec<u64> = (0..300).map(|index: u64| index.wrapping_mul(0x9e37_79b9_7f4a_7c15)).collect();
    matrix.learn(&fault_free(), &reaching(&numbers), 0);
    assert!(matrix.reached(&[]).calls().is_empty());
    let hit = |(site, count)| Hit { site, count, first_sequence: 1 };
    let hits: Vec<Hit> = numbers.iter().rev().copied().zip(1..).map(hit).collect();
    let stranger = [Hit { site: 7, count: 1, first_sequence: 1 }];
    let reached = matrix.reached(&[&hits[..], &stranger].concat());
    let calls: Vec<_> = (0..300).map(|point| Calls { point, count: 300 - point }).collect();
    assert_eq!(reached.calls(), calls);
    assert!(reached.packed.len() <= 3 * 300 + 2, "{}", reached.packed.len());
}
