//! Finds bugs in the Linux kernel's error paths: see `ARCHITECTURE.md`.

pub mod cache;
pub mod campaign;
pub mod commands;
pub mod execution;
pub mod function_groups;
pub mod guest;
mod hex;
pub mod image;
pub mod initramfs;
pub mod kernel;
pub mod pool;
pub mod prepare;
mod process;
pub mod project;
pub mod report;
pub mod target;
pub mod text_file;

/// The error and its sources on one line, each after a colon.
#[must_use]
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}
