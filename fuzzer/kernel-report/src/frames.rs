//! Frames: a function on a stack and the place in it, as the kernel prints them.

use fault_plan::base_name;
use serde::{Deserialize, Serialize};

/// Function on a stack, and the place in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Frame {
    /// The function's name with compiler suffixes, as the kernel's symbols have it.
    pub function: String,
    /// Bytes from the function's start to the place: the instruction itself where the processor
    /// was, and the one behind the call in callers.
    pub offset: u64,
    /// Bytes of the function.
    pub size: u64,
    /// Its module; `None` when it is part of the kernel's image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub module: Option<String>,
    /// False when the unwinder doubts that it was called (`?`).
    pub certain: bool,
}

impl Frame {
    /// Reads a line of a stack: `? name+0x12/0x345 [module]`. The mark and the module may be
    /// missing. `None` when it is another line.
    #[must_use]
    pub fn parse(line: &str) -> Option<Self> {
        stack_line(line).map(Self::from)
    }
}

/// Place in a function's code: `name+0x12/0x345`, as `%pS` prints it (`lib/vsprintf.c`, 6.12).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Symbol<'log> {
    /// The function's name with the compiler's suffixes.
    pub(super) name: &'log str,
    /// Bytes from the function's start.
    pub(super) offset: u64,
    /// Bytes of the function.
    pub(super) size: u64,
}

/// A line of a stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct StackLine<'log> {
    pub(super) symbol: Symbol<'log>,
    pub(super) module: Option<&'log str>,
    /// True where the unwinder vouches for it: there is no `?`.
    pub(super) reliable: bool,
}

impl<'log> Symbol<'log> {
    /// Gives the function's name without the compiler's suffixes.
    pub(super) fn function(&self) -> &'log str {
        base_name(self.name)
    }
}

impl From<StackLine<'_>> for Frame {
    fn from(line: StackLine<'_>) -> Self {
        let Symbol { name, offset, size } = line.symbol;
        let module = line.module.map(str::to_owned);
        Self { function: name.to_owned(), offset, size, module, certain: line.reliable }
    }
}

/// Reads `name+0x12/0x345`.
pub(super) fn symbol(text: &str) -> Option<Symbol<'_>> {
    let (name, place) = text.split_once("+0x")?;
    let (offset, size) = place.split_once("/0x")?;
    let number = |digits: &str| {
        let is_hex = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
        is_hex.then(|| u64::from_str_radix(digits, 16).ok()).flatten()
    };
    let named = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.$".contains(&byte))
        && name.starts_with(|first: char| !first.is_ascii_digit());
    if !named {
        return None;
    }
    Some(Symbol { name, offset: number(offset)?, size: number(size)? })
}

/// Reads a function's name, without the compiler's suffixes, from `name+0x12/0x345`.
pub(super) fn function(text: &str) -> Option<&str> {
    symbol(text).map(|symbol| symbol.function())
}

/// Reads a line of a stack: `? name+0x12/0x345 [module 0123abcd]`.
pub(super) fn stack_line(line: &str) -> Option<StackLine<'_>> {
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
    Some(StackLine { symbol: symbol(first)?, module: module(after), reliable })
}

/// Says whether `line` was a line of a stack before something cut it or ran into it.
pub(super) fn is_broken(line: &str) -> bool {
    let rest = line.strip_prefix("? ").unwrap_or(line);
    let first = rest.split(' ').next().unwrap_or(rest);
    let starts = first.split_once("+0x").is_some_and(|(name, _)| !name.is_empty() && !name.contains(['(', '=', ':']));
    starts && stack_line(line).is_none()
}

/// Reads where the processor was: `RIP: 0010:name+0x12/0x345 [module]`.
pub(super) fn instruction_pointer(line: &str) -> Option<StackLine<'_>> {
    let place = line.strip_prefix("RIP: ")?.split_once(':')?.1;
    let (first, after) = place.split_once(' ').unwrap_or((place, ""));
    Some(StackLine { symbol: symbol(first)?, module: module(after), reliable: true })
}

/// Reads `btrfs`, from "[btrfs]" or "[btrfs 0123abcd]".
fn module(text: &str) -> Option<&str> {
    let name = text.trim_start().strip_prefix('[')?.split([']', ' ']).next()?;
    let named = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte));
    (named && !name.is_empty()).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_a_name_with_offset_and_size() {
        assert_eq!(symbol("open_ctree+0x1f/0x2b0"), Some(Symbol { name: "open_ctree", offset: 0x1f, size: 0x2b0 }));
        assert_eq!(function("read_one.part.0.cold+0x1f/0x2b0"), Some("read_one"));
        let long = "f+0x12345678901234567/0x2";
        for no in ["", "+0x1/0x2", "open_ctree", "a b+0x1/0x2", "f+0x/0x2", "f+0xg/0x2", "0xffff+0x1/0x2", long] {
            assert_eq!(symbol(no), None, "{no}");
        }
        let read = |line| stack_line(line).map(|line| (line.symbol.function(), line.module, line.reliable));
        assert_eq!(read("? f+0x1/0x2"), Some(("f", None, false)));
        assert_eq!(read(" f+0x1/0x2 [btrfs 0123abcd]"), Some(("f", Some("btrfs"), true)));
        assert_eq!(read("f+0x1/0x2 (unreliable)"), Some(("f", None, true)));
        assert_eq!(read("[<00000000d0a7ab5f>] f+0x1/0x2"), Some(("f", None, true)));
        assert_eq!(read("f+0x1/0x2 and more"), None);
    }

    #[test]
    fn a_frame_that_was_cut_is_told_from_other_text() {
        for broken in ["f+0x1", "? f+0x1/", "f+0x1/0x2g+0x3/0x4", "f+0x12/0x3BTRFS info"] {
            assert!(is_broken(broken), "{broken}");
        }
        for other in ["f+0x1/0x2", "? f+0x1/0x2 [btrfs]", "BTRFS info: at f+0x1/0x2", "Code: 48", "<TASK>", "+0x1"] {
            assert!(!is_broken(other), "{other}");
        }
    }
}
