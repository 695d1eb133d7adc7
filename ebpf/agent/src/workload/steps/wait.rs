//! Waiting, which gives the kernel's threads time to work.

use std::time::Duration;

use nix::{
    sys::time::TimeSpec,
    time::{ClockId, ClockNanosleepFlags, clock_nanosleep},
};

use super::{PreparedStep, Workspace};

/// Sleeps.
pub(super) struct Sleep(TimeSpec);

impl Sleep {
    pub(super) fn new(ms: u32) -> Self {
        Self(TimeSpec::from_duration(Duration::from_millis(ms.into())))
    }
}

impl PreparedStep for Sleep {
    fn needs_mount(&self) -> bool {
        false
    }

    fn call(&mut self, _: &mut Workspace) -> nix::Result<i64> {
        clock_nanosleep(ClockId::CLOCK_MONOTONIC, ClockNanosleepFlags::empty(), &self.0).map(|_| 0)
    }
}
