//! Call traces: which function called which.

use fault_plan::base_name;

use super::skip;

/// A function in a call trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Frame<'log> {
    /// Its name without compiler suffixes.
    pub(super) function: &'log str,
    /// True when it ran in an interrupt that came in between.
    pub(super) interrupt: bool,
}

/// Sections of a report that follow its first trace and can hold other traces.
const AFTER_TRACE: [&str; 8] = [
    "Allocated by task",
    "Freed by task",
    "Last potentially related work",
    "Second to last potentially",
    "The buggy address",
    "Modules linked in",
    "Memory state around",
    "Showing all locks held",
];

/// The name in `name+0x12/0x345`, as `%pS` prints it (`lib/vsprintf.c`, 6.12).
pub(super) fn symbol(text: &str) -> Option<&str> {
    let (name, place) = text.split_once("+0x")?;
    let (offset, size) = place.split_once("/0x")?;
    let hex = |digits: &str| !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    let named = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.$".contains(&byte))
        && name.starts_with(|first: char| !first.is_ascii_digit());
    (named && hex(offset) && hex(size)).then(|| base_name(name))
}

/// A line of a call trace: its function, and whether the unwinder vouches for it (no `?`).
pub(super) fn trace_line(line: &str) -> Option<(&str, bool)> {
    let mut rest = line.trim();
    // 6.1's kmemleak prints an address first: `[<00000000d0a7ab5f>] name+0x12/0x34`.
    if let Some(after) = rest.strip_prefix("[<") {
        rest = after.split_once(">]")?.1.trim_start();
    }
    let reliable = !rest.starts_with("? ");
    rest = rest.strip_prefix("? ").unwrap_or(rest);
    let (first, after) = rest.split_once(' ').unwrap_or((rest, ""));
    // Behind it only a module or the unwinder's marks.
    if !(after.is_empty() || after.starts_with(['[', '('])) {
        return None;
    }
    symbol(first).map(|function| (function, reliable))
}

/// The function in `RIP: 0010:name+0x12/0x34`.
fn instruction_pointer(line: &str) -> Option<&str> {
    symbol(line.strip_prefix("RIP: ")?.split_once(':')?.1.split(' ').next()?)
}

/// The first call trace in `lines`, innermost first. Where the processor was (`RIP:`) is a frame of
/// its own.
pub(super) fn call_trace<'log>(lines: &[&'log str]) -> Vec<Frame<'log>> {
    let mut frames: Vec<Frame<'log>> = Vec::new();
    let mut in_trace = false;
    let (mut in_interrupt, mut in_nmi) = (false, false);
    let mut traced = false;
    let mut pointer = None;
    // Index in `frames` of the function that the NMI interrupted. It ran in an interrupt itself if
    // the trace of one follows.
    let mut interrupted = None;
    for line in lines {
        if let Some(function) = instruction_pointer(line) {
            if in_nmi {
                interrupted = Some(frames.len());
            }
            frames.push(Frame { function, interrupt: in_interrupt });
            pointer = Some(function);
            continue;
        }
        if line.starts_with("Call Trace:") || line.starts_with("backtrace") || *line == "stack backtrace:" {
            in_trace = true;
            continue;
        }
        if !in_trace {
            continue;
        }
        match *line {
            "<NMI>" => (in_nmi, in_interrupt) = (true, true),
            "<IRQ>" | "<SOFTIRQ>" => (interrupted, in_interrupt) = (None, true),
            "</IRQ>" | "</NMI>" | "</SOFTIRQ>" => (in_nmi, in_interrupt) = (false, false),
            "<TASK>" => {
                if let Some(frame) = interrupted.take() {
                    frames[frame].interrupt = false;
                }
            }
            "</TASK>" => break,
            line => match trace_line(line) {
                Some((function, reliable)) => {
                    // On top of the stack of a frameless function lies its return address.
                    let caller = !traced && pointer.is_some_and(skip::is_frameless) && !skip::is_reporting(function);
                    traced = true;
                    // The unwinder starts at the instruction pointer, which is there already.
                    if caller || reliable && pointer != Some(function) {
                        frames.push(Frame { function, interrupt: in_interrupt });
                    }
                    if reliable {
                        pointer = None;
                    }
                }
                None if traced && is_end(line) => break,
                None => {}
            },
        }
    }
    frames
}

fn is_end(line: &str) -> bool {
    line.is_empty() || line.starts_with("---[") || AFTER_TRACE.iter().any(|section| line.starts_with(section))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_a_name_with_offset_and_size() {
        assert_eq!(symbol("open_ctree+0x1f/0x2b0"), Some("open_ctree"));
        assert_eq!(symbol("read_one.part.0.cold+0x1f/0x2b0"), Some("read_one"));
        for no in ["", "+0x1/0x2", "open_ctree", "a b+0x1/0x2", "f+0x/0x2", "f+0xg/0x2", "0xffff+0x1/0x2"] {
            assert_eq!(symbol(no), None, "{no}");
        }
        assert_eq!(trace_line("? f+0x1/0x2"), Some(("f", false)));
        assert_eq!(trace_line(" f+0x1/0x2 [btrfs 0123abcd]"), Some(("f", true)));
        assert_eq!(trace_line("[<00000000d0a7ab5f>] f+0x1/0x2"), Some(("f", true)));
        assert_eq!(trace_line("f+0x1/0x2 and more"), None);
    }

    #[test]
    fn the_caller_of_a_frameless_function_is_no_guess() {
        let lines =
            ["RIP: 0010:memset_orig+0x1/0x2", "Call Trace:", "? caller+0x1/0x2", "? stale+0x1/0x2", "outer+0x1/0x2"];
        let names: Vec<&str> = call_trace(&lines).iter().map(|frame| frame.function).collect();
        assert_eq!(names, ["memset_orig", "caller", "outer"]);
    }

    #[test]
    fn the_first_trace_counts() {
        let lines = [
            "RIP: 0010:inner+0x1/0x2 [module]",
            "Call Trace:",
            "<TASK>",
            "? noise+0x1/0x2",
            "inner+0x1/0x2",
            "mount: a word",
            "outer+0x1/0x2",
            "outer+0x1/0x2",
            "RIP: 0033:0x7f1234",
            "</TASK>",
            "Call Trace:",
            "other+0x1/0x2",
        ];
        let names: Vec<&str> = call_trace(&lines).iter().map(|frame| frame.function).collect();
        assert_eq!(names, ["inner", "outer", "outer"]);
    }
}
