//! Minimising: the plan of a crash, made as simple as one that makes it as often.
//!
//! ```text
//!          next_plan(): a candidate            ran(): it does not hold
//!  shrinking ─────────────────────▶ trying ────────────────────────▶ shrinking
//!   ▲  │                               │ ran() as often as asked for: it holds ─▶ shrinking
//!   │  │ no candidate is left
//!   │  ▼              ran(): often enough
//!   │ confirming ─────────────────────────▶ done: the simplest plan
//!   │  │ seldom: it held by chance
//!   │  ├─────────▶ done: the plan as it was
//!   └──┘ once: from the plan as it was, and a candidate runs as often as what is confirmed
//! ```
//!
//! Whoever has a runner asks for the next plan to run, runs it in a fresh guest, and tells the
//! outcome. So the work can be left and taken up again after any run.

use execution::{Execution, Fired};
use fault_plan::{FaultPlan, MAX_CALL_PATH, Point, Shown, Shrink};

use crate::relax::KnownPoints;

/// Fresh guests in which the simplest plan is tried at last.
pub const CONFIRMATIONS: u32 = 3;

/// Number of runs for one crash after which no candidate is begun. The one under way and a
/// confirmation still come to their end. All runs count, and so does the one that found the crash.
const MOST_RUNS: u32 = 160;

/// How often a plan has to make its crash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Demand {
    /// Runs of a candidate.
    pub runs: u32,
    /// Those in which the crash comes, at least.
    pub needed: u32,
}

/// Runs of a plan, and those in which the crash came.
#[derive(Clone, Copy, Debug, Default)]
struct Tries {
    ran: u32,
    made: u32,
}

impl Tries {
    fn and(self, made: bool) -> Self {
        Self { ran: self.ran + 1, made: self.made + u32::from(made) }
    }

    /// Says whether the demand can no longer be met.
    fn are_in_vain(self, Demand { runs, needed }: Demand) -> bool {
        self.made + runs.saturating_sub(self.ran) < needed
    }
}

#[derive(Debug)]
enum State {
    Shrinking,
    Trying(FaultPlan, Tries),
    Confirming(Tries),
    /// With the tries of the simplest plan, where it is another one than was found.
    Done(Option<Tries>),
}

/// The work on one crash.
#[derive(Debug)]
pub struct Minimizer {
    key: String,
    /// The plan as it was, and what fired in it.
    found: (FaultPlan, Vec<Fired>),
    candidate: Demand,
    confirmed: Demand,
    shrink: Shrink,
    known: KnownPoints,
    fired: Vec<Fired>,
    runs: u32,
    most_runs: u32,
    /// The last execution of the simplest plan that made the crash, while that is confirmed.
    evidence: Option<Execution>,
    state: State,
}

/// A plan that is simpler than the one that was found, and makes the crash as it has to.
#[derive(Debug)]
pub struct Minimized {
    /// The plan.
    pub plan: FaultPlan,
    /// An execution of it that made the crash.
    pub execution: Execution,
    /// Fresh guests in which it was tried at last.
    pub tried: u32,
    /// Those in which the crash came.
    pub reproduced: u32,
}

impl Minimizer {
    /// Begins with `plan`, in whose `execution` the crash of this `key` came. A candidate holds if
    /// it meets one demand, and the simplest plan counts if it meets the other at last.
    #[must_use]
    pub fn new(plan: &FaultPlan, key: &str, execution: &Execution, candidate: Demand, confirmed: Demand) -> Self {
        let mut known = KnownPoints::default();
        known.learn(execution);
        let fired = execution.fired.clone();
        Self {
            key: key.to_owned(),
            found: (plan.clone(), fired.clone()),
            candidate,
            confirmed,
            shrink: Shrink::new(plan),
            known,
            fired,
            runs: 1,
            most_runs: MOST_RUNS,
            evidence: None,
            state: State::Shrinking,
        }
    }

    /// Gives the plan to run next in a fresh guest; nothing when all is done.
    pub fn next_plan(&mut self) -> Option<FaultPlan> {
        if matches!(self.state, State::Shrinking) {
            self.state = match self.candidate() {
                Some(candidate) => State::Trying(candidate, Tries::default()),
                None if *self.shrink.plan() == self.found.0 => State::Done(None),
                None => State::Confirming(Tries::default()),
            };
        }
        match &self.state {
            State::Trying(candidate, ..) => Some(candidate.clone()),
            State::Confirming(..) => Some(self.shrink.plan().clone()),
            State::Shrinking | State::Done(_) => None,
        }
    }

    fn candidate(&mut self) -> Option<FaultPlan> {
        if self.runs >= self.most_runs {
            return None;
        }
        let points = self.known.points();
        let plan = self.shrink.plan().clone();
        let fired = points_of(&plan, &self.fired);
        self.shrink.next(&Shown { fired: &fired, points: &points }).cloned()
    }

    /// Ends the search after the candidate under way: what is the simplest plan by then is
    /// confirmed.
    pub fn hurry(&mut self) {
        self.most_runs = 0;
    }

    /// Takes in the execution of the plan that was to run, if there was one.
    pub fn ran(&mut self, execution: Option<Execution>) {
        self.runs += 1;
        if let Some(execution) = &execution {
            self.known.learn(execution);
        }
        let execution = execution.filter(|execution| execution.has_key(&self.key));
        let made = execution.is_some();
        self.state = match std::mem::replace(&mut self.state, State::Shrinking) {
            State::Trying(plan, tries) => self.tried(plan, tries.and(made), execution),
            State::Confirming(tries) => self.confirmed(tries.and(made), execution),
            other => other,
        };
    }

    fn tried(&mut self, candidate: FaultPlan, tries: Tries, execution: Option<Execution>) -> State {
        let holds = tries.made >= self.candidate.needed;
        if !holds && !tries.are_in_vain(self.candidate) {
            return State::Trying(candidate, tries);
        }
        let points = self.known.points();
        if self.shrink.keep(holds, &Shown { fired: &[], points: &points }) {
            self.fired = execution.map(|execution| execution.fired).unwrap_or_default();
        }
        State::Shrinking
    }

    fn confirmed(&mut self, tries: Tries, execution: Option<Execution>) -> State {
        self.evidence = execution.or_else(|| self.evidence.take());
        if !tries.are_in_vain(self.confirmed) {
            let more = tries.ran < self.confirmed.runs;
            return if more { State::Confirming(tries) } else { State::Done(Some(tries)) };
        }
        self.evidence = None;
        let (plan, fired) = &self.found;
        self.shrink = Shrink::new(plan);
        self.fired.clone_from(fired);
        if self.candidate == self.confirmed {
            return State::Done(None);
        }
        // Candidates held by chance: what is to come each time of several has to be tried as often.
        self.candidate = self.confirmed;
        State::Shrinking
    }

    /// Gives the number of faults as found, and of the simplest plan so far.
    #[must_use]
    pub fn faults(&self) -> [usize; 2] {
        [&self.found.0, self.shrink.plan()].map(FaultPlan::count)
    }

    /// Gives the number of runs so far.
    #[must_use]
    pub fn runs(&self) -> u32 {
        self.runs
    }

    /// Gives the outcome when all is done; nothing where the plan is the simplest as it was found.
    #[must_use]
    pub fn finish(self) -> Option<Minimized> {
        let State::Done(Some(Tries { ran: tried, made: reproduced })) = self.state else { return None };
        let plan = self.shrink.plan().clone();
        Some(Minimized { plan, execution: self.evidence?, tried, reproduced })
    }
}

/// Gives the points at which the faults of `plan` fired.
fn points_of<'a>(plan: &'a FaultPlan, fired: &'a [Fired]) -> Vec<(usize, Point<'a>)> {
    let point = |fired: &'a Fired| {
        let function = plan.all_faults().nth(fired.fault)?.function.as_str();
        let Fired { call_path, step, scope, .. } = fired;
        let truncated = call_path.len() >= MAX_CALL_PATH;
        Some((fired.fault, Point { function, call_path, truncated, step: *step, scope: *scope, calls: 0 }))
    };
    fired.iter().filter_map(point).collect()
}

#[cfg(test)]
mod tests;
