//! Stacks of a report: its call trace, and those of whoever allocated, freed or locked.
//!
//! ```text
//!            "Allocated by task 7:", "-> #1 (lock)", … "Call Trace:", "RIP: 0010:f+0x1/0x2"
//!   no stack ──────────────────────────────────────────────────────────────────────────────▶ a stack
//!      ▲                                                                                        │
//!      └──────────── "</TASK>", or an empty line or the next section behind its frames ─────────┘
//! ```
//!
//! Lines of others in between change nothing. A header without frames makes no stack.

use serde::{Deserialize, Serialize};

use super::{
    frames::{self, Frame, StackLine},
    skip,
};

/// Call stack that a report shows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stack {
    /// Whose stack it is.
    pub role: StackRole,
    /// Its frames, innermost first; never empty. Those are among them that the unwinder doubts.
    pub frames: Vec<Frame>,
}

/// Role of a stack in a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StackRole {
    /// Who noticed, and mostly who did it.
    Call,
    /// Who allocated the memory.
    Allocated,
    /// Who freed the memory.
    Freed,
    /// Who took a lock: now, or when lockdep learned an order. Of a lock that is held the kernel
    /// shows one frame.
    Lock,
    /// Somebody else: who queued a work item, another processor.
    Other,
}

/// Sections of a report that follow its first trace and can hold other traces.
const AFTER_TRACE: [&str; 4] =
    ["The buggy address", "Modules linked in", "Memory state around", "Showing all locks held"];

/// Starts of lines above a stack that belongs to a memory or to a work item. The first letter has
/// either case.
const OF_MEMORY: &[(&str, StackRole)] = &[
    // mm/kasan/report.c, mm/kfence/report.c (small letters), mm/slub.c (`print_track()`)
    ("llocated by task ", StackRole::Allocated),
    ("reed by task ", StackRole::Freed),
    ("llocated in ", StackRole::Allocated),
    ("reed in ", StackRole::Freed),
    // mm/kmsan/report.c, mm/page_owner.c
    ("ninit was created at:", StackRole::Allocated),
    ("ninit was stored to memory at:", StackRole::Other),
    ("age last allocated via order ", StackRole::Allocated),
    ("age last free ", StackRole::Freed),
    // mm/kasan/report_generic.c, mm/kasan/report.c
    ("ast potentially related work creation:", StackRole::Other),
    ("econd to last potentially related work creation:", StackRole::Other),
    // kernel/sched/core.c
    ("reemption disabled at:", StackRole::Other),
];

/// Starts of lines above the stack of an access, where no "Call Trace:" is printed (`mm/kfence`,
/// `mm/kmsan` and `kernel/kcsan/report.c`, 6.12).
const OF_ACCESS: &[&str] = &[
    "Out-of-bounds ",
    "Use-after-free ",
    "Corrupted memory at ",
    "Invalid read at ",
    "Invalid write at ",
    "Invalid free of ",
    "BUG: KMSAN: ",
    "read to 0x",
    "write to 0x",
    "read-write to 0x",
    "read (marked) to 0x",
    "write (marked) to 0x",
    "read-write (marked) to 0x",
];

/// A frame of a stack.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry<'log> {
    line: StackLine<'log>,
    /// Its function without compiler suffixes.
    pub(super) function: &'log str,
    /// True when it ran in an interrupt that came in between.
    pub(super) interrupt: bool,
    /// True when it may be what an earlier call left on the stack.
    guess: bool,
}

/// A stack as it stands in the log.
#[derive(Debug)]
pub(super) struct Section<'log> {
    role: StackRole,
    /// True when the report shows by it where it was noticed.
    is_main: bool,
    entries: Vec<Entry<'log>>,
    /// True when its last line is there.
    whole: bool,
    /// True when it has more than where the processor was.
    traced: bool,
    /// Its only frame where no others follow its header.
    caller: Option<StackLine<'log>>,
}

impl<'log> Section<'log> {
    fn new(role: StackRole, is_main: bool) -> Self {
        Self { role, is_main, entries: Vec::new(), whole: true, traced: false, caller: None }
    }

    fn add(&mut self, line: StackLine<'log>) {
        let function = line.symbol.function();
        self.entries.push(Entry { line, function, interrupt: false, guess: false });
    }

    /// Gives the stack as users see it.
    pub(super) fn stack(&self) -> Stack {
        Stack { role: self.role, frames: self.entries.iter().map(|entry| entry.line.into()).collect() }
    }

    /// Says whether parts of this stack are missing or damaged.
    pub(super) fn is_damaged(&self) -> bool {
        !self.whole
    }
}

/// Finds all stacks in `lines`, in their order.
pub(super) fn sections<'log>(lines: &[&'log str]) -> Vec<Section<'log>> {
    let mut reader = Reader::default();
    for line in lines {
        reader.line(line);
    }
    reader.close();
    reader.done
}

/// Gives the frames of the report's call trace, innermost first, without those that the unwinder
/// doubts. Where the processor was (`RIP:`) is a frame of its own.
pub(super) fn call_trace<'log>(lines: &[&'log str]) -> Vec<Entry<'log>> {
    let main = sections(lines).into_iter().find(|section| section.is_main);
    main.map_or_else(Vec::new, |section| section.entries.into_iter().filter(|entry| !entry.guess).collect())
}

/// Says whether `sections` have a call trace that is more than where the processor was.
pub(super) fn has_trace(sections: &[Section<'_>]) -> bool {
    sections.iter().any(|section| section.is_main && section.traced)
}

/// Reader of stacks, a line at a time.
#[derive(Debug, Default)]
struct Reader<'log> {
    done: Vec<Section<'log>>,
    open: Option<Section<'log>>,
    /// True behind the header of the open section; before it only the processor's place was read.
    in_trace: bool,
    in_interrupt: bool,
    in_nmi: bool,
    /// `<TASK>` and the like that have not ended.
    unended: usize,
    /// Function at which the processor was, while the trace may still begin with it.
    pointer: Option<&'log str>,
    /// Index of the function that the NMI interrupted. It ran in an interrupt itself if the trace
    /// of one follows.
    interrupted: Option<usize>,
}

impl<'log> Reader<'log> {
    fn line(&mut self, line: &'log str) {
        if let Some(pointer) = frames::instruction_pointer(line) {
            self.pointer(pointer);
        } else if let Some(taken) = held_lock(line) {
            let mut lock = Section::new(StackRole::Lock, false);
            lock.add(taken);
            self.done.push(lock);
        } else if let Some((role, is_main)) = header(line) {
            self.header(role, is_main);
            self.caller(line);
        } else if self.in_trace {
            self.within(line);
        }
    }

    fn pointer(&mut self, line: StackLine<'log>) {
        if self.open.as_ref().is_none_or(|open| !open.is_main) {
            self.start(StackRole::Call, true);
            self.in_trace = false;
        }
        let Some(section) = &mut self.open else { return };
        if self.in_nmi {
            self.interrupted = Some(section.entries.len());
        }
        let function = line.symbol.function();
        section.entries.push(Entry { line, function, interrupt: self.in_interrupt, guess: false });
        self.pointer = Some(function);
    }

    fn header(&mut self, role: StackRole, is_main: bool) {
        // The processor's place, and "stack backtrace:" above "Call Trace:", belong to one stack.
        let continues = role == StackRole::Call && self.open.as_ref().is_some_and(|open| open.is_main && !open.traced);
        if !continues {
            self.start(role, is_main);
        }
        self.in_trace = true;
    }

    /// Notes the caller in the header of `mm/slub.c`: "Freed in f+0x1/0x2 age=3 cpu=0 pid=7".
    fn caller(&mut self, header: &'log str) {
        let caller = header.split_once(" in ").and_then(|(_, place)| frames::symbol(place.split(' ').next()?));
        if let Some((section, symbol)) = self.open.as_mut().filter(|open| !open.is_main).zip(caller) {
            section.caller = Some(StackLine { symbol, module: None, reliable: true });
        }
    }

    fn start(&mut self, role: StackRole, is_main: bool) {
        self.close();
        // A second call trace is somebody else's.
        let again = is_main && self.done.iter().any(|section| section.is_main);
        let role = if again && role == StackRole::Call { StackRole::Other } else { role };
        self.open = Some(Section::new(role, is_main));
    }

    fn close(&mut self) {
        let unended = std::mem::take(&mut self.unended) > 0;
        (self.in_trace, self.in_interrupt, self.in_nmi) = (false, false, false);
        (self.pointer, self.interrupted) = (None, None);
        let Some(mut section) = self.open.take() else { return };
        section.whole &= !unended;
        if let Some(caller) = section.caller.filter(|_| section.entries.is_empty()) {
            section.add(caller);
        }
        if !section.entries.is_empty() {
            self.done.push(section);
        }
    }

    fn within(&mut self, line: &'log str) {
        match line {
            "<NMI>" => (self.in_nmi, self.in_interrupt) = (true, true),
            "<IRQ>" | "<SOFTIRQ>" => (self.interrupted, self.in_interrupt) = (None, true),
            "</IRQ>" | "</NMI>" | "</SOFTIRQ>" => (self.in_nmi, self.in_interrupt) = (false, false),
            "<TASK>" => {
                let interrupted = self.interrupted.take();
                if let Some(entry) = self.open.as_mut().zip(interrupted).map(|(open, at)| &mut open.entries[at]) {
                    entry.interrupt = false;
                }
            }
            _ => {}
        }
        match line {
            "<NMI>" | "<IRQ>" | "<SOFTIRQ>" | "<TASK>" => self.unended += 1,
            "</IRQ>" | "</NMI>" | "</SOFTIRQ>" => self.unended = self.unended.saturating_sub(1),
            "</TASK>" => {
                self.unended = self.unended.saturating_sub(1);
                self.close();
            }
            line => self.frame(line),
        }
    }

    fn frame(&mut self, line: &'log str) {
        let Some(section) = &mut self.open else { return };
        let Some(read) = frames::stack_line(line) else {
            section.whole &= !frames::is_broken(line);
            if section.traced && is_end(line) {
                self.close();
            }
            return;
        };
        let function = read.symbol.function();
        // On top of the stack of a frameless function lies its return address.
        let caller = !section.traced && self.pointer.is_some_and(skip::is_frameless) && !skip::is_reporting(function);
        section.traced = true;
        // The unwinder starts at the instruction pointer, which is there already.
        if !(read.reliable && self.pointer == Some(function)) {
            let guess = !read.reliable && !caller;
            section.entries.push(Entry { line: read, function, interrupt: self.in_interrupt, guess });
        }
        if read.reliable {
            self.pointer = None;
        }
    }
}

/// Reads the header of a stack: its role, and whether the report shows by it where it was noticed.
fn header(line: &str) -> Option<(StackRole, bool)> {
    if line.starts_with("Call Trace:") || line == "stack backtrace:" {
        return Some((StackRole::Call, true));
    }
    // mm/kmemleak.c: who allocated is all that is known. 6.1 prints no checksum.
    if line == "backtrace:" || line.starts_with("backtrace (crc ") {
        return Some((StackRole::Allocated, true));
    }
    if OF_ACCESS.iter().any(|start| line.starts_with(start)) {
        return Some((StackRole::Call, true));
    }
    let after_first = line.get(1..)?;
    if let Some((_, role)) = OF_MEMORY.iter().find(|(start, _)| after_first.starts_with(start)) {
        return Some((*role, false));
    }
    // kernel/locking/lockdep.c: `print_circular_bug_entry()`, `print_lock_class_header()`,
    // `print_usage_bug()`, `print_unlock_imbalance_bug()`.
    let of_lock = line.starts_with("-> #") || line.ends_with(" at:");
    of_lock.then_some((StackRole::Lock, false))
}

/// Reads who took a held lock: "#0: ffff8880 (&lock){+.+.}-{4:4}, at: f+0x1/0x2"
/// (`print_lock()` in `kernel/locking/lockdep.c`, 6.12).
fn held_lock(line: &str) -> Option<StackLine<'_>> {
    let (number, rest) = line.strip_prefix('#')?.split_once(": ")?;
    if number.is_empty() || !number.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    frames::stack_line(rest.rsplit_once(", at: ")?.1)
}

fn is_end(line: &str) -> bool {
    line.is_empty() || line.starts_with("---[") || AFTER_TRACE.iter().any(|section| line.starts_with(section))
}

#[cfg(test)]
mod tests;
