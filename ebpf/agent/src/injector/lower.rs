//! Lowers a plan's faults to what the BPF program compares: names to numbers, errors to return
//! values.

use abi::{MAX_FRAMES, Rule};
use fault_plan::{ELLIPSIS, Fault};

use crate::symbols::Symbols;

const _: () = assert!(MAX_FRAMES == fault_plan::MAX_CALL_PATH);
const _: () = assert!(abi::MAX_RULES == fault_plan::MAX_FAULTS);

/// A fault as the BPF program compares it.
#[derive(Debug)]
pub(super) struct Lowered {
    pub(super) rule: Rule,
    /// Names of the call path that this kernel has no function of. Another kernel had: here they
    /// are inlined, and the path is matched without them.
    pub(super) unknown: Vec<String>,
}

/// Lowers `fault`, which was checked, of a workload of so many `steps`.
///
/// # Errors
///
/// The workload has no such step, or this kernel no such function; or it lacks the last name of the
/// call path, without which the fault would match other calls as well.
pub(super) fn lower(fault: &Fault, symbols: &Symbols, steps: u32) -> Result<Lowered, String> {
    let step = fault.step.unwrap_or(0);
    if step > steps {
        return Err(format!("step {step}: the workload has {steps} steps"));
    }
    let missing =
        |name| format!("this kernel has no function \"{name}\": it may be inlined, renamed or not compiled in");
    let function = symbols.name_id(&fault.function).ok_or_else(|| missing(&fault.function))?;
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
    let mut rule = Rule {
        function,
        occurrence: fault.occurrence,
        seen: 0,
        elements: 0,
        step,
        reserved: 0,
        return_value: fault.error.return_value(),
        name_set: 0,
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

#[cfg(test)]
mod tests {
    use abi::{MAX_MATCH_STEPS, Match, NO_NAME, Site, Verdict};
    use fault_plan::{CallPath, Errno, InjectedError};
    use proptest::prelude::*;

    use super::*;

    const LIST: &str = "ffffffff81000000 T _stext\n\
        ffffffff81000010 t a\n\
        ffffffff81000020 t b.isra.0\n\
        ffffffff81000030 t c\n\
        ffffffff81000040 t should_failslab\n\
        ffffffff81000050 T _etext\n";

    fn fault(path: &[&str]) -> Fault {
        Fault {
            function: "should_failslab".to_owned(),
            call_path: CallPath(path.iter().map(ToString::to_string).collect()),
            occurrence: 3,
            error: InjectedError::Errno(Errno::ENOMEM),
            step: None,
        }
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
