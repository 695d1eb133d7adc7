//! Several clients: explorers that share, and a checker on a kernel of its own.

use super::*;
use crate::fake::{caller, fails_at, warning};

/// The reports of a kernel on a plan.
type Reports = fn(&FaultPlan) -> Vec<Finding>;

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
