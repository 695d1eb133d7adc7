//! QEMU guests that run plans, and all that they are made of.

pub mod bare;
mod checkers;
pub mod image;
pub mod initramfs;
pub mod kernel;
mod packed;
pub mod prepare;
pub mod prepared;
pub mod process;
pub mod progress;
pub mod project;
pub mod qemu;
pub mod runner;
mod sites;
