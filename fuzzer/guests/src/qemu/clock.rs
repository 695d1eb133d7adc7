//! The rate of the clock that translated guests count time with.
//!
//! QEMU's translator hands the host's time stamp counter to the guest (`cpu_get_host_ticks()`). A
//! guest's kernel that has to find out its rate by itself compares it with emulated timers, and on
//! a busy host is wrong by factors: its timeouts then fire early. So the kernel is told.

use std::{
    sync::LazyLock,
    thread,
    time::{Duration, Instant},
};

/// Time that the counter is watched. With [`READING`] the error is below a thousandth.
const SPAN: Duration = Duration::from_millis(30);

/// Most time that reading clock and counter together may take; a longer one was interrupted.
const READING: Duration = Duration::from_micros(10);

/// Increments of the host's time stamp counter in a millisecond, or nothing where it has none.
pub(super) fn counter_khz() -> Option<u64> {
    static KHZ: LazyLock<Option<u64>> = LazyLock::new(measure);
    *KHZ
}

fn measure() -> Option<u64> {
    let (start, from) = reading()?;
    thread::sleep(SPAN);
    let (end, to) = reading()?;
    let micros = u64::try_from(end.duration_since(start).as_micros()).ok()?;
    to.checked_sub(from)?.checked_mul(1000)?.checked_div(micros).filter(|khz| *khz > 0)
}

/// Clock and counter at the same instant.
fn reading() -> Option<(Instant, u64)> {
    (0..1000).find_map(|_| {
        let before = Instant::now();
        let counter = counter()?;
        (before.elapsed() < READING).then_some((before, counter))
    })
}

#[cfg(target_arch = "x86_64")]
fn counter() -> Option<u64> {
    // SAFETY: the instruction exists on every x86-64 processor and touches no memory.
    Some(unsafe { std::arch::x86_64::_rdtsc() })
}

#[cfg(not(target_arch = "x86_64"))]
fn counter() -> Option<u64> {
    None
}

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    use super::*;

    #[test]
    fn measurements_agree() {
        let (first, second) = (measure().unwrap(), measure().unwrap());
        assert!(first > 100_000, "{first} kHz");
        assert!(first.abs_diff(second) < first / 100, "{first} and {second} kHz");
    }
}
