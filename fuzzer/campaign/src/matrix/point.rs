//! One point of a matrix, and its cells: an error each.

use fault_plan::{CallPath, Fault, InjectedError, MAX_CALL_PATH, Round, Scope, faults_in};
use serde::{Deserialize, Serialize};

/// A point is known for costing guests from so many fatal faults on.
const KNOWN_AS_FATAL: u64 = 3;
/// Executions in which a cell's fault may not fire before no more are made for it: at a point that
/// the workload reaches, behind faults, and by chance.
const MOST_MISSED: [u32; 3] = [3, 2, 1];
/// Executions in a row, made for points that the same faults reach, that may not reach a point
/// before none is made for it: each would have missed it, too.
const MOST_ABSENT: u32 = 8;
/// Times that a cell's plan may be given up, for want of guests, before no more are made for it.
const MOST_GIVEN_UP: u32 = 3;
/// Rank of points that are reached by chance, as when a slab has no free object: they come last.
pub(super) const CHANCE: usize = usize::MAX;
/// The most keys of findings that a cell keeps.
const MOST_FINDINGS: usize = 8;

/// An injection site in a step and a scope, and what became of its failures.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Point {
    /// The injectable function.
    pub function: String,
    /// The callers, innermost first.
    pub call_path: Vec<String>,
    /// Step of the workload, from 1.
    pub step: u32,
    /// Scope of its calls.
    #[serde(default, skip_serializing_if = "Scope::is_workload")]
    pub scope: Scope,
    /// True when there were more callers than are read.
    #[serde(default)]
    pub truncated: bool,
    /// Most calls in one execution.
    pub most_calls: u32,
    /// Executions that reached it.
    pub executions: u64,
    /// Fault-free executions that reached it.
    pub fault_free: u64,
    /// Seconds of the campaign's fuzzing until it was found.
    pub found_s: u64,
    /// The fewest faults known to reach it, of those that fired before; none also where only the
    /// guest's state makes the call.
    pub reached_by: Vec<Fault>,
    /// The rounds before them in whose state they reach it, first to last.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub earlier: Vec<Round>,
    /// Executions in a row that were made for other points that these faults reach, in which they
    /// fired and nothing else did, and that did not reach this one.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub absent: u32,
    /// Rank of its open cells: 0 where most fault-free executions reach it, else the number of
    /// faults that it takes, and [`CHANCE`] where none does.
    #[serde(skip)]
    pub(super) rank: usize,
    /// True when an execution of this start reached it.
    #[serde(skip)]
    pub(super) seen: bool,
    /// One for each error.
    pub cells: Vec<Cell>,
}

/// A point and an error.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cell {
    /// The error that the point's call returns.
    pub error: InjectedError,
    /// The fewest faults that fired in an execution in which one was this; 1 says that it failed
    /// alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub faults: Option<u32>,
    /// Seconds of the campaign's fuzzing until it was failed with so few.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed_s: Option<u64>,
    /// Executions in which it fired.
    pub fired: u64,
    /// Those of them in which it fired last, and that cost the guest.
    pub fatal: u64,
    /// Executions made for it in which it did not fire.
    pub missed: u32,
    /// Plans made for it that no guest got through.
    pub given_up: u32,
    /// Keys of what was found in executions in which it fired last.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub findings: Vec<String>,
}

/// The standing of a cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CellState {
    /// It is still to be failed with as few faults as reach its point.
    Open,
    /// It was failed so.
    Failed,
    /// It did not fire in the executions made for it, or no guest got through them.
    Unreached,
}

/// Makes the fault that fails the `occurrence`-th call of a function on this call path in this step
/// and scope, and no other.
pub(crate) fn exact_fault(
    (function, call_path): (&str, &[String]),
    (step, scope): (u32, Scope),
    occurrence: u32,
    error: InjectedError,
) -> Fault {
    let call_path = CallPath(call_path.iter().take(MAX_CALL_PATH).cloned().collect());
    Fault { step: Some(step), task: scope.condition(), ..Fault::new(function, call_path, occurrence, error) }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde wants it so")]
fn is_zero(number: &u32) -> bool {
    *number == 0
}

impl Cell {
    /// Makes a cell of which nothing is known.
    pub(super) fn new(error: InjectedError) -> Self {
        let (faults, failed_s, findings) = (None, None, Vec::new());
        Self { error, faults, failed_s, fired: 0, fatal: 0, missed: 0, given_up: 0, findings }
    }

    /// Gives its standing at a point that `reached_by` faults reach, after at most so many misses.
    fn state(&self, reached_by: usize, most_missed: u32) -> CellState {
        if self.faults.is_some_and(|faults| faults as usize <= reached_by + 1) {
            CellState::Failed
        } else if self.missed >= most_missed || self.given_up >= MOST_GIVEN_UP {
            CellState::Unreached
        } else {
            CellState::Open
        }
    }

    /// Adds the keys of what was found when it fired last. Returns whether one is new.
    pub(super) fn add_findings<'a>(&mut self, keys: impl IntoIterator<Item = &'a str>) -> bool {
        let before = self.findings.len();
        for key in keys {
            if self.findings.len() < MOST_FINDINGS && !self.findings.iter().any(|known| known == key) {
                self.findings.push(key.to_owned());
            }
        }
        self.findings.len() > before
    }
}

impl Point {
    /// Gives the point as plans of another kernel are aligned with it.
    pub(super) fn reachable(&self) -> fault_plan::Point<'_> {
        let Self { function, call_path, truncated, step, scope, most_calls, .. } = self;
        let (truncated, step, scope, calls) = (*truncated, *step, *scope, *most_calls);
        fault_plan::Point { function, call_path, truncated, step, scope, calls }
    }

    /// Makes the fault that fails the `occurrence`-th call at this very point.
    #[must_use]
    pub fn fault(&self, occurrence: u32, error: InjectedError) -> Fault {
        exact_fault((&self.function, &self.call_path), (self.step, self.scope), occurrence, error)
    }

    /// Says whether the calls here are among those that `fault` counts.
    pub(crate) fn is_matched_by(&self, fault: &Fault) -> bool {
        fault.may_match(&self.function, &self.call_path, (self.step, self.scope))
    }

    /// Gives the rank that it has when there were so many `fault_free` executions.
    pub(super) fn rank_of(&self, fault_free: u64) -> usize {
        match self.earlier.len() + self.faults() {
            _ if self.fault_free * 2 > fault_free => 0,
            0 => CHANCE,
            distance => distance,
        }
    }

    /// Counts the faults that reach it, those of earlier rounds included.
    pub(super) fn faults(&self) -> usize {
        faults_in(&self.earlier) + self.reached_by.len()
    }

    /// Gives the rounds and the faults that reach it: the fewer, the better.
    pub(super) fn distance(&self) -> (usize, usize) {
        (self.earlier.len(), self.faults())
    }

    /// Gives the standing of the cell at this index.
    pub(super) fn state(&self, cell: usize) -> Option<CellState> {
        let most_missed = match self.rank {
            0 => MOST_MISSED[0],
            CHANCE => MOST_MISSED[2],
            _ => MOST_MISSED[1],
        };
        let state = self.cells.get(cell)?.state(self.faults(), most_missed);
        Some(if state == CellState::Open && self.is_absent() { CellState::Unreached } else { state })
    }

    /// Says whether the faults that reached it once do so no more.
    pub(super) fn is_absent(&self) -> bool {
        self.absent >= MOST_ABSENT
    }

    /// Counts the faults that fired here.
    #[must_use]
    pub fn fired(&self) -> u64 {
        self.cells.iter().map(|cell| cell.fired).sum()
    }

    /// Says whether most faults here are known to cost the guest.
    pub(crate) fn is_fatal(&self) -> bool {
        let fatal: u64 = self.cells.iter().map(|cell| cell.fatal).sum();
        fatal >= KNOWN_AS_FATAL && fatal * 2 > self.fired()
    }

    /// Gives its cell for `error`, made if need be: a plan of the user may have another error than
    /// the target's.
    pub(super) fn cell(&mut self, error: InjectedError) -> &mut Cell {
        let at = self.cells.iter().position(|cell| cell.error == error).unwrap_or_else(|| {
            self.cells.push(Cell::new(error));
            self.cells.len() - 1
        });
        &mut self.cells[at]
    }
}
