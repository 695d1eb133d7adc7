//! Shrinking: a plan that makes a crash, made as simple as one that still does.
//!
//! ```text
//!          next()                run            keep(true): it is the plan from now on
//!  plan ───────────▶ candidate ───────▶ holds? ────────────▶ plan ─▶ … none left: done
//!                                          └───────────────▶ next candidate
//!                                            keep(false)
//! ```
//!
//! Every candidate is simpler by [`size`], so the result is never worse than what it began with.
//! The order of candidates is fixed:
//!
//! 1. nothing fails;
//! 2. only what fired fails;
//! 3. fewer rounds: the last one alone, then halves, quarters, … and single rounds left out;
//! 4. fewer faults, likewise;
//! 5. the same calls, said in fewer words: no step, no task, the shortest call path;
//! 6. fewer calls in a row that fail (`times`);
//! 7. one condition less (`after`, `arg`, `task`, `step`);
//! 8. an earlier occurrence: 1, 2, 4, …;
//! 9. the shortest call path that selects the same points.
//!
//! Where every round is the same one, it is made simpler in all of them at once, and in none alone.
//!
//! After a candidate with fewer rounds or faults all begins anew. After one whose faults say less
//! it goes on from there: which faults there are matters more. No candidate comes twice.

use std::collections::{BTreeSet, HashSet};

use crate::{CallPath, ELLIPSIS, FOR_EVER, Fault, FaultPlan, MAX_CALL_PATH, Point, Round, faults_in};

/// Knowledge from executions, from which candidates are made.
#[derive(Clone, Copy, Debug, Default)]
pub struct Shown<'a> {
    /// The faults that fired when the plan last held, by index from 0 among those of all rounds,
    /// each with the point that it fired at. Empty where that is not known.
    pub fired: &'a [(usize, Point<'a>)],
    /// All points that the kernel is known to reach. The more of them, the surer is that a path
    /// selects one.
    pub points: &'a [Point<'a>],
}

/// What a way to make a plan simpler changes.
#[derive(Clone, Copy, Eq, PartialEq)]
enum Changes {
    /// Which rounds there are.
    Rounds,
    /// Which faults there are.
    Faults,
    /// What a fault says: times, conditions, occurrence, call path.
    Words,
}

/// A way to make a plan simpler: from what executions have shown, candidates.
type Way = fn(&FaultPlan, &Shown<'_>) -> Vec<FaultPlan>;

/// All ways, in their order.
const WAYS: [(Changes, Way); 9] = [
    (Changes::Faults, |plan, _| vec![FaultPlan::fault_free(&*plan.target)]),
    (Changes::Faults, fired_only),
    (Changes::Rounds, |plan, _| fewer_rounds(plan)),
    (Changes::Faults, |plan, _| fewer_faults(plan)),
    (Changes::Words, fewer_words),
    (Changes::Words, |plan, _| each_fault(plan, |_, fault| fewer_times(fault))),
    (Changes::Words, |plan, shown| each_fault(plan, |index, fault| fewer_conditions(fault, at(shown, index), shown))),
    (Changes::Words, |plan, shown| each_fault(plan, |index, fault| earlier(fault, at(shown, index), shown))),
    (Changes::Words, shorter),
];

/// The size of a plan, by which candidates are simpler, the most important number first: rounds,
/// faults, calls that fail, conditions, sum of the occurrences, elements of all call paths.
#[must_use]
pub fn size(plan: &FaultPlan) -> [u64; 6] {
    let sum = |of: fn(&Fault) -> u64| plan.all_faults().map(of).sum();
    let conditions = |fault: &Fault| {
        let options = [fault.step.is_some(), fault.task.is_some(), fault.after.is_some()];
        (fault.arguments.len() + options.into_iter().filter(|is_there| *is_there).count()) as u64
    };
    [
        plan.earlier.len() as u64 + 1,
        sum(|_| 1),
        sum(|fault| fault.times.into()),
        sum(conditions),
        sum(|fault| fault.occurrence.into()),
        sum(|fault| fault.call_path.0.len() as u64),
    ]
}

/// A source of simpler and simpler plans.
#[derive(Clone, Debug)]
pub struct Shrink {
    plan: FaultPlan,
    /// With the way that it was made in.
    candidate: Option<(usize, FaultPlan)>,
    /// The first way that may still make it simpler.
    way: usize,
    tried: HashSet<FaultPlan>,
}

impl Shrink {
    /// Makes a source for `plan`, which makes its crash.
    #[must_use]
    pub fn new(plan: &FaultPlan) -> Self {
        Self { plan: plan.clone(), candidate: None, way: 0, tried: HashSet::from([plan.clone()]) }
    }

    /// Gives the simplest plan so far that makes the crash.
    #[must_use]
    pub fn plan(&self) -> &FaultPlan {
        &self.plan
    }

    /// Gives the next candidate, from what executions have `shown` by now; nothing when none is
    /// left. One that nobody keeps counts as refused.
    pub fn next(&mut self, shown: &Shown<'_>) -> Option<&FaultPlan> {
        self.candidate = None;
        let before = size(&self.plan);
        let candidates = |way: usize| candidates(&self.plan, shown, way).into_iter().map(move |plan| (way, plan));
        let mut simpler = (self.way..WAYS.len()).flat_map(candidates).filter(|(_, candidate)| {
            size(candidate) < before && candidate.check().is_ok() && !self.tried.contains(candidate)
        });
        let (way, candidate) = simpler.next()?;
        self.tried.insert(candidate.clone());
        Some(&self.candidate.insert((way, candidate)).1)
    }

    /// Takes in whether the candidate `holds`: it makes the crash. One that says the same calls by
    /// another path counts only if that still selects the same points by what is `shown` now.
    /// Returns whether it is the plan now.
    pub fn keep(&mut self, holds: bool, shown: &Shown<'_>) -> bool {
        let Some((way, candidate)) = self.candidate.take().filter(|_| holds) else { return false };
        let is_wider = |(old, new): (&Fault, &Fault)| {
            let is_path = old.call_path != new.call_path && old.occurrence == new.occurrence;
            is_path && selected(old, shown.points) != selected(new, shown.points)
        };
        let is_anew = WAYS[way].0 != Changes::Words;
        if !is_anew && self.plan.all_faults().zip(candidate.all_faults()).any(is_wider) {
            return false;
        }
        self.way = if is_anew { 0 } else { way };
        self.plan = candidate;
        true
    }
}

/// The point at which the fault of this index fired.
fn at<'a>(shown: &Shown<'a>, index: usize) -> Option<Point<'a>> {
    shown.fired.iter().find(|(fault, _)| *fault == index).map(|(_, point)| *point)
}

/// Gives the candidates of the way of this index. A round that is repeated is simpler in each of
/// its runs: which of them makes the crash is chance.
fn candidates(plan: &FaultPlan, shown: &Shown<'_>, way: usize) -> Vec<FaultPlan> {
    let (changes, make) = WAYS[way];
    if changes == Changes::Rounds || !plan.is_repeated() {
        return make(plan, shown);
    }
    let before = faults_in(&plan.earlier);
    let fired: Vec<_> =
        shown.fired.iter().filter_map(|(index, point)| Some((index.checked_sub(before)?, *point))).collect();
    let round = FaultPlan { earlier: Vec::new(), ..plan.clone() };
    let all = |simpler: FaultPlan| {
        let earlier = plan.earlier.iter().map(|round| Round { faults: simpler.faults.clone(), ..*round });
        FaultPlan { earlier: earlier.collect(), ..simpler }
    };
    make(&round, &Shown { fired: &fired, ..*shown }).into_iter().map(all).collect()
}

fn fired_only(plan: &FaultPlan, shown: &Shown<'_>) -> Vec<FaultPlan> {
    let is_known = !shown.fired.is_empty();
    is_known.then(|| plan.keeping(|index| at(shown, index).is_some())).into_iter().collect()
}

/// Gives the parts to leave out of `count` things: halves, quarters, … single ones, from the first.
pub fn parts(count: usize) -> impl Iterator<Item = std::ops::Range<usize>> {
    let sizes = std::iter::successors(Some(count.div_ceil(2)), |size| (*size > 1).then(|| size.div_ceil(2)));
    let of_size = move |size: usize| (0..count).step_by(size.max(1)).map(move |from| from..count.min(from + size));
    sizes.flat_map(of_size)
}

fn fewer_rounds(plan: &FaultPlan) -> Vec<FaultPlan> {
    let last = Round { faults: plan.faults.clone(), reset: false };
    let rounds: Vec<Round> = plan.earlier.iter().cloned().chain([last]).collect();
    let without = |part: std::ops::Range<usize>| {
        let mut kept = rounds.clone();
        kept.drain(part);
        let last = kept.pop()?;
        Some(FaultPlan { earlier: kept, faults: last.faults, ..plan.clone() })
    };
    let alone = 0..rounds.len() - 1;
    [alone].into_iter().chain(parts(rounds.len())).filter_map(without).collect()
}

fn fewer_faults(plan: &FaultPlan) -> Vec<FaultPlan> {
    parts(plan.all_faults().count()).map(|part| plan.keeping(|index| !part.contains(&index))).collect()
}

/// Gives the plans in which one fault is another one, of those that `ways` gives for it.
fn each_fault(plan: &FaultPlan, ways: impl Fn(usize, &Fault) -> Vec<Fault>) -> Vec<FaultPlan> {
    let mut plans = Vec::new();
    for (index, fault) in plan.all_faults().enumerate() {
        plans.extend(ways(index, fault).into_iter().map(|other| with(plan, index, other)));
    }
    plans
}

fn with(plan: &FaultPlan, index: usize, fault: Fault) -> FaultPlan {
    let mut plan = plan.clone();
    if let Some(place) = plan.all_faults_mut().nth(index) {
        *place = fault;
    }
    plan
}

/// Gives 1, 2, 4, … below `number`.
fn lower(number: u32) -> impl Iterator<Item = u32> {
    (0..u32::BITS).map(|power| 1 << power).take_while(move |lower| *lower < number)
}

fn fewer_times(fault: &Fault) -> Vec<Fault> {
    // After some hundred calls in a row it is as well for ever.
    let most = if fault.times == FOR_EVER { 256 } else { fault.times };
    lower(most).map(|times| Fault { times, ..fault.clone() }).collect()
}

/// Gives `fault` without one of its conditions. Step and task go only if none but the calls of the
/// same points match then, where those are known.
fn fewer_conditions(fault: &Fault, point: Option<Point<'_>>, shown: &Shown<'_>) -> Vec<Fault> {
    let mut faults = vec![Fault { after: None, ..fault.clone() }];
    for index in 0..fault.arguments.len() {
        let mut other = fault.clone();
        other.arguments.remove(index);
        faults.push(other);
    }
    let wider = [Fault { task: None, ..fault.clone() }, Fault { step: None, ..fault.clone() }];
    let is_same = |other: &Fault| selected(other, shown.points) == selected(fault, shown.points);
    faults.extend(wider.into_iter().filter(|other| point.is_none() || is_same(other)));
    faults
}

/// Gives `fault` at an earlier occurrence. Where several points match, the point that it fired at
/// has earlier ones of its own.
fn earlier(fault: &Fault, point: Option<Point<'_>>, shown: &Shown<'_>) -> Vec<Fault> {
    let narrow = point.map(|point| Fault { call_path: whole(&point), ..fault.clone() });
    let narrow = narrow.filter(|narrow| selected(narrow, shown.points).len() < selected(fault, shown.points).len());
    let of = |fault: &Fault| {
        lower(fault.occurrence).map(|occurrence| Fault { occurrence, ..fault.clone() }).collect::<Vec<_>>()
    };
    narrow.iter().flat_map(of).chain(of(fault)).collect()
}

fn whole(point: &Point<'_>) -> CallPath {
    CallPath(point.call_path.iter().take(MAX_CALL_PATH).cloned().collect())
}

/// Gives the plan whose faults match the same calls with as few conditions and names as possible.
fn fewer_words(plan: &FaultPlan, shown: &Shown<'_>) -> Vec<FaultPlan> {
    let mut plan = plan.clone();
    for (index, fault) in (0..).zip(plan.all_faults_mut()) {
        let Some(point) = at(shown, index) else { continue };
        let without: [fn(&mut Fault); 2] = [|fault| fault.task = None, |fault| fault.step = None];
        for without in without {
            let mut other = fault.clone();
            without(&mut other);
            if selected(&other, shown.points) == selected(fault, shown.points) {
                *fault = other;
            }
        }
        fault.call_path = shortest(fault, &point, shown.points).unwrap_or_else(|| fault.call_path.clone());
    }
    vec![plan]
}

/// Gives the plan with the shortest path for each fault, and those with one such path.
fn shorter(plan: &FaultPlan, shown: &Shown<'_>) -> Vec<FaultPlan> {
    let mut all = plan.clone();
    let mut single = Vec::new();
    for (index, fault) in plan.all_faults().enumerate() {
        let Some(call_path) = at(shown, index).and_then(|point| shortest(fault, &point, shown.points)) else {
            continue;
        };
        let other = Fault { call_path, ..fault.clone() };
        all = with(&all, index, other.clone());
        single.push(with(plan, index, other));
    }
    [all].into_iter().chain(single).collect()
}

/// Gives the shortest pattern of the callers of `point` that selects what the path of `fault` does.
/// Of equally short ones the first is taken: a path cut at its outer end, then those with the most
/// callers before a gap, and of these the one with the innermost caller behind it.
fn shortest(fault: &Fault, point: &Point<'_>, points: &[Point<'_>]) -> Option<CallPath> {
    let of_fault: Vec<Point<'_>> = points.iter().copied().filter(|other| other.is_in(fault)).collect();
    let paths: BTreeSet<&[String]> = of_fault.iter().map(|other| other.call_path).chain([point.call_path]).collect();
    let matches = |pattern: &CallPath| paths.iter().map(|path| pattern.matches(path)).collect::<Vec<_>>();
    let wanted = matches(&fault.call_path);
    let callers = &point.call_path[..point.call_path.len().min(MAX_CALL_PATH)];
    (0..fault.call_path.0.len())
        .flat_map(|length| patterns(callers, length))
        .find(|pattern| pattern.defect().is_none() && matches(pattern) == wanted)
}

/// Gives the patterns of so many elements that `callers` match: without a gap, and with one.
fn patterns(callers: &[String], length: usize) -> impl Iterator<Item = CallPath> + '_ {
    let cut = callers.get(..length).map(<[String]>::to_vec);
    let gaps = (0..length.saturating_sub(1)).rev().flat_map(move |head| {
        let tail = length - 1 - head;
        let starts = head + 1..(callers.len() + 1).saturating_sub(tail);
        starts.map(move |start| {
            let gap = [ELLIPSIS.to_owned()];
            callers[..head].iter().cloned().chain(gap).chain(callers[start..start + tail].iter().cloned()).collect()
        })
    });
    cut.into_iter().chain(gaps).map(CallPath)
}

/// The points, by index, whose calls `fault` may match.
fn selected(fault: &Fault, points: &[Point<'_>]) -> Vec<usize> {
    let is_selected = |point: &Point<'_>| point.is_in(fault) && fault.call_path.matches(point.call_path);
    (0..).zip(points).filter(|(_, point)| is_selected(point)).map(|(index, _)| index).collect()
}

#[cfg(test)]
mod tests;
