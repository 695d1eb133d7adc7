//! Several clients: explorers that share, and a checker on a kernel of its own.

use super::*;
use crate::fake::{caller, fails_at, warning};
use fault_plan::Round;

/// The reports of a kernel on a plan.
type Reports = fn(&FaultPlan) -> Vec<Finding>;

/// A change of an execution.
type Change = Box<dyn FnMut(&FaultPlan, &mut Execution) + Send>;

/// Runs a campaign with an explorer and a checker.
fn with_checker(folder: &Path, on_explorer: Reports, on_checker: Reports) -> Result<Summary, CampaignError> {
    let stop = Stop::new();
    let fake = || FakeRunner::new(&stop, u32::MAX);
    let clients = vec![
        client(Role::Explorer, "lean", with_reports(fake(), on_explorer)),
        client(Role::Checker, "fake", with_reports(fake(), on_checker)),
    ];
    run(options(folder, &stop, Some(Duration::from_secs(3))), clients)
}

#[test]
fn a_checker_sees_what_the_explorer_cannot() {
    let folder = tempfile::tempdir().unwrap();
    let summary = with_checker(
        folder.path(),
        |_| Vec::new(),
        |plan| {
            if fails_at(plan, 12) { vec![warning("KASAN in step_12")] } else { Vec::new() }
        },
    )
    .unwrap();
    assert_eq!(summary.crashes, [("KASAN in step_12".to_owned(), 3, 3)]);
    assert!(summary.statistics.checked >= 40 && summary.statistics.different >= 1, "{summary:?}");
    assert_eq!(
        (summary.statistics.points, summary.statistics.fault_free_coverage),
        (44, 40),
        "those of the explorer's kernel"
    );
    let slug = slug("KASAN in step_12");
    let text = fs::read_to_string(folder.path().join("crashes").join(slug).join("reproducer.json")).unwrap();
    assert_eq!(fault_plan::Reproducer::from_json(&text).unwrap().kernel, "fake");
    let mut coverage: Vec<_> = fs::read_dir(folder.path().join("coverage")).unwrap().flatten().collect();
    coverage.sort_by_key(fs::DirEntry::file_name);
    let names: Vec<_> = coverage.iter().map(|entry| entry.file_name().into_string().unwrap()).collect();
    assert_eq!(names, ["fake.fault-free", "fake.txt", "lean.fault-free", "lean.txt"]);
}

/// The checker's kernel has one caller more on each path.
#[test]
fn plans_hold_on_a_kernel_that_inlines_differently() {
    let folder = tempfile::tempdir().unwrap();
    let stop = Stop::new();
    let between = |site| {
        let mut callers = caller(site);
        callers.insert(1, "not_inlined".to_owned());
        callers
    };
    let clients = vec![
        client(Role::Explorer, "lean", FakeRunner::new(&stop, u32::MAX)),
        client(Role::Checker, "fake", FakeRunner { callers: between, ..FakeRunner::new(&stop, u32::MAX) }),
    ];
    let summary = run(options(folder.path(), &stop, Some(Duration::from_secs(3))), clients).unwrap();
    let statistics = summary.statistics;
    assert!(statistics.checked >= 40, "{statistics:?}");
    assert_eq!(statistics.unfired, 0, "{statistics:?}");
}

#[test]
fn a_crash_that_two_kernels_call_differently_is_one() {
    let folder = tempfile::tempdir().unwrap();
    let explored: Reports = |plan| match plan {
        plan if fails_at(plan, 12) => vec![warning("BUG: NULL in step_12")],
        plan if fails_at(plan, 14) => vec![warning("BUG: NULL in step_14")],
        _ => Vec::new(),
    };
    let checked: Reports = |plan| match plan {
        plan if fails_at(plan, 12) => vec![warning("KASAN: null in step_12")],
        plan if fails_at(plan, 14) => vec![warning("KASAN: free in step_1")],
        _ => Vec::new(),
    };
    let summary = with_checker(folder.path(), explored, checked).unwrap();
    let titles: Vec<&str> = summary.crashes.iter().map(|(title, ..)| title.as_str()).collect();
    assert_eq!(titles, ["BUG: NULL in step_14", "KASAN: free in step_1", "KASAN: null in step_12"]);
    assert_eq!(summary.same, 1);
    let meta = meta(folder.path(), "BUG: NULL in step_12").unwrap();
    assert_eq!((meta.same_as.as_deref(), meta.reproduced), (Some("KASAN: null in step_12"), 3));
}

/// The explorer's kernel hangs in the round after a failure of 12, of which the checker's tells at
/// once.
#[test]
fn a_crash_of_a_sequence_that_the_other_kernel_sees_in_an_earlier_round_is_one() {
    let folder = tempfile::tempdir().unwrap();
    let stop = Stop::new();
    let (hung, held) = ("INFO: task hung in step_12", "WARNING: lock held in step_12");
    let follows = |plan: &FaultPlan| {
        let fails = |round: &Round| fails_at(&FaultPlan { faults: round.faults.clone(), ..plan.clone() }, 12);
        plan.earlier.iter().any(fails)
    };
    let mut is_first = true;
    let hangs: Change = Box::new(move |plan, execution| {
        let late = plan.earlier.is_empty() && fails_at(plan, 13) && std::mem::take(&mut is_first);
        if late {
            execution.history = vec![Round { faults: fake::plan(caller(12), 1).faults, reset: true }];
        }
        execution.findings = if late || follows(plan) { vec![warning(hung)] } else { Vec::new() };
    });
    let tells: Change = Box::new(move |plan, execution| {
        let tells = fails_at(plan, 12) || follows(plan);
        execution.findings = if tells { vec![warning(held)] } else { Vec::new() };
    });
    let clients = [(Role::Explorer, "lean", hangs), (Role::Checker, "fake", tells)];
    let clients = clients
        .map(|(role, kernel, change)| client(role, kernel, Changing(FakeRunner::new(&stop, u32::MAX), change)))
        .into();
    // A crash waits for five seconds before it is checked.
    let summary = run(options(folder.path(), &stop, Some(Duration::from_secs(8))), clients).unwrap();
    assert_eq!((summary.crashes, summary.same), (vec![(held.to_owned(), 3, 3)], 1));
    assert_eq!(meta(folder.path(), hung).unwrap().same_as.as_deref(), Some(held));
}

#[test]
fn a_title_that_two_clients_see_is_reported_once_and_explorers_share() {
    let folder = tempfile::tempdir().unwrap();
    let stop = Stop::new();
    let fake = || FakeRunner::new(&stop, 500);
    let clients = (0..3).map(|_| client(Role::Explorer, "fake", fake())).collect();
    let summary = run(options(folder.path(), &stop, None), clients).unwrap();
    let titles: Vec<&str> = summary.crashes.iter().map(|(title, ..)| title.as_str()).collect();
    assert_eq!(titles, ["BUG in fallback_20", "BUG in step_7"]);
    assert!(summary.statistics.executions >= 500 && summary.statistics.points == 44, "{summary:?}");
    let file: CampaignFile =
        serde_json::from_str(&fs::read_to_string(folder.path().join("campaign.json")).unwrap()).unwrap();
    assert_eq!(file.executions, summary.statistics.executions, "every client's executions count");
}
