//! Settling: the work that the steps caused ends, in kernel threads and work items, while nothing
//! is armed any more.
//!
//! On the one processor of the guest the thread steps aside until nobody else is ready to run, and
//! no work item is left that was queued since the steps began. One that is left for long is what
//! [`Injector::outstanding`] found.

use std::{fs::File, os::unix::fs::FileExt as _, thread, time::Duration};

use anyhow::{Context, Result};
use nix::sched::sched_yield;

use crate::injector::Injector;

/// Load of the system, with the number of tasks that are ready to run. Mirrors
/// `loadavg_proc_show()` of `fs/proc/loadavg.c` (6.12).
const LOAD: &str = "/proc/loadavg";
/// Time between two looks, at first and at most.
const PAUSES: (Duration, Duration) = (Duration::from_micros(50), Duration::from_millis(1));
/// Pauses, all together, after which work does not end. A guest that its host does not run makes
/// none.
const DEADLINE: Duration = Duration::from_secs(1);
/// The same for tasks that are ready to run, and are nobody's work item: they end nothing.
const READY_DEADLINE: Duration = Duration::from_millis(100);

/// The state of a guest in which the steps have run.
pub(super) struct Settling {
    load: File,
}

impl Settling {
    pub(super) fn new() -> Result<Self> {
        Ok(Self { load: File::open(LOAD).with_context(|| format!("cannot open {LOAD}"))? })
    }

    /// Waits for the end of what the steps caused. Gives the address of the function of a work item
    /// that does not end.
    ///
    /// # Errors
    ///
    /// The kernel does not tell.
    pub(super) fn settle(&self, injector: &Injector) -> Result<Option<u64>> {
        let (mut pause, most) = PAUSES;
        let mut paused = Duration::ZERO;
        loop {
            sched_yield().context("cannot step aside")?;
            let outstanding = injector.outstanding()?;
            match outstanding {
                Some(function) if paused >= DEADLINE => return Ok(Some(function)),
                None if paused >= READY_DEADLINE || self.ready()? <= 1 => return Ok(None),
                _ => {}
            }
            thread::sleep(pause);
            paused += pause;
            pause = most.min(pause * 2);
        }
    }

    /// Says whether no task but this one is ready to run.
    ///
    /// # Errors
    ///
    /// The kernel does not tell.
    pub(super) fn is_idle(&self) -> Result<bool> {
        sched_yield().context("cannot step aside")?;
        Ok(self.ready()? <= 1)
    }

    /// Counts the tasks that are ready to run, this one included.
    fn ready(&self) -> Result<u32> {
        let mut text = [0; 64];
        let bytes = self.load.read_at(&mut text, 0).with_context(|| format!("cannot read {LOAD}"))?;
        ready(&text[..bytes]).with_context(|| format!("{LOAD} does not tell the tasks that are ready to run"))
    }
}

/// The number before the slash: `0.00 0.01 0.05 1/63 71`.
fn ready(load: &[u8]) -> Option<u32> {
    let text = std::str::from_utf8(load).ok()?;
    text.split(' ').nth(3)?.split_once('/')?.0.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_load_tells_how_many_tasks_are_ready() {
        assert_eq!(ready(b"0.00 0.01 0.05 12/63 71\n"), Some(12));
        assert_eq!((ready(b"0.00 0.01 0.05"), ready(b"")), (None, None));
        assert!(Settling::new().unwrap().ready().unwrap() >= 1, "this one is");
    }
}
