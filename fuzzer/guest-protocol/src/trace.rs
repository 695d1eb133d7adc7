//! Coverage traces: whose code they hold, and where they are in the guest's memory.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Tasks whose code a coverage trace holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TraceRole {
    /// The workload's own task.
    Workload,
    /// User tasks outside of the agent's process: the workload's children.
    Tasks,
    /// Kernel threads, and with them the work items that they run.
    Threads,
}

impl TraceRole {
    /// All roles, in their order.
    pub const ALL: [Self; 3] = [Self::Workload, Self::Tasks, Self::Threads];

    /// Gives its place in [`TraceRole::ALL`].
    #[must_use]
    pub fn index(self) -> usize {
        match self {
            Self::Workload => 0,
            Self::Tasks => 1,
            Self::Threads => 2,
        }
    }

    /// Gives its name in files, such as `threads`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Workload => "workload",
            Self::Tasks => "tasks",
            Self::Threads => "threads",
        }
    }

    /// Gives the role of this name.
    #[must_use]
    pub fn of_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.as_str() == name)
    }
}

impl fmt::Display for TraceRole {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

/// Tasks whose code an execution records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Recorded {
    /// No task's; only to measure what coverage costs.
    Nothing,
    /// The workload's own; only to measure what the others cost.
    Workload,
    /// Those of all roles that the kernel can trace.
    All,
}

/// Place of a coverage trace, which the host reads when an execution has ended, also of a guest
/// that died.
///
/// It holds 64-bit little-endian words, of which the first counts those that follow. Between
/// executions the number of all words that there is room for is added to that count.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TraceMemory {
    /// The tasks whose code it holds.
    pub role: TraceRole,
    /// The pieces of memory that it is in, in their order.
    pub ranges: Vec<MemoryRange>,
}

/// A piece of the guest's physical memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryRange {
    /// Its first address.
    pub address: u64,
    /// Its size.
    pub bytes: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_role_has_one_place_and_one_name() {
        for (place, role) in TraceRole::ALL.into_iter().enumerate() {
            assert_eq!((role.index(), TraceRole::of_name(&role.to_string())), (place, Some(role)));
        }
        assert_eq!(TraceRole::of_name(""), None);
    }
}
