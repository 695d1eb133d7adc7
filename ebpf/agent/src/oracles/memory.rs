//! Memory that did not come back.

use std::fs;

use anyhow::{Context, Result};
use nix::sys::sysinfo::sysinfo;

use guest_protocol::{Leftover, LeftoverKind};

use super::{Oracle, leftover};

const MEMORY: &str = "/proc/meminfo";
/// With less than one part in this many left of what was available at first, memory has leaked:
/// what comes next would fail for want of it, and not by its plan.
const MEMORY_LEFT: u64 = 4;

/// Memory in the guest.
#[derive(Default)]
pub(super) struct Memory {
    /// KiB that were available when nothing had leaked; 0 before that is known.
    first_kib: u64,
}

impl Oracle for Memory {
    fn remember(&mut self) -> Result<()> {
        self.first_kib = available_kib()?;
        Ok(())
    }

    fn leftover(&mut self) -> Option<Leftover> {
        // Free memory is told at once, and what is available beyond that takes the kernel a while.
        if free_kib().is_some_and(|free| defect(free, self.first_kib).is_none()) {
            return None;
        }
        let text = match available_kib() {
            Ok(left) => defect(left, self.first_kib)?,
            Err(error) => format!("how much memory is left cannot be told: {error:#}"),
        };
        Some(leftover(LeftoverKind::Memory, text))
    }
}

/// KiB of memory that nothing uses.
fn free_kib() -> Option<u64> {
    sysinfo().ok().map(|info| info.ram_unused() >> 10)
}

/// KiB of memory that can be had without swapping.
fn available_kib() -> Result<u64> {
    let text = fs::read_to_string(MEMORY).with_context(|| format!("cannot read {MEMORY}"))?;
    available_in(&text).with_context(|| format!("{MEMORY} does not say how much memory is available"))
}

/// The number in the line `MemAvailable:  400000 kB`. Mirrors `meminfo_proc_show()` of
/// `fs/proc/meminfo.c` (6.12).
fn available_in(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.trim().strip_suffix(" kB")?.parse().ok()
}

/// Why there is too little memory, if `left` of `first` KiB are.
fn defect(left: u64, first: u64) -> Option<String> {
    let (left_mib, first_mib) = (left >> 10, first >> 10);
    (left < first / MEMORY_LEFT).then(|| format!("only {left_mib} MiB of {first_mib} MiB of memory are left"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lost_memory_is_noticed() {
        let text = "MemTotal:         470000 kB\nMemFree:            9000 kB\nMemAvailable:     409600 kB\n";
        let first = available_in(text).unwrap();
        assert_eq!(first, 400 << 10);
        assert_eq!(defect(first, 0), None, "nothing is remembered yet");
        assert_eq!(defect(100 << 10, first), None);
        assert_eq!(defect(99 << 10, first).unwrap(), "only 99 MiB of 400 MiB of memory are left");
        assert_eq!(available_in("MemFree: 1 kB\n"), None);
    }
}
