//! Fakes for unit tests: a target, a runner without guests, and what comes of both.

use std::{fs, path::Path, sync::Arc, time::Duration};

use execution::{
    Attributed, Coverage, Execution, Fate, Finding, FindingKind, Fired, FunctionGroups, How, Ran, RunError, Runner,
    Stop, Target, Usage,
};
use fault_plan::{CallPath, Errno, Fault, FaultPlan, InjectedError, REPRODUCER_VERSION, Reproducer, Scope};
use files::Journal;
use guest_protocol::{Hit, SiteDescription, StepResult, Timings, TraceRole};
use kcov_parser::CallSites;
use libafl::observers::{CanTrack, OwnedMapObserver, TimeObserver};
use libafl_bolts::tuples::tuple_list;

use crate::{
    folder::CampaignFolder,
    input::PlanInput,
    kernels::{CampaignKernel, Kernels},
    matrix::Matrix,
    observers::{ExecutionObserver, Observers},
    second_kernel::SecondKernelQueue,
};

/// A target called `fake`, without a disk.
pub(crate) const TARGET: &str = r#"
description = "a fake"
kernel = "fake"
steps = [{ sync = {} }]
[[functions]]
name = "should_failslab"
errors = ["ENOMEM"]
"#;

/// A target whose function has two errors.
pub(crate) const TWO_ERRORS: &str = r#"
description = "a fake"
kernel = "fake"
steps = [{ sync = {} }]
[[functions]]
name = "f"
errors = ["ENOMEM", "EIO"]
"#;

/// The first coverage point.
pub(crate) const TEXT_START: u64 = 0x1000;

const ALLOCATIONS: u64 = 40;

/// Makes the target of this text.
pub(crate) fn target(text: &str) -> Target {
    let folder = tempfile::tempdir().unwrap();
    let fake = folder.path().join("fake");
    fs::create_dir(&fake).unwrap();
    fs::write(fake.join("target.toml"), text).unwrap();
    Target::load(&fake, &FunctionGroups::default()).unwrap()
}

/// Opens the folder of a campaign on the fake target.
pub(crate) fn open(path: &Path) -> CampaignFolder {
    CampaignFolder::open(path, "fake", "fake").unwrap().0
}

/// Makes a kernel with a thousand coverage points.
pub(crate) fn kernel(name: &str) -> CampaignKernel {
    let call_sites = Arc::new(CallSites::from_offsets(TEXT_START, (0..1000).collect()));
    CampaignKernel { name: name.to_owned(), build_id: name.to_owned(), call_sites }
}

/// Makes the matrix of a kernel of which nothing is known; its file is gone.
pub(crate) fn matrix(target: Target) -> Matrix {
    let folder = tempfile::tempdir().unwrap();
    let (journal, records) = Journal::open(&folder.path().join("matrix.jsonl")).unwrap();
    Matrix::restore(Arc::new(target), journal, records)
}

/// Makes the description of a site at which `function` is called.
pub(crate) fn description(site: u64, function: &str, call_path: &[&str], step: u32) -> Arc<SiteDescription> {
    let call_path = call_path.iter().map(ToString::to_string).collect();
    let (function, scope) = (function.to_owned(), Scope::Workload);
    Arc::new(SiteDescription { site, function, call_path, truncated: false, step, scope })
}

/// Makes a fault of a plan that fired once, in the first call at a site.
pub(crate) fn fired(fault: usize, site: u64) -> Fired {
    Fired { fault, sequence: 1, site, step: 1, times: 1, ..Fired::default() }
}

/// Makes what fires in an execution of `plan` in which each fault does, at a site of its own.
pub(crate) fn all_fired(plan: &FaultPlan) -> impl Iterator<Item = Fired> {
    (0..).zip(plan.all_faults()).map(|(index, fault)| {
        let call_path = fault.call_path.0.clone();
        Fired { call_path, ..fired(index, index as u64) }
    })
}

/// Makes a queue in which nothing waits; its file is gone.
pub(crate) fn queue() -> SecondKernelQueue {
    let folder = tempfile::tempdir().unwrap();
    let opened = Journal::open(&folder.path().join("queue.jsonl")).unwrap();
    SecondKernelQueue::restore(opened).unwrap()
}

/// Makes the kernels of a campaign on the fake target.
pub(crate) fn kernels() -> Kernels {
    Kernels::new(Arc::new(target(TARGET)), Duration::ZERO)
}

/// Makes observers that have seen nothing.
pub(crate) fn observers() -> Observers {
    let map = OwnedMapObserver::new("map", vec![0; 8]).track_indices();
    tuple_list!(map, ExecutionObserver::default(), TimeObserver::new("time"))
}

/// Makes a plan with one fault.
pub(crate) fn plan(call_path: Vec<String>, occurrence: u32) -> FaultPlan {
    let error = InjectedError::Errno(Errno::ENOMEM);
    let fault = Fault::new("should_failslab", CallPath(call_path), occurrence, error);
    FaultPlan { faults: vec![fault], ..FaultPlan::fault_free("fake") }
}

/// Makes a plan for `target` that fails `function` at the third allocation of the workload.
pub(crate) fn seed(target: &str, function: &str) -> PlanInput {
    let mut plan = FaultPlan { target: target.to_owned(), ..plan(caller(3), 1) };
    function.clone_into(&mut plan.faults[0].function);
    PlanInput(plan)
}

/// Makes a reproducer of a crash on the fake kernel.
pub(crate) fn reproducer(title: &str, plan: &FaultPlan) -> Reproducer {
    Reproducer {
        reproducer_version: REPRODUCER_VERSION,
        key: title.to_owned(),
        title: title.to_owned(),
        kernel: "fake".to_owned(),
        kernel_build_id: "fake".to_owned(),
        plan: plan.clone(),
        target: None,
    }
}

/// Makes a warning of the kernel.
pub(crate) fn warning(title: &str) -> Finding {
    let (key, title, text) = (title.to_owned(), title.to_owned(), format!("{title}\n"));
    Finding { kind: FindingKind::Warning, key, title, text, stack: Vec::new(), also: Vec::new() }
}

/// Makes an execution in which nothing happened.
pub(crate) fn quiet() -> Execution {
    Execution {
        findings: Vec::new(),
        guest: Fate::Alive,
        steps: vec![StepResult::Done(0)],
        hits: Vec::new(),
        sites: Vec::new(),
        fired: Vec::new(),
        coverage: Vec::new(),
        guarded: 0,
        unknown_names: Vec::new(),
        incomplete: false,
        console: String::new(),
        wall: Duration::ZERO,
        timings: Timings::default(),
        history: Vec::new(),
        rounds: Vec::new(),
    }
}

/// Adds an address to what the workload's task covered in `execution`.
pub(crate) fn cover(execution: &mut Execution, address: u64) {
    match execution.coverage.first_mut() {
        Some(coverage) => coverage.addresses.push(address),
        None => execution.coverage.push(covered(TraceRole::Workload, &[address])),
    }
}

/// Makes the coverage of one trace.
pub(crate) fn covered(role: TraceRole, addresses: &[u64]) -> Coverage {
    Coverage { role, addresses: addresses.to_vec(), overflowed: false }
}

/// Gives the callers at a site.
pub(crate) fn caller(site: u64) -> Vec<String> {
    let function = if site >= 1000 { format!("fallback_{}", site - 1000) } else { format!("step_{site}") };
    vec![function, "workload".to_owned()]
}

/// Says whether a fault of `plan` is at the site.
pub(crate) fn fails_at(plan: &FaultPlan, site: u64) -> bool {
    plan.faults.iter().any(|fault| fault.call_path.matches(&caller(site)))
}

fn describe(site: u64, call_path: Vec<String>) -> Arc<SiteDescription> {
    let (function, scope) = ("should_failslab".to_owned(), Scope::Workload);
    Arc::new(SiteDescription { site, function, call_path, truncated: false, step: 1, scope })
}

/// A workload of 40 allocations in a row. One that fails ends it after an unwind block of its own;
/// the failure of every tenth is followed by one more allocation, in a fallback. Number 7 has a
/// bug, and so has the fallback of 20.
pub(crate) struct FakeRunner {
    pub(crate) stop: Stop,
    pub(crate) executions_left: u32,
    /// The state of the guest after a crash.
    pub(crate) crashed: Fate,
    pub(crate) usage: Usage,
    /// The callers at a site.
    pub(crate) callers: fn(u64) -> Vec<String>,
}

impl FakeRunner {
    /// Makes a runner that requests `stop` after so many executions.
    pub(crate) fn new(stop: &Stop, executions_left: u32) -> Self {
        Self { stop: stop.clone(), executions_left, crashed: Fate::Alive, usage: Usage::default(), callers: caller }
    }

    fn execute(&mut self, plan: &FaultPlan) -> Result<Execution, RunError> {
        if self.executions_left == 0 {
            self.stop.request();
            return Err(RunError::Stopped);
        }
        self.executions_left -= 1;
        let (mut rounds, mut before) = (Vec::new(), 0);
        let (mut fired, mut findings) = (Vec::new(), Vec::new());
        for faults in plan.rounds() {
            let mut round = self.round(faults);
            let of_plan = |fired: Fired| Fired { fault: fired.fault + before, ..fired };
            fired.extend(std::mem::take(&mut round.fired).into_iter().map(of_plan));
            findings.append(&mut round.findings);
            before += faults.len();
            rounds.push(round);
        }
        let last = rounds.pop().unwrap_or_else(quiet);
        Ok(Execution { rounds, fired, findings, ..last })
    }

    /// Runs the workload once.
    fn round(&self, faults: &[Fault]) -> Execution {
        let (crashed, callers, seen) = (self.crashed, self.callers, vec![0; faults.len()]);
        let mut model = Model { faults, crashed, callers, seen, execution: quiet() };
        model.workload();
        model.execution
    }
}

impl Runner for FakeRunner {
    fn run(&mut self, plan: &FaultPlan, how: How) -> Ran {
        if matches!(how, How::Exact | How::Searched) {
            return Err(RunError::NoSuchGuests("a fake".to_owned())).into();
        }
        self.usage.guests += u64::from(how == How::Fresh);
        self.execute(plan).into()
    }

    fn finish(&mut self) -> Vec<Attributed> {
        Vec::new()
    }

    fn usage(&self) -> Usage {
        self.usage
    }
}

struct Model<'a> {
    faults: &'a [Fault],
    crashed: Fate,
    callers: fn(u64) -> Vec<String>,
    seen: Vec<u32>,
    execution: Execution,
}

impl Model<'_> {
    fn allocate(&mut self, site: u64) -> bool {
        let sequence = u32::try_from(self.execution.hits.len()).unwrap() + 1;
        self.execution.hits.push(Hit { site, count: 1, first_sequence: sequence });
        let call_path = (self.callers)(site);
        self.execution.sites.push(describe(site, call_path.clone()));
        cover(&mut self.execution, TEXT_START + site % 1000);
        let (mut fails, mut firing) = (false, Vec::new());
        for (index, fault) in self.faults.iter().enumerate() {
            let is_there = fault.may_match(&fault.function, &call_path, (1, Scope::Workload));
            let is_after = fault.after.is_none_or(|number| self.has_fired(number as usize - 1));
            if !is_there || !is_after {
                continue;
            }
            self.seen[index] += 1;
            let behind = self.seen[index].checked_sub(fault.occurrence);
            if behind.is_some_and(|behind| behind < fault.times) {
                fails = true;
                if behind == Some(0) {
                    let call_path = call_path.clone();
                    firing.push(Fired { sequence, call_path, ..fired(index, site) });
                }
            }
        }
        self.execution.fired.append(&mut firing);
        !fails
    }

    fn has_fired(&self, fault: usize) -> bool {
        self.execution.fired.iter().any(|fired| fired.fault == fault)
    }

    fn crash(&mut self, title: &str) {
        let report = Finding { kind: FindingKind::Bug, ..warning(title) };
        self.execution.findings = vec![report];
        self.execution.guest = self.crashed;
    }

    fn workload(&mut self) {
        for site in 0..ALLOCATIONS {
            if self.allocate(site) {
                continue;
            }
            cover(&mut self.execution, TEXT_START + 500 + site);
            if site == 7 {
                self.crash("BUG in step_7");
            }
            if site % 10 == 0 && !self.allocate(1000 + site) {
                cover(&mut self.execution, TEXT_START + 600 + site);
                if site == 20 {
                    self.crash("BUG in fallback_20");
                }
            }
            return;
        }
    }
}
