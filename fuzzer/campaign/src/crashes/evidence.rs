//! The evidence that a crash is written of: an execution of this host, or the word of another one.

use execution::{Attributed, Execution, Finding, FindingKind, Fired};
use fault_plan::{FaultPlan, Reproducer, Round};
use serde::{Deserialize, Serialize};

/// The execution that findings are of, as far as a crash is written of it.
#[derive(Debug)]
pub(crate) struct Cause<'a> {
    /// The plan, mostly without the faults that did not fire.
    pub(crate) plan: FaultPlan,
    /// The faults that fired, by their indices in that plan.
    pub(crate) fired: Vec<Fired>,
    pub(crate) findings: &'a [Finding],
    pub(crate) console: &'a str,
    /// The rounds of its guest before the plan's last one.
    pub(crate) history: &'a [Round],
}

impl<'a> Cause<'a> {
    /// Gives the cause of what was found in `execution`.
    pub(crate) fn of(plan: &'a FaultPlan, execution: &'a Execution) -> Self {
        let Execution { fired, findings, console, history, .. } = execution;
        let (plan, fired) = fired_only(plan, fired);
        Self { plan, fired, findings, console, history }
    }

    /// Gives the cause of what was found in `execution`, with all faults of `plan`: it was tried as
    /// it is.
    pub(crate) fn as_tried(plan: &FaultPlan, execution: &'a Execution) -> Self {
        let Execution { fired, findings, console, history, .. } = execution;
        Self { plan: plan.clone(), fired: fired.clone(), findings, console, history }
    }

    /// Gives the cause of late effects.
    pub(crate) fn of_late(late: &'a Attributed) -> Self {
        let Attributed { plan, fired, findings, console, history, .. } = late;
        let (plan, fired) = fired_only(plan, fired);
        Self { plan, fired, findings, console, history }
    }
}

impl Cause<'_> {
    /// Gives all that the guest has run, as a plan. Nothing where the plan itself says it.
    pub(super) fn with_history(&self) -> Option<FaultPlan> {
        let more = self.history.len() > self.plan.earlier.len();
        more.then(|| FaultPlan { earlier: self.history.to_vec(), ..self.plan.clone() })
    }
}

/// Gives `plan` with only the faults that `fired`, and these by their new indices. Where none is
/// known to have fired, as the guest's memory could not be read, all stay.
fn fired_only(plan: &FaultPlan, fired: &[Fired]) -> (FaultPlan, Vec<Fired>) {
    if fired.is_empty() {
        return (plan.clone(), Vec::new());
    }
    let has_fired = |index: usize| fired.iter().any(|fired| fired.fault == index);
    let anew =
        |fired: &Fired| Fired { fault: (0..fired.fault).filter(|index| has_fired(*index)).count(), ..fired.clone() };
    (plan.keeping(has_fired), fired.iter().map(anew).collect())
}

/// A crash as hosts tell each other of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct CrashNews {
    /// The kind of finding.
    pub(crate) kind: FindingKind,
    /// Key, title, kernel and plan.
    pub(crate) reproducer: Reproducer,
}
