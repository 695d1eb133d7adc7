//! A [`Runner`] of guests: runs plans in them and replaces those that must not run another one.
//!
//! ```text
//! plan ─▶ retry ─▶ Guest::execute ─▶ Observed ─▶ attribution ─┬▶ the plan's own execution
//!           ▲                                                 ├▶ late effects of earlier plans
//!           └──────────────── trouble ◀───────────────────────┘
//! ```

mod attempt;
mod attribution;
mod causes;
mod control;
mod coverage;
mod drift;
mod endless;
mod errno;
mod fired;
mod fitness;
mod fsck;
mod history;
mod leaks;
mod leftover;
mod losses;
mod reported;
mod retry;
mod rounds;
mod share;
mod text;
mod traced;
mod unreferenced;

use std::{sync::Arc, time::Duration};

use execution::{Attributed, Execution, Fate, How, Oracle, Ran, RunError, Runner, Usage};
use fault_plan::FaultPlan;
use guest_protocol::{Growth, Recorded};

use self::{
    attempt::Asked, attribution::Attribution, coverage::CoverageReader, drift::Drift, fitness::Unfit, fsck::Checks,
    leaks::Leaks, reported::Own, share::Share, traced::Stacks,
};
use crate::{
    prepared::Prepared,
    process,
    qemu::{Debugger, Guest, GuestError},
};

/// An execution that takes longer has hung. The kernel's own detectors and the agent, which looks
/// at the steps, speak after 10 to 20 s and should have the first word.
const DEADLINE: Duration = Duration::from_secs(60);
/// The same for a guest that repeats exactly. While it waits it counts the instructions of a loop,
/// and takes ten seconds for one of its own: its kernel tells of a hung task after half a minute.
/// And for one whose kernel searches all memory twice.
const SLOW_DEADLINE: Duration = Duration::from_secs(180);
/// One part in this many of all time is for looks at what the disk holds. One takes as long as half
/// an execution that mounts a disk.
const LOOKS: u32 = 20;

/// Runs plans in clones of one prepared guest, one guest at a time.
pub struct GuestRunner {
    prepared: Arc<Prepared>,
    guest: Option<Guest>,
    /// True when something is left in use in the guest at hand.
    unclean: bool,
    /// True when the next execution is to describe every site that it reaches.
    describe_all: bool,
    next_id: u64,
    attribution: Attribution,
    drift: Drift,
    reader: CoverageReader,
    /// Runners of guests that repeat exactly, and of those with kmemleak, once they are needed.
    exact: Option<Box<GuestRunner>>,
    searched: Option<Box<GuestRunner>>,
    late: Vec<Attributed>,
    leaks: Leaks,
    /// Source lines of which the last execution left more in use.
    growth: Vec<Growth>,
    /// Words of kmemleak after the last execution, where it was asked.
    unreferenced: String,
    looks: Share,
    checks: Checks,
    /// Return addresses of the faults of the run before.
    stacks: Stacks,
    /// Part of the disk that was looked at last.
    part: u32,
    usage: Usage,
    /// An execution that takes longer has hung.
    pub deadline: Duration,
    /// True when guests inject; false only in measurements.
    pub inject: bool,
    /// Debugger that holds the guest of the next run, which is tried once. Such a run is no check:
    /// nothing is compared with other runs.
    pub debugger: Option<Debugger>,
    /// Coverage that guests record; only in measurements not that of all tasks.
    pub coverage: Recorded,
}

impl GuestRunner {
    /// Makes a runner of clones of the prepared guest. It starts none yet.
    #[must_use]
    pub fn new(prepared: &Arc<Prepared>) -> Self {
        let ready = &prepared.template().about().ready;
        let reader = CoverageReader::new(ready.text_start, ready.text_bytes);
        Self {
            attribution: Attribution::new(&prepared.target.name),
            prepared: Arc::clone(prepared),
            guest: None,
            unclean: false,
            describe_all: true,
            next_id: 0,
            drift: Drift::default(),
            reader,
            exact: None,
            searched: None,
            late: Vec::new(),
            leaks: Leaks::default(),
            growth: Vec::new(),
            unreferenced: String::new(),
            looks: Share::new(LOOKS),
            checks: Checks::default(),
            stacks: Stacks::default(),
            part: 0,
            usage: Usage::default(),
            deadline: DEADLINE,
            inject: true,
            debugger: None,
            coverage: Recorded::All,
        }
    }

    /// Says whether an oracle judges the target's executions.
    fn has(&self, oracle: Oracle) -> bool {
        self.prepared.target.oracles.contains(&oracle)
    }

    /// Ends the guest at hand, if any: the next execution has a fresh one.
    pub fn discard(&mut self) {
        if let Some(mut guest) = self.guest.take()
            && self.attribution.previous().is_some()
        {
            self.late.extend(self.attribution.last_words(guest.unread_console()));
        }
        self.unclean = false;
        self.attribution.fresh_guest();
        self.drift.fresh_guest();
    }

    /// Gives the process id of the guest at hand, and starts one if there is none.
    ///
    /// # Errors
    ///
    /// No guest can be started.
    pub fn guest_pid(&mut self) -> Result<u32, GuestError> {
        Ok(self.guest()?.pid())
    }

    fn guest(&mut self) -> Result<&mut Guest, GuestError> {
        if self.guest.is_none() {
            self.guest = Some(self.prepared.template().spawn_for(self.debugger.as_ref())?);
            self.usage.guests += 1;
        }
        self.guest.as_mut().ok_or(GuestError::Dead)
    }

    /// Completes an execution of `plan`, and ends a guest that is not to run another one.
    fn execution(&mut self, plan: &FaultPlan, own: Own) -> Execution {
        let Own { mut findings, mut guest, fired, report, console, wall, history } = own;
        let mut report = report.map_or_else(Default::default, |report| *report);
        self.growth = std::mem::take(&mut report.growth);
        self.unreferenced = std::mem::take(&mut report.unreferenced);
        self.looks.took(wall, Duration::from_nanos(report.timings.look_ns));
        self.checks.time.took(wall, Duration::ZERO);
        self.note_check(&report.complaints, &fired);
        if report.timings.check_ns > 0 {
            let [look, check] = [report.timings.look_ns, report.timings.check_ns].map(Duration::from_nanos);
            tracing::debug!(?look, ?check, ?wall, complaints = report.complaints, "the disk was checked");
        }
        let worn = fitness::worn_after(&report);
        let (sites, missing) = self.prepared.sites.of(report.new_sites, &report.hits);
        self.describe_all = missing;
        causes::add(&mut findings, plan, &fired, &report.hits, &sites);
        self.count_leftovers(&findings);
        let coverage = self.reader.coverage();
        let overflowed = coverage.iter().any(|coverage| coverage.overflowed);
        let incomplete = report.lost_hits > 0 || (guest != Fate::Dead && overflowed);
        if guest == Fate::Alive
            && let Some(reason) = worn
        {
            self.count_unfit(&Unfit::Worn(reason));
            guest = Fate::Retired;
        }
        match guest {
            Fate::Alive => {}
            Fate::Unclean => self.unclean = true,
            Fate::Retired | Fate::Dead => self.discard(),
        }
        Execution {
            findings,
            guest,
            steps: report.steps,
            hits: report.hits,
            sites,
            fired,
            coverage,
            guarded: report.guarded,
            unknown_names: report.unknown_names,
            incomplete,
            console,
            wall,
            timings: report.timings,
            history,
            rounds: Vec::new(),
        }
    }

    fn run_warm(&mut self, plan: &FaultPlan) -> Result<Execution, RunError> {
        if self.unclean {
            self.discard();
        }
        if !plan.faults.is_empty() {
            self.control_when_due()?;
        }
        let verify = self.part_when_due(plan);
        let look = self.looks.is_due();
        let asked = Asked { verify, look, ..Asked::warm(plan) };
        let mut execution = self.attempts(|runner| runner.attempt_once(asked))?;
        self.control(plan, &execution);
        self.find_leaks(plan, How::Warm, 0, &mut execution);
        self.check_disk(plan, &mut execution);
        Ok(execution)
    }

    fn run_fresh(&mut self, plan: &FaultPlan, how: How) -> Result<Execution, RunError> {
        self.discard();
        let asked = Asked { how, look: true, check: true, ..Asked::warm(plan) };
        let mut execution = self.attempts(|runner| runner.attempt_once(asked))?;
        if self.debugger.is_some() {
            return Ok(execution);
        }
        self.control(plan, &execution);
        self.find_leaks(plan, how, 0, &mut execution);
        self.listen(&mut execution);
        Ok(execution)
    }

    /// Runs `plan` in a guest that repeats exactly, or in one with kmemleak. That guest goes at
    /// once: the next such run is for another crash, and has time.
    fn run_elsewhere(&mut self, plan: &FaultPlan, how: How) -> Ran {
        let (other, guests) = match how {
            How::Exact => (&mut self.exact, &self.prepared.exact),
            _ => (&mut self.searched, &self.prepared.searched),
        };
        let other = match (other, guests.get()) {
            (Some(other), _) => other,
            (none, Ok(prepared)) => none.insert(Box::new(Self { deadline: SLOW_DEADLINE, ..Self::new(&prepared) })),
            (_, Err(reason)) => return Err(RunError::NoSuchGuests(reason)).into(),
        };
        let execution = if plan.earlier.is_empty() { other.run_fresh(plan, how) } else { other.run_rounds(plan, how) };
        other.discard();
        other.ran(execution)
    }

    /// Gives what became of a plan, and what came to light meanwhile. The keys of checks say what
    /// is checked.
    fn ran(&mut self, mut execution: Result<Execution, RunError>) -> Ran {
        execution
            .iter_mut()
            .flat_map(|execution| &mut execution.findings)
            .for_each(|found| self.prepared.checks.name(found));
        Ran { execution, late: self.take_late() }
    }

    fn take_late(&mut self) -> Vec<Attributed> {
        let mut late = std::mem::take(&mut self.late);
        late.iter_mut().flat_map(|late| &mut late.findings).for_each(|found| self.prepared.checks.name(found));
        late
    }
}

impl Runner for GuestRunner {
    fn run(&mut self, plan: &FaultPlan, how: How) -> Ran {
        if how != How::Traced {
            self.stacks.clear();
        }
        let execution = match how {
            How::Exact | How::Searched => return self.run_elsewhere(plan, how),
            _ if !plan.earlier.is_empty() => self.run_rounds(plan, how),
            How::Warm => self.run_warm(plan),
            How::Next => self.run_next(plan),
            How::Fresh | How::Traced => self.run_fresh(plan, how),
        };
        self.ran(execution)
    }

    fn finish(&mut self) -> Vec<Attributed> {
        self.discard();
        self.take_late()
    }

    fn usage(&self) -> Usage {
        // The process may just have ended.
        let memory = self.guest.as_ref().and_then(|guest| process::memory(guest.pid()).ok());
        Usage { guest_kib: memory.map_or(0, |memory| memory.private_kib), ..self.usage }
    }
}
