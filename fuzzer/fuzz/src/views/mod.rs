//! Output of the commands for people and scripts.

pub(crate) mod coverage;
pub(crate) mod leaks;
pub(crate) mod plan;
pub mod progress;
pub(crate) mod replay;
pub mod summary;
pub(crate) mod verdict;
pub(crate) mod way;
