//! Kernel reports in a guest's text, and text by the time at which the kernel printed it.

use kernel_report::{KernelReport, ReportKind};

use crate::qemu::GuestError;

/// Words by which the kernel reports that process 1, our agent, ended: trouble, no finding.
const AGENT_DEATH: &str = "Attempted to kill init";

/// Gives the kernel reports in `text` that count: up to the first that is more than a warning, and
/// none of our agent's death.
pub(super) fn reports(text: &str) -> Vec<KernelReport> {
    let mut all = kernel_report::reports(text);
    all.retain(|report| !report.title.contains(AGENT_DEATH));
    let last = all.iter().position(|report| report.kind != ReportKind::Warning);
    all.truncate(last.map_or(all.len(), |last| last + 1));
    all
}

/// Gives the trouble of a guest whose kernel died without a report in `text`.
pub(super) fn death(text: &str) -> GuestError {
    if kernel_report::is_out_of_memory(text) { GuestError::OutOfMemory } else { GuestError::Lost }
}

/// Gives how many bytes at the start of `console` were printed up to the time `seen_us` of the
/// kernel's log, in microseconds. Lines without a time belong to the line before.
pub(super) fn bytes_until(seen_us: u64, console: &str) -> usize {
    let mut printed = 0;
    for line in console.split_inclusive('\n') {
        if time_us(line).is_some_and(|time| time > seen_us) {
            break;
        }
        printed += line.len();
    }
    // Text without any time is the execution's own.
    if console[..printed].lines().any(|line| time_us(line).is_some()) { printed } else { 0 }
}

/// Gives the time of a console line in microseconds: `[   12.345678] text`
/// (`print_time()` in `kernel/printk/printk.c`, 6.12).
fn time_us(line: &str) -> Option<u64> {
    let (stamp, _) = line.trim_start().strip_prefix('[')?.split_once(']')?;
    let (seconds, fraction) = stamp.trim_start().split_once('.').filter(|(_, fraction)| fraction.len() == 6)?;
    seconds.parse::<u64>().ok()?.checked_mul(1_000_000)?.checked_add(fraction.parse().ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_divided_by_the_kernels_time() {
        let console = "[    2.000001] late\n  more of it\n[    3.000000] own\n[    2.5] no time\n";
        let divided = |seen_us| console.split_at(bytes_until(seen_us, console)).0;
        assert_eq!(divided(2_000_000), "");
        assert_eq!(divided(2_000_001), "[    2.000001] late\n  more of it\n");
        assert_eq!(divided(u64::MAX), console);
        assert_eq!(bytes_until(u64::MAX, "no time at all\n"), 0);
    }
}
