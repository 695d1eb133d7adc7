//! The kernel's report, or an oracle's, as a mail shows it.

/// Most lines of it.
const MOST_TRACE: usize = 120;

/// Starts of lines that say nothing to a maintainer: registers, those of the program, and the
/// interrupts that were enabled (`print_irqtrace_events()` of `kernel/locking/lockdep.c`, 6.12).
const NOISE: [&str; 17] = [
    "RSP: ",
    "RAX: ",
    "RDX: ",
    "RBP: ",
    "R10: ",
    "R13: ",
    "FS:  ",
    "CS:  ",
    "CR2: ",
    "Code: ",
    "DR0: ",
    "DR3: ",
    "RIP: 0033:",
    "irq event stamp:",
    "hardirqs last ",
    "softirqs last ",
    "Modules linked in:",
];

/// Gives the lines of a report that a maintainer reads: no registers, nor what the unwinder only
/// guesses. Steps that were skipped are told on one line.
pub(super) fn trace(report: &str) -> String {
    let keeps = |line: &&str| {
        let line = line.trim();
        !line.starts_with("? ") && !NOISE.iter().any(|start| line.starts_with(start))
    };
    let (mut lines, mut skipped) = (Vec::new(), 0);
    for line in report.lines().filter(keeps).take(MOST_TRACE + 1) {
        if line.starts_with("step ") && line.ends_with(" was skipped") {
            skipped += 1;
        } else {
            lines.push(line.to_owned());
        }
    }
    if lines.len() > MOST_TRACE {
        lines.truncate(MOST_TRACE);
        lines.push("[cut off here]".to_owned());
    }
    if skipped > 0 {
        lines.push(format!("{skipped} steps after it were skipped"));
    }
    lines.iter().map(|line| format!("{line}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trace_has_neither_registers_nor_guesses() {
        let report = "WARNING: x\nRIP: 0010:f+0x1/0x2\nRAX: 0\n? guess+0x1/0x2\n g+0x1/0x2\n";
        assert_eq!(trace(report), "WARNING: x\nRIP: 0010:f+0x1/0x2\n g+0x1/0x2\n");
        assert!(trace(&"line\n".repeat(500)).ends_with("line\n[cut off here]\n"));
    }

    #[test]
    fn skipped_steps_are_one_line() {
        let report = "device left\nstep 1 failed with error 12\nstep 2 was skipped\nstep 3 was skipped\n";
        assert_eq!(trace(report), "device left\nstep 1 failed with error 12\n2 steps after it were skipped\n");
    }
}
