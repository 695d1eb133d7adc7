//! Objects that nothing points to, as kmemleak tells of them, by the source lines that allocated
//! them.
//!
//! ```text
//! unreferenced object 0xffff888007890f80 (size 800):
//!   comm "agent", pid 1, jiffies 4294902113
//!   hex dump (first 32 bytes):
//!     …
//!   backtrace (crc 0):
//!     __kmalloc_cache_noprof+0x258/0x440
//!     selftest_parcel_label+0x21/0x60
//! ```
//!
//! Mirrors `print_unreferenced()` of `mm/kmemleak.c` (6.12).

use fault_plan::base_name;
use guest_protocol::Growth;
use kcov_parser::SourceLines;
use kernel_report::{Frame, first_report, telling_caller};

/// Start of an object's first line.
const OBJECT: &str = "unreferenced object 0x";
/// Start of the line above an object's stack.
const STACK: &str = "backtrace";
/// The most stacks of one line that are shown.
const MOST_STACKS: usize = 3;

/// Objects that nothing points to.
#[derive(Debug, Default)]
pub(super) struct Unreferenced {
    stacks: Vec<Stack>,
}

/// Objects that were allocated on one stack.
#[derive(Debug)]
struct Stack {
    frames: Vec<Frame>,
    /// Number of the objects.
    objects: usize,
    /// Words of kmemleak on the first of them.
    text: String,
    /// Functions on the stack, innermost first, inlined ones too.
    functions: Vec<String>,
    /// Source lines in them, `fs/f.c:7`, as far as they are known.
    places: Vec<String>,
}

/// The objects of one source line, for its finding.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Allocated {
    /// Text for people.
    pub(super) words: String,
    /// Functions of the stack of most objects, innermost first; empty where there are none.
    pub(super) stack: Vec<String>,
}

impl Unreferenced {
    /// Reads the `text` of kmemleak. The kernel's source `lines` say where each call of a stack is;
    /// without them only its function is known.
    pub(super) fn new(text: &str, lines: Option<&SourceLines>) -> Self {
        let mut stacks: Vec<Stack> = Vec::new();
        for (frames, text) in objects(text) {
            if let Some(same) = stacks.iter_mut().find(|stack| stack.frames == frames) {
                same.objects += 1;
                continue;
            }
            let (functions, places): (_, Vec<_>) = frames.iter().flat_map(|frame| source(frame, lines)).unzip();
            let places = places.into_iter().flatten().collect();
            stacks.push(Stack { frames, objects: 1, text, functions, places });
        }
        stacks.sort_by_key(|stack| std::cmp::Reverse(stack.objects));
        Self { stacks }
    }

    /// Gives the objects that a source line has allocated. A call that is written on several lines
    /// has another one in the debug information: then the function that allocates says which it is.
    pub(super) fn of(&self, line: &Growth) -> Allocated {
        let on_line = |stack: &&Stack| stack.places.contains(&line.place);
        let in_function = |stack: &&Stack| telling_caller(&stack.functions) == Some(line.function.as_str());
        let mut found: Vec<_> = self.stacks.iter().filter(on_line).collect();
        if found.is_empty() {
            found = self.stacks.iter().filter(in_function).collect();
        }
        let Some(first) = found.first() else {
            let words = "kmemleak knows nothing of it: something still points to it\n".to_owned();
            return Allocated { words, stack: Vec::new() };
        };
        let told =
            |stack: &&Stack| format!("Nothing points to {} of them, as kmemleak finds:\n{}", stack.objects, stack.text);
        let words = found.iter().take(MOST_STACKS).map(told).collect();
        // kmemleak's own functions are left out.
        let stack = first_report(&first.text).map_or_else(Vec::new, |report| report.stack());
        Allocated { words, stack }
    }
}

/// Reads one object after the other: its stack, and the text of it. One whose stack is cut off or
/// was not noted, as the kernel had no memory for it, is left out.
fn objects(text: &str) -> Vec<(Vec<Frame>, String)> {
    let mut objects: Vec<(Vec<Frame>, String)> = Vec::new();
    let mut in_stack = false;
    for line in text.lines() {
        if line.starts_with(OBJECT) {
            objects.push((Vec::new(), String::new()));
            in_stack = false;
        }
        let Some((frames, text)) = objects.last_mut() else { continue };
        text.push_str(line);
        text.push('\n');
        in_stack |= line.trim_start().starts_with(STACK);
        frames.extend(Frame::parse(line).filter(|_| in_stack));
    }
    objects.retain(|(frames, _)| !frames.is_empty());
    objects
}

/// Gives the functions that are called at the frame, the innermost inlined one first, and the
/// source line in each. Without debug information there is one function, and no line.
fn source(frame: &Frame, lines: Option<&SourceLines>) -> Vec<(String, Option<String>)> {
    let call = frame.offset.checked_sub(1).filter(|_| frame.module.is_none());
    let known = lines.zip(call).map(|(lines, call)| lines.in_symbol(&frame.function, call, Some(frame.size)));
    match known {
        Some(known) if !known.is_empty() => {
            known.into_iter().map(|at| (at.function, Some(format!("{}:{}", at.file, at.line)))).collect()
        }
        _ => vec![(base_name(&frame.function).to_owned(), None)],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OTHER: &str = "unreferenced object 0xffff888100000000 (size 64):\n  comm \"swapper/0\", pid 1, jiffies 4294667296\n  \
        hex dump (first 32 bytes):\n    66 2b 30 78 31 2f 30 78 32 00 00 00 00 00 00 00  f+0x1/0x2.......\n  \
        backtrace (crc 5e1f2a3b):\n    __kmalloc_noprof+0x258/0x440\n    boot_part+0x21/0xa0\n";

    fn object(address: u32, caller: &str) -> String {
        format!(
            "unreferenced object 0xffff8880{address:08x} (size 800):\n  comm \"agent\", pid 1, jiffies 4294902113\n  \
             hex dump (first 32 bytes):\n    6b 6b 6b 6b 6b 6b 6b 6b 6b 6b 6b 6b 6b 6b 6b 6b  kkkkkkkkkkkkkkkk\n  \
             backtrace (crc 0):\n    kmemleak_alloc+0x29/0x30\n    __kmalloc_cache_noprof+0x258/0x440\n    selftest_parcel_label.isra.0+0x21/0x60\n    \
             {caller}+0x10/0x200\n"
        )
    }

    fn line(function: &str) -> Growth {
        Growth { place: "fs/f.c:412".to_owned(), function: function.to_owned(), calls: 1, bytes: 800 }
    }

    #[test]
    fn the_objects_of_a_line_are_told_by_the_stacks_on_which_they_were_allocated() {
        let [first, second, third] = [(1, "ioctl"), (2, "mount"), (3, "mount")].map(|(at, caller)| object(at, caller));
        let found = Unreferenced::new(&[OTHER, &first, &second, &third].concat(), None);
        let Allocated { words, stack } = found.of(&line("selftest_parcel_label"));
        assert_eq!(stack, ["__kmalloc_cache_noprof", "selftest_parcel_label", "mount"]);
        let expected = format!(
            "Nothing points to 2 of them, as kmemleak finds:\n{second}Nothing points to 1 of them, as kmemleak finds:\n{first}"
        );
        assert_eq!(words, expected);
        assert_eq!(found.of(&line("boot_part")).stack, ["__kmalloc_noprof", "boot_part"]);
    }

    #[test]
    fn what_something_still_points_to_is_said_to_be_so() {
        for text in ["", OTHER, &OTHER.replace("boot_part+0x21/0xa0", "selftest_parc")] {
            let Allocated { words, stack } = Unreferenced::new(text, None).of(&line("selftest_parcel_label"));
            assert_eq!(
                (words.as_str(), stack.len()),
                ("kmemleak knows nothing of it: something still points to it\n", 0)
            );
        }
        let without_stack = "unreferenced object 0xffff888100000000 (size 64):\n  backtrace (crc 0):\n";
        assert!(objects(&format!("f+0x1/0x2\n{without_stack}")).is_empty());
    }

    #[test]
    fn the_evidence_is_read_as_the_report_that_it_is() {
        let found = Unreferenced::new(&object(1, "mount"), None).of(&line("selftest_parcel_label"));
        let evidence =
            format!("fs/f.c:412 (f): left it\n{}\nshould_failslab returned ENOMEM (call 7):\n  kmalloc\n", found.words);
        let report = first_report(&evidence).unwrap();
        assert_eq!(report.guilty.map(|guilty| guilty.function).as_deref(), Some("selftest_parcel_label"));
        assert!(!report.text.contains("ENOMEM"), "{}", report.text);
    }
}
