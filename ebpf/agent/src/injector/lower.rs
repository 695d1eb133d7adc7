//! Lowers a plan's faults to what the BPF program compares: names to numbers, errors to return
//! values.

use abi::{MAX_FRAMES, Rule};
use fault_plan::{ELLIPSIS, Fault};

use crate::symbols::Symbols;

const _: () = assert!(MAX_FRAMES == fault_plan::MAX_CALL_PATH);
const _: () = assert!(abi::MAX_RULES == fault_plan::MAX_FAULTS);

/// The rule for `fault`, which was checked, of a workload of so many `steps`; the reason when this
/// kernel has no function of a name in it, or the workload no such step.
pub(super) fn lower(fault: &Fault, symbols: &Symbols, steps: u32) -> Result<Rule, String> {
    let step = fault.step.unwrap_or(0);
    if step > steps {
        return Err(format!("step {step}: the workload has {steps} steps"));
    }
    let id = |name: &str| {
        symbols.name_id(name).ok_or_else(|| {
            format!("this kernel has no function \"{name}\": it may be inlined, renamed or not compiled in")
        })
    };
    let mut rule = Rule {
        function: id(&fault.function)?,
        occurrence: fault.occurrence,
        seen: 0,
        elements: 0,
        step,
        reserved: 0,
        return_value: fault.error.return_value(),
        name_set: 0,
        path: [abi::NO_NAME; MAX_FRAMES],
    };
    for (element, name) in rule.path.iter_mut().zip(&fault.call_path.0) {
        rule.elements += 1;
        if name == ELLIPSIS {
            *element = abi::ELLIPSIS;
        } else {
            *element = id(name)?;
            rule.name_set |= abi::name_set(*element);
        }
    }
    Ok(rule)
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
        let rule = lower(&fault(&["b.constprop.7", "...", "c"]), &symbols, 1).unwrap();
        assert_eq!((rule.occurrence, rule.seen, rule.return_value, rule.elements), (3, 0, -12, 3));
        assert_eq!(symbols.name(rule.function), "should_failslab");
        assert_eq!(rule.path[1], abi::ELLIPSIS);
        assert_eq!(rule.path.map(|name| symbols.name(name))[..4], ["b", "?", "c", "?"]);
    }

    #[test]
    fn what_the_kernel_does_not_have_is_named() {
        let symbols = Symbols::parse(LIST.to_owned()).unwrap();
        assert!(lower(&fault(&["a", "nowhere"]), &symbols, 1).unwrap_err().contains("\"nowhere\""));
        let unknown = Fault { function: "gone".to_owned(), ..fault(&[]) };
        assert!(lower(&unknown, &symbols, 1).unwrap_err().contains("\"gone\""));
    }

    #[test]
    fn a_step_is_one_of_the_workload() {
        let symbols = Symbols::parse(LIST.to_owned()).unwrap();
        let lowered = |step| lower(&Fault { step, ..fault(&["a"]) }, &symbols, 3).map(|rule| rule.step);
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
            let (rule, site) = (lower(&fault, &symbols, 1).unwrap(), site(&callers, &symbols));
            let defined = fault.call_path.matches(&callers);
            prop_assert_eq!(matches(&rule, &site), defined);
            prop_assert!(!defined || rule.name_set & !site.name_set == 0, "a call that matches passes the quick test");
        }
    }
}
