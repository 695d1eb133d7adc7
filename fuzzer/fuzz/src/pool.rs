//! The guests of one worker: runs plans in them and replaces those that must not run another one.

use std::{collections::HashSet, sync::Arc, time::Duration};

use fault_plan::FaultPlan;
use guest_protocol::{Execute, Report};
use kcov_parser::Symbols;

use crate::{
    execution::{ExecuteError, Execution, Fired, Outcome, Runner, RunnerCounters},
    guest::{self, FiredLog, Guest, GuestError, GuestRun, RunEnd, Stop, Template},
    report::{KernelReport, ReportKind, first_report},
    target::Target,
};

/// How often an execution is tried again when guests fail, before that is an error.
const ATTEMPTS: u32 = 5;

/// A hang is no finding when the guest waited for a processor of the host for more than one part in this many of the
/// time: its clock goes on meanwhile, and detectors and deadlines see a kernel that stands still.
const STARVED: u32 = 2;

/// How the kernel reports that process 1, our agent, ended: trouble, no finding.
const AGENT_DEATH: &str = "Attempted to kill init";

/// Guests cloned from one template.
pub struct GuestPool {
    template: Template,
    target: Arc<Target>,
    symbols: Arc<Symbols>,
    stop: Stop,
    deadline: Duration,
    guest: Option<Guest>,
    described: HashSet<u64>,
    describe_all: bool,
    next_id: u64,
    last_plan: Option<FaultPlan>,
    late: Vec<(FaultPlan, Execution)>,
    counters: RunnerCounters,
    offsets: Vec<u32>,
    /// Whether guests inject and record coverage; off only to measure what that costs.
    pub inject: bool,
    /// Whether guests record coverage.
    pub coverage: bool,
}

impl GuestPool {
    /// A pool of guests for `target`. An execution that takes longer than `deadline` has hung.
    #[must_use]
    pub fn new(template: Template, target: Arc<Target>, symbols: Arc<Symbols>, stop: Stop, deadline: Duration) -> Self {
        Self {
            template,
            target,
            symbols,
            stop,
            deadline,
            guest: None,
            described: HashSet::new(),
            describe_all: true,
            next_id: 0,
            last_plan: None,
            late: Vec::new(),
            counters: RunnerCounters::default(),
            offsets: Vec::new(),
            inject: true,
            coverage: true,
        }
    }

    /// The prepared guest that all others are clones of.
    #[must_use]
    pub fn template(&self) -> &Template {
        &self.template
    }

    /// Ends the guest at hand, if any: the next execution has a fresh one.
    pub fn discard(&mut self) {
        self.guest = None;
    }

    /// Has the next execution describe every site again, for someone who has not seen the earlier descriptions.
    pub fn describe_again(&mut self) {
        self.described.clear();
        self.describe_all = true;
    }

    /// Process id of the guest at hand, starting one if there is none.
    ///
    /// # Errors
    ///
    /// No guest can be started.
    pub fn guest_pid(&mut self) -> Result<u32, GuestError> {
        Ok(self.guest()?.pid())
    }

    fn guest(&mut self) -> Result<&mut Guest, GuestError> {
        if self.guest.is_none() {
            self.guest = Some(self.template.spawn()?);
            self.counters.guests += 1;
        }
        self.guest.as_mut().ok_or_else(|| unreachable!("one was just made"))
    }

    fn attempt(&mut self, plan: &FaultPlan) -> Result<GuestRun, GuestError> {
        self.next_id += 1;
        let request = Execute {
            id: self.next_id,
            plan: plan.clone(),
            inject: self.inject,
            coverage: self.coverage,
            describe_all_sites: self.describe_all,
        };
        let deadline = self.deadline;
        let mut offsets = std::mem::take(&mut self.offsets);
        offsets.clear();
        let run = self.guest().and_then(|guest| guest.execute(&request, deadline, &mut offsets));
        self.offsets = offsets;
        run
    }

    fn absolute_coverage(&self) -> Vec<u64> {
        let start = self.template.about.ready.text_start;
        self.offsets.iter().map(|offset| start + u64::from(*offset)).collect()
    }

    fn completed(&mut self, report: Report, run: RunInfo) -> Execution {
        self.described.extend(report.new_sites.iter().map(|site| site.site));
        self.describe_all = report.hits.iter().any(|hit| !self.described.contains(&hit.site));
        let kernel_report = first_report(&report.log).or_else(|| first_report(&run.console));
        if !report.leftovers.is_empty() {
            tracing::debug!(leftovers = ?report.leftovers, "the guest is not clean after the workload, replacing it");
            self.counters.leftovers += 1;
        }
        if kernel_report.is_some() || !report.leftovers.is_empty() {
            self.discard();
        }
        Execution {
            outcome: kernel_report.map_or(Outcome::Completed, outcome_of),
            fired: report
                .fired
                .into_iter()
                .map(|fired| Fired {
                    fault: fired.fault as usize,
                    sequence: fired.sequence,
                    call_path: fired.call_path,
                })
                .collect(),
            steps: report.steps,
            hits: report.hits,
            new_sites: report.new_sites,
            coverage: self.absolute_coverage(),
            guarded: report.guarded,
            console: if report.log.is_empty() { run.console } else { report.log },
            wall: run.wall,
            timings: report.timings,
        }
    }

    fn lost(&mut self, outcome: Outcome, fired: Option<&FiredLog>, run: RunInfo) -> Execution {
        self.discard();
        Execution {
            outcome,
            steps: Vec::new(),
            hits: Vec::new(),
            new_sites: Vec::new(),
            fired: fired.map_or_else(Vec::new, |log| fired_of(log, &self.symbols)),
            coverage: Vec::new(),
            guarded: 0,
            console: run.console,
            wall: run.wall,
            timings: guest_protocol::Timings::default(),
        }
    }

    /// Keeps what the guest printed after the execution before this one, if that is a kernel report.
    fn note_late(&mut self, console: &str, fired: Option<&FiredLog>) {
        let Some((plan, report)) = self.last_plan.take().zip(first_report(console)) else { return };
        tracing::info!(title = report.title, "a late report, by the execution before");
        let info = RunInfo { console: console.to_owned(), wall: Duration::ZERO };
        let execution = self.lost(outcome_of(report), fired, info);
        self.late.push((plan, execution));
    }

    /// The execution that `run` amounts to; none when there was none, or the guest died without a word of its kernel.
    fn execution(&mut self, plan: &FaultPlan, run: GuestRun) -> Result<Option<Execution>, ExecuteError> {
        let info = RunInfo { console: run.console, wall: run.wall };
        let fired_before = if let RunEnd::DiedBefore { fired } = &run.end { fired.as_ref() } else { None };
        self.note_late(&run.console_before, fired_before);
        self.last_plan = Some(plan.clone());
        match run.end {
            RunEnd::Completed(report) => Ok(Some(self.completed(*report, info))),
            RunEnd::Refused(reason) => Err(ExecuteError::Refused(reason)),
            RunEnd::Died { fired } => {
                let report = first_report(&info.console).filter(|report| !report.title.contains(AGENT_DEATH));
                Ok(report.map(|report| self.lost(outcome_of(report), fired.as_ref(), info)))
            }
            RunEnd::Hung { fired, stack } => {
                let report = first_report(&info.console).unwrap_or_else(|| self.silent_hang(&stack));
                Ok(Some(self.lost(Outcome::Hung(report), fired.as_ref(), info)))
            }
            RunEnd::DiedBefore { .. } => Ok(None),
        }
    }

    fn silent_hang(&self, stack: &str) -> KernelReport {
        KernelReport {
            title: "hang: the deadline passed without a word of the kernel".to_owned(),
            kind: ReportKind::Hang,
            text: format!(
                "no reply within {} s, target {}; the processor was at:\n{stack}",
                self.deadline.as_secs(),
                self.target.name
            ),
        }
    }
}

struct RunInfo {
    console: String,
    wall: Duration,
}

fn outcome_of(report: KernelReport) -> Outcome {
    if report.kind == ReportKind::Hang { Outcome::Hung(report) } else { Outcome::Crashed(report) }
}

fn fired_of(log: &FiredLog, symbols: &Symbols) -> Vec<Fired> {
    // A return address may be the first one after its function: what called lies one byte before.
    let name = |address: &u64| {
        let location = symbols.resolve(address.wrapping_sub(1));
        location.map_or_else(|| "?".to_owned(), |location| location.function.to_owned())
    };
    let fired = |fired: &guest::Fired| Fired {
        fault: fired.fault as usize,
        sequence: fired.sequence,
        call_path: fired.stack.iter().map(name).collect(),
    };
    log.fired.iter().map(fired).collect()
}

impl Runner for GuestPool {
    fn run(&mut self, plan: &FaultPlan) -> Result<Execution, ExecuteError> {
        let mut attempts = 0;
        loop {
            if self.stop.is_requested() {
                return Err(ExecuteError::Stopped);
            }
            attempts += 1;
            let trouble = match self.attempt(plan) {
                Ok(run) => {
                    let (wall, waited) = (run.wall, run.starved);
                    match self.execution(plan, run)? {
                        Some(Execution { outcome: Outcome::Hung(_), .. }) if waited * STARVED > wall => {
                            GuestError::Starved { wall, waited }
                        }
                        Some(execution) => return Ok(execution),
                        None => GuestError::Lost,
                    }
                }
                Err(error) => error,
            };
            if self.stop.is_requested() {
                return Err(ExecuteError::Stopped);
            }
            self.discard();
            self.counters.harness_errors += 1;
            tracing::warn!("guest trouble, trying again in a fresh guest: {}", crate::chain(&trouble));
            if attempts == ATTEMPTS {
                return Err(ExecuteError::Guest { attempts, source: trouble });
            }
        }
    }

    fn run_fresh(&mut self, plan: &FaultPlan) -> Result<Execution, ExecuteError> {
        self.discard();
        self.run(plan)
    }

    fn take_late(&mut self) -> Vec<(FaultPlan, Execution)> {
        std::mem::take(&mut self.late)
    }

    fn counters(&self) -> RunnerCounters {
        self.counters
    }
}
