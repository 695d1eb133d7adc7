//! Kernel text with source lines in place of offsets, as `scripts/decode_stacktrace.sh` of the
//! kernel's source writes it.
//!
//! ```text
//! RIP: 0010:kref_put+0x12/0x40      RIP: 0010:kref_put (include/linux/kref.h:64)
//!  btrfs_put+0x45/0x90               kref_put_inner (fs/btrfs/disk-io.c:12) (inlined)
//!                                    btrfs_put (fs/btrfs/disk-io.c:1234)
//! ```

use kcov_parser::{SourceFrame, SourceLines};
use kernel_report::Frame;

/// Words at the start of lines that name the instruction itself and not the one behind a call.
const EXACT: [&str; 2] = ["RIP: ", "WARNING: "];

/// Writes `text`, kernel text such as a report's, with source lines in place of offsets. On a stack
/// each inlined function has a line of its own; elsewhere its source line stands before that of
/// the function which it is part of. Functions of modules, and all that `lines` do not know, stay
/// as they are.
#[must_use]
pub fn decode(text: &str, lines: &SourceLines) -> String {
    decode_with(text, |frame, address_bytes| {
        let offset = frame.offset.checked_sub(address_bytes).filter(|_| frame.module.is_none());
        offset.map_or_else(Vec::new, |offset| lines.in_symbol(&frame.function, offset, Some(frame.size)))
    })
}

/// Writes `text` with what `find` knows of a frame. `find` gets the bytes by which the frame's
/// offset is behind the instruction's.
fn decode_with(text: &str, find: impl Fn(&Frame, u64) -> Vec<SourceFrame>) -> String {
    let mut decoded = String::with_capacity(text.len() * 2);
    // The instruction at which the processor was, which its stack can begin with.
    let mut exact = None;
    for line in text.lines() {
        let body = line.trim_start();
        let is_exact = EXACT.iter().any(|words| body.starts_with(words));
        let mut known = |frame: &Frame| {
            let place = (frame.function.clone(), frame.offset);
            let is_exact = is_exact || exact.as_ref() == Some(&place);
            if is_exact {
                exact = Some(place);
            }
            Some(find(frame, u64::from(!is_exact))).filter(|found| !found.is_empty())
        };
        match Frame::parse(body).map(|frame| (known(&frame), frame)) {
            Some((Some(found), frame)) => {
                let indent = &line[..line.len() - body.len()];
                let doubt = if frame.certain { "" } else { "? " };
                for SourceFrame { function, file, line, inlined } in found {
                    // A part of a function has the name that the kernel's symbols give it.
                    let name = if inlined { &function } else { &frame.function };
                    let mark = if inlined { " (inlined)" } else { "" };
                    decoded += &format!("{indent}{doubt}{name} ({file}:{line}){mark}\n");
                }
            }
            Some((None, _)) => decoded += &format!("{line}\n"),
            None => {
                let words: Vec<String> = line.split(' ').map(|word| decode_word(word, &mut known)).collect();
                decoded += &(words.join(" ") + "\n");
            }
        }
    }
    decoded
}

/// Writes `word`, such as `0010:f+0x1/0x2,`, with what `known` gives of the frame in it.
fn decode_word(word: &str, known: &mut impl FnMut(&Frame) -> Option<Vec<SourceFrame>>) -> String {
    let start = word.rfind([':', '(', '[']).map_or(0, |at| at + 1);
    let end = word.trim_end_matches([',', ')', ']', '.', ':', '!', ';']).len().max(start);
    let found = Frame::parse(&word[start..end]).and_then(|frame| Some((known(&frame)?, frame)));
    let Some((found, frame)) = found else { return word.to_owned() };
    let places: Vec<String> = found.iter().map(|frame| format!("{}:{}", frame.file, frame.line)).collect();
    format!("{}{} ({}){}", &word[..start], frame.function, places.join(" "), &word[end..])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(text: &str) -> String {
        decode_with(text, |frame, before| {
            let at = |function: &str, line, inlined| SourceFrame {
                function: function.to_owned(),
                file: "fs/f.c".to_owned(),
                line,
                inlined,
            };
            let line = u32::try_from(frame.offset - before).unwrap();
            match frame.function.as_str() {
                "outer.cold" => vec![at("inner", line, true), at("outer", 90, false)],
                "f" | "g" => vec![at(&frame.function, line, false)],
                _ => Vec::new(),
            }
        })
    }

    #[test]
    fn a_stack_has_lines_in_place_of_offsets() {
        let text = "BUG: KASAN: odd in outer.cold+0x8/0x9\nRIP: 0010:f+0x7/0x20\n <TASK>\n ? f+0x7/0x20\n \
                    ? g+0x7/0x20\n outer.cold+0x8/0x9\n unknown+0x1/0x2\n #0: ffff (&l){+}, at: g+0x3/0x4, x\n";
        let expected = "BUG: KASAN: odd in outer.cold (fs/f.c:7 fs/f.c:90)\nRIP: 0010:f (fs/f.c:7)\n <TASK>\n \
                        ? f (fs/f.c:7)\n ? g (fs/f.c:6)\n inner (fs/f.c:7) (inlined)\n outer.cold (fs/f.c:90)\n \
                        unknown+0x1/0x2\n #0: ffff (&l){+}, at: g (fs/f.c:2), x\n";
        assert_eq!(decoded(text), expected);
    }

    #[test]
    fn a_warning_names_the_instruction_itself() {
        let text = "WARNING: CPU: 0 PID: 7 at fs/f.c:5 f+0x5/0x9\n";
        assert_eq!(decoded(text), "WARNING: CPU: 0 PID: 7 at fs/f.c:5 f (fs/f.c:5)\n");
        assert_eq!(decoded("Code: 48 f+0x\n\n"), "Code: 48 f+0x\n\n");
    }
}
