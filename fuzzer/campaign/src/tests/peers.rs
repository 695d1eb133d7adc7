//! Campaigns that are connected to each other.

use std::{
    net::{Ipv4Addr, TcpListener},
    sync::atomic::{AtomicBool, Ordering},
};

use fault_plan::Fault;

use super::*;
use crate::fake::{fails_at, seed, warning};

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
    let second = with_reports(fake(&stops[1]), |plan: &FaultPlan| {
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
    assert_eq!((summary.statistics.points, summary.crashes.len()), (44, 2));
    assert_eq!(last_line(folder.path())["peers"], 0);
}
