//! The whole loop over a fake runner: everything but guests.

mod checks;
mod crashes;
mod peers;

use std::{fs, path::Path};

use fault_plan::{CallPath, Fault, FaultPlan, InjectedError};
use guest_protocol::{Hit, SiteDescription, StepResult, Timings};

use super::*;
use execution::{Execution, Fate, Finding, Fired, How, Ran, RunError, Usage};
use kernel_report::{KernelReport, ReportKind};

/// A target called `fake`, without a disk.
pub(crate) const FAKE: &str = r#"
description = "a fake"
kernel = "fake"
steps = [{ sync = {} }]
[[functions]]
name = "should_failslab"
errors = ["ENOMEM"]
"#;

const TEXT_START: u64 = 0x1000;

/// A workload of 40 allocations in a row. One that fails ends it after an unwind block of its own; the failure of
/// every tenth is followed by one more allocation, in a fallback. Number 7 has a bug, and so has the fallback of 20.
struct FakeRunner {
    stop: Stop,
    executions_left: u32,
    /// The state of the guest after a crash.
    crashed: Fate,
    usage: Usage,
}

impl FakeRunner {
    fn new(stop: &Stop, executions_left: u32) -> Self {
        Self { stop: stop.clone(), executions_left, crashed: Fate::Alive, usage: Usage::default() }
    }
}

const ALLOCATIONS: u64 = 40;

fn caller(site: u64) -> Vec<String> {
    let function = if site >= 1000 { format!("fallback_{}", site - 1000) } else { format!("step_{site}") };
    vec![function, "workload".to_owned()]
}

fn describe(site: u64) -> Arc<SiteDescription> {
    let function = "should_failslab".to_owned();
    Arc::new(SiteDescription { site, function, call_path: caller(site), truncated: false })
}

struct Model<'a> {
    plan: &'a FaultPlan,
    /// The state of the guest after a crash.
    crashed: Fate,
    seen: Vec<u32>,
    execution: Execution,
}

impl Model<'_> {
    fn allocate(&mut self, site: u64) -> bool {
        let sequence = u32::try_from(self.execution.hits.len()).unwrap() + 1;
        self.execution.hits.push(Hit { site, count: 1, first_sequence: sequence });
        self.execution.sites.push(describe(site));
        self.execution.coverage.push(TEXT_START + site % 1000);
        let mut fails = false;
        for (index, fault) in self.plan.faults.iter().enumerate() {
            if fault.call_path.matches(&caller(site)) {
                self.seen[index] += 1;
                if self.seen[index] == fault.occurrence {
                    fails = true;
                    self.execution.fired.push(Fired { fault: index, sequence, site, call_path: caller(site) });
                }
            }
        }
        !fails
    }

    fn crash(&mut self, title: &str) {
        let report = KernelReport { title: title.to_owned(), kind: ReportKind::Bug, text: format!("{title}\n") };
        self.execution.findings = vec![report.into()];
        self.execution.guest = self.crashed;
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

impl FakeRunner {
    fn execute(&mut self, plan: &FaultPlan) -> Result<Execution, RunError> {
        if self.executions_left == 0 {
            self.stop.request();
            return Err(RunError::Stopped);
        }
        self.executions_left -= 1;
        let execution = Execution {
            findings: Vec::new(),
            guest: Fate::Alive,
            steps: vec![StepResult::Done(0)],
            hits: Vec::new(),
            sites: Vec::new(),
            fired: Vec::new(),
            coverage: Vec::new(),
            guarded: 0,
            incomplete: false,
            console: String::new(),
            wall: Duration::ZERO,
            timings: Timings::default(),
        };
        let mut model = Model { plan, crashed: self.crashed, seen: vec![0; plan.faults.len()], execution };
        model.workload();
        Ok(model.execution)
    }
}

impl Runner for FakeRunner {
    fn run(&mut self, plan: &FaultPlan, how: How) -> Ran {
        if how == How::Exact {
            return Err(RunError::NoExactGuests("a fake".to_owned())).into();
        }
        self.usage.guests += u64::from(how == How::Fresh);
        self.execute(plan).into()
    }

    fn usage(&self) -> Usage {
        self.usage
    }
}

/// The only client of a campaign.
fn explorer<'a, R: Runner + Send + 'a>(runner: R) -> Vec<Worker<'a, R>> {
    vec![worker(Role::Explorer, "fake", runner)]
}

fn worker<'a, R: Runner + Send + 'a>(role: Role, kernel: &str, runner: R) -> Worker<'a, R> {
    let call_sites = Arc::new(CallSites::from_offsets(TEXT_START, (0..1000).collect()));
    let kernel = CampaignKernel { name: kernel.to_owned(), build_id: kernel.to_owned(), call_sites };
    Worker { role, equip: Box::new(move || Ok(Equipment { kernel, runner })) }
}

fn targets() -> tempfile::TempDir {
    let targets = tempfile::tempdir().unwrap();
    fs::create_dir(targets.path().join("fake")).unwrap();
    fs::create_dir(targets.path().join("functions")).unwrap();
    fs::write(targets.path().join("fake/target.toml"), FAKE).unwrap();
    targets
}

fn options(folder: &Path, stop: &Stop, time: Option<Duration>) -> CampaignOptions {
    options_for(targets().path(), folder, stop, time)
}

fn options_for(targets: &Path, folder: &Path, stop: &Stop, time: Option<Duration>) -> CampaignOptions {
    let target = Target::find(targets, "fake").unwrap();
    let (opened, earlier) = CampaignFolder::open(folder, "fake", "fake").unwrap();
    CampaignOptions {
        target: Arc::new(target),
        folder: Arc::new(opened),
        earlier,
        stop: stop.clone(),
        time,
        seed: 1,
        progress: Box::new(io::sink()),
        peers: PeerOptions::default(),
    }
}

fn campaign(folder: &Path, executions: u32) -> Summary {
    let stop = Stop::new();
    let runner = FakeRunner::new(&stop, executions);
    run(options(folder, &stop, None), explorer(runner)).unwrap()
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
    assert!(plans > 30 && plans == summary.corpus, "{plans} files, {} entries", summary.corpus);
    let crash = folder.path().join("crashes").join(kernel_report::title_slug("BUG in step_7"));
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
    assert_eq!(second.corpus, fs::read_dir(folder.path().join("corpus")).unwrap().count());
    assert_eq!(second.fault_free_coverage, first.fault_free_coverage);
    for crash in &first.crashes {
        assert!(second.crashes.contains(crash), "{crash:?} is lost");
    }
}

/// A runner of one allocation: the search has soon run every plan there is.
struct OneCall(FakeRunner);

impl Runner for OneCall {
    fn run(&mut self, plan: &FaultPlan, how: How) -> Ran {
        let mut ran = self.0.run(plan, how);
        if let Ok(execution) = &mut ran.execution {
            execution.hits.truncate(1);
            execution.sites.truncate(1);
            execution.coverage.truncate(1);
            execution.findings.clear();
        }
        ran
    }

    fn usage(&self) -> Usage {
        self.0.usage
    }
}

#[test]
fn a_campaign_with_nothing_left_to_try_ends_when_its_time_is_up() {
    let folder = tempfile::tempdir().unwrap();
    let stop = Stop::new();
    let runner = OneCall(FakeRunner::new(&stop, u32::MAX));
    let summary = run(options(folder.path(), &stop, Some(Duration::from_secs(1))), explorer(runner)).unwrap();
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
    let open = |target: &str| CampaignFolder::open(folder.path(), target, "fake");
    assert!(open("other").unwrap_err().to_string().contains("target \"fake\", not \"other\""));
    let text = fs::read_to_string(folder.path().join("campaign.json")).unwrap();
    fs::write(folder.path().join("campaign.json"), text.replace("\"version\": 1", "\"version\": 9")).unwrap();
    assert!(open("fake").unwrap_err().to_string().contains("format version 9"));
    fs::write(folder.path().join("campaign.json"), text).unwrap();
    let _held = open("fake").unwrap();
    assert!(matches!(open("fake").unwrap_err(), FolderError::Busy { .. }));
}

fn seed(target: &str, function: &str) -> PlanInput {
    PlanInput(FaultPlan {
        faults: vec![Fault {
            function: function.to_owned(),
            call_path: CallPath(caller(3)),
            occurrence: 1,
            error: InjectedError::Errno(fault_plan::Errno::ENOMEM),
        }],
        ..FaultPlan::fault_free(target)
    })
}

/// A campaign on a target with this seed, of ten executions: the fault-free ones at the start, and what it begins with.
fn campaign_with_seed(folder: &Path, seed: &PlanInput) -> Result<Summary, CampaignError> {
    let stop = Stop::new();
    let runner = FakeRunner::new(&stop, 10);
    let targets = targets();
    let seeds = targets.path().join("fake/seeds");
    fs::create_dir(&seeds).unwrap();
    seed.to_file(seeds.join("first.json")).unwrap();
    run(options_for(targets.path(), folder, &stop, None), explorer(runner))
}

#[test]
fn a_seed_runs_once_and_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    let seed = seed("fake", "should_failslab");
    for start in 1..=2 {
        let summary = campaign_with_seed(folder.path(), &seed).unwrap();
        assert_eq!((summary.counters.fired, summary.corpus), (1, 2), "start {start}: the seed and the fault-free plan");
        let files = fs::read_dir(folder.path().join("corpus")).unwrap().count();
        assert_eq!(files, 2, "start {start}");
    }
    assert!(folder.path().join("corpus").join(seed.generate_name(None)).is_file());
}

#[test]
fn a_seed_for_something_else_is_refused() {
    let refusal = |target, function| {
        let folder = tempfile::tempdir().unwrap();
        execution::chain(&campaign_with_seed(folder.path(), &seed(target, function)).unwrap_err())
    };
    let other = refusal("other", "should_failslab");
    assert!(other.contains("first.json is a plan for the target \"other\", not \"fake\""), "{other}");
    let unknown = refusal("fake", "open_ctree");
    assert!(unknown.contains("fault 1: open_ctree is none of the target's functions"), "{unknown}");
}

/// A runner that does to some plans what the function says, instead of running them.
struct Troubled(FakeRunner, fn(&FaultPlan) -> Option<RunError>);

impl Runner for Troubled {
    fn run(&mut self, plan: &FaultPlan, how: How) -> Ran {
        self.1(plan).map_or_else(|| self.0.run(plan, how), |error| Err(error).into())
    }

    fn usage(&self) -> Usage {
        self.0.usage
    }
}

fn guests_fail() -> RunError {
    RunError::Guests { attempts: 5, source: "lost".into() }
}

fn fails_at(plan: &FaultPlan, site: u64) -> bool {
    plan.faults.iter().any(|fault| fault.call_path.matches(&caller(site)))
}

#[test]
fn a_plan_that_no_guest_survives_does_not_end_the_campaign() {
    let folder = tempfile::tempdir().unwrap();
    let stop = Stop::new();
    let fake = FakeRunner::new(&stop, 300);
    let trouble = |plan: &FaultPlan| match plan {
        plan if fails_at(plan, 4) => Some(guests_fail()),
        plan if fails_at(plan, 5) => Some(RunError::Starved),
        plan if fails_at(plan, 6) => Some(RunError::Refused("no".to_owned())),
        _ => None,
    };
    let summary = run(options(folder.path(), &stop, None), explorer(Troubled(fake, trouble))).unwrap();
    assert!(summary.counters.given_up >= 2 && summary.counters.refused >= 1, "{summary:?}");
    assert!(summary.crashes.iter().any(|(title, ..)| title == "BUG in step_7"), "{summary:?}");
}

#[test]
fn guests_that_fail_without_a_fault_end_the_campaign() {
    let folder = tempfile::tempdir().unwrap();
    let stop = Stop::new();
    let fake = FakeRunner::new(&stop, 300);
    let error =
        run(options(folder.path(), &stop, None), explorer(Troubled(fake, |_| Some(guests_fail())))).unwrap_err();
    assert!(execution::chain(&error).contains("5 guests in a row failed"), "{error}");
}

/// A runner that has no fresh guest for a plan with faults.
struct NoneFresh(FakeRunner);

impl Runner for NoneFresh {
    fn run(&mut self, plan: &FaultPlan, how: How) -> Ran {
        if how == How::Fresh && !plan.faults.is_empty() { Err(RunError::Starved).into() } else { self.0.run(plan, how) }
    }

    fn usage(&self) -> Usage {
        self.0.usage
    }
}

#[test]
fn a_reproducer_for_which_there_was_no_guest_was_not_tried() {
    let folder = tempfile::tempdir().unwrap();
    let start = |executions_left| {
        let stop = Stop::new();
        FakeRunner::new(&stop, executions_left)
    };
    let fake = start(300);
    let stop = fake.stop.clone();
    let summary = run(options(folder.path(), &stop, None), explorer(NoneFresh(fake))).unwrap();
    let tries: Vec<_> = summary.crashes.iter().map(|(_, reproduced, tried)| (*reproduced, *tried)).collect();
    assert!(!tries.is_empty() && tries.iter().all(|tries| *tries == (0, 0)), "{summary:?}");
    let fake = start(300);
    let stop = fake.stop.clone();
    let summary = run(options(folder.path(), &stop, None), explorer(fake)).unwrap();
    assert!(summary.crashes.iter().all(|(_, reproduced, tried)| (*reproduced, *tried) == (3, 3)), "{summary:?}");
}

/// A runner whose every execution comes with reports of its own.
struct Reporting<F>(FakeRunner, F);

impl<F: FnMut(&FaultPlan) -> Vec<KernelReport>> Runner for Reporting<F> {
    fn run(&mut self, plan: &FaultPlan, how: How) -> Ran {
        let mut ran = self.0.run(plan, how);
        if let Ok(execution) = &mut ran.execution {
            execution.findings = self.1(plan).into_iter().map(Finding::from).collect();
        }
        ran
    }

    fn usage(&self) -> Usage {
        self.0.usage
    }
}

fn warning(title: &str) -> KernelReport {
    KernelReport { title: title.to_owned(), kind: ReportKind::Warning, text: format!("{title}\n") }
}

fn reporting(
    folder: &Path,
    reports: impl FnMut(&FaultPlan) -> Vec<KernelReport> + Send,
) -> Result<Summary, CampaignError> {
    let stop = Stop::new();
    let fake = FakeRunner::new(&stop, 300);
    run(options(folder, &stop, None), explorer(Reporting(fake, reports)))
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
    assert_eq!(summary.sites, 44, "the sites behind faults are known although all of them come with a warning");
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
    let crash = folder.path().join("crashes").join(kernel_report::title_slug("WARNING in step_30"));
    let text = fs::read_to_string(crash.join("reproducer.json")).unwrap();
    assert!(fails_at(&fault_plan::Reproducer::from_json(&text).unwrap().plan, 30), "{text}");
}

#[test]
fn a_workload_that_fails_by_itself_is_a_finding() {
    let folder = tempfile::tempdir().unwrap();
    let summary = reporting(folder.path(), |_| vec![warning("WARNING in mount")]).unwrap();
    assert_eq!(summary.crashes, [("WARNING in mount".to_owned(), 3, 3)]);
    assert!(summary.sites_failed > 30, "{summary:?}");
}

#[test]
fn a_folder_with_something_else_in_it_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join(".git")).unwrap();
    let error = CampaignFolder::open(folder.path(), "fake", "fake").unwrap_err();
    assert!(error.to_string().contains("holds no campaign (there is .git)"), "{error}");
    assert!(folder.path().join(".git").is_dir());
}

/// What a kernel reports of a plan.
type Reports = fn(&FaultPlan) -> Vec<KernelReport>;

/// What a campaign with an explorer and a checker finds.
fn with_checker(folder: &Path, on_explorer: Reports, on_checker: Reports) -> Result<Summary, CampaignError> {
    let stop = Stop::new();
    let fake = || FakeRunner::new(&stop, u32::MAX);
    let workers = vec![
        worker(Role::Explorer, "lean", Reporting(fake(), on_explorer)),
        worker(Role::Checker, "fake", Reporting(fake(), on_checker)),
    ];
    run(options(folder, &stop, Some(Duration::from_secs(3))), workers)
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
    assert!(summary.checked >= 40 && summary.different >= 1, "{summary:?}");
    assert_eq!((summary.sites, summary.fault_free_coverage), (44, 40), "those of the explorer's kernel");
    let slug = kernel_report::title_slug("KASAN in step_12");
    let text = fs::read_to_string(folder.path().join("crashes").join(slug).join("reproducer.json")).unwrap();
    assert_eq!(fault_plan::Reproducer::from_json(&text).unwrap().kernel, "fake");
    let mut coverage: Vec<_> = fs::read_dir(folder.path().join("coverage")).unwrap().flatten().collect();
    coverage.sort_by_key(fs::DirEntry::file_name);
    let names: Vec<_> = coverage.iter().map(|entry| entry.file_name().into_string().unwrap()).collect();
    assert_eq!(names, ["fake.txt", "lean.txt"]);
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
    let slug = kernel_report::title_slug("BUG: NULL in step_12");
    let text = fs::read_to_string(folder.path().join("crashes").join(slug).join("meta.json")).unwrap();
    let meta: CrashMeta = serde_json::from_str(&text).unwrap();
    assert_eq!((meta.same_as.as_deref(), meta.reproduced), (Some("KASAN: null in step_12"), 3));
}

#[test]
fn a_title_that_two_clients_see_is_reported_once_and_explorers_share() {
    let folder = tempfile::tempdir().unwrap();
    let stop = Stop::new();
    let fake = || FakeRunner::new(&stop, 500);
    let workers = (0..3).map(|_| worker(Role::Explorer, "fake", fake())).collect();
    let summary = run(options(folder.path(), &stop, None), workers).unwrap();
    let titles: Vec<&str> = summary.crashes.iter().map(|(title, ..)| title.as_str()).collect();
    assert_eq!(titles, ["BUG in fallback_20", "BUG in step_7"]);
    assert!(summary.executions >= 500 && summary.sites == 44, "{summary:?}");
    let file: CampaignFile =
        serde_json::from_str(&fs::read_to_string(folder.path().join("campaign.json")).unwrap()).unwrap();
    assert_eq!(file.executions, summary.executions, "every client's executions count");
}

#[test]
fn a_worker_that_does_not_get_ready_ends_the_campaign() {
    let folder = tempfile::tempdir().unwrap();
    let stop = Stop::new();
    let fake = FakeRunner::new(&stop, u32::MAX);
    let mut workers = explorer(fake);
    workers.push(Worker { role: Role::Checker, equip: Box::new(|| Err("no kernel".into())) });
    let error = run(options(folder.path(), &stop, None), workers).unwrap_err();
    assert_eq!(execution::chain(&error), "a worker does not get ready: no kernel");
}

#[test]
fn a_worker_that_is_still_getting_ready_does_not_keep_a_campaign_from_ending() {
    let folder = tempfile::tempdir().unwrap();
    let stop = Stop::new();
    let fake = FakeRunner::new(&stop, u32::MAX);
    let mut workers = explorer(fake);
    let told = stop.clone();
    let equip = Box::new(move || {
        assert!(told.receiver().recv().is_err(), "waits for the request to stop");
        Err("stopped".into())
    });
    workers.push(Worker { role: Role::Checker, equip });
    let result = run(options(folder.path(), &stop, Some(Duration::from_secs(1))), workers);
    assert!(result.is_ok(), "{result:?}");
}

#[test]
fn what_is_known_to_cost_the_guest_seldom_runs_again() {
    let fake = |stop: &Stop, crashed| FakeRunner { crashed, ..FakeRunner::new(stop, 2000) };
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let stops = [Stop::new(), Stop::new()];
    let harmless = explorer(fake(&stops[0], Fate::Alive));
    run(options(folders[0].path(), &stops[0], None), harmless).unwrap();
    let costly = explorer(fake(&stops[1], Fate::Retired));
    let summary = run(options(folders[1].path(), &stops[1], None), costly).unwrap();
    assert_eq!(summary.crashes.len(), 2, "the crash of two faults is found nevertheless");
    let failed = folders.map(|folder| {
        let text = fs::read_to_string(folder.path().join("sites.json")).unwrap();
        let sites: Vec<Site> = serde_json::from_str(&text).unwrap();
        sites.into_iter().find(|site| site.call_path == caller(7)).unwrap().failed
    });
    assert!(failed[1] >= 3 && failed[1] * 2 < failed[0], "{failed:?}");
}
