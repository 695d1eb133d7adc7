//! End-to-end tests on a real guest: kernel, BPF programs, agent, QEMU, host. They fail, never
//! skip, without one.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod aftermath;
mod campaign;
mod cases;
mod common;
mod conditions;
mod corpus;
mod debugger;
mod guest;
mod honest;
mod identity;
mod off_list;
mod oracles;
mod other_tasks;
mod peers;
mod reproducers;
mod scope;
mod steps;
mod targets;
mod templates;
mod verdicts;
mod virtio;
