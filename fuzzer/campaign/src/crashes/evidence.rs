//! The evidence that a crash is written of: an execution of this host, or the word of another one.

use execution::{Attributed, Execution, Finding, FindingKind, Fired};
use fault_plan::{FaultPlan, Reproducer, Round};
use serde::{Deserialize, Serialize};

/// The execution that findings are of, as far as a crash is written of it.
#[derive(Debug)]
pub(crate) struct Cause<'a> {
    pub(crate) plan: &'a FaultPlan,
    pub(crate) fired: &'a [Fired],
    pub(crate) findings: &'a [Finding],
    pub(crate) console: &'a str,
    /// The rounds of its guest before the plan's last one.
    pub(crate) history: &'a [Round],
}

impl<'a> Cause<'a> {
    /// Gives the cause of what was found in `execution`.
    pub(crate) fn of(plan: &'a FaultPlan, execution: &'a Execution) -> Self {
        let Execution { fired, findings, console, history, .. } = execution;
        Self { plan, fired, findings, console, history }
    }

    /// Gives the cause of late effects.
    pub(crate) fn of_late(late: &'a Attributed) -> Self {
        let Attributed { plan, fired, findings, console, history, .. } = late;
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

/// A crash as hosts tell each other of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct CrashNews {
    /// The kind of finding.
    pub(crate) kind: FindingKind,
    /// Key, title, kernel and plan.
    pub(crate) reproducer: Reproducer,
}
