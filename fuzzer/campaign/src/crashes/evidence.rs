//! The evidence that a crash is written of: an execution of this host, or the word of another one.

use execution::{Attributed, Execution, Finding, FindingKind, Fired};
use fault_plan::{FaultPlan, Reproducer};
use serde::{Deserialize, Serialize};

/// The execution that findings are of, as far as a crash is written of it.
#[derive(Debug)]
pub(crate) struct Cause<'a> {
    pub(crate) plan: &'a FaultPlan,
    pub(crate) fired: &'a [Fired],
    pub(crate) findings: &'a [Finding],
    pub(crate) console: &'a str,
}

impl<'a> Cause<'a> {
    /// Gives the cause of what was found in `execution`.
    pub(crate) fn of(plan: &'a FaultPlan, execution: &'a Execution) -> Self {
        let Execution { fired, findings, console, .. } = execution;
        Self { plan, fired, findings, console }
    }

    /// Gives the cause of late effects.
    pub(crate) fn of_late(late: &'a Attributed) -> Self {
        let Attributed { plan, fired, findings, console, .. } = late;
        Self { plan, fired, findings, console }
    }
}

/// A crash as hosts tell each other of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct CrashNews {
    /// The kind of finding.
    pub(crate) kind: FindingKind,
    /// Title, kernel and plan.
    pub(crate) reproducer: Reproducer,
}
