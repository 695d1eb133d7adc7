//! How people and scripts see what the commands do.

pub mod progress;
pub(crate) mod replay;
pub mod summary;
