//! Faults as a script tells them: calls that a task makes inside of functions.
//!
//! A script knows which functions a task has entered and not left. It does not know which of them
//! called which, so that it takes more calls for those of a call path than the agent does. The
//! number of the call is counted by its measure.

use fault_plan::{ArgumentCondition, Condition, FOR_EVER, Operand, Operator, Scope, base_name};
use kernel_report::telling_caller;

use super::{
    Trouble,
    hits::Hit,
    trace::{Call, NOFAIL},
    unsaid,
};

/// Functions on a call path that a task enters before a step begins, or that no probe may be in.
const OUTER: &[&str] = &[
    "x64_sys_call",
    "do_syscall_64",
    "entry_SYSCALL_64_after_hwframe",
    "process_one_work",
    "process_scheduled_works",
    "worker_thread",
    "kthread",
    "ret_from_fork",
    "ret_from_fork_asm",
];

/// A fault in a script.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Probe {
    /// The function that fails.
    pub(super) function: String,
    /// The value that it returns.
    pub(super) returns: i64,
    /// Round and first step, from 1.
    pub(super) place: (u32, u32),
    /// Last step.
    pub(super) until: u32,
    /// Scope of the task.
    pub(super) scope: Scope,
    /// Functions that the task is inside of, innermost first.
    pub(super) inside: Vec<String>,
    /// Functions that it is not inside of when it fails.
    pub(super) outside: Vec<String>,
    /// Conditions on calls that count, as expressions.
    pub(super) counted: Vec<String>,
    /// Further conditions on calls that fail.
    pub(super) failed: Vec<String>,
    /// Which of the calls fails first, from 1.
    pub(super) number: u32,
    /// As many calls fail; [`FOR_EVER`] for all.
    pub(super) times: u32,
    /// Calls count once this other one of the probes has made one fail, by index.
    pub(super) after: Option<usize>,
}

/// A fault that a script is to make, and what is known of it.
pub(super) struct Wanted<'a> {
    /// The fault that fired.
    pub(super) hit: &'a Hit,
    /// The fault that it comes after, and its index among the probes.
    pub(super) after: Option<(usize, &'a Hit)>,
    /// Calls that never fail.
    pub(super) never: &'a [Condition],
    /// Number of the workload's steps.
    pub(super) steps: u32,
}

impl Wanted<'_> {
    /// Counts its calls among `calls`. `symbol` gives the symbol of a function that the kernel has
    /// once.
    pub(super) fn probe<'s>(&self, calls: &[Call], symbol: &dyn Fn(&str) -> Option<&'s str>) -> Result<Probe, Trouble> {
        let Hit { fault, fired, place, .. } = self.hit;
        let Some(target) = self.hit.target(calls) else {
            return unsaid(format!("fault {} is not reached without the agent", fired.fault + 1));
        };
        let several = fault.times > 1;
        let until = if several && fault.step.is_none() { self.steps.max(place.1) } else { place.1 };
        let first = self.after.and_then(|(_, after)| after.target(calls)).map_or(0, |index| index + 1);
        let counts = |call: &Call| {
            call.counts
                && call.function == fault.function
                && call.scope == fired.scope
                && call.place.0 == place.0
                && (place.1..=until).contains(&call.place.1)
        };
        let matching = |inside: &[String]| -> Vec<usize> {
            let matches = |call: &Call| counts(call) && is_inside(&call.callers, inside);
            (first..calls.len()).filter(|index| matches(&calls[*index])).collect()
        };
        let callers = &calls[target].callers;
        let probed = |name: &str| symbol(name).is_some();
        let path = inside(&fault.call_path.0, callers, fired.scope, &probed);
        let inside = fewest(path, telling_caller(callers), &matching);
        // The recorded calls have not all their arguments.
        let number = match matching(&inside).iter().position(|index| *index == target) {
            Some(before) if fault.arguments.is_empty() => before + 1,
            _ => fault.occurrence as usize,
        };
        let counted = nofail(&fault.function).into_iter().map(Ok);
        let counted = counted.chain(fault.arguments.iter().map(expression)).collect::<Result<_, _>>()?;
        // The agent has seen that one call may fail, and not of those after it.
        let (failed, outside) = if several { spared(self.never, &probed)? } else { Default::default() };
        let symbol = |name: String| symbol(&name).map_or_else(|| name.clone(), str::to_owned);
        Ok(Probe {
            function: fault.function.clone(),
            returns: fault.error.return_value(),
            place: *place,
            until,
            scope: fired.scope,
            inside: inside.into_iter().map(symbol).collect(),
            outside: outside.into_iter().map(symbol).collect(),
            counted,
            failed,
            number: u32::try_from(number).unwrap_or(FOR_EVER),
            times: fault.times,
            after: self.after.map(|(index, _)| index),
        })
    }
}

/// Gives for calls that never fail the expressions that hold for all others, and the functions that
/// those are not inside of. Of optional ones, which serve checkers, some can have no probe.
fn spared(never: &[Condition], probed: &dyn Fn(&str) -> bool) -> Result<(Vec<String>, Vec<String>), Trouble> {
    let (mut failed, mut outside) = (Vec::new(), Vec::new());
    for condition in never {
        match condition {
            Condition::Argument(condition) => failed.push(format!("!({})", expression(condition)?)),
            Condition::Caller(callers) if callers.optional => {}
            Condition::Caller(callers) => outside.extend(callers.names.iter().filter(|name| probed(name)).cloned()),
        }
    }
    Ok((failed, outside))
}

/// Says whether the functions `inside` are among `callers`, in their order, both innermost first.
fn is_inside(callers: &[String], inside: &[String]) -> bool {
    let mut callers = callers.iter();
    inside.iter().all(|name| callers.any(|caller| caller == name))
}

/// Gives the functions of a pattern that are among the call's callers and can be `probed`.
fn inside(pattern: &[String], callers: &[String], scope: Scope, probed: &dyn Fn(&str) -> bool) -> Vec<String> {
    let end = callers.iter().position(|caller| OUTER.contains(&caller.as_str())).unwrap_or(callers.len());
    // A thread entered its own function long ago.
    let end = if scope == Scope::Thread { end.saturating_sub(1) } else { end };
    let mut callers = callers[..end].iter();
    let names = pattern.iter().map(|name| base_name(name)).filter(|name| probed(name));
    names
        .filter(|name| callers.clone().any(|caller| caller == name) && callers.any(|caller| caller == name))
        .map(str::to_owned)
        .collect()
}

/// Leaves out functions without which the same calls match: outer ones first, `telling` last, and
/// never all of them.
fn fewest(mut inside: Vec<String>, telling: Option<&str>, matching: &dyn Fn(&[String]) -> Vec<usize>) -> Vec<String> {
    let wanted = matching(&inside);
    let is_telling = |name: &String| Some(name.as_str()) == telling;
    for tells in [false, true] {
        for index in (0..inside.len()).rev() {
            let mut fewer = inside.clone();
            let name = fewer.remove(index);
            if is_telling(&name) == tells && !fewer.is_empty() && matching(&fewer) == wanted {
                inside = fewer;
            }
        }
    }
    inside
}

/// Gives the condition under which a hook's function may fail a call: see [`Call::counts`].
fn nofail(function: &str) -> Option<String> {
    let argument = match function {
        "should_failslab" => "arg1",
        "should_fail_alloc_page" => "arg0",
        _ => return None,
    };
    Some(format!("({argument} & {NOFAIL:#x}) == 0"))
}

/// Gives a condition on an argument as an expression of bpftrace's.
fn expression(condition: &ArgumentCondition) -> Result<String, Trouble> {
    let ArgumentCondition { argument, field, mask, operator, value } = condition;
    let argument = format!("arg{}", argument.saturating_sub(1));
    let mut left = match field.as_deref().and_then(|field| field.split_once('.')) {
        Some((structure, member)) => format!("((struct {structure} *){argument})->{member}"),
        None => argument,
    };
    if *mask != Operand::Number(u64::MAX) {
        left = format!("({left} & {})", operand(mask)?);
    }
    if !matches!(operator, Operator::Equal | Operator::NotEqual) {
        left = format!("(uint64){left}");
    }
    Ok(format!("{left} {operator} {}", operand(value)?))
}

fn operand(operand: &Operand) -> Result<String, Trouble> {
    match operand {
        Operand::Number(number) | Operand::Constant { or: Some(number), .. } => Ok(format!("{number:#x}")),
        Operand::Bit { or: Some(bit), .. } => Ok(format!("{:#x}", 1u64.checked_shl(*bit).unwrap_or_default())),
        Operand::Constant { constant: name, or: None } | Operand::Bit { bit: name, or: None } => {
            unsaid(format!("the number of the kernel's constant {name} is not known"))
        }
        Operand::Symbol { symbol } => Ok(format!("*(uint64 *)kaddr(\"{symbol}\")")),
    }
}

#[cfg(test)]
mod tests {
    use execution::Fired;
    use fault_plan::{CallPath, Errno, Fault, InjectedError};

    use super::*;
    use crate::reproducers::arming::Hook;

    fn call(step: u32, callers: &str) -> Call {
        let callers = callers.split(' ').map(str::to_owned).collect();
        let (function, scope) = ("should_failslab".to_owned(), Scope::Workload);
        Call { function, place: (1, step), scope, callers, counts: true }
    }

    fn hit(step: u32, pattern: &str, occurrence: u32, callers: &str) -> Hit {
        let names = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        let (function, error) = ("should_failslab".to_owned(), InjectedError::Errno(Errno::ENOMEM));
        let fired = Fired { sequence: 1, step, times: 1, call_path: names(callers), ..Fired::default() };
        let fault = Fault::new(&function, CallPath(names(pattern)), occurrence, error);
        Hit { fault, fired, hook: Hook::Function(function, -12), place: (1, step) }
    }

    fn probe(hit: &Hit, after: Option<&Hit>, calls: &[Call]) -> Probe {
        let never = [
            r#"{ "argument": 1, "value": { "symbol": "kmem_cache" } }"#,
            r#"{ "caller": "brd" }"#,
            r#"{ "caller": "depot", "optional": true }"#,
        ];
        let never = never.map(|text| serde_json::from_str(text).unwrap());
        let wanted = Wanted { hit, after: after.map(|hit| (0, hit)), never: &never, steps: 9 };
        let symbol = |name: &str| Some(String::leak(name.replace("open", "open.isra.0")) as &str);
        wanted.probe(calls, &symbol).unwrap_or_else(|_| panic!("{calls:?}"))
    }

    const MOUNT: &str = "kmalloc grow open mount do_syscall_64";

    #[test]
    fn a_call_is_told_by_the_functions_that_tell_it() {
        let calls = [call(1, MOUNT), call(2, "kmalloc read open mount do_syscall_64"), call(2, MOUNT), call(2, MOUNT)];
        let found = probe(&hit(2, "kmalloc grow open mount do_syscall_64", 3, MOUNT), None, &calls);
        assert_eq!((found.inside, found.number), (vec!["grow".to_owned()], 2));
        assert_eq!((found.place, found.until), ((1, 2), 2), "calls of step 1 do not count");
        let found = probe(&hit(2, "... open", 3, MOUNT), None, &calls);
        assert_eq!((found.inside, found.number), (vec!["open.isra.0".to_owned()], 2), "{MOUNT}");
    }

    /// A script sees no distance between callers, so that it counts calls that the plan does not.
    #[test]
    fn calls_are_counted_by_the_scripts_measure() {
        let calls = [call(1, "a x b c"), call(1, "a b c")];
        let found = probe(&hit(1, "a b", 1, "a b c"), None, &calls);
        assert_eq!(found.number, 2);
        assert!(is_inside(&calls[0].callers, &found.inside), "{:?}", found.inside);
    }

    #[test]
    fn calls_before_another_fault_do_not_count() {
        let calls = [call(1, "a x m"), call(1, "b m"), call(1, "a x m")];
        let second = hit(1, "a", 2, "a x m");
        assert_eq!(probe(&second, None, &calls).number, 2);
        let first = hit(1, "b", 1, "b m");
        let found = probe(&second, Some(&first), &calls);
        assert_eq!((found.number, found.after), (1, Some(0)));
    }

    #[test]
    fn a_fault_that_fires_again_goes_on_in_later_steps_and_spares_what_never_fails() {
        let mut hit = hit(2, "a", 1, "a m");
        assert!(probe(&hit, None, &[call(2, "a m")]).outside.is_empty());
        hit.fault.times = 3;
        let found = probe(&hit, None, &[call(2, "a m")]);
        assert_eq!((found.until, found.outside, found.times), (9, vec!["brd".to_owned()], 3));
        assert_eq!(found.counted, ["(arg1 & 0x8000) == 0"]);
        assert_eq!(found.failed, [r#"!(arg0 == *(uint64 *)kaddr("kmem_cache"))"#]);
    }

    #[test]
    fn conditions_are_expressions() {
        let said = |text: &str| {
            let Condition::Argument(condition) = serde_json::from_str(text).unwrap() else { panic!("{text}") };
            expression(&condition).ok()
        };
        let sector =
            said(r#"{ "argument": 2, "field": "bio.bi_iter.bi_sector", "mask": 15, "operator": "<", "value": 8 }"#);
        assert_eq!(sector.as_deref(), Some("(uint64)(((struct bio *)arg1)->bi_iter.bi_sector & 0xf) < 0x8"));
        assert_eq!(said(r#"{ "argument": 1, "value": { "constant": "UNKNOWN" } }"#), None);
    }
}
