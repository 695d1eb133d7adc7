//! Guests: booting, cloning, running and losing them.
//!
//! ```text
//!  GuestConfig ──▶ boot ─Hello─▶ saved ──▶ Setup ─Ready─▶ saved         Booted, Template
//!                                                          │ spawn (tens of milliseconds)
//!                                                          ▼
//!              ┌───────── Completed, Refused ─────────── idle            Guest
//!              │                                           ▲
//!              └───── execute ◀────────────────────────────┘
//!                        │ Died, Hung, Unclean, any error
//!                        ▼
//!                      dead (the process is gone)
//! ```
//!
//! A guest is a QEMU process. Its memory, its disks, its window and its saved state are memory
//! files without a name (`memfd_create(2)`): they need no directory, and nothing of them is left
//! when the host is killed. Nor is the process: it dies with the thread that started it, and that
//! one lives as long as the host.
//!
//! One thread a guest watches console, QMP and doorbell, and wakes the thread that executes through
//! channels. It reads the console first: what a guest printed before it rang, stopped or died is
//! there when that is known.
//!
//! The guest is hostile. Its messages are bounded by the window and checked when they are decoded,
//! its console is cut to its last 4 MiB, doorbells beyond the first do not pile up, and the log of
//! fired faults is parsed as bytes, which are read, as the coverage is, where they lie in its
//! memory.

mod about;
mod accel;
mod booted;
mod clock;
mod config;
mod console;
mod debugger;
mod disks;
mod error;
mod fired;
mod identity;
mod launch;
mod machine;
mod memory;
mod pages;
mod patience;
mod pauses;
mod physical;
mod qmp;
mod returns;
mod run;
mod saved;
mod store;
mod template;
mod watch;

use crate::process;

pub use about::About;
pub use accel::{AccelChoice, Chosen};
pub use config::{Accel, GuestConfig};
pub(crate) use console::printable;
pub use debugger::Debugger;
pub use disks::Disks;
pub(crate) use disks::disk_node;
pub use error::GuestError;
pub use fired::FiredLog;
pub(crate) use pauses::PAUSES;
pub use physical::{Trace, Traces};
pub use returns::Returns;
pub use run::{End, Guest, Observed};
pub use template::Template;
