//! The ends of a campaign.

use super::*;

/// Leaves of an execution one allocation: the search has soon run every plan there is.
fn one_call(_: &FaultPlan, execution: &mut Execution) {
    execution.hits.truncate(1);
    execution.sites.truncate(1);
    execution.coverage.iter_mut().for_each(|coverage| coverage.addresses.truncate(1));
    execution.findings.clear();
}

#[test]
fn a_campaign_with_nothing_left_to_try_ends_when_its_time_is_up() {
    let folder = tempfile::tempdir().unwrap();
    let stop = Stop::new();
    let runner = Changing(FakeRunner::new(&stop, u32::MAX), one_call);
    let summary = run(options(folder.path(), &stop, Some(Duration::from_secs(1))), explorer(runner)).unwrap();
    assert_eq!(summary.statistics.points, 1);
    assert!(!stop.is_requested());
}

#[test]
fn a_client_that_cannot_start_ends_the_campaign() {
    let folder = tempfile::tempdir().unwrap();
    let stop = Stop::new();
    let fake = FakeRunner::new(&stop, u32::MAX);
    let mut clients = explorer(fake);
    clients.push(Client { role: Role::Checker, start: Box::new(|| Err("no kernel".into())) });
    let error = run(options(folder.path(), &stop, None), clients).unwrap_err();
    assert_eq!(execution::chain(&error), "a client cannot start: no kernel");
}

#[test]
fn a_client_that_panics_ends_the_campaign() {
    let folder = tempfile::tempdir().unwrap();
    let stop = Stop::new();
    let panics = |plan: &FaultPlan| if plan.faults.is_empty() { Vec::new() } else { panic!("a defect") };
    let runner = || with_reports(FakeRunner::new(&stop, u32::MAX), panics);
    let clients = [(); 2].map(|()| client(Role::Explorer, "fake", runner())).into();
    let error = run(options(folder.path(), &stop, None), clients).unwrap_err();
    assert!(matches!(error, CampaignError::Panic), "{error}");
    assert!(CampaignFolder::open(folder.path(), "fake", "fake").is_ok(), "all have ended");
}

#[test]
fn a_client_that_is_still_starting_does_not_keep_a_campaign_from_ending() {
    let folder = tempfile::tempdir().unwrap();
    let stop = Stop::new();
    let fake = FakeRunner::new(&stop, u32::MAX);
    let mut clients = explorer(fake);
    let told = stop.clone();
    let start = Box::new(move || {
        assert!(told.receiver().recv().is_err(), "waits for the request to stop");
        Err("stopped".into())
    });
    clients.push(Client { role: Role::Checker, start });
    let result = run(options(folder.path(), &stop, Some(Duration::from_secs(1))), clients);
    assert!(result.is_ok(), "{result:?}");
}

/// A runner whose guests have something to say at the very end.
struct LastWords(FakeRunner);

impl Runner for LastWords {
    fn run(&mut self, plan: &FaultPlan, how: How) -> Ran {
        self.0.run(plan, how)
    }

    fn finish(&mut self) -> Vec<Attributed> {
        let (plan, findings) = (FaultPlan::fault_free("fake"), vec![fake::warning("WARNING in late")]);
        let (fired, console, history) = (Vec::new(), String::new(), Vec::new());
        vec![Attributed { plan, how: How::Warm, fired, findings, console, history }]
    }

    fn usage(&self) -> Usage {
        self.0.usage()
    }
}

#[test]
fn what_the_last_guest_had_still_to_say_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let stop = Stop::new();
    let runner = LastWords(FakeRunner::new(&stop, 50));
    let summary = run(options(folder.path(), &stop, None), explorer(runner)).unwrap();
    assert!(summary.crashes.iter().any(|(title, ..)| title == "WARNING in late"), "{:?}", summary.crashes);
}
