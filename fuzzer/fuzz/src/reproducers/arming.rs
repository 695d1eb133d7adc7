//! Faults, told to the kernel's own hooks.
//!
//! A hook has a filter and two ways to count the calls that pass it (`should_fail_ex()` in
//! `lib/fault-inject.c`, 6.12):
//!
//! ```text
//! call ─ fail-nth of the task set? ─┬─ yes ─ a caller in the range? ─ yes ─ the task's last count? ─ yes ─▶ fails
//!                                   └─ no ── times left, a caller in the range, every interval-th? ─ yes ─▶ fails
//! ```
//!
//! The filter comes before the counting. So a fault is the number of its call among those of the
//! step that have one function among their callers, and that function is chosen: the one with the
//! smallest number. A step's first fault of the program's own task is `fail-nth`. Every other one
//! is an interval, of which a hook has one in a step.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
};

use fault_plan::Scope;
use kernel_report::telling_caller;

use super::trace::Call;

/// The most choices of functions that are tried for a step.
const MOST_CHOICES: usize = 4096;

/// A folder of debugfs with the attributes of a fault.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Hook {
    /// `failslab`.
    Slab,
    /// `fail_page_alloc`.
    Page,
    /// `fail_make_request`.
    Bio,
    /// `fail_function`, with the function and the value that it returns.
    Function(String, i64),
}

impl Hook {
    /// Gives the folder's name.
    pub(super) fn attribute(&self) -> &'static str {
        match self {
            Self::Slab => "failslab",
            Self::Page => "fail_page_alloc",
            Self::Bio => "fail_make_request",
            Self::Function(..) => "fail_function",
        }
    }

    /// Gives the callers that it looks at, of which the innermost is 0. It reads 32 frames
    /// (`MAX_STACK_TRACE_DEPTH`), of which some are its own.
    fn seen(&self) -> Range<usize> {
        match self {
            Self::Slab | Self::Page => 0..30,
            Self::Bio => 0..28,
            // The probe has frames, too. At a function's entry its caller has no frame yet: a
            // kernel that unwinds by frame pointers does not see it.
            Self::Function(..) => 1..22,
        }
    }

    /// Gives those of a call's callers.
    fn seen_of<'a>(&self, callers: &'a [String]) -> &'a [String] {
        let Range { start, end } = self.seen();
        callers.get(start..end.min(callers.len())).unwrap_or_default()
    }

    /// Gives the function that it makes fail.
    pub(super) fn function(&self) -> &str {
        match self {
            Self::Slab => "should_failslab",
            Self::Page => "should_fail_alloc_page",
            Self::Bio => "should_fail_bio",
            Self::Function(name, _) => name,
        }
    }

    /// Says whether it is asked about the call.
    fn has(&self, call: &Call) -> bool {
        call.function == self.function()
    }

    /// Says whether it counts the call when it counts those below the function `below`.
    fn counts(&self, call: &Call, below: &str) -> bool {
        self.has(call) && call.counts && self.seen_of(&call.callers).iter().any(|caller| caller == below)
    }
}

/// The setting of a hook during a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Arming {
    /// Round and step, from 1.
    pub(super) place: (u32, u32),
    /// The hook.
    pub(super) hook: Hook,
    /// The function that a call has among its callers.
    pub(super) below: String,
    /// Which of the task's own calls fails first, from 1; 0 for none.
    pub(super) nth: u32,
    /// Each such call of any task fails; 0 for none.
    pub(super) interval: u32,
    /// Number of calls that fail.
    pub(super) times: u32,
}

/// A call that is to fail.
#[derive(Clone, Debug)]
pub(super) struct Wanted {
    /// The hook.
    pub(super) hook: Hook,
    /// Index among the calls.
    pub(super) call: usize,
}

/// Calls that a hook has counted since the kernel's start, by folder: no file sets that back.
pub(super) type Counts = BTreeMap<&'static str, u32>;

/// Plays a step: gives the indices of the calls that fail under `armings`.
pub(super) fn play(calls: &[&Call], armings: &[Arming], counts: &mut Counts) -> Vec<usize> {
    let mut nth: u32 = armings.iter().map(|arming| arming.nth).sum();
    let mut times: Vec<u32> = armings.iter().map(|arming| arming.times).collect();
    let mut failed = Vec::new();
    for (index, call) in calls.iter().enumerate() {
        let Some(at) = armings.iter().position(|arming| arming.hook.has(call)) else { continue };
        let arming = &armings[at];
        if !arming.hook.counts(call, &arming.below) {
            continue;
        }
        if call.scope == Scope::Workload && nth > 0 {
            nth -= 1;
            if nth > 0 {
                continue;
            }
        } else if arming.interval == 0 || times[at] == 0 {
            continue;
        } else if arming.interval > 1 {
            let count = counts.entry(arming.hook.attribute()).or_default();
            *count += 1;
            if !count.is_multiple_of(arming.interval) {
                continue;
            }
        }
        times[at] = times[at].saturating_sub(1);
        failed.push(index);
    }
    failed
}

/// Finds the settings by which exactly the calls `wanted` of a step fail, in their order. `names`
/// are functions of which the kernel has one only. Nothing when there are no such settings.
pub(super) fn arm(
    place: (u32, u32),
    calls: &[&Call],
    wanted: &[Wanted],
    names: &dyn Fn(&str) -> bool,
    counts: &Counts,
) -> Option<Vec<Arming>> {
    let hooks: Vec<Hook> =
        wanted.iter().map(|wanted| wanted.hook.clone()).collect::<BTreeSet<_>>().into_iter().collect();
    let attributes: BTreeSet<_> = hooks.iter().map(Hook::attribute).collect();
    if attributes.len() < hooks.len() {
        return None;
    }
    let choices: Vec<Vec<(String, usize)>> = hooks.iter().map(|hook| candidates(hook, calls, wanted, names)).collect();
    let mut best: Option<(u64, Vec<Arming>)> = None;
    for number in 0..choices.iter().map(Vec::len).product::<usize>().min(MOST_CHOICES) {
        let (mut rest, mut cost) = (number, 0);
        let mut below = Vec::new();
        for choice in &choices {
            let (function, distance) = &choice[rest % choice.len()];
            rest /= choice.len();
            below.push(function.as_str());
            cost += *distance as u64;
        }
        let Some(armings) = settings(place, calls, wanted, (&hooks, &below), counts) else { continue };
        // What counts few calls holds on more kernels than what counts many.
        let counted: u64 = armings.iter().map(|arming| u64::from(arming.nth) + u64::from(arming.interval)).sum();
        let cost = counted * 64 + cost;
        if best.as_ref().is_none_or(|(least, _)| cost < *least) {
            best = Some((cost, armings));
        }
    }
    best.map(|(_, armings)| armings)
}

/// The functions that all wanted calls of a hook have among their callers, each with its distance
/// from the one that says most.
fn candidates(hook: &Hook, calls: &[&Call], wanted: &[Wanted], names: &dyn Fn(&str) -> bool) -> Vec<(String, usize)> {
    let mut own = wanted.iter().filter(|wanted| wanted.hook == *hook).map(|wanted| calls[wanted.call]);
    let Some(first) = own.next() else { return Vec::new() };
    let others: Vec<&Call> = own.collect();
    let telling = telling_caller(&first.callers);
    let middle = first.callers.iter().position(|caller| Some(caller.as_str()) == telling).unwrap_or(0);
    let callers = (hook.seen().start..).zip(hook.seen_of(&first.callers));
    callers
        .filter(|(_, caller)| names(caller) && others.iter().all(|other| hook.counts(other, caller)))
        .map(|(index, caller)| (caller.clone(), index.abs_diff(middle)))
        .collect()
}

/// Counts what the settings have to say, and makes sure that they say it.
fn settings(
    place: (u32, u32),
    calls: &[&Call],
    wanted: &[Wanted],
    (hooks, below): (&[Hook], &[&str]),
    counts: &Counts,
) -> Option<Vec<Arming>> {
    let mut armings: Vec<Arming> = hooks
        .iter()
        .zip(below)
        .map(|(hook, below)| Arming {
            place,
            hook: hook.clone(),
            below: (*below).to_owned(),
            nth: 0,
            interval: 0,
            times: u32::try_from(wanted.iter().filter(|wanted| wanted.hook == *hook).count()).unwrap_or(u32::MAX),
        })
        .collect();
    let index = |hook: &Hook| hooks.iter().position(|other| other == hook);
    let first = wanted.iter().find(|wanted| calls[wanted.call].scope == Scope::Workload);
    if let Some(first) = first {
        let passes = |call: &&&Call| armings.iter().any(|arming| arming.hook.counts(call, &arming.below));
        let before = calls[..=first.call].iter().filter(|call| call.scope == Scope::Workload).filter(passes).count();
        armings[index(&first.hook)?].nth = u32::try_from(before).ok()?;
    }
    for (at, hook) in hooks.iter().enumerate() {
        let Some(next) =
            wanted.iter().find(|wanted| wanted.hook == *hook && first.is_none_or(|first| first.call != wanted.call))
        else {
            continue;
        };
        let live = |index: usize| first.is_none_or(|first| index > first.call) || calls[index].scope != Scope::Workload;
        let arming = &mut armings[at];
        let before = (0..=next.call).filter(|index| live(*index) && hook.counts(calls[*index], &arming.below)).count();
        let before = u32::try_from(before).ok()?;
        let counted = counts.get(hook.attribute()).copied().unwrap_or_default();
        // Each one is no matter of the count.
        arming.interval = if before == 1 { 1 } else { counted + before };
    }
    let failed = play(calls, &armings, &mut counts.clone());
    failed.iter().eq(wanted.iter().map(|wanted| &wanted.call)).then_some(armings)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(function: &str, scope: Scope, callers: &str) -> Call {
        let callers = callers.split(' ').map(str::to_owned).collect();
        Call { function: function.to_owned(), place: (1, 1), scope, callers, counts: true }
    }

    fn slab(callers: &str) -> Call {
        call("should_failslab", Scope::Workload, callers)
    }

    fn armed(calls: &[Call], wanted: &[(Hook, usize)]) -> Option<Vec<(String, u32, u32, u32)>> {
        let calls: Vec<&Call> = calls.iter().collect();
        let wanted: Vec<_> = wanted.iter().map(|(hook, call)| Wanted { hook: hook.clone(), call: *call }).collect();
        let armings = arm((1, 1), &calls, &wanted, &|_| true, &Counts::new())?;
        Some(armings.into_iter().map(|arming| (arming.below, arming.nth, arming.interval, arming.times)).collect())
    }

    #[test]
    fn the_function_with_the_fewest_calls_before_is_chosen() {
        let calls =
            [slab("kmalloc a mount"), slab("kmalloc b mount"), slab("kmalloc a mount"), slab("kmalloc b mount")];
        assert_eq!(armed(&calls, &[(Hook::Slab, 1)]).unwrap(), [("b".to_owned(), 1, 0, 1)]);
        assert_eq!(armed(&calls, &[(Hook::Slab, 3)]).unwrap(), [("b".to_owned(), 2, 0, 1)]);
    }

    #[test]
    fn the_second_fault_of_a_step_is_an_interval_after_the_first() {
        let calls = [slab("a x m"), slab("b x m"), slab("a x m"), slab("c x m"), slab("c x m")];
        // Both are calls below one function, as the hook has one filter.
        let armings = armed(&calls, &[(Hook::Slab, 1), (Hook::Slab, 4)]).unwrap();
        assert_eq!((armings[0].1, armings[0].2, armings[0].3), (2, 3, 2));
        // Another hook has a filter of its own.
        let page = call("should_fail_alloc_page", Scope::Workload, "p x m");
        let calls = [slab("a x m"), page.clone(), slab("b x m"), page];
        let armings = armed(&calls, &[(Hook::Slab, 2), (Hook::Page, 3)]).unwrap();
        assert_eq!(armings, [("b".to_owned(), 2, 0, 1), ("p".to_owned(), 0, 1, 1)]);
    }

    #[test]
    fn the_probe_of_a_function_does_not_see_its_caller() {
        let hook = Hook::Function("f".to_owned(), -28);
        let calls = [call("f", Scope::Workload, "b x m"), call("f", Scope::Workload, "a y m")];
        assert_eq!(armed(&calls, &[(hook.clone(), 1)]).unwrap(), [("y".to_owned(), 1, 0, 1)]);
        assert_eq!(armed(&[call("f", Scope::Workload, "a")], &[(hook, 0)]), None, "there is nobody else");
    }

    #[test]
    fn other_tasks_have_no_fail_nth() {
        let calls = [slab("a m"), call("should_failslab", Scope::Worker, "a w"), slab("a m")];
        assert_eq!(armed(&calls, &[(Hook::Slab, 1)]).unwrap(), [("w".to_owned(), 0, 1, 1)]);
    }

    #[test]
    fn three_faults_of_a_hook_in_a_step_cannot_be_said_unless_they_follow_each_other() {
        let calls = [slab("a m"), slab("b m"), slab("a m"), slab("b m"), slab("a m")];
        let three = |at: [usize; 3]| armed(&calls, &at.map(|call| (Hook::Slab, call)));
        assert_eq!(three([0, 1, 4]), None);
        assert_eq!(three([0, 1, 2]).unwrap(), [("m".to_owned(), 1, 1, 3)]);
    }

    #[test]
    fn what_was_counted_before_stays_counted() {
        let calls = [slab("a"), slab("a"), slab("a")];
        let calls: Vec<&Call> = calls.iter().collect();
        let wanted = [0, 2].map(|call| Wanted { hook: Hook::Slab, call });
        let mut counts = Counts::from([("failslab", 5)]);
        let armings = arm((1, 1), &calls, &wanted, &|_| true, &counts).unwrap();
        assert_eq!((armings[0].nth, armings[0].interval), (1, 7));
        assert_eq!(play(&calls, &armings, &mut counts), [0, 2]);
        assert_eq!(counts["failslab"], 7);
    }
}
