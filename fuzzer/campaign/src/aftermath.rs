//! The aftermath of an execution that leaves something in use: what comes of it.
//!
//! ```text
//!              leaves something            fault-free rounds            the guest goes on
//!  plan ─ Warm ───────────────▶ listening ───────────────────▶ sweeping ─────┐
//!                                   │                           ▲   │ ▲──────┘ each point, one round each
//!                                   │ the guest goes            │   │ the guest goes
//!                                   └────────────────▶ establish┴◀──┘
//! ```
//!
//! - *leaves something*: the guest answers, and is not clean. It runs nothing else, but before it
//!   goes it shows what later rounds do in its state.
//! - *fault-free rounds*: a mount after a mount that failed is what a user does next.
//! - *each point*: every single fault of the workload, I/O first, as a later round. Once for each
//!   kind of leftover on each kernel: its clients share that work.
//! - *establish*: a round that kills the guest takes the state with it. A fresh guest runs the plan
//!   that left something and a fault-free round, and the sweep goes on there.
//!
//! While points are still to be failed alone, a state is only noted, and established later. The
//! kernel that judges looks at new ones even then.
//!
//! Whatever is found then belongs to the sequence: the plan that left something, a fault-free
//! round, and the round that showed it. Time is bounded, so that the search does not starve.

mod sweeps;

use std::time::{Duration, Instant};

use execution::{Attributed, Execution, Fate, Fired, How, Ran, RunError, Runner, Target, Usage};
use fault_plan::{Fault, FaultPlan, Round};

pub(crate) use self::sweeps::Sweeps;

/// Fault-free rounds before the sweep. Memory that was freed too early is reused by then.
const FAULT_FREE_ROUNDS: usize = 3;
/// The time of one part of a sweep: some hundred rounds on a lean kernel, fifty on one that checks.
/// The next guest with such a leftover goes on where it ended.
const SLICE: Duration = Duration::from_secs(20);
/// The most fresh guests for one part of a sweep: each costs a second.
const MOST_GUESTS: u32 = 12;
/// Time for aftermaths that is there at once, so that the first leftover does not wait.
const ADVANCE: Duration = Duration::from_secs(30);
/// One part in this many of a client's time is for leftovers of which there was no sweep yet.
const SHARE_OF_NEW: u32 = 2;
/// One part in this many is for all others: on `btrfs-mount` every twentieth plan leaves something.
const SHARE: u32 = 10;

/// A runner that shows what comes of what executions leave.
pub(crate) struct Aftermath<'a, R> {
    runner: R,
    target: &'a Target,
    sweeps: &'a Sweeps,
    when: When<'a>,
    /// States for which there was no time, one for each leftover.
    postponed: Vec<Left>,
    start: Instant,
    spent: Duration,
    executions: u64,
}

/// The moments at which an aftermath is possible.
#[derive(Clone, Copy)]
pub(crate) struct When<'a> {
    /// Says whether the campaign ends.
    pub(crate) must_end: &'a dyn Fn() -> bool,
    /// Says whether the client fails points alone, which comes first.
    pub(crate) is_busy: &'a dyn Fn() -> bool,
    /// True when there is some time for new leftovers even then: on the kernel that judges most
    /// comes to light.
    pub(crate) judges: bool,
}

/// A state that an execution left.
struct Left {
    plan: FaultPlan,
    fired: Vec<Fired>,
    key: String,
}

/// How a round in such a state ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ended {
    /// The state is still there, or may be.
    Ran,
    /// The guest is gone.
    Gone,
    /// The guest is gone, and did not run the round.
    NotRun,
    /// There is no time for more.
    Stopped,
}

impl<'a, R: Runner> Aftermath<'a, R> {
    /// Makes a runner of plans of `target` by `runner`, whose kernel has these `sweeps`.
    pub(crate) fn new(runner: R, target: &'a Target, sweeps: &'a Sweeps, when: When<'a>) -> Self {
        let (postponed, spent, executions) = (Vec::new(), Duration::ZERO, 0);
        Self { runner, target, sweeps, when, postponed, start: Instant::now(), spent, executions }
    }

    /// Says whether there is time for the aftermath of a leftover, which may be a `new` one.
    fn may_spend(&self, new: bool) -> bool {
        let busy = (self.when.is_busy)();
        if busy && !(new && self.when.judges) {
            return false;
        }
        let share = if new && !busy { SHARE_OF_NEW } else { SHARE };
        self.spent <= ADVANCE + self.start.elapsed() / share
    }

    /// Gives what comes of a state, whose guest is at hand.
    fn of(&mut self, left: Left) -> Vec<Attributed> {
        let (mut found, new) = (Vec::new(), self.sweeps.is_new(&left.key));
        if !self.may_spend(new) {
            if new && self.postponed.iter().all(|postponed| postponed.key != left.key) {
                self.postponed.push(left);
            }
            return found;
        }
        let (left, started) = (&left, Instant::now());
        let alive = (0..FAULT_FREE_ROUNDS).all(|_| self.round(left, &[], &mut found) == Ended::Ran);
        self.sweep(left, if alive { Ended::Ran } else { Ended::Gone }, &mut found);
        self.spent += started.elapsed();
        found
    }

    /// Gives what comes of a state that was postponed, if there is one and now is the time.
    fn of_postponed(&mut self) -> Vec<Attributed> {
        let mut found = Vec::new();
        if !(self.when.is_busy)()
            && self.may_spend(true)
            && let Some(left) = self.postponed.pop()
        {
            let started = Instant::now();
            self.sweep(&left, Ended::Gone, &mut found);
            self.spent += started.elapsed();
        }
        found
    }

    /// Runs the next part of the sweep in a state, whose guest is at hand or not.
    fn sweep(&mut self, left: &Left, mut guest: Ended, found: &mut Vec<Attributed>) {
        let started = Instant::now();
        let (mut guests, mut again) = (0, None);
        while started.elapsed() < SLICE {
            if matches!(guest, Ended::Gone | Ended::NotRun) {
                guests += 1;
                if guests > MOST_GUESTS || (again.is_none() && !self.sweeps.has_next(&left.key)) {
                    return;
                }
                guest = self.establish(left, found);
            }
            if guest != Ended::Ran {
                return;
            }
            // A fault whose round did not run has one more turn.
            let (fault, is_again) = match again.take() {
                Some(fault) => (fault, true),
                None => match self.sweeps.next(&left.key) {
                    Some(fault) => (fault, false),
                    None => return,
                },
            };
            guest = self.round(left, std::slice::from_ref(&fault), found);
            again = Some(fault).filter(|_| guest == Ended::NotRun && !is_again);
        }
    }

    /// Brings a fresh guest into the state.
    fn establish(&mut self, left: &Left, found: &mut Vec<Attributed>) -> Ended {
        if (self.when.must_end)() {
            return Ended::Stopped;
        }
        self.executions += 1;
        let Ran { execution, late } = self.runner.run(&left.plan, How::Fresh);
        found.extend(late);
        match execution {
            Ok(execution) if execution.guest == Fate::Unclean && execution.has_key(&left.key) => {
                self.round(left, &[], found)
            }
            // The state does not come again, or no guest does: there is nothing to sweep.
            _ => Ended::Stopped,
        }
    }

    /// Runs one round with these `faults` in the state.
    fn round(&mut self, left: &Left, faults: &[Fault], found: &mut Vec<Attributed>) -> Ended {
        if (self.when.must_end)() {
            return Ended::Stopped;
        }
        self.executions += 1;
        let plan = FaultPlan { faults: faults.to_vec(), ..FaultPlan::fault_free(&left.plan.target) };
        let Ran { execution, late } = self.runner.run(&plan, How::Next);
        found.extend(late.into_iter().map(|late| if late.how == How::Next { left.sequence(late) } else { late }));
        match execution {
            Ok(execution) => {
                let guest = execution.guest;
                let Execution { findings, fired, console, history, .. } = execution;
                if !findings.is_empty() {
                    let of_round = Attributed { plan, how: How::Next, fired, findings, console, history };
                    found.push(left.sequence(of_round));
                }
                if matches!(guest, Fate::Alive | Fate::Unclean) { Ended::Ran } else { Ended::Gone }
            }
            Err(RunError::NoNext) => Ended::NotRun,
            Err(RunError::Stopped) => Ended::Stopped,
            // The plan cannot be run here, and another one can.
            Err(_) => Ended::Ran,
        }
    }
}

impl Left {
    /// Gives what was found in a round in this state to a short sequence that may make it: the plan
    /// that left something, a fault-free round, which takes up what was left, and that round. The
    /// history has whatever else there was.
    fn sequence(&self, of_round: Attributed) -> Attributed {
        let Attributed { plan, how, fired, findings, console, history } = of_round;
        let before = Round { faults: self.plan.faults.clone(), reset: false };
        let offset = before.faults.len();
        let taken_up = Round::default();
        let later = fired.into_iter().map(|fired| Fired { fault: fired.fault + offset, ..fired });
        let fired = self.fired.iter().cloned().chain(later).collect();
        let earlier = if plan.is_fault_free() { vec![before] } else { vec![before, taken_up] };
        Attributed { plan: FaultPlan { earlier, ..plan }, how, fired, findings, console, history }
    }
}

impl<R: Runner> Runner for Aftermath<'_, R> {
    fn run(&mut self, plan: &FaultPlan, how: How) -> Ran {
        let postponed = if how == How::Warm { self.of_postponed() } else { Vec::new() };
        let mut ran = self.runner.run(plan, how);
        ran.late.splice(0..0, postponed);
        let Ok(execution) = &ran.execution else { return ran };
        if plan.is_fault_free() && execution.findings.is_empty() {
            self.sweeps.learn(self.target, execution);
        }
        let warm = how == How::Warm && plan.earlier.is_empty();
        if let Some(leftover) = execution.findings.first().filter(|_| warm && execution.guest == Fate::Unclean) {
            // Of several causes that it may have, one that is known is the likeliest.
            let mut keys = [&leftover.key].into_iter().chain(&leftover.also);
            let key = keys.find(|key| !self.sweeps.is_new(key)).unwrap_or(&leftover.key).clone();
            let left = Left { plan: plan.clone(), fired: execution.fired.clone(), key };
            ran.late.extend(self.of(left));
        }
        ran
    }

    fn finish(&mut self) -> Vec<Attributed> {
        self.runner.finish()
    }

    fn usage(&self) -> Usage {
        let aftermath_ms = u64::try_from(self.spent.as_millis()).unwrap_or(u64::MAX);
        Usage { aftermath_executions: self.executions, aftermath_ms, ..self.runner.usage() }
    }
}

#[cfg(test)]
mod tests;
