//! Whose call it is.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The kind of task that makes a call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// The task that runs the workload.
    #[default]
    Workload,
    /// A user task outside of the agent's process: one that the workload made.
    Child,
    /// A kernel thread that runs work items (`PF_WQ_WORKER` of `include/linux/sched.h`, 6.12).
    Worker,
    /// Any other kernel thread.
    Thread,
}

impl Scope {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 4] = [Self::Workload, Self::Child, Self::Worker, Self::Thread];

    /// Gives its number, from 0.
    #[must_use]
    pub const fn number(self) -> u8 {
        self as u8
    }

    /// Gives the scope of this number.
    #[must_use]
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.get(usize::from(number)).copied()
    }

    /// Gives the name that files use.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Workload => "workload",
            Self::Child => "child",
            Self::Worker => "worker",
            Self::Thread => "thread",
        }
    }

    /// Gives it as the condition of a fault at one of its calls. A call of the workload itself
    /// needs none, as its path says so.
    #[must_use]
    pub fn condition(self) -> Option<Self> {
        (self != Self::Workload).then_some(self)
    }

    /// Says whether it is the workload's own task.
    #[must_use]
    pub fn is_workload(&self) -> bool {
        *self == Self::Workload
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_agree() {
        for (scope, number) in Scope::ALL.into_iter().zip(0..) {
            assert_eq!((scope.number(), Scope::from_number(number)), (number, Some(scope)));
            assert_eq!(serde_json::to_string(&scope).unwrap(), format!("\"{scope}\""));
            assert_eq!(scope.condition().is_none(), scope.is_workload());
        }
        assert_eq!(Scope::from_number(4), None);
    }
}
