//! The finds of a search, in its summary and on disk.

use super::*;
use crate::fake::{caller, fails_at, warning};
use execution::Fate;
use guest_protocol::TraceRole;

#[test]
fn the_search_finds_the_bug_of_one_fault_and_that_of_two() {
    let folder = tempfile::tempdir().unwrap();
    let summary = campaign(folder.path(), 600);
    let titles: Vec<&str> = summary.crashes.iter().map(|(title, _, _)| title.as_str()).collect();
    assert_eq!(titles, ["BUG in fallback_20", "BUG in step_7"]);
    assert!(summary.crashes.iter().all(|(_, reproduced, tried)| (*reproduced, *tried) == (3, 3)), "{summary:?}");
    assert_eq!(summary.statistics.points, 44, "40 and the fallbacks of 0, 10, 20 and 30");
    assert_eq!(summary.statistics.fault_free_coverage, 40);
    assert!(summary.statistics.coverage >= 40 + 39, "{summary:?}");
    assert!(summary.statistics.fired * 100 >= summary.statistics.with_faults * 95, "{summary:?}");
}

#[test]
fn what_is_on_disk_is_what_was_found() {
    let folder = tempfile::tempdir().unwrap();
    let summary = campaign(folder.path(), 600);
    let plans = fs::read_dir(folder.path().join("corpus")).unwrap().count();
    assert!(
        plans > 30 && plans as u64 == summary.statistics.corpus,
        "{plans} files, {} entries",
        summary.statistics.corpus
    );
    let crash = folder.path().join("crashes").join(slug("BUG in step_7"));
    for file in ["reproducer.json", "report.txt", "console.log", "meta.json"] {
        assert!(crash.join(file).is_file(), "{file}");
    }
    let text = fs::read_to_string(crash.join("reproducer.json")).unwrap();
    let reproducer = fault_plan::Reproducer::from_json(&text).unwrap();
    assert_eq!(reproducer.title, "BUG in step_7");
    let meta = meta(folder.path(), "BUG in step_7").unwrap();
    assert!(meta.fired.iter().any(|fault| fault.call_path == caller(7)), "{meta:?}");
    let line = last_line(folder.path());
    assert_eq!(line["crashes"], 2);
    assert_eq!(line["points"], 44);
}

#[test]
fn a_warning_hides_neither_what_comes_after_it_nor_what_ran() {
    let folder = tempfile::tempdir().unwrap();
    let summary = reporting(folder.path(), |plan| match plan {
        plan if plan.faults.is_empty() => Vec::new(),
        plan if fails_at(plan, 9) => vec![warning("WARNING in all"), warning("WARNING in step_9")],
        _ => vec![warning("WARNING in all")],
    })
    .unwrap();
    let titles: Vec<&str> = summary.crashes.iter().map(|(title, ..)| title.as_str()).collect();
    assert_eq!(titles, ["WARNING in all", "WARNING in step_9"]);
    assert_eq!(
        summary.statistics.points, 44,
        "the sites behind faults are known although all of them come with a warning"
    );
}

#[test]
fn a_plan_that_shows_a_new_warning_is_mutated_as_any_other() {
    let folder = tempfile::tempdir().unwrap();
    let mut first = None;
    reporting(folder.path(), |plan| {
        if !fails_at(plan, 10) {
            return Vec::new();
        }
        first.get_or_insert_with(|| PlanInput(plan.clone()));
        vec![warning("WARNING in step_10")]
    })
    .unwrap();
    assert!(folder.path().join("corpus").join(first.unwrap().generate_name(None)).is_file());
}

#[test]
fn another_plan_is_tried_for_a_crash_that_did_not_come_again() {
    let folder = tempfile::tempdir().unwrap();
    let mut first = true;
    let summary = reporting(folder.path(), |plan| {
        let by_chance = !plan.faults.is_empty() && std::mem::take(&mut first);
        if by_chance || fails_at(plan, 30) { vec![warning("WARNING in step_30")] } else { Vec::new() }
    })
    .unwrap();
    assert_eq!(summary.crashes, [("WARNING in step_30".to_owned(), 3, 3)]);
    let crash = folder.path().join("crashes").join(slug("WARNING in step_30"));
    let text = fs::read_to_string(crash.join("reproducer.json")).unwrap();
    assert!(fails_at(&fault_plan::Reproducer::from_json(&text).unwrap().plan, 30), "{text}");
}

#[test]
fn a_crash_does_not_wait_until_all_points_were_failed_alone() {
    let folder = tempfile::tempdir().unwrap();
    let mut ran: Vec<FaultPlan> = Vec::new();
    reporting(folder.path(), |plan| {
        // So long no neighbour of the crash has come.
        if fails_at(plan, 4) && !ran.iter().any(|before| fails_at(before, 4)) {
            thread::sleep(Duration::from_secs(6));
        }
        ran.push(plan.clone());
        if fails_at(plan, 3) { vec![warning("WARNING in step_3")] } else { Vec::new() }
    })
    .unwrap();
    let first = |site: u64| ran.iter().position(|plan| fails_at(plan, site)).unwrap();
    let again = ran[first(3) + 1..].iter().position(|plan| *plan == ran[first(3)]).unwrap() + first(3) + 1;
    assert!(again < first(39), "run {again} was its first try, and run {} still one of a point alone", first(39));
}

#[test]
fn a_workload_that_fails_by_itself_is_a_finding() {
    let folder = tempfile::tempdir().unwrap();
    let summary = reporting(folder.path(), |_| vec![warning("WARNING in mount")]).unwrap();
    assert_eq!(summary.crashes, [("WARNING in mount".to_owned(), 3, 3)]);
    assert!(summary.statistics.points_failed > 30, "{summary:?}");
}

#[test]
fn what_is_known_to_cost_the_guest_runs_less_often_and_is_not_left_out() {
    let fake = |stop: &Stop, crashed| FakeRunner { crashed, ..FakeRunner::new(stop, 2000) };
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let stops = [Stop::new(), Stop::new()];
    let harmless = explorer(fake(&stops[0], Fate::Alive));
    run(options(folders[0].path(), &stops[0], None), harmless).unwrap();
    let costly = explorer(fake(&stops[1], Fate::Retired));
    let summary = run(options(folders[1].path(), &stops[1], None), costly).unwrap();
    assert_eq!(summary.crashes.len(), 2, "the crash of two faults is found nevertheless");
    let failed = folders.map(|folder| {
        points(folder.path(), "fake").into_iter().find(|point| point.call_path == caller(7)).unwrap().fired()
    });
    assert!(failed[1] >= 10 && failed[1] < failed[0], "{failed:?}");
}

#[test]
fn the_fault_free_plan_runs_until_it_shows_nothing_new_for_a_while() {
    // The first executions each cover another place.
    let covered = |noisy: u64| {
        let folder = tempfile::tempdir().unwrap();
        let stop = Stop::new();
        let mut left = noisy;
        let runner = Changing(FakeRunner::new(&stop, 100), |_: &FaultPlan, execution: &mut Execution| {
            if left > 0 {
                left -= 1;
                execution.coverage.push(fake::covered(TraceRole::Threads, &[fake::TEXT_START + 900 + left]));
            }
        });
        let summary = run(options(folder.path(), &stop, None), explorer(runner)).unwrap();
        (summary.statistics.fault_free_coverage, summary.statistics.coverage_threads)
    };
    assert_eq!(covered(12), (40 + 12, 12));
    assert_eq!(covered(50).0, 40 + 32, "but not for ever");
}
