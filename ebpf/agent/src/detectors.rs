//! The kernel's detectors, which switch themselves off when they run out of room.

use std::fs;

use crate::kernel;

/// Mirrors `lockdep_stats_show()` of `kernel/locking/lockdep_proc.c` (6.12).
const LOCKDEP: &str = "/proc/lockdep_stats";

/// Detectors that were on when the guest was prepared.
pub(crate) struct Detectors {
    lockdep: bool,
    kmemleak: bool,
}

impl Detectors {
    /// Notes which are on.
    pub(crate) fn note() -> Self {
        Self { lockdep: lockdep_is_on(), kmemleak: kernel::kmemleak_defect().is_empty() }
    }

    /// Says which are off by now.
    pub(crate) fn switched_off(&self) -> Vec<String> {
        let mut off = Vec::new();
        if self.lockdep && !lockdep_is_on() {
            off.push(format!("lockdep has switched itself off ({LOCKDEP})"));
        }
        if self.kmemleak && !kernel::kmemleak_defect().is_empty() {
            off.push("kmemleak has switched itself off".to_owned());
        }
        off
    }
}

fn lockdep_is_on() -> bool {
    fs::read_to_string(LOCKDEP).is_ok_and(|text| debug_locks(&text) == Some(1))
}

/// The number in the line ` debug_locks:    1`.
fn debug_locks(text: &str) -> Option<u32> {
    text.lines().find_map(|line| line.trim().strip_prefix("debug_locks:"))?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lockdep_tells_whether_it_is_on() {
        let text = " max lock class index:                 955\n debug_locks:                             1\n\n zapped";
        assert_eq!(debug_locks(text), Some(1));
        assert_eq!(debug_locks(&text.replace("  1\n", "  0\n")), Some(0));
        assert_eq!(debug_locks("lock-classes: 7"), None);
    }
}
