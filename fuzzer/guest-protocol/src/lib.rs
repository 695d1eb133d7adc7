//! The messages between host and agent.
//!
//! ```text
//! host                                  agent
//!   (boot) ───────────────────────────▶ maps the window, mounts /proc and /sys
//!   ◀────────────────────────── Hello   who it is, what the kernel can do
//!   Setup ────────────────────────────▶ loads the disk, attaches the probes
//!   ◀────────────────────────── Ready   what it attached; here a template is saved
//!   Execute(plan) ────────────────────▶ arms the faults, runs the workload
//!   ◀───────────────────────── Report   steps, hits, faults fired; then it puts the disk back
//! ```
//!
//! A message is written into the [`Window`], then the other side's doorbell (one byte over
//! virtio-serial) rings. The first request to an agent that was told to wait [`Setup::awake`] is
//! not rung for. A ring without a new message is none: a side that looked in time took the message
//! before it heard of it. The guest runs a kernel with corrupted memory: whatever comes from it is
//! bounded by the window's areas, decoded without trust and checked by [`FromAgent::check`].

mod checker;
mod console;
mod encoding;
mod hit;
mod ioctl;
mod limits;
mod message;
pub mod pattern;
mod relative_path;
mod step;
mod step_defect;
mod step_result;
mod step_words;
mod system_path;
mod trace;
mod window;
mod workload_step;

pub use checker::{CHECKER_FOLDER, CHECKER_LINKER, Checker};
pub use console::{step_ran, step_runs};
pub use encoding::MessageError;
pub use hit::Hit;
pub use ioctl::{HexBytes, HexBytesError, Ioctl, IoctlFile, IoctlMemory};
pub use limits::{
    LIMITS, Limits, MAX_CALLERS, MAX_CONDITIONS, MAX_DISKS, MAX_FUNCTIONS, MAX_SHOWN, MAX_UNRELATED, cut,
};
pub use message::{
    Contract, DISK_PARTS, Defect, Execute, Feature, FiredFault, FromAgent, Growth, Hello, LOG_LOST, LeftOut, Leftover,
    LeftoverKind, Loss, LossKind, PROTOCOL_VERSION, Ready, Report, SLOT_TYPES, SLOTS_FILE, Setup, Shown,
    SiteDescription, Timings, ToAgent,
};
pub use relative_path::{RelativePath, RelativePathError};
pub use step::Step;
pub use step_defect::{MAX_SLEEP_MS, SECTOR_BYTES};
pub use step_result::StepResult;
pub use step_words::{BlockGroups, Fallocate, Profile, Shutdown};
pub use system_path::{SystemPath, SystemPathError};
pub use trace::{MemoryRange, Recorded, TraceMemory, TraceRole};
pub use window::{
    DOORBELL, Direction, PORT_NAME, REPLY_MAX_BYTES, REQUEST_MAX_BYTES, WINDOW_BYTES, WINDOW_GUEST_ADDRESS, Window,
    WindowError,
};
pub use workload_step::WorkloadStep;
