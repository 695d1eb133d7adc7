//! Faults that fired, as the kernel's hooks see them.

use execution::{Fired, Target};
use fault_plan::{ErrorType, Fault, FaultPlan, InjectedError, base_name};

use super::{Trouble, arming::Hook, trace::Call, unsaid};

/// A fault that fired, and where.
pub(super) struct Hit {
    pub(super) fault: Fault,
    pub(super) fired: Fired,
    pub(super) hook: Hook,
    /// Round and step, from 1.
    pub(super) place: (u32, u32),
}

impl Hit {
    /// Says whether an allocation within the function fails in its place.
    pub(super) fn is_stand_in(&self) -> bool {
        self.hook.function() != self.fault.function
    }

    /// Finds the call that a fault hit, by index: the plan's occurrence where that is on the same
    /// call path, else the first call on that path in the step.
    pub(super) fn target(&self, calls: &[Call]) -> Option<usize> {
        let Self { fault, fired, place: (round, step), .. } = self;
        let on_path = |call: &Call| {
            let same = |(own, other): (&String, &String)| base_name(own) == base_name(other);
            call.counts
                && call.place == (*round, *step)
                && call.scope == fired.scope
                && call.function == fault.function
                && call.callers.iter().zip(&fired.call_path).all(same)
        };
        let matches = |call: &Call| {
            call.counts
                && call.place.0 == *round
                && fault.may_match(&call.function, &call.callers, (call.place.1, call.scope))
        };
        let matching = (0..calls.len()).filter(|index| matches(&calls[*index]));
        let planned = { matching }.nth(fault.occurrence as usize - 1).filter(|index| on_path(&calls[*index]));
        let call = planned.or_else(|| calls.iter().position(on_path))?;
        if !self.is_stand_in() {
            return Some(call);
        }
        let outer = &calls[call];
        let within = |call: &Call| {
            let at = call.callers.iter().position(|caller| *caller == fault.function);
            let callers = at.map(|at| &call.callers[at + 1..]);
            let same = |(own, other): (&String, &String)| own == other;
            self.hook.function() == call.function
                && callers.is_some_and(|callers| callers.iter().zip(&outer.callers).all(same))
        };
        (call + 1..calls.len()).find(|index| within(&calls[*index]))
    }
}

/// The faults of `plan` that `fired`, in their order, each with the hook that `hook` has for it.
pub(super) fn hits(
    plan: &FaultPlan,
    fired: &[Fired],
    hook: impl Fn(&Fault) -> Result<Hook, Trouble>,
) -> Result<Vec<Hit>, Trouble> {
    let numbered = (1..).zip(plan.rounds());
    let faults: Vec<(u32, &Fault)> =
        { numbered }.flat_map(|(round, faults)| faults.iter().map(move |fault| (round, fault))).collect();
    let mut hits = Vec::new();
    for fired in fired {
        let Some((round, fault)) = faults.get(fired.fault) else { continue };
        let (hook, place) = (hook(fault)?, (*round, fired.step));
        hits.push(Hit { fault: (*fault).clone(), fired: fired.clone(), hook, place });
    }
    hits.sort_by_key(|hit| (hit.place, hit.fired.sequence));
    Ok(hits)
}

/// Refuses faults that fired several times.
pub(super) fn once(plan: &FaultPlan, fired: &[Fired]) -> Result<(), Trouble> {
    let Some(fired) = fired.iter().find(|fired| fired.times > 1) else { return Ok(()) };
    let function = plan.all_faults().nth(fired.fault).map_or("", |fault| &fault.function);
    unsaid(format!("{function} fails {} times, and the calls after the first are not known", fired.times))
}

/// The type of a function that is not on the kernel's list; none of one that is.
pub(super) fn off_list(name: &str, target: &Target) -> Option<ErrorType> {
    target.functions.iter().find(|function| function.name == name)?.error_type
}

/// Way in which a function fails that is not on the kernel's list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OffList {
    /// An allocation within it does.
    StandIn,
    /// A module puts it on the list.
    Listed,
}

/// The hook of the kernel's that makes the call fail in this way.
pub(super) fn hook(fault: &Fault, target: &Target, way: OffList) -> Result<Hook, Trouble> {
    let stands_in = way == OffList::StandIn && off_list(&fault.function, target).is_some();
    let (hook, error) = match fault.function.as_str() {
        "should_failslab" => (Hook::Slab, "ENOMEM"),
        "should_fail_alloc_page" => (Hook::Page, "true"),
        "should_fail_bio" => (Hook::Bio, "EIO"),
        _ if stands_in => return Ok(Hook::Slab),
        name => return Ok(Hook::Function(name.to_owned(), fault.error.return_value())),
    };
    if InjectedError::from_name(error) == Some(fault.error) {
        return Ok(hook);
    }
    unsaid(format!("{} returns {error} where the kernel's own hook fails it, not {}", fault.function, fault.error))
}
