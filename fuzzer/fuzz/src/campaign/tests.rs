//! The whole loop over a fake runner: everything but guests.

use std::{fs, path::Path};

use fault_plan::{CallPath, Fault, FaultPlan, InjectedError};
use guest_protocol::{Hit, SiteDescription, StepResult, Timings};

use super::*;
use crate::{
    execution::{ExecuteError, Execution, Fired, Outcome, RunnerCounters},
    report::{KernelReport, ReportKind},
};

const TEXT_START: u64 = 0x1000;
const TARGET: &str = r#"
description = "a fake"
kernel = "fake"
steps = [{ sync = {} }]
[[functions]]
name = "should_failslab"
errors = ["ENOMEM"]
"#;

/// A workload of 40 allocations in a row. One that fails ends it after an unwind block of its own; the failure of
/// every tenth is followed by one more allocation, in a fallback. Number 7 has a bug, and so has the fallback of 20.
struct FakeRunner {
    stop: Stop,
    executions_left: u32,
    counters: RunnerCounters,
}

const ALLOCATIONS: u64 = 40;

fn caller(site: u64) -> Vec<String> {
    let function = if site >= 1000 { format!("fallback_{}", site - 1000) } else { format!("step_{site}") };
    vec![function, "workload".to_owned()]
}

fn describe(site: u64) -> SiteDescription {
    SiteDescription { site, function: "should_failslab".to_owned(), call_path: caller(site), truncated: false }
}

struct Model<'a> {
    plan: &'a FaultPlan,
    seen: Vec<u32>,
    execution: Execution,
}

impl Model<'_> {
    fn allocate(&mut self, site: u64) -> bool {
        let sequence = u32::try_from(self.execution.hits.len()).unwrap() + 1;
        self.execution.hits.push(Hit { site, count: 1, first_sequence: sequence });
        self.execution.new_sites.push(describe(site));
        self.execution.coverage.push(TEXT_START + site % 1000);
        let mut fails = false;
        for (index, fault) in self.plan.faults.iter().enumerate() {
            if fault.call_path.matches(&caller(site)) {
                self.seen[index] += 1;
                if self.seen[index] == fault.occurrence {
                    fails = true;
                    self.execution.fired.push(Fired { fault: index, sequence, call_path: caller(site) });
                }
            }
        }
        !fails
    }

    fn crash(&mut self, title: &str) {
        let report = KernelReport { title: title.to_owned(), kind: ReportKind::Bug, text: format!("{title}\n") };
        self.execution.outcome = Outcome::Crashed(report);
    }

    fn workload(&mut self) {
        for site in 0..ALLOCATIONS {
            if self.allocate(site) {
                continue;
            }
            self.execution.coverage.push(TEXT_START + 500 + site);
            if site == 7 {
                self.crash("BUG in step_7");
            }
            if site % 10 == 0 && !self.allocate(1000 + site) {
                self.execution.coverage.push(TEXT_START + 600 + site);
                if site == 20 {
                    self.crash("BUG in fallback_20");
                }
            }
            return;
        }
    }
}

impl Runner for FakeRunner {
    fn run(&mut self, plan: &FaultPlan) -> Result<Execution, ExecuteError> {
        if self.executions_left == 0 {
            self.stop.request();
            return Err(ExecuteError::Stopped);
        }
        self.executions_left -= 1;
        let execution = Execution {
            outcome: Outcome::Completed,
            steps: vec![StepResult::Done(0)],
            hits: Vec::new(),
            new_sites: Vec::new(),
            fired: Vec::new(),
            coverage: Vec::new(),
            guarded: 0,
            console: String::new(),
            wall: Duration::ZERO,
            timings: Timings::default(),
        };
        let mut model = Model { plan, seen: vec![0; plan.faults.len()], execution };
        model.workload();
        Ok(model.execution)
    }

    fn run_fresh(&mut self, plan: &FaultPlan) -> Result<Execution, ExecuteError> {
        self.counters.guests += 1;
        self.run(plan)
    }

    fn counters(&self) -> RunnerCounters {
        self.counters
    }
}

fn options(folder: &Path, stop: &Stop, time: Option<Duration>) -> CampaignOptions {
    let targets = tempfile::tempdir().unwrap();
    fs::create_dir(targets.path().join("fake")).unwrap();
    fs::write(targets.path().join("fake/target.toml"), TARGET).unwrap();
    let target = Target::find(targets.path(), "fake").unwrap();
    let (opened, earlier) = CampaignFolder::open(folder, "fake", "fake", "ab12").unwrap();
    CampaignOptions {
        target: Arc::new(target),
        folder: Arc::new(opened),
        earlier,
        call_sites: Arc::new(CallSites::from_offsets(TEXT_START, (0..1000).collect())),
        stop: stop.clone(),
        time,
        seed: 1,
        progress: Box::new(io::sink()),
    }
}

fn campaign(folder: &Path, executions: u32) -> Summary {
    let stop = Stop::new();
    let runner = FakeRunner { stop: stop.clone(), executions_left: executions, counters: RunnerCounters::default() };
    run(options(folder, &stop, None), runner).unwrap()
}

#[test]
fn the_search_finds_the_bug_of_one_fault_and_that_of_two() {
    let folder = tempfile::tempdir().unwrap();
    let summary = campaign(folder.path(), 600);
    let titles: Vec<&str> = summary.crashes.iter().map(|(title, _, _)| title.as_str()).collect();
    assert_eq!(titles, ["BUG in fallback_20", "BUG in step_7"]);
    assert!(summary.crashes.iter().all(|(_, reproduced, tried)| (*reproduced, *tried) == (3, 3)), "{summary:?}");
    assert_eq!(summary.sites, 44, "40 and the fallbacks of 0, 10, 20 and 30");
    assert_eq!(summary.fault_free_coverage, 40);
    assert!(summary.coverage >= 40 + 39, "{summary:?}");
    assert!(summary.counters.fired * 100 >= summary.counters.with_faults * 95, "{summary:?}");
}

#[test]
fn what_is_on_disk_is_what_was_found() {
    let folder = tempfile::tempdir().unwrap();
    let summary = campaign(folder.path(), 600);
    let plans = fs::read_dir(folder.path().join("corpus")).unwrap().count();
    assert!(plans > 30 && plans <= summary.corpus, "{plans} files, {} entries", summary.corpus);
    let crash = folder.path().join("crashes").join(crate::report::title_slug("BUG in step_7"));
    for file in ["reproducer.json", "report.txt", "console.log", "meta.json"] {
        assert!(crash.join(file).is_file(), "{file}");
    }
    let text = fs::read_to_string(crash.join("reproducer.json")).unwrap();
    let reproducer = fault_plan::Reproducer::from_json(&text).unwrap();
    assert_eq!(reproducer.title, "BUG in step_7");
    let meta: CrashMeta = serde_json::from_str(&fs::read_to_string(crash.join("meta.json")).unwrap()).unwrap();
    assert!(meta.fired.iter().any(|fault| fault.call_path == caller(7)), "{meta:?}");
    let last = fs::read_to_string(folder.path().join("stats.jsonl")).unwrap().lines().last().unwrap().to_owned();
    let line: serde_json::Value = serde_json::from_str(&last).unwrap();
    assert_eq!(line["crashes"], 2);
    assert_eq!(line["sites"], 44);
}

#[test]
fn a_campaign_goes_on_where_it_stopped() {
    let folder = tempfile::tempdir().unwrap();
    let first = campaign(folder.path(), 300);
    let second = campaign(folder.path(), 300);
    let file: CampaignFile =
        serde_json::from_str(&fs::read_to_string(folder.path().join("campaign.json")).unwrap()).unwrap();
    assert_eq!(file.executions, first.executions + second.executions);
    assert!(second.coverage >= first.coverage && second.sites >= first.sites);
    assert!(second.corpus >= fs::read_dir(folder.path().join("corpus")).unwrap().count());
    for crash in &first.crashes {
        assert!(second.crashes.contains(crash), "{crash:?} is lost");
    }
}

/// A runner of one allocation: the search has soon run every plan there is.
struct OneCall(FakeRunner);

impl Runner for OneCall {
    fn run(&mut self, plan: &FaultPlan) -> Result<Execution, ExecuteError> {
        let mut execution = self.0.run(plan)?;
        execution.hits.truncate(1);
        execution.new_sites.truncate(1);
        execution.coverage.truncate(1);
        execution.outcome = Outcome::Completed;
        Ok(execution)
    }

    fn run_fresh(&mut self, plan: &FaultPlan) -> Result<Execution, ExecuteError> {
        self.run(plan)
    }

    fn counters(&self) -> RunnerCounters {
        self.0.counters
    }
}

#[test]
fn a_campaign_with_nothing_left_to_try_ends_when_its_time_is_up() {
    let folder = tempfile::tempdir().unwrap();
    let stop = Stop::new();
    let runner =
        OneCall(FakeRunner { stop: stop.clone(), executions_left: u32::MAX, counters: RunnerCounters::default() });
    let summary = run(options(folder.path(), &stop, Some(Duration::from_secs(1))), runner).unwrap();
    assert_eq!(summary.sites, 1);
    assert!(!stop.is_requested());
}

#[test]
fn what_a_killed_start_had_begun_to_write_is_removed() {
    let folder = tempfile::tempdir().unwrap();
    let first = campaign(folder.path(), 300);
    let unfinished = [folder.path().join("corpus/.1.json.tmp"), folder.path().join("crashes/.half")];
    fs::write(&unfinished[0], "{").unwrap();
    fs::create_dir(&unfinished[1]).unwrap();
    fs::write(unfinished[1].join("meta.json"), "{").unwrap();
    let second = campaign(folder.path(), 100);
    assert_eq!(second.crashes, first.crashes);
    assert!(unfinished.iter().all(|path| !path.exists()));
}

#[test]
fn a_folder_of_another_target_or_in_use_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    campaign(folder.path(), 20);
    let open = |target: &str| CampaignFolder::open(folder.path(), target, "fake", "ab12");
    assert!(open("other").unwrap_err().to_string().contains("target \"fake\", not \"other\""));
    let text = fs::read_to_string(folder.path().join("campaign.json")).unwrap();
    fs::write(folder.path().join("campaign.json"), text.replace("\"version\": 1", "\"version\": 9")).unwrap();
    assert!(open("fake").unwrap_err().to_string().contains("format version 9"));
    fs::write(folder.path().join("campaign.json"), text).unwrap();
    let _held = open("fake").unwrap();
    assert!(matches!(open("fake").unwrap_err(), FolderError::Busy { .. }));
}

#[test]
fn seeds_of_a_target_are_in_the_corpus() {
    let plan = PlanInput(FaultPlan {
        faults: vec![Fault {
            function: "should_failslab".to_owned(),
            call_path: CallPath(caller(3)),
            occurrence: 1,
            error: InjectedError::Errno(fault_plan::Errno::ENOMEM),
        }],
        ..FaultPlan::fault_free("fake")
    });
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir_all(folder.path().join("corpus")).unwrap();
    libafl::inputs::Input::to_file(&plan, folder.path().join("corpus/seed.json")).unwrap();
    let summary = campaign(folder.path(), 30);
    assert!(summary.counters.fired > 0 && summary.corpus > 1, "{summary:?}");
}
