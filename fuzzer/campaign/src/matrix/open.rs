//! Open cells: a client takes one, runs the plan that is to fail it, and says what became of it.

use fault_plan::FaultPlan;

use super::{CHANCE, CellId, CellState, Matrix};

/// The points with which cells may be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reach {
    /// Points that the workload reaches by itself.
    Alone,
    /// These, and points behind faults.
    Behind,
    /// All points.
    Any,
}

impl Reach {
    /// Says whether it has the points of this rank.
    fn has(self, rank: usize) -> bool {
        match self {
            Self::Alone => rank == 0,
            Self::Behind => rank < CHANCE,
            Self::Any => true,
        }
    }
}

/// A cell that a client has taken, and the plan that is to fail it.
#[derive(Debug)]
pub(crate) struct TakenCell {
    pub(super) cell: CellId,
    pub(crate) plan: FaultPlan,
}

/// The outcome of a plan that was made for a cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tried {
    /// It ran. Whether the fault fired, [`Matrix::fired`] was told.
    Ran,
    /// This kernel cannot run it.
    Refused,
    /// No guest got through it.
    GivenUp,
    /// The campaign ends.
    Stopped,
}

impl Matrix {
    /// Says whether a cell in `reach` is open and not taken.
    pub(crate) fn has_open(&self, reach: Reach) -> bool {
        self.open.first().is_some_and(|(rank, _)| reach.has(*rank))
    }

    /// Says whether points are still failed alone: a cell is open, or a client is failing one.
    pub(crate) fn is_failing_alone(&self) -> bool {
        let is_alone = |(index, _): &CellId| self.points.get(*index as usize).is_some_and(|point| point.rank == 0);
        self.has_open(Reach::Alone) || self.taken.iter().any(is_alone)
    }

    /// Takes the open cell of the least rank; of several that of the point found first.
    pub(crate) fn take(&mut self, reach: Reach) -> Option<TakenCell> {
        let next = *self.open.first().filter(|(rank, _)| reach.has(*rank))?;
        self.open.remove(&next);
        let (_, cell) = next;
        self.taken.insert(cell);
        let point = self.points.get(cell.0 as usize)?;
        let mut plan = self.target.fault_free();
        plan.earlier.clone_from(&point.earlier);
        plan.faults.clone_from(&point.reached_by);
        let fault = point.fault(1, point.cells.get(cell.1)?.error);
        plan.faults.push(fault);
        Some(TakenCell { cell, plan })
    }

    /// Takes in what became of a cell that was taken.
    pub(crate) fn tried(&mut self, taken: &TakenCell, tried: Tried) {
        let (index, at) = taken.cell;
        self.taken.remove(&taken.cell);
        let Some(point) = self.points.get_mut(index as usize) else { return };
        let failed = point.state(at) == Some(CellState::Failed);
        let Some(cell) = point.cells.get_mut(at) else { return };
        match tried {
            Tried::Ran if failed => {}
            Tried::Ran => cell.missed += 1,
            Tried::Refused => cell.missed = u32::MAX,
            Tried::GivenUp => cell.given_up += 1,
            Tried::Stopped => {}
        }
        if !failed && tried != Tried::Stopped {
            self.write(index);
        }
        self.rank_anew(index);
    }
}
