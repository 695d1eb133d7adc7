//! One change of the kernel's code for all probes together.
//!
//! A probe stands in the call that ftrace has at a function's entry. With each new one the kernel
//! goes through all such calls, which takes longer than all else about it. While ftrace is switched
//! off probes are only noted, and the calls change when it is switched on again: see
//! `ftrace_enable_sysctl()` of `kernel/trace/ftrace.c` (6.12).

use std::fs;

use anyhow::{Context, Result};

const ENABLED: &str = "/proc/sys/kernel/ftrace_enabled";

/// Switches ftrace off, where the kernel lets that happen, and says whether it is.
pub(super) fn hold() -> bool {
    fs::write(ENABLED, "0").is_ok()
}

/// Switches ftrace on again.
///
/// # Errors
///
/// The kernel refuses: then no probe works.
pub(super) fn release() -> Result<()> {
    fs::write(ENABLED, "1").with_context(|| format!("cannot switch ftrace on again by {ENABLED}"))
}
