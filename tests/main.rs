//! End-to-end tests on a real guest: kernel, BPF programs, agent, QEMU, host. They fail, never skip, without one.

mod campaign;
mod common;
mod guest;
