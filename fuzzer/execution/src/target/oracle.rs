//! Oracles that a target can do without.

use serde::{Deserialize, Serialize};

/// An oracle of the fuzzer's, beside the kernel's reports and what is left in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Oracle {
    /// Compares what the disk holds with what was written and acknowledged.
    Data,
    /// Looks for results that a step's system call never may have.
    Errno,
    /// Has the file system's own checker read the disk, where there is one.
    Fsck,
    /// Looks for memory that each run of a plan leaves.
    Leaks,
}

impl Oracle {
    /// All, which a target has that names none.
    pub const ALL: &'static [Self] = &[Self::Data, Self::Errno, Self::Fsck, Self::Leaks];
}
