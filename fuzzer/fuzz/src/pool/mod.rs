//! The guests of one worker: runs plans in them and replaces those that must not run another one.

mod attempts;
mod control;
mod exact;
mod findings;

use std::{collections::HashSet, slice, sync::Arc, time::Duration};

use fault_plan::FaultPlan;
use guest_protocol::{Execute, LOG_LOST, Report};
use kcov_parser::{Deduplicator, Symbols};

pub use self::exact::MakeExact;
use self::{
    control::{Control, Life},
    exact::Exact,
    findings::{STARVED, fired_of, outcome_of, reports, silent_hang},
};
use crate::{
    execution::{Execution, Fired, RunnerCounters},
    guest::{FiredLog, Guest, GuestError, GuestRun, RunEnd, Stop, Template, Trace},
    report::{KernelReport, ReportKind},
    target::Target,
};

/// A guest that has been asked for something for so long is watched: see [`GuestRun::starved`].
const WATCHED: Duration = Duration::from_secs(1);

/// Guests cloned from one template.
pub struct GuestPool {
    template: Template,
    target: Arc<Target>,
    symbols: Arc<Symbols>,
    stop: Stop,
    guest: Option<Guest>,
    described: HashSet<u64>,
    describe_all: bool,
    next_id: u64,
    /// What the guest at hand has executed.
    life: Life,
    control: Control,
    exact: Exact,
    /// The last execution of the guest at hand.
    last: Option<Last>,
    /// Whether the execution under way is one for [`crate::execution::Runner::run_fresh`].
    fresh: bool,
    late: Vec<(FaultPlan, Execution)>,
    /// Sites of the last faults of executions that cost their guest.
    fatal: Vec<u64>,
    counters: RunnerCounters,
    trace: Trace,
    deduplicator: Deduplicator,
    offsets: Vec<u32>,
    /// An execution that takes longer has hung.
    pub deadline: Duration,
    /// Whether guests inject and record coverage; off only to measure what that costs.
    pub inject: bool,
    /// Whether guests record coverage.
    pub coverage: bool,
}

impl GuestPool {
    /// A pool of guests for `target`.
    #[must_use]
    pub fn new(template: Template, target: Arc<Target>, symbols: Arc<Symbols>, stop: Stop, deadline: Duration) -> Self {
        let deduplicator = Deduplicator::new(template.about.ready.text_start, template.about.ready.text_bytes);
        Self {
            template,
            target,
            symbols,
            stop,
            guest: None,
            described: HashSet::new(),
            describe_all: true,
            next_id: 0,
            life: Life::NEW,
            control: Control::default(),
            exact: Exact::None,
            last: None,
            fresh: false,
            late: Vec::new(),
            fatal: Vec::new(),
            counters: RunnerCounters::default(),
            trace: Trace::default(),
            deduplicator,
            offsets: Vec::new(),
            deadline,
            inject: true,
            coverage: true,
        }
    }

    /// The prepared guest that all others are clones of.
    #[must_use]
    pub fn template(&self) -> &Template {
        &self.template
    }

    /// Has guests whose executions repeat exactly made by `make` when they are needed.
    pub fn exact_by(&mut self, make: MakeExact) {
        self.exact = Exact::Unmade(make);
    }

    /// Ends the guest at hand, if any: the next execution has a fresh one.
    pub fn discard(&mut self) {
        self.guest = None;
        self.last = None;
        self.life = Life::NEW;
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
        let mut trace = std::mem::take(&mut self.trace);
        let run = self.guest().and_then(|guest| guest.execute(&request, deadline, &mut trace));
        self.trace = trace;
        self.life.executions += 1;
        self.counters.longest_life = self.counters.longest_life.max(self.life.executions);
        if let Ok(GuestRun { end: RunEnd::Completed(report), wall, .. }) = &run {
            tracing::trace!(?wall, timings = ?report.timings, leftovers = ?report.leftovers, "executed");
        }
        run
    }

    /// The addresses in the trace, each once.
    fn coverage(&mut self) -> Vec<u64> {
        let start = self.template.about.ready.text_start;
        self.deduplicator.distinct(self.trace.words(), &mut self.offsets);
        self.offsets.iter().map(|offset| start.wrapping_add(u64::from(*offset))).collect()
    }

    fn completed(&mut self, plan: &FaultPlan, report: Report, run: RunInfo) -> Execution {
        self.described.extend(report.new_sites.iter().map(|site| site.site));
        self.describe_all = report.hits.iter().any(|hit| !self.described.contains(&hit.site));
        // The console has less of each report, and loses none.
        let in_log = if report.log.contains(LOG_LOST) { Vec::new() } else { reports(&report.log) };
        let (found, console) =
            if in_log.is_empty() { (reports(&run.console), run.console) } else { (in_log, report.log) };
        let fired: Vec<Fired> = report
            .fired
            .into_iter()
            .map(|fired| Fired {
                fault: fired.fault as usize,
                sequence: fired.sequence,
                site: fired.site,
                call_path: fired.call_path,
            })
            .collect();
        // A kernel that has reported something is not clean, and says so once more.
        if found.is_empty() && !report.leftovers.is_empty() {
            self.note_leftovers(&report.leftovers);
        }
        if found.is_empty() && report.leftovers.is_empty() {
            self.last = Some(Last { plan: plan.clone(), fired: fired.clone(), fresh: self.fresh });
            if plan.faults.is_empty() && self.inject {
                self.control_ran(&report.hits);
            }
        } else {
            self.note_fatal(&fired, self.fresh);
            self.discard();
        }
        let (outcome, more_reports) = outcome_of(found);
        Execution {
            outcome,
            more_reports,
            fired,
            steps: report.steps,
            hits: report.hits,
            new_sites: report.new_sites,
            coverage: self.coverage(),
            guarded: report.guarded,
            incomplete: report.lost_hits > 0 || self.trace.is_full(),
            console,
            wall: run.wall,
            timings: report.timings,
        }
    }

    /// Notes that the guest is lost to the execution in which these faults fired, unless it was one in a `fresh` guest.
    fn note_fatal(&mut self, fired: &[Fired], fresh: bool) {
        self.fatal.extend(fired.last().filter(|_| !fresh).map(|fired| fired.site));
    }

    fn note_leftovers(&mut self, leftovers: &[String]) {
        tracing::debug!(?leftovers, "the guest is not clean after the workload, replacing it");
        self.counters.leftovers += 1;
    }

    /// What is left to say of an execution whose guest is gone.
    fn lost(&mut self, found: Vec<KernelReport>, fired: Vec<Fired>, coverage: Vec<u64>, run: RunInfo) -> Execution {
        self.discard();
        let (outcome, more_reports) = outcome_of(found);
        Execution {
            outcome,
            more_reports,
            steps: Vec::new(),
            hits: Vec::new(),
            new_sites: Vec::new(),
            fired,
            coverage,
            guarded: 0,
            incomplete: false,
            console: run.console,
            wall: run.wall,
            timings: guest_protocol::Timings::default(),
        }
    }

    /// Keeps what the guest did after the execution before this one, if that is a finding, and notes what it left behind. Whether
    /// there is anything: the guest is then no place for another execution.
    ///
    /// A hang found in a guest that had nothing to do tells nothing: nobody watched whether the host let it run. One that
    /// was asked for something is watched, and may still have the disk to put back.
    fn note_late(&mut self, run: &GuestRun) -> bool {
        let (log, hung) = match &run.end {
            RunEnd::DiedBefore { fired, stack } => (fired.as_ref(), stack.as_deref()),
            _ => (None, None),
        };
        let mut found = reports(&run.console_before);
        if let Some(stack) = hung
            && found.is_empty()
        {
            found.push(silent_hang(&self.target.name, self.deadline, stack));
        }
        let left = if let RunEnd::Unclean(leftover) = &run.end { Some(leftover) } else { None };
        if found.is_empty() && left.is_none() {
            self.last = None;
            return false;
        }
        let watched = matches!(run.end, RunEnd::DiedBefore { .. }) && run.wall > WATCHED.max(run.starved * STARVED);
        found.retain(|report| report.kind != ReportKind::Hang || watched);
        let Some(Last { plan, fired, fresh }) = self.last.take() else { return true };
        let fired = log.map_or(fired, |log| fired_of(log, &self.symbols));
        if let Some(first) = found.first() {
            tracing::info!(title = first.title, "a late report, by the execution before");
            self.note_fatal(&fired, fresh);
            let info = RunInfo { console: run.console_before.clone(), wall: Duration::ZERO };
            let execution = self.lost(found, fired, Vec::new(), info);
            self.late.push((plan, execution));
        } else if let Some(leftover) = left {
            self.note_fatal(&fired, fresh);
            self.note_leftovers(slice::from_ref(leftover));
        }
        true
    }

    /// What is left to say of an execution in whose run the guest was lost.
    fn lost_running(&mut self, found: Vec<KernelReport>, log: Option<&FiredLog>, run: RunInfo) -> Execution {
        let fired = log.map_or_else(Vec::new, |log| fired_of(log, &self.symbols));
        self.note_fatal(&fired, self.fresh);
        let coverage = self.coverage();
        self.lost(found, fired, coverage, run)
    }
}

/// An execution after which the guest goes on.
#[derive(Clone)]
struct Last {
    plan: FaultPlan,
    fired: Vec<Fired>,
    /// Whether it was one for [`crate::execution::Runner::run_fresh`].
    fresh: bool,
}

struct RunInfo {
    console: String,
    wall: Duration,
}
