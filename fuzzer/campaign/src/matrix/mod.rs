//! The matrix of a kernel: its points, each error that they can fail with, and what came of it.
//!
//! ```text
//! execution ─ learn ─▶ points found, the fewest faults that reach each
//!           ─ fired ─▶ cells failed          ┌──────┐
//!                        open cells ─ take ─▶│ plan │─▶ executor ─▶ tried
//!                                            └──────┘
//! ```
//!
//! A cell is a point and an error. It is open until it was failed with one fault more than reach
//! its point: alone, where the workload reaches the point by itself. Such cells have the rank 0;
//! those of points that are reached by chance come last. A point that only the state after other
//! rounds reaches is failed behind these. A cell is taken by one client at a time.
//! Only an execution in which its fault fired makes it failed. None is made for a point that the
//! faults which reached it once reach no more: see [`Matrix::missed`].

mod absent;
mod open;
mod point;
mod reached;

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use execution::{Execution, Fate, Fired, Target};
use fault_plan::{Fault, FaultPlan, Scope, faults_in, retain_faults};
use files::{Journal, JournalError};
use guest_protocol::{Hit, SiteDescription};

use self::point::CHANCE;
pub use self::point::{Cell, Point};
pub(crate) use self::{
    open::{Reach, TakenCell, Tried},
    point::{CellState, exact_fault},
    reached::{Calls, Reached},
};

/// Position of a point in its [`Matrix`].
pub(crate) type PointIndex = u32;

/// Counts of a matrix.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct MatrixCounts {
    pub(crate) points: u64,
    /// Points at which a fault fired.
    pub(crate) points_failed: u64,
    pub(crate) cells: u64,
    pub(crate) cells_failed: u64,
    pub(crate) cells_unreached: u64,
    /// Open cells of points that the workload reaches by itself.
    pub(crate) alone_left: u64,
}

/// Number of a point and position among its cells.
type CellId = (PointIndex, usize);

/// The points of one kernel and their cells.
#[derive(Debug)]
pub(crate) struct Matrix {
    target: Arc<Target>,
    journal: Journal,
    /// Why the journal could not be written, for whoever looks next.
    failure: Option<JournalError>,
    /// In the order in which they were found.
    points: Vec<Point>,
    by_name: HashMap<String, PointIndex>,
    /// By the numbers that the agent gives them.
    numbers: HashMap<u64, PointIndex>,
    /// Fault-free executions: as many as reached the point that most of them reach.
    fault_free: u64,
    /// Cells to be failed and not taken, by the rank of their points.
    open: BTreeSet<(usize, CellId)>,
    /// Cells that clients are failing.
    taken: BTreeSet<CellId>,
}

fn name(function: &str, call_path: &[String], (step, scope): (u32, Scope)) -> String {
    format!("{step} {scope} {function} {}", call_path.join(" "))
}

/// Gives the faults that fired in the last round of `plan`, in that order, which is one within a
/// round only.
fn fired_last<'a>(plan: &FaultPlan, execution: &'a Execution) -> Vec<&'a Fired> {
    let mut fired: Vec<_> = execution.fired.iter().filter(|fired| fired.fault >= faults_in(&plan.earlier)).collect();
    fired.sort_unstable_by_key(|fired| fired.sequence);
    fired
}

impl Matrix {
    /// Makes the matrix of a kernel on which `target` runs, with the points that earlier starts
    /// left in `journal`: of several records of a point the last one counts.
    pub(crate) fn restore(target: Arc<Target>, journal: Journal, records: Vec<Point>) -> Self {
        let (points, by_name, numbers) = (Vec::new(), HashMap::new(), HashMap::new());
        let (open, taken) = (BTreeSet::new(), BTreeSet::new());
        let mut matrix = Self { target, journal, failure: None, points, by_name, numbers, fault_free: 0, open, taken };
        for point in records {
            match matrix.by_name.get(&name(&point.function, &point.call_path, (point.step, point.scope))) {
                Some(known) => matrix.points[*known as usize] = point,
                None => {
                    matrix.add(point);
                }
            }
        }
        matrix.fault_free = matrix.points.iter().map(|point| point.fault_free).max().unwrap_or(0);
        let indices: Vec<_> = matrix.by_name.values().copied().collect();
        indices.into_iter().for_each(|index| matrix.rank_anew(index));
        matrix
    }

    /// Gives the points as plans of another kernel are aligned with them.
    pub(crate) fn reachable(&self) -> Vec<fault_plan::Point<'_>> {
        self.points.iter().map(Point::reachable).collect()
    }

    fn add(&mut self, mut point: Point) -> PointIndex {
        let index = PointIndex::try_from(self.points.len()).unwrap_or(PointIndex::MAX);
        for error in self.target.errors(&point.function) {
            point.cell(*error);
        }
        self.by_name.insert(name(&point.function, &point.call_path, (point.step, point.scope)), index);
        self.points.push(point);
        index
    }

    /// Ranks a point anew, and looks which of its cells are open.
    fn rank_anew(&mut self, index: PointIndex) {
        let Some(point) = self.points.get_mut(index as usize) else { return };
        let rank = point.rank_of(self.fault_free);
        let before = std::mem::replace(&mut point.rank, rank);
        for at in 0..point.cells.len() {
            self.open.remove(&(before, (index, at)));
            if point.state(at) == Some(CellState::Open) && !self.taken.contains(&(index, at)) {
                self.open.insert((rank, (index, at)));
            }
        }
    }

    /// Takes in the points that the last round of `plan` reached in `execution`, `now_s` seconds
    /// after the campaign's begin. Returns whether no execution of this start had reached one of
    /// them.
    pub(crate) fn learn(&mut self, plan: &FaultPlan, execution: &Execution, now_s: u64) -> bool {
        if execution.has_ended_early(plan) {
            return false;
        }
        let (before_last, fired) = (faults_in(&plan.earlier), fired_last(plan, execution));
        let (before, mut new) = (self.points.len(), false);
        for description in &execution.sites {
            self.number(description, now_s);
        }
        for hit in &execution.hits {
            let Some(&index) = self.numbers.get(&hit.site) else { continue };
            let Some(point) = self.points.get_mut(index as usize) else { continue };
            point.most_calls = point.most_calls.max(hit.count);
            point.executions += 1;
            new |= !std::mem::replace(&mut point.seen, true);
            point.fault_free += u64::from(plan.is_fault_free());
            self.fault_free = self.fault_free.max(point.fault_free);
            let faults = fired.partition_point(|fired| fired.sequence < hit.first_sequence);
            let first = point.executions == 1 && index as usize >= before;
            // A call that no fault made comes by chance, unless the workload makes it by itself.
            let by_chance = faults == 0 && !plan.faults.is_empty();
            let distance = (plan.earlier.len(), before_last + faults);
            let fewer = first || (distance < point.distance() && !by_chance);
            if fewer {
                point.earlier.clone_from(&plan.earlier);
                point.reached_by.clone_from(&plan.faults);
                let earlier = |index| fired[..faults].iter().any(|fired| fired.fault - before_last == index);
                retain_faults(&mut point.reached_by, earlier);
                point.cells.iter_mut().for_each(|cell| cell.missed = 0);
            }
            let back = std::mem::take(&mut point.absent) > 0;
            if fewer || back {
                self.rank_anew(index);
            }
            if fewer {
                self.write(index);
            }
        }
        if plan.is_fault_free() {
            let indices: Vec<_> = self.by_name.values().copied().collect();
            indices.into_iter().for_each(|index| self.rank_if_changed(index));
        }
        new
    }

    /// Ranks a point anew where a fault-free execution has changed its rank.
    fn rank_if_changed(&mut self, index: PointIndex) {
        let changed = |point: &Point| point.rank != point.rank_of(self.fault_free);
        if self.points.get(index as usize).is_some_and(changed) {
            self.rank_anew(index);
        }
    }

    /// Gives the agent's number to a point, which is found if it is new.
    fn number(&mut self, description: &SiteDescription, now_s: u64) {
        let SiteDescription { site, function, call_path, truncated, step, scope } = description;
        if self.numbers.contains_key(site) {
            return;
        }
        let known = self.by_name.get(&name(function, call_path, (*step, *scope))).copied();
        let index = known.unwrap_or_else(|| {
            self.add(Point {
                function: function.clone(),
                call_path: call_path.clone(),
                step: *step,
                scope: *scope,
                truncated: *truncated,
                most_calls: 0,
                executions: 0,
                fault_free: 0,
                found_s: now_s,
                reached_by: Vec::new(),
                earlier: Vec::new(),
                absent: 0,
                rank: 0,
                seen: false,
                cells: Vec::new(),
            })
        });
        self.numbers.insert(*site, index);
    }

    /// Takes in the faults of the last round of `plan` that fired in `execution`, `now_s` seconds
    /// after the campaign's begin, and what came of the last one.
    pub(crate) fn fired(&mut self, plan: &FaultPlan, execution: &Execution, now_s: u64) {
        if execution.has_ended_early(plan) {
            return;
        }
        let faults = u32::try_from(execution.fired.len()).unwrap_or(u32::MAX);
        let of_last = fired_last(plan, execution);
        let last = of_last.last().map(|fired| fired.sequence);
        for fired in of_last {
            let Some(fault) = plan.all_faults().nth(fired.fault) else { continue };
            let Some(&index) = self.numbers.get(&fired.site) else { continue };
            let Some(point) = self.points.get_mut(index as usize) else { continue };
            let cell = point.cell(fault.error);
            cell.fired += 1;
            let mut news = false;
            if Some(fired.sequence) == last {
                cell.fatal += u64::from(execution.guest != Fate::Alive);
                news |= cell.add_findings(execution.findings.iter().map(|finding| finding.key.as_str()));
            }
            // Surviving one failure is another path than surviving many.
            if fault.times == 1 && cell.faults.is_none_or(|fewest| faults < fewest) {
                (cell.faults, cell.failed_s, news) = (Some(faults), Some(now_s), true);
                self.rank_anew(index);
            }
            if news {
                self.write(index);
            }
        }
    }

    /// Takes in that a late effect of an earlier execution cost the guest: a fault at the point
    /// with this number of the agent's was its last, as the fault `index` of `plan`.
    pub(crate) fn was_fatal(&mut self, site: u64, plan: &FaultPlan, index: usize) {
        let error = plan.all_faults().nth(index).map(|fault| fault.error);
        let point = self.numbers.get(&site).and_then(|point| self.points.get_mut(*point as usize));
        if let (Some(point), Some(error)) = (point, error) {
            point.cell(error).fatal += 1;
        }
    }

    /// Says whether a fault of `plan` is at a point where most are known to cost the guest.
    pub(crate) fn is_fatal(&self, plan: &FaultPlan) -> bool {
        let point = |fault: &Fault| {
            let place = (fault.step.unwrap_or_default(), fault.task.unwrap_or_default());
            let name = name(&fault.function, &fault.call_path.0, place);
            self.get(*self.by_name.get(&name)?)
        };
        plan.all_faults().filter_map(point).any(Point::is_fatal)
    }

    /// Gives the calls of an execution that was learnt, for its corpus entry.
    pub(crate) fn reached(&self, hits: &[Hit]) -> Reached {
        let calls = |hit: &Hit| Some(Calls { point: *self.numbers.get(&hit.site)?, count: hit.count });
        Reached::pack(hits.iter().filter_map(calls).collect())
    }

    /// Gives the point at this index.
    pub(crate) fn get(&self, point: PointIndex) -> Option<&Point> {
        self.points.get(point as usize)
    }

    /// Counts points and cells.
    pub(crate) fn counts(&self) -> MatrixCounts {
        let mut counts = MatrixCounts { points: self.points.len() as u64, ..MatrixCounts::default() };
        for point in &self.points {
            counts.points_failed += u64::from(point.fired() > 0);
            for state in (0..point.cells.len()).filter_map(|cell| point.state(cell)) {
                counts.cells += 1;
                match state {
                    CellState::Failed => counts.cells_failed += 1,
                    CellState::Unreached => counts.cells_unreached += 1,
                    CellState::Open => counts.alone_left += u64::from(point.rank == 0),
                }
            }
        }
        counts
    }

    fn write(&mut self, index: PointIndex) {
        let Some(point) = self.points.get(index as usize) else { return };
        if let Err(error) = self.journal.append(point) {
            self.failure.get_or_insert(error);
        }
    }

    /// Writes all points anew, each once, with all its counts.
    ///
    /// # Errors
    ///
    /// The file system says no, or said no before.
    pub(crate) fn rewrite(&mut self) -> Result<(), JournalError> {
        self.failure.take().map_or(Ok(()), Err)?;
        self.journal.rewrite(&self.points)
    }
}

#[cfg(test)]
mod tests;
