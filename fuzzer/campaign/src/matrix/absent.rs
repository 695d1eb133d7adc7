//! Points behind faults that reach them no more.
//!
//! What a fault sets off may hang on time: a commit that a worker was about to make, a cleaner that
//! had begun. Some hundred points then were there once. A plan in which a cell's fault did not fire
//! was one of the faults alone that reach its point. So it tells of all points behind these.

use std::collections::HashSet;

use execution::Execution;

use super::{CHANCE, Matrix, Point, PointIndex, TakenCell};

impl Matrix {
    /// Takes in that the `execution` of a plan made for a cell reached nothing at its point, where
    /// only the faults fired that reach that: what else of the points behind them it did not reach.
    pub(crate) fn missed(&mut self, taken: &TakenCell, execution: &Execution) {
        let Some(point) = self.points.get(taken.cell.0 as usize) else { return };
        let (rank, faults) = (point.rank, &taken.plan.faults[..taken.plan.faults.len().saturating_sub(1)]);
        if rank == 0 || rank == CHANCE || execution.fired.len() != point.faults() {
            return;
        }
        let reached: HashSet<_> =
            execution.hits.iter().filter_map(|hit| self.numbers.get(&hit.site).copied()).collect();
        let beside = |(index, point): &(PointIndex, &Point)| {
            point.reached_by == faults && point.earlier == taken.plan.earlier && !reached.contains(index)
        };
        let absent: Vec<_> = (0..).zip(&self.points).filter(beside).map(|(index, _)| index).collect();
        for index in absent {
            let Some(point) = self.points.get_mut(index as usize) else { continue };
            let before = point.is_absent();
            point.absent = point.absent.saturating_add(1);
            if point.is_absent() && !before {
                self.rank_anew(index);
                self.write(index);
            }
        }
    }
}
