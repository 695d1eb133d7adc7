//! A fault: the call that must fail.

use std::fmt;

use crate::{ArgumentCondition, CallPath, InjectedError, Scope};

/// The most conditions on arguments that a fault can have.
pub const MAX_FAULT_CONDITIONS: usize = 2;

/// The number of times that stands for ever.
pub const FOR_EVER: u32 = u32::MAX;

/// One call that must fail: injection site, occurrence, error, and conditions on the call.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Fault {
    /// The injectable function.
    pub function: String,
    /// Pattern of the callers, innermost first; empty for any.
    pub call_path: CallPath,
    /// Which of the calls that match fails, from 1; counted over all call paths that match, and
    /// where there are conditions, over the calls for which they hold.
    pub occurrence: u32,
    /// Error that the call returns.
    pub error: InjectedError,
    /// Step of the workload, from 1, of which calls match; none for all steps.
    pub step: Option<u32>,
    /// Kind of task of which calls match; none for all kinds.
    pub task: Option<Scope>,
    /// Conditions on arguments, at most [`MAX_FAULT_CONDITIONS`]. All of them hold for a call that
    /// matches.
    pub arguments: Vec<ArgumentCondition>,
    /// Another fault of the same round, from 1. Calls match from the moment on at which it has
    /// fired.
    pub after: Option<u32>,
    /// Number of matching calls in a row that fail, from the occurrence on; [`FOR_EVER`] for all.
    pub times: u32,
}

impl Fault {
    /// Makes a fault without conditions, which fires once.
    #[must_use]
    pub fn new(function: impl Into<String>, call_path: CallPath, occurrence: u32, error: InjectedError) -> Self {
        let (function, step, task, arguments, after, times) = (function.into(), None, None, Vec::new(), None, 1);
        Self { function, call_path, occurrence, error, step, task, arguments, after, times }
    }

    /// Says whether it may match calls of this function, in this step and scope, by these callers.
    /// Conditions on arguments and on other faults may still say no.
    #[must_use]
    pub fn may_match<S: AsRef<str>>(&self, function: &str, call_path: &[S], (step, scope): (u32, Scope)) -> bool {
        self.is_in(function, (step, scope)) && self.call_path.matches(call_path)
    }

    /// Says whether it is of this function, step and scope.
    pub(crate) fn is_in(&self, function: &str, (step, scope): (u32, Scope)) -> bool {
        self.function == function && self.step.is_none_or(|own| own == step) && self.task.is_none_or(|own| own == scope)
    }

    /// Says what is wrong with it, as the fault at `index`, from 0, of a round of `count`.
    pub(crate) fn defect(&self, index: usize, count: usize) -> Option<String> {
        if self.function.is_empty() {
            return Some("the function has no name".to_owned());
        }
        if self.occurrence == 0 {
            return Some("occurrence 0: occurrences are counted from 1".to_owned());
        }
        if self.step == Some(0) {
            return Some("step 0: steps are counted from 1".to_owned());
        }
        if self.times == 0 {
            return Some("times 0: a fault fires once or more often".to_owned());
        }
        if self.arguments.len() > MAX_FAULT_CONDITIONS {
            let found = self.arguments.len();
            return Some(format!("{found} conditions on arguments, at most {MAX_FAULT_CONDITIONS} are possible"));
        }
        match self.after.map(|number| number as usize) {
            Some(0) => return Some("after 0: faults are counted from 1".to_owned()),
            Some(number) if number > count => return Some(format!("after {number}: the round has {count} faults")),
            Some(number) if number == index + 1 => return Some(format!("after {number}: that is the fault itself")),
            _ => {}
        }
        if let Some(defect) = self.arguments.iter().find_map(ArgumentCondition::defect) {
            return Some(defect.to_string());
        }
        self.call_path.defect().map(|defect| format!("call path: {defect}"))
    }

    /// Gives its conditions as people read them; nothing where there are none.
    #[must_use]
    pub fn conditions(&self) -> String {
        let mut parts: Vec<String> = Vec::new();
        parts.extend(self.step.map(|step| format!("in step {step}")));
        parts.extend(self.task.map(|task| format!("in scope {task}")));
        parts.extend(self.arguments.iter().map(|condition| format!("where {condition}")));
        parts.extend(self.after.map(|number| format!("after fault {number}")));
        match self.times {
            1 => {}
            FOR_EVER => parts.push("for ever".to_owned()),
            times => parts.push(format!("{times} times")),
        }
        parts.join(", ")
    }
}

impl fmt::Display for Fault {
    /// Writes function, error and conditions, without the callers.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} returns {} at call {}", self.function, self.error, self.occurrence)?;
        let conditions = self.conditions();
        if conditions.is_empty() { Ok(()) } else { write!(f, ", {conditions}") }
    }
}

/// Removes the faults of a round for which `keep`, asked by index from 0, says no. A fault that was
/// to come after one of them has no such condition any more; the others' follow their faults.
pub fn retain_faults(faults: &mut Vec<Fault>, mut keep: impl FnMut(usize) -> bool) {
    let kept: Vec<bool> = (0..faults.len()).map(&mut keep).collect();
    let renumbered = |number: u32| {
        let index = (number as usize).checked_sub(1).filter(|index| kept.get(*index) == Some(&true))?;
        u32::try_from(kept[..=index].iter().filter(|kept| **kept).count()).ok()
    };
    for fault in faults.iter_mut() {
        fault.after = fault.after.and_then(renumbered);
    }
    let mut index = 0;
    faults.retain(|_| {
        index += 1;
        kept[index - 1]
    });
}

/// The first fault, by index from 0, that comes after itself by way of others.
pub(crate) fn circle(faults: &[Fault]) -> Option<usize> {
    let before = |index: usize| Some(faults.get(index)?.after? as usize - 1);
    (0..faults.len()).find(|first| {
        let chain = std::iter::successors(before(*first), |index| before(*index));
        chain.take(faults.len()).any(|index| index == *first)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Errno, Operand, Operator};

    fn fault(occurrence: u32, after: Option<u32>) -> Fault {
        let error = InjectedError::Errno(Errno::ENOMEM);
        Fault { after, ..Fault::new("f", CallPath::default(), occurrence, error) }
    }

    #[test]
    fn a_predecessor_keeps_its_successor_when_others_go() {
        let faults = || vec![fault(1, None), fault(2, Some(4)), fault(3, Some(1)), fault(4, None)];
        let kept = |keep: &[usize]| {
            let mut faults = faults();
            retain_faults(&mut faults, |index| keep.contains(&index));
            faults.iter().map(|fault| (fault.occurrence, fault.after)).collect::<Vec<_>>()
        };
        assert_eq!(kept(&[1, 2, 3]), [(2, Some(3)), (3, None), (4, None)]);
        assert_eq!(kept(&[0, 2]), [(1, None), (3, Some(1))]);
        assert_eq!(kept(&[]), []);
    }

    #[test]
    fn a_circle_is_found() {
        assert_eq!(circle(&[fault(1, Some(2)), fault(2, None)]), None);
        assert_eq!(circle(&[fault(1, None), fault(2, Some(3)), fault(3, Some(2))]), Some(1));
    }

    #[test]
    fn conditions_are_told_in_words() {
        let argument = ArgumentCondition {
            argument: 1,
            field: Some("kmem_cache.object_size".to_owned()),
            mask: Operand::Number(u64::MAX),
            operator: Operator::Equal,
            value: Operand::Number(416),
        };
        let full = Fault {
            step: Some(2),
            task: Some(Scope::Worker),
            arguments: vec![argument],
            times: 3,
            ..fault(1, Some(2))
        };
        let expected = "in step 2, in scope worker, where argument 1's kmem_cache.object_size == 416, after fault 2, \
                        3 times";
        assert_eq!(full.conditions(), expected);
        assert_eq!(full.to_string(), format!("f returns ENOMEM at call 1, {expected}"));
        assert_eq!(fault(1, None).to_string(), "f returns ENOMEM at call 1");
        assert_eq!(Fault { times: FOR_EVER, ..fault(1, None) }.conditions(), "for ever");
    }
}
