//! The command `fuzz`: its options, what each command does, how it is shown, and its exit status.
//! See `ARCHITECTURE.md`.

pub mod commands;
pub mod exit;
pub mod options;
pub mod reproducers;
pub mod terminal;
pub mod views;
