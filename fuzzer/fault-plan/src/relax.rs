//! Relaxing: a plan whose faults did not all fire on a kernel, made to fire there.
//!
//! ```text
//!        run as it is          next()             run             next()
//!  plan ─────────────▶ fired? ───────▶ candidate ─────▶ fired? ───────▶ … none left: unfired
//!                        │ all                           │ all
//!                        ▼                               ▼
//!                      holds                           holds
//! ```
//!
//! An execution tells points that are reached behind the faults that fired in it. So candidates are
//! made one at a time, from what is known by then. Of the ways to change a fault the surest goes
//! first, for all faults that did not fire: another call path, then an earlier occurrence, then a
//! path of which any callers may be missing.

use crate::{CallPath, ELLIPSIS, Fault, FaultPlan, MAX_CALL_PATH, Names, Point, align, aligned};

/// The most candidates for one plan.
const MOST_CANDIDATES: usize = 6;

/// A way to change a fault that did not fire.
type Way = fn(&Fault, &[Point<'_>], &Names<'_>) -> Vec<Fault>;

/// All ways, the surest first.
const WAYS: [Way; 3] = [aligned, earlier, loose];

/// Source of candidates for one plan, on one kernel.
#[derive(Clone, Debug)]
pub struct Relaxer {
    plan: FaultPlan,
    candidate: FaultPlan,
    /// For each fault of the plan what was tried for it.
    tried: Vec<Vec<Fault>>,
    left: usize,
}

impl Relaxer {
    /// Makes a source for `plan`, which ran as it is.
    #[must_use]
    pub fn new(plan: &FaultPlan) -> Self {
        let tried = plan.all_faults().map(|fault| vec![fault.clone()]).collect();
        Self { plan: plan.clone(), candidate: plan.clone(), tried, left: MOST_CANDIDATES }
    }

    /// Gives the next candidate. `fired` says which faults of the plan, or of the last candidate,
    /// fired, by index from 0 among those of all rounds. The `points` are those that this kernel is
    /// known to reach, those of that execution among them. There is none when all fired, and when
    /// nothing is left to try.
    pub fn next(&mut self, fired: impl Fn(usize) -> bool, points: &[Point<'_>]) -> Option<&FaultPlan> {
        self.left = self.left.checked_sub(1)?;
        let names = Names::of(self.plan.all_faults(), points);
        let waits = waits(&self.plan);
        // What comes after a fault that did not fire may be right as it is.
        let may_fire = |index: &usize| waits[*index].is_none_or(&fired);
        let unfired: Vec<usize> = (0..self.tried.len()).filter(|index| !fired(*index)).filter(may_fire).collect();
        for way in WAYS {
            let mut is_new = false;
            let faults = self.plan.all_faults().zip(self.candidate.all_faults_mut()).zip(&mut self.tried).enumerate();
            for (_, ((fault, candidate), tried)) in faults.filter(|(index, _)| unfired.contains(index)) {
                let mut others = way(fault, points, &names).into_iter();
                if let Some(other) = others.find(|other| !tried.contains(other)) {
                    tried.push(other.clone());
                    *candidate = other;
                    is_new = true;
                }
            }
            if is_new {
                return Some(&self.candidate);
            }
        }
        None
    }
}

/// Gives for each fault of `plan`, of all rounds, the index of the one that it comes after.
fn waits(plan: &FaultPlan) -> Vec<Option<usize>> {
    let mut waits: Vec<Option<usize>> = Vec::new();
    for faults in plan.rounds() {
        let start = waits.len();
        let index = |number: u32| start + (number as usize).saturating_sub(1);
        waits.extend(faults.iter().map(|fault| fault.after.map(index)));
    }
    waits
}

/// Gives `fault` aligned, at the last of the calls that it matches there, when there are fewer.
/// Where its path matches as it is, fewer calls are a difference of what the kernels do.
fn earlier(fault: &Fault, points: &[Point<'_>], names: &Names<'_>) -> Vec<Fault> {
    let last = |fault: Fault| {
        let matching = points.iter().filter(|point| point.is_in(&fault) && fault.call_path.matches(point.call_path));
        let calls = matching.fold(0_u32, |sum, point| sum.saturating_add(point.calls));
        (calls > 0 && calls < fault.occurrence).then_some(Fault { occurrence: calls, ..fault })
    };
    aligned(fault, points, names).into_iter().filter_map(last).collect()
}

/// Gives `fault` with a path of its innermost callers, of those that this kernel has at all, with
/// any others between them: where no point that is known can be the fault's. Too little is left
/// where the path's last name is not among them.
fn loose(fault: &Fault, points: &[Point<'_>], names: &Names<'_>) -> Vec<Fault> {
    if points.iter().any(|point| point.is_in(fault) && align(&fault.call_path, point, names).is_some()) {
        return Vec::new();
    }
    let callers: Vec<&String> = fault.call_path.0.iter().filter(|name| *name != ELLIPSIS).collect();
    let is_known = |name: &str| points.is_empty() || names.has_point(name);
    let is_cut = callers.len() > MAX_CALL_PATH / 2;
    let ends = callers.last().is_some_and(|name| is_cut || is_known(name));
    let mut kept: Vec<String> = Vec::new();
    for name in callers.iter().filter(|name| is_known(name)).take(MAX_CALL_PATH / 2) {
        kept.extend([(*name).clone(), ELLIPSIS.to_owned()]);
    }
    kept.pop();
    let is_enough = ends && kept.len() > 1;
    is_enough.then(|| Fault { call_path: CallPath(kept), ..fault.clone() }).into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Errno, InjectedError, Scope};

    fn path(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    fn plan(paths: &[&str]) -> FaultPlan {
        let error = InjectedError::Errno(Errno::ENOMEM);
        let fault = |text: &&str| Fault::new("f", CallPath(path(text)), 3, error);
        FaultPlan { faults: paths.iter().map(fault).collect(), ..FaultPlan::fault_free("t") }
    }

    /// A kernel that reaches these points, each with so many calls.
    fn points(paths: &[(Vec<String>, u32)]) -> Vec<Point<'_>> {
        paths
            .iter()
            .map(|(call_path, calls)| {
                let (truncated, step, scope) = (false, 1, Scope::Workload);
                Point { function: "f", call_path, truncated, step, scope, calls: *calls }
            })
            .collect()
    }

    fn paths_of(plan: Option<&FaultPlan>) -> Vec<String> {
        let faults = plan.iter().flat_map(|plan| &plan.faults);
        faults.map(|fault| format!("{} {}", fault.call_path.0.join(" "), fault.occurrence)).collect()
    }

    #[test]
    fn only_faults_that_did_not_fire_change_and_no_candidate_comes_twice() {
        let plan = plan(&["k a m", "k b m"]);
        let there = [(path("k a m"), 3), (path("k more b m"), 3)];
        let mut relaxer = Relaxer::new(&plan);
        let fired = |index| index == 0;
        assert_eq!(paths_of(relaxer.next(fired, &points(&there))), ["k a m 3", "k ... b m 3"]);
        assert_eq!(paths_of(relaxer.next(fired, &points(&there))), ["k a m 3", "k more b m 3"]);
        assert!(relaxer.next(fired, &points(&there)).is_none());
        assert!(Relaxer::new(&plan).next(|_| true, &points(&there)).is_none());
    }

    #[test]
    fn points_that_come_to_light_later_are_used() {
        let plan = plan(&["k a m", "k b m"]);
        let first = [(path("k more a m"), 3), (path("m"), 1)];
        let mut relaxer = Relaxer::new(&plan);
        assert_eq!(paths_of(relaxer.next(|_| false, &points(&first))), ["k ... a m 3", "k b m 3"]);
        let second = [first[0].clone(), (path("k more b m"), 3)];
        assert_eq!(paths_of(relaxer.next(|index| index == 0, &points(&second))), ["k ... a m 3", "k ... b m 3"]);
    }

    #[test]
    fn fewer_calls_there_make_the_occurrence_an_earlier_one() {
        let mut relaxer = Relaxer::new(&plan(&["k a m"]));
        let there = [(path("k more a m"), 2)];
        let candidates: Vec<_> = (0..4).flat_map(|_| paths_of(relaxer.next(|_| false, &points(&there)))).collect();
        assert_eq!(candidates, ["k ... a m 3", "k more a m 3", "k ... a m 2", "k more a m 2"]);
        let mut relaxer = Relaxer::new(&plan(&["k a m"]));
        let same = [(path("k a m"), 2)];
        assert!(relaxer.next(|_| false, &points(&same)).is_none(), "the path is the same");
    }

    #[test]
    fn without_any_points_callers_may_be_missing_anywhere() {
        let mut relaxer = Relaxer::new(&plan(&["k a ... m"]));
        assert_eq!(paths_of(relaxer.next(|_| false, &[])), ["k ... a ... m 3"]);
        assert!(relaxer.next(|_| false, &[]).is_none());
        let long = (0..24).map(|number| format!("f{number}")).collect::<Vec<_>>().join(" ");
        let mut relaxer = Relaxer::new(&plan(&[&long]));
        let candidate = relaxer.next(|_| false, &[]).unwrap();
        assert_eq!((candidate.faults[0].call_path.0.len(), candidate.check().is_ok()), (23, true));
    }
}
