//! Outcomes of steps.

use fault_plan::Errno;
use serde::{Deserialize, Serialize};

/// Outcome of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StepResult {
    /// It worked; the value is the system call's, 0 where there is none.
    Done(i64),
    /// It failed with this positive error number, which may be one that the kernel has for itself.
    Failed(i32),
    /// It needs the disk mounted, and it was not.
    Skipped,
}

impl StepResult {
    /// The result in words, such as `failed with ENOSPC (28)`.
    #[must_use]
    pub fn text(self) -> String {
        match self {
            Self::Done(0) => "ok".to_owned(),
            Self::Done(value) => format!("ok, {value}"),
            Self::Failed(number) => {
                let name = Errno::from_number(i64::from(number)).map_or("an unknown error", Errno::name);
                format!("failed with {name} ({number})")
            }
            Self::Skipped => "skipped: the disk is not mounted".to_owned(),
        }
    }
}
