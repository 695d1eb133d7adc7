//! Alignment of call paths: where a fault's calls are on a kernel that inlines other functions.
//!
//! ```text
//!   a fault's path     kmalloc  init_rescuer                      alloc_workqueue  open_ctree
//!   a point there      kmalloc  init_rescuer  __alloc_workqueue   alloc_workqueue  open_ctree
//!   the names shared   kmalloc  init_rescuer       "..."          alloc_workqueue  open_ctree
//! ```
//!
//! The cheapest way to read one path as the other is looked for. A name costs little where the
//! other kernel never has it: it inlined that function, or has none. A name that the other kernel
//! has at other points, and lacks in this place, says rather that this is another call.

use std::collections::HashSet;

use crate::{CallPath, ELLIPSIS, Fault, MAX_CALL_PATH, Scope, base_name};

/// Cost of a name of the fault's path that no point there has.
const ABSENT: u32 = 1;
/// Cost of a caller there that no fault of the plan has.
const FOREIGN: u32 = 2;
/// Cost of a name that either side has elsewhere.
const MISPLACED: u32 = 4;
/// The highest cost of a path that is still the same: two functions inlined otherwise and one that
/// is not there, or one inlined in this place alone.
const MOST: u32 = 5;
/// More than any path costs.
const NEVER: u32 = u32::MAX / 2;
/// The most points of the same cost that are told one after the other.
const MOST_TIES: usize = 3;

/// An injection site in a step, as a kernel reaches it.
#[derive(Clone, Copy, Debug)]
pub struct Point<'a> {
    /// The injectable function.
    pub function: &'a str,
    /// The callers, innermost first.
    pub call_path: &'a [String],
    /// True when there were more callers than are read.
    pub truncated: bool,
    /// Step of the workload, from 1.
    pub step: u32,
    /// Scope of its calls.
    pub scope: Scope,
    /// Calls in an execution, the most that are known.
    pub calls: u32,
}

impl Point<'_> {
    /// Says whether it is of the function, step and scope of `fault`.
    pub(crate) fn is_in(&self, fault: &Fault) -> bool {
        fault.is_in(self.function, (self.step, self.scope))
    }
}

/// Names by which costs are told.
#[derive(Debug, Default)]
pub struct Names<'a> {
    /// Those of the plan.
    plan: HashSet<&'a str>,
    /// Those of the points.
    points: HashSet<&'a str>,
}

impl<'a> Names<'a> {
    /// Collects the names of the plan's `faults` and of the `points` of the other kernel.
    pub fn of(faults: impl Iterator<Item = &'a Fault>, points: &[Point<'a>]) -> Self {
        let plan = faults.flat_map(|fault| &fault.call_path.0).map(|name| base_name(name));
        let points = points.iter().flat_map(|point| point.call_path).map(|name| base_name(name));
        Self { plan: plan.collect(), points: points.collect() }
    }

    /// Says whether a point has this name.
    pub(crate) fn has_point(&self, name: &str) -> bool {
        self.points.contains(base_name(name))
    }

    /// Cost of leaving out this name of the fault's path.
    fn of_fault(&self, name: &str) -> u32 {
        if self.has_point(name) { MISPLACED } else { ABSENT }
    }

    /// Cost of passing over this caller.
    fn of_point(&self, name: &str) -> u32 {
        if self.plan.contains(base_name(name)) { MISPLACED } else { FOREIGN }
    }
}

/// The cheapest way to read a point's callers as a fault's path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alignment {
    /// Sum of the costs of all names that only one side has; 0 where the path matches as it is.
    pub cost: u32,
    /// The names that both sides have, with an ellipsis for what only one has. It matches both.
    pub shared: CallPath,
}

/// Aligns `pattern` with the callers of `point`: nothing when they are too different, or share less
/// than half of its names.
///
/// The pattern's last name must be there, unless callers were cut off: without it the pattern
/// would match other calls too.
#[must_use]
pub fn align(pattern: &CallPath, point: &Point<'_>, names: &Names<'_>) -> Option<Alignment> {
    let costs = Costs { pattern: &pattern.0, callers: point.call_path, is_cut: point.truncated, names };
    let table = costs.table();
    let cost = table[0][0];
    if cost > MOST {
        return None;
    }
    let shared = costs.shared(&table);
    let count = |path: &CallPath| path.0.iter().filter(|name| *name != ELLIPSIS).count();
    (count(&shared) * 2 >= count(pattern)).then_some(Alignment { cost, shared })
}

struct Costs<'a> {
    pattern: &'a [String],
    callers: &'a [String],
    is_cut: bool,
    names: &'a Names<'a>,
}

impl Costs<'_> {
    /// Cost of the rest of the pattern, by its first element and the first caller left.
    fn table(&self) -> Vec<Vec<u32>> {
        let (elements, callers) = (self.pattern.len(), self.callers.len());
        let mut table = vec![vec![0; callers + 1]; elements + 1];
        for element in (0..elements).rev() {
            for caller in (0..=callers).rev() {
                let ways = self.ways(element, caller);
                let cheapest = ways.into_iter().map(|(cost, (e, c))| cost.saturating_add(table[e][c])).min();
                table[element][caller] = cheapest.unwrap_or(NEVER).min(NEVER);
            }
        }
        table
    }

    /// The steps from this element and caller on: the cost of each, and where it leads. The first
    /// of equal ones is taken.
    fn ways(&self, element: usize, caller: usize) -> Vec<(u32, (usize, usize))> {
        let name = &self.pattern[element];
        let mut ways = Vec::with_capacity(3);
        let can_lack = element + 1 < self.pattern.len() || self.pattern.len() == MAX_CALL_PATH;
        let lacking = if can_lack { self.names.of_fault(name) } else { NEVER };
        let Some(found) = self.callers.get(caller) else {
            let cost = if name == ELLIPSIS || self.is_cut { 0 } else { lacking };
            return vec![(cost, (element + 1, caller))];
        };
        if name == ELLIPSIS {
            return vec![(0, (element + 1, caller)), (0, (element, caller + 1))];
        }
        if base_name(name) == base_name(found) {
            ways.push((0, (element + 1, caller + 1)));
        }
        ways.push((lacking, (element + 1, caller)));
        ways.push((self.names.of_point(found), (element, caller + 1)));
        ways
    }

    /// The names on the cheapest way through `table` that both sides have.
    fn shared(&self, table: &[Vec<u32>]) -> CallPath {
        let mut shared: Vec<String> = Vec::new();
        let (mut element, mut caller) = (0, 0);
        let mut is_gap = false;
        while element < self.pattern.len() {
            let ways = self.ways(element, caller);
            let best = ways.into_iter().min_by_key(|(cost, (e, c))| cost.saturating_add(table[*e][*c]));
            let Some((_, (next_element, next_caller))) = best else { break };
            if next_element > element && next_caller > caller {
                if is_gap {
                    shared.push(ELLIPSIS.to_owned());
                }
                shared.push(self.pattern[element].clone());
                is_gap = false;
            } else {
                is_gap = true;
            }
            (element, caller) = (next_element, next_caller);
        }
        CallPath(bounded(shared))
    }
}

/// The innermost elements that make a pattern.
fn bounded(mut elements: Vec<String>) -> Vec<String> {
    elements.truncate(MAX_CALL_PATH);
    while elements.last().is_some_and(|name| name == ELLIPSIS) {
        elements.pop();
    }
    elements
}

/// Gives what may stand for `fault` on the kernel with these `points`, best first: faults with
/// other call paths whose calls are the likeliest to be the same.
#[must_use]
pub fn aligned(fault: &Fault, points: &[Point<'_>], names: &Names<'_>) -> Vec<Fault> {
    let of_fault = points.iter().filter(|point| point.is_in(fault));
    let mut found: Vec<(Alignment, &Point<'_>)> =
        of_fault.filter_map(|point| Some((align(&fault.call_path, point, names)?, point))).collect();
    found.sort_by(|(a, one), (b, other)| {
        (a.cost, one.call_path, one.step, one.scope).cmp(&(b.cost, other.call_path, other.step, other.scope))
    });
    let Some(best) = found.first().map(|(alignment, _)| alignment.cost) else { return Vec::new() };
    let is_best = |point: &Point<'_>| {
        let is_it = |of: &Point<'_>| (of.step, of.scope, of.call_path) == (point.step, point.scope, point.call_path);
        let found = found.iter().find(|(_, of)| is_it(of));
        found.is_some_and(|(alignment, _)| alignment.cost == best)
    };
    let mut faults = Vec::new();
    let mut push = |call_path: &CallPath| {
        let other = Fault { call_path: call_path.clone(), ..fault.clone() };
        if other.call_path != fault.call_path && !faults.contains(&other) {
            faults.push(other);
        }
    };
    // A pattern that holds on both kernels comes first, unless it is too wide for this one.
    for (alignment, _) in found.iter().take_while(|(alignment, _)| alignment.cost == best) {
        let mut matching =
            points.iter().filter(|point| point.function == fault.function && alignment.shared.matches(point.call_path));
        if matching.all(|point| !point.is_in(fault) || is_best(point)) {
            push(&alignment.shared);
        }
    }
    for (_, point) in found.iter().take_while(|(alignment, _)| alignment.cost == best).take(MOST_TIES) {
        let callers = &point.call_path[..point.call_path.len().min(MAX_CALL_PATH)];
        push(&CallPath(callers.to_vec()));
    }
    faults.truncate(MOST_TIES + 1);
    faults
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{Errno, InjectedError};

    fn names(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    fn fault(path: &str) -> Fault {
        let error = InjectedError::Errno(Errno::ENOMEM);
        Fault { step: Some(2), ..Fault::new("f", CallPath(names(path)), 1, error) }
    }

    fn point(call_path: &[String]) -> Point<'_> {
        Point { function: "f", call_path, truncated: false, step: 2, scope: Scope::Workload, calls: 1 }
    }

    /// What may stand for a fault with this path where there are points with these.
    fn aligned_paths(path: &str, paths: &[&str]) -> Vec<String> {
        let fault = fault(path);
        let paths: Vec<_> = paths.iter().map(|path| names(path)).collect();
        let points: Vec<_> = paths.iter().map(|path| point(path)).collect();
        let names = Names::of(std::iter::once(&fault), &points);
        aligned(&fault, &points, &names).into_iter().map(|fault| fault.call_path.0.join(" ")).collect()
    }

    #[test]
    fn a_caller_that_is_inlined_on_one_side_is_passed_over() {
        let here = "kmalloc init_rescuer alloc_workqueue open_ctree mount";
        let there = "kmalloc init_rescuer __alloc_workqueue alloc_workqueue open_ctree mount";
        let shared = "kmalloc init_rescuer ... alloc_workqueue open_ctree mount";
        assert_eq!(aligned_paths(here, &[there, "kmalloc mount"]), [shared, there]);
        let (here, there) = ("kmalloc a inlined b mount", "kmalloc a b mount");
        assert_eq!(aligned_paths(here, &[there]), ["kmalloc a ... b mount", there]);
        assert!(aligned_paths(here, &[here]).is_empty(), "it is there as it is");
    }

    /// Both calls of `f` are near, but that of `open` alone lacks a name that its kernel has.
    #[test]
    fn a_name_that_is_only_elsewhere_tells_calls_apart() {
        let paths = ["kmalloc alloc_workqueue_more alloc_workqueue open mount", "kmalloc open mount"];
        let found = aligned_paths("kmalloc alloc_workqueue open mount", &paths);
        assert_eq!(found[..2], ["kmalloc ... alloc_workqueue open mount", paths[0]]);
    }

    #[test]
    fn a_pattern_that_is_too_wide_gives_way_to_the_point_itself() {
        let there = "kmalloc more alloc_workqueue open mount";
        let other = "kmalloc prepare apply more alloc_workqueue open mount";
        assert_eq!(aligned_paths("kmalloc alloc_workqueue open mount", &[there, other])[0], there);
    }

    #[test]
    fn points_that_are_as_near_are_told_one_after_the_other() {
        let paths = ["kmalloc one grow open mount", "kmalloc two grow open mount"];
        let found = aligned_paths("kmalloc grow open mount", &paths);
        assert_eq!(found, ["kmalloc ... grow open mount", paths[0], paths[1]]);
        let exact = "kmalloc grow open mount";
        assert!(aligned_paths(exact, &[exact, paths[0]]).is_empty(), "a point that is only near is none beside it");
    }

    #[test]
    fn another_call_is_none() {
        assert!(aligned_paths("kmalloc a open mount", &["kmalloc b open mount", "kmalloc a close"]).is_empty());
        assert!(aligned_paths("kmalloc gone", &["kmalloc a", "kmalloc b"]).is_empty(), "its last name is not there");
        let fault = fault("kmalloc a b mount");
        let path = names("kmalloc a mount");
        let fault = Fault { task: Some(Scope::Workload), ..fault };
        let elsewhere = Point { scope: Scope::Worker, ..point(&path) };
        for other in [Point { step: 1, ..point(&path) }, Point { function: "g", ..point(&path) }, elsewhere] {
            assert!(aligned(&fault, &[other], &Names::default()).is_empty(), "{other:?}");
        }
    }

    #[test]
    fn what_was_cut_off_costs_nothing() {
        let long: Vec<String> = (0..MAX_CALL_PATH).map(|number| format!("f{number}")).collect();
        let fault = Fault { call_path: CallPath(long.clone()), ..fault("a") };
        let mut there = long;
        there.insert(3, "more".to_owned());
        there.truncate(MAX_CALL_PATH);
        let points = [Point { truncated: true, ..point(&there) }];
        let names = Names::of(std::iter::once(&fault), &points);
        let found = align(&fault.call_path, &points[0], &names).unwrap();
        assert_eq!((found.cost, found.shared.0.len()), (FOREIGN, MAX_CALL_PATH));
        assert!(found.shared.matches(&there) && found.shared.defect().is_none());
    }

    proptest! {
        /// What both sides share is a pattern, and matches both.
        #[test]
        fn what_is_shared_matches_both(
            path in prop::collection::vec("[a-e]", 1..12), callers in prop::collection::vec("[a-e]", 1..12),
        ) {
            let pattern = CallPath(path.clone());
            let point = point(&callers);
            if let Some(found) = align(&pattern, &point, &Names::default()) {
                prop_assert_eq!(found.shared.defect(), None);
                prop_assert!(found.shared.matches(&callers), "{:?} {:?} {:?}", path, callers, found);
                prop_assert!(found.shared.matches(&path), "{:?} {:?} {:?}", path, callers, found);
                prop_assert_eq!(found.cost == 0, pattern.matches(&callers));
            }
        }
    }
}
