//! Finds bugs in the Linux kernel's error paths: see `ARCHITECTURE.md`.

pub mod guest;
pub mod kernel;
pub mod report;
