//! Kernel reports in a guest's text, and text by the time at which the kernel printed it.

use std::time::Duration;

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

/// Makes the report of a guest that did not answer within `deadline` and whose kernel says nothing;
/// `stack` is what its processor was at. The step that ran, by number and kind, names what does not
/// return where the processor was idle.
pub(super) fn silent_hang(target: &str, deadline: Duration, stack: &str, step: Option<(u32, &str)>) -> KernelReport {
    let function = kernel_report::hanging_function(stack);
    let waits = step.map(|(_, kind)| format!("{kind} does not return"));
    let title = match (&function, &waits) {
        (Some(function), _) => format!("hang in {function}"),
        (None, Some(waits)) => format!("hang: {waits}"),
        (None, None) => "hang: the deadline passed without a word of the kernel".to_owned(),
    };
    let step = step.map_or_else(String::new, |(number, kind)| format!(" in step {number} ({kind})"));
    let seconds = deadline.as_secs();
    KernelReport {
        key: kernel_report::hang_key(function.or(waits).as_deref()),
        title,
        kind: ReportKind::Hang,
        text: format!("no reply within {seconds} s{step}, target {target}; the processor was at:\n{stack}"),
    }
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
    fn a_hang_names_the_function_or_the_step() {
        let hang = |stack, step| silent_hang("t", Duration::from_secs(30), stack, step);
        let idle = hang("", Some((3, "mount")));
        assert_eq!(
            (idle.key.as_str(), idle.title.as_str()),
            ("hang: mount does not return", "hang: mount does not return")
        );
        assert!(idle.text.starts_with("no reply within 30 s in step 3 (mount), target t"), "{}", idle.text);
        assert_eq!(hang("", None).key, "hang: somewhere");
    }

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
