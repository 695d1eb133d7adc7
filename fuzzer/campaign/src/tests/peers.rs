//! Campaigns that are connected to each other.

use std::{
    net::{Ipv4Addr, TcpListener},
    sync::atomic::Ordering,
};

use fault_plan::{REPRODUCER_VERSION, Reproducer};

use super::*;
use crate::{crashes::Cause, crashes::Crashes, peers::CrashNews};
use kernel_report::title_slug;

fn meta(folder: &Path, title: &str) -> Option<CrashMeta> {
    let text = fs::read_to_string(folder.join("crashes").join(title_slug(title)).join("meta.json")).ok()?;
    Some(serde_json::from_str(&text).unwrap())
}

/// What a campaign says in its last line.
fn last_line(folder: &Path) -> serde_json::Value {
    let text = fs::read_to_string(folder.join("stats.jsonl")).unwrap();
    serde_json::from_str(text.lines().last().unwrap()).unwrap()
}

#[test]
fn connected_campaigns_share_plans_and_crashes() {
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let stops = [Stop::new(), Stop::new()];
    let fake = |stop: &Stop| FakeRunner::new(stop, u32::MAX);
    let targets = targets();
    let mut options = [0, 1].map(|host| options_for(targets.path(), folders[host].path(), &stops[host], None));
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    options[1].peers.join.push(listener.local_addr().unwrap().to_string());
    options[0].peers.listener = Some(listener);
    // A plan that only the first host begins with, and nobody would make.
    let only = seed("fake", "should_failslab").0;
    let only = FaultPlan { faults: vec![Fault { occurrence: 77, ..only.faults[0].clone() }], ..only };
    PlanInput(only.clone()).to_file(folders[0].path().join("corpus/only.json")).unwrap();
    let ran = AtomicBool::new(false);
    let second = Reporting(fake(&stops[1]), |plan: &FaultPlan| {
        ran.fetch_or(*plan == only, Ordering::Relaxed);
        if fails_at(plan, 30) { vec![warning("WARNING in step_30")] } else { Vec::new() }
    });
    let titles = ["BUG in fallback_20", "BUG in step_7", "WARNING in step_30"];
    let [first_options, second_options] = options;
    let summaries = thread::scope(|scope| {
        let first = fake(&stops[0]);
        let first = scope.spawn(move || run(first_options, explorer(first)));
        let second = scope.spawn(move || run(second_options, explorer(second)));
        let deadline = Instant::now() + Duration::from_secs(60);
        let tried = |folder: &Path, title| meta(folder, title).is_some_and(|meta| meta.tried > 0);
        let all = |folder: &Path| titles.iter().all(|title| tried(folder, title));
        while !(ran.load(Ordering::Relaxed) && folders.iter().all(|folder| all(folder.path())))
            && Instant::now() < deadline
        {
            thread::sleep(Duration::from_millis(20));
        }
        stops.iter().for_each(Stop::request);
        [first.join().unwrap().unwrap(), second.join().unwrap().unwrap()]
    });
    assert!(ran.load(Ordering::Relaxed), "the second host never ran the plan of the first");
    for (host, folder) in folders.iter().enumerate() {
        let found: Vec<_> = summaries[host].crashes.iter().map(|(title, ..)| title.as_str()).collect();
        assert_eq!(found, titles);
        let foreign = titles.map(|title| meta(folder.path(), title).unwrap().origin.is_some());
        assert_eq!(foreign, if host == 0 { [false, false, true] } else { [true, true, false] });
        assert!(last_line(folder.path())["peers"].is_u64());
    }
    assert!(summaries[0].crashes.contains(&("BUG in step_7".to_owned(), 3, 3)), "{summaries:?}");
    assert!(summaries[1].crashes.contains(&("BUG in step_7".to_owned(), 0, 3)), "tried here, where it does not come");
    assert!(campaign(folders[1].path(), 100).crashes.len() == 3 && last_line(folders[1].path())["peers"].is_null());
}

#[test]
fn a_campaign_that_finds_nobody_ends_as_ever() {
    let folder = tempfile::tempdir().unwrap();
    let stop = Stop::new();
    let fake = FakeRunner::new(&stop, 300);
    let mut options = options(folder.path(), &stop, None);
    let nobody = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap();
    options.peers.join = vec![nobody.to_string(), "name.invalid:1".to_owned()];
    let summary = run(options, explorer(fake)).unwrap();
    assert_eq!((summary.sites, summary.crashes.len()), (44, 2));
    assert_eq!(last_line(folder.path())["peers"], 0);
}

fn news(title: &str, plan: &FaultPlan) -> CrashNews {
    let reproducer = Reproducer {
        reproducer_version: REPRODUCER_VERSION,
        title: title.to_owned(),
        kernel: "fake".to_owned(),
        kernel_build_id: "fake".to_owned(),
        plan: plan.clone(),
    };
    CrashNews { host: "away".to_owned(), kind: ReportKind::Bug, reproducer }
}

#[test]
fn a_title_that_two_hosts_see_has_one_folder() {
    let folder = tempfile::tempdir().unwrap();
    let opened = || Arc::new(CampaignFolder::open(folder.path(), "fake", "fake").unwrap().0);
    let crashes = Crashes::restore(opened(), Duration::ZERO).unwrap();
    let call_sites = Arc::new(CallSites::from_offsets(TEXT_START, vec![0]));
    let kernel = CampaignKernel { name: "fake".to_owned(), build_id: "fake".to_owned(), call_sites };
    let plan = seed("fake", "should_failslab");
    let mut fake = FakeRunner::new(&Stop::new(), 10);
    let mut execution = fake.execute(&FaultPlan::fault_free("fake")).unwrap();
    let mut found = |title: &str| {
        execution.findings = vec![warning(title).into()];
        crashes.note(&kernel, &Cause::of(&plan.0, &execution)).unwrap()
    };
    crashes.note_foreign(&news("BUG in theirs", &FaultPlan::fault_free("fake"))).unwrap();
    assert!(!found("BUG in theirs"), "it is known");
    assert!(found("BUG in ours"));
    crashes.note_foreign(&news("BUG in ours", &FaultPlan::fault_free("fake"))).unwrap();
    assert_eq!(crashes.len(), 2);
    assert_eq!(fs::read_dir(folder.path().join("crashes")).unwrap().count(), 2);
    assert_eq!(meta(folder.path(), "BUG in theirs").unwrap().origin.as_deref(), Some("away"));
    let ours = folder.path().join("crashes").join(title_slug("BUG in ours"));
    assert!(meta(folder.path(), "BUG in ours").unwrap().origin.is_none() && ours.join("report.txt").is_file());

    let taken = title_slug("BUG in ours");
    assert_eq!(title_slug(&taken), taken, "two titles, one folder");
    crashes.note_foreign(&news(&taken, &plan.0)).unwrap();
    assert_eq!(meta(folder.path(), "BUG in ours").unwrap().title, "BUG in ours");
    assert_eq!(crashes.len(), 2);

    let try_in_vain = || {
        let untried = crashes.take_untried(&kernel, Duration::ZERO).unwrap();
        let title = untried.title.clone();
        crashes.tried(untried, 3, 0).unwrap();
        title
    };
    assert_eq!([try_in_vain(), try_in_vain()], ["BUG in ours", "BUG in theirs"], "both are tried here");
    crashes.note_foreign(&news("BUG in ours", &FaultPlan::fault_free("fake"))).unwrap();
    assert!(ours.join("report.txt").is_file(), "what this host saw for itself stays");
    assert!(found("BUG in theirs"), "a plan of this host is welcome for what could not be made again");
    assert!(meta(folder.path(), "BUG in theirs").unwrap().origin.is_none());
    let inexact = crashes.take_inexact(&kernel).unwrap();
    assert_eq!(inexact.title, "BUG in ours");
    crashes.tried_exactly(&inexact, true).unwrap();
    assert_eq!(meta(folder.path(), "BUG in ours").unwrap().exact, Some(true));
    assert!(!found("BUG in ours"), "a plan that makes it again is all that is wanted");
    drop(crashes);
    let crashes = Crashes::restore(opened(), Duration::ZERO).unwrap();
    assert_eq!(crashes.len(), 2);
    assert_eq!(crashes.take_untried(&kernel, Duration::ZERO).unwrap().title, "BUG in theirs");
    assert!(crashes.take_inexact(&kernel).is_none(), "it was tried exactly");
}
