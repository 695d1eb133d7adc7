//! Lowers a plan's faults to what the BPF program compares: names to numbers, errors to return
//! values.

use abi::{Condition, MAX_FRAMES, MAX_RULE_CONDITIONS, MAX_SHOWN, MOST_FIRES, Part, Rule};
use fault_plan::{ELLIPSIS, Fault, Scope};

use super::{guards, types::Types};
use crate::symbols::Symbols;

const _: () = assert!(MAX_FRAMES == fault_plan::MAX_CALL_PATH);
const _: () = assert!(abi::MAX_RULES == fault_plan::MAX_FAULTS);
const _: () = assert!(MAX_RULE_CONDITIONS == fault_plan::MAX_FAULT_CONDITIONS);
const _: () = assert!(Scope::Workload.number() == abi::WORKLOAD && Scope::Child.number() == abi::CHILD);
const _: () = assert!(Scope::Worker.number() == abi::WORKER && Scope::Thread.number() == abi::THREAD);

/// A fault as the BPF program compares it.
#[derive(Debug)]
pub(super) struct Lowered {
    pub(super) rule: Rule,
    /// Names of the call path that this kernel has no function of. Another kernel had: here they
    /// are inlined, and the path is matched without them.
    pub(super) unknown: Vec<String>,
}

/// Abilities of the kernel and the target that decide which faults can be lowered.
pub(super) struct Lowering<'a> {
    pub(super) symbols: &'a Symbols,
    pub(super) types: &'a mut Types,
    /// Steps of the workload.
    pub(super) steps: u32,
    /// A bit for each scope whose calls are looked at, `1 << scope`.
    pub(super) scopes: u32,
}

/// Lowers `fault`, which was checked.
///
/// # Errors
///
/// The target has no such step or scope, or this kernel no such function, or nothing that a
/// condition speaks of; or it lacks the last name of the call path, without which the fault would
/// match other calls as well.
pub(super) fn lower(fault: &Fault, with: &mut Lowering<'_>) -> Result<Lowered, String> {
    let (path, unknown) = lower_path(fault, with.symbols)?;
    let steps = with.steps;
    let step = fault.step.unwrap_or(0);
    if step > steps {
        return Err(format!("step {step}: the workload has {steps} steps"));
    }
    let scopes = fault.task.map_or(u32::MAX, |task| 1 << task.number());
    if scopes & with.scopes == 0 {
        let task = fault.task.unwrap_or_default();
        return Err(format!(
            "task \"{task}\": the target's `scope` lacks it, or the kernel (CONFIG_DEBUG_INFO_BTF) tells no tasks apart"
        ));
    }
    let is_clone = |(clone, _): &(_, u64)| *clone != fault.function;
    if !fault.arguments.is_empty() && with.symbols.clones(&fault.function).iter().any(is_clone) {
        return Err(format!(
            "arg: the compiler has changed the arguments of \"{}\" (.isra, .constprop)",
            fault.function
        ));
    }
    let mut conditions = [Condition::NONE; MAX_RULE_CONDITIONS];
    for (condition, into) in fault.arguments.iter().zip(&mut conditions) {
        let lowered = guards::lower_argument(condition, with.symbols, with.types);
        *into = lowered.map_err(|error| format!("{condition}: {error:#}"))?;
    }
    let mut rule = Rule {
        function: function_id(&fault.function, with.symbols)?,
        occurrence: fault.occurrence,
        more: fault.times.min(MOST_FIRES).saturating_sub(1),
        seen: 0,
        fired: 0,
        after: fault.after.unwrap_or(0),
        scopes,
        elements: 0,
        step,
        text: 0,
        return_value: fault.error.return_value(),
        conditions,
        name_set: 0,
        shown: [Part::NONE; MAX_SHOWN],
        path: [abi::NO_NAME; MAX_FRAMES],
    };
    for (element, id) in rule.path.iter_mut().zip(path) {
        rule.elements += 1;
        *element = id;
        if id != abi::ELLIPSIS {
            rule.name_set |= abi::name_set(id);
        }
    }
    Ok(Lowered { rule, unknown })
}

fn missing(name: &str) -> String {
    format!("this kernel has no function \"{name}\": it may be inlined, renamed or not compiled in")
}

fn function_id(name: &str, symbols: &Symbols) -> Result<u32, String> {
    symbols.name_id(name).ok_or_else(|| missing(name))
}

/// The elements of the fault's call path as numbers, and the names that this kernel does not have.
fn lower_path(fault: &Fault, symbols: &Symbols) -> Result<(Vec<u32>, Vec<String>), String> {
    let names = &fault.call_path.0;
    let (mut path, mut unknown) = (Vec::with_capacity(MAX_FRAMES), Vec::new());
    for name in names {
        if name != ELLIPSIS {
            match symbols.name_id(name) {
                Some(id) => path.push(id),
                None => unknown.push(name.clone()),
            }
        } else if path.last() != Some(&abi::ELLIPSIS) {
            path.push(abi::ELLIPSIS);
        }
    }
    // A path of full length goes on beyond its last name anyway.
    if names.len() == MAX_FRAMES {
        path.truncate(path.iter().rposition(|element| *element != abi::ELLIPSIS).map_or(0, |last| last + 1));
    } else if let Some(last) = unknown.last().filter(|name| names.last() == Some(name)) {
        return Err(format!("{}, and it ends the call path", missing(last)));
    }
    if let Some(first) = unknown.first().filter(|_| path.is_empty()) {
        return Err(missing(first));
    }
    Ok((path, unknown))
}

#[cfg(test)]
mod tests {
    use abi::{MAX_MATCH_STEPS, Match, NO_NAME, Site, Verdict};
    use fault_plan::{CallPath, Errno, InjectedError};
    use proptest::prelude::*;

    use super::{super::types::Field, *};

    const LIST: &str = "ffffffff81000000 T _stext\n\
        ffffffff81000010 t a\n\
        ffffffff81000020 t b.isra.0\n\
        ffffffff81000030 t c\n\
        ffffffff81000040 t should_failslab\n\
        ffffffff81000050 T _etext\n";

    fn fault(path: &[&str]) -> Fault {
        let call_path = CallPath(path.iter().map(ToString::to_string).collect());
        Fault::new("should_failslab", call_path, 3, InjectedError::Errno(Errno::ENOMEM))
    }

    fn lower(fault: &Fault, symbols: &Symbols, steps: u32) -> Result<Lowered, String> {
        let (types, scopes) = (&mut Types::of(&[], &[("s.f", Field { offset: 4, bytes: 4 })]), 0b0101);
        super::lower(fault, &mut Lowering { symbols, types, steps, scopes })
    }

    /// A site with `callers` as the BPF program leaves it.
    fn site<S: AsRef<str>>(callers: &[S], symbols: &Symbols) -> Site {
        let mut site = Site {
            key: 1,
            generation: 1,
            count: 1,
            first_sequence: 1,
            function: symbols.name_id("should_failslab").unwrap(),
            depth: u32::try_from(callers.len()).unwrap(),
            truncated: 0,
            scope: abi::WORKLOAD,
            step: 1,
            name_set: 0,
            stack: [NO_NAME; MAX_FRAMES],
        };
        for (name, caller) in site.stack.iter_mut().zip(callers) {
            *name = symbols.name_id(caller.as_ref()).unwrap();
            site.name_set |= abi::name_set(*name);
        }
        site
    }

    /// Does what the BPF program does with its loop.
    fn matches(rule: &Rule, site: &Site) -> bool {
        let mut state = Match::new();
        (0..MAX_MATCH_STEPS).map(|_| state.step(rule, site)).find(|verdict| *verdict != Verdict::Open)
            == Some(Verdict::Matches)
    }

    #[test]
    fn names_become_numbers() {
        let symbols = Symbols::parse(LIST.to_owned()).unwrap();
        let Lowered { rule, unknown } = lower(&fault(&["b.constprop.7", "...", "c"]), &symbols, 1).unwrap();
        assert!(unknown.is_empty());
        assert_eq!((rule.occurrence, rule.seen, rule.return_value, rule.elements), (3, 0, -12, 3));
        assert_eq!(symbols.name(rule.function), "should_failslab");
        assert_eq!(rule.path[1], abi::ELLIPSIS);
        assert_eq!(rule.path.map(|name| symbols.name(name))[..4], ["b", "?", "c", "?"]);
    }

    #[test]
    fn what_the_kernel_does_not_have_is_named() {
        let symbols = Symbols::parse(LIST.to_owned()).unwrap();
        for path in [&["a", "nowhere"][..], &["nowhere"], &["nowhere"; MAX_FRAMES], &["...", "nowhere"]] {
            assert!(lower(&fault(path), &symbols, 1).unwrap_err().contains("\"nowhere\""), "{path:?}");
        }
        let unknown = Fault { function: "gone".to_owned(), ..fault(&[]) };
        assert!(lower(&unknown, &symbols, 1).unwrap_err().contains("\"gone\""));
    }

    #[test]
    fn what_another_kernel_did_not_inline_is_skipped() {
        let symbols = Symbols::parse(LIST.to_owned()).unwrap();
        let names = |path: &[&str]| {
            let Lowered { rule, unknown } = lower(&fault(path), &symbols, 1).unwrap();
            let known = |id: &u32| if *id == abi::ELLIPSIS { "..." } else { symbols.name(*id) };
            let elements = &rule.path[..rule.elements as usize];
            (elements.iter().map(known).map(str::to_owned).collect::<Vec<_>>().join(" "), unknown.join(" "))
        };
        let expected = |path: &str, unknown: &str| (path.to_owned(), unknown.to_owned());
        assert_eq!(names(&["a", "gone", "b", "c"]), expected("a b c", "gone"));
        assert_eq!(names(&["gone", "a", "...", "lost", "...", "b"]), expected("a ... b", "gone lost"));
        let mut full = ["a"; MAX_FRAMES];
        (full[MAX_FRAMES - 3], full[MAX_FRAMES - 2], full[MAX_FRAMES - 1]) = ("b", "...", "gone");
        assert_eq!(names(&full), expected(&format!("{}b", "a ".repeat(MAX_FRAMES - 3)), "gone"));
    }

    #[test]
    fn a_step_is_one_of_the_workload() {
        let symbols = Symbols::parse(LIST.to_owned()).unwrap();
        let lowered = |step| lower(&Fault { step, ..fault(&["a"]) }, &symbols, 3).map(|lowered| lowered.rule.step);
        assert_eq!((lowered(None), lowered(Some(3))), (Ok(0), Ok(3)));
        assert_eq!(lowered(Some(4)).unwrap_err(), "step 4: the workload has 3 steps");
    }

    #[test]
    fn conditions_become_numbers_and_those_that_cannot_are_named() {
        let symbols = Symbols::parse(LIST.to_owned()).unwrap();
        let condition = |text: &str| match toml::from_str(text).unwrap() {
            fault_plan::Condition::Argument(condition) => condition,
            fault_plan::Condition::Caller(_) => panic!("it is on an argument"),
        };
        let size = condition("argument = 1\nfield = 's.f'\nvalue = 416");
        let full = Fault {
            task: Some(Scope::Worker),
            arguments: vec![size, condition("argument = 2\nvalue = 3")],
            after: Some(2),
            times: 3,
            ..fault(&["a"])
        };
        let rule = lower(&full, &symbols, 1).unwrap().rule;
        let conditions = rule.conditions;
        assert_eq!((rule.scopes, rule.after, rule.more), (1 << abi::WORKER, 2, 2));
        assert_eq!((conditions[0].part.field, conditions[0].part.offset, conditions[1].part.field), (1, 4, 0));
        let plain = lower(&fault(&["a"]), &symbols, 1).unwrap().rule;
        assert_eq!((plain.scopes, plain.after, plain.more), (u32::MAX, 0, 0));
        assert_eq!(plain.conditions, [Condition::NONE; MAX_RULE_CONDITIONS]);
        let ever = Fault { times: fault_plan::FOR_EVER, ..fault(&["a"]) };
        assert_eq!(lower(&ever, &symbols, 1).unwrap().rule.more, MOST_FIRES - 1);
        let refusal = |fault: Fault| lower(&fault, &symbols, 1).unwrap_err();
        let thread = refusal(Fault { task: Some(Scope::Thread), ..fault(&["a"]) });
        assert!(thread.starts_with("task \"thread\": the target's `scope` lacks it"), "{thread}");
    }

    proptest! {
        /// The BPF program's matcher, on a lowered rule, says what the plan's definition says.
        #[test]
        fn a_lowered_path_matches_as_the_plan_defines(
            pattern in prop::collection::vec(prop::sample::select(vec!["a", "b", "c", "..."]), 0..=MAX_FRAMES),
            callers in prop::collection::vec(prop::sample::select(vec!["a", "b", "c"]), 0..=MAX_FRAMES),
        ) {
            let symbols = Symbols::parse(LIST.to_owned()).unwrap();
            let fault = fault(&pattern);
            prop_assume!(fault.call_path.defect().is_none());
            let (rule, site) = (lower(&fault, &symbols, 1).unwrap().rule, site(&callers, &symbols));
            let defined = fault.call_path.matches(&callers);
            prop_assert_eq!(matches(&rule, &site), defined);
            prop_assert!(!defined || rule.name_set & !site.name_set == 0, "a call that matches passes the quick test");
        }
    }
}
