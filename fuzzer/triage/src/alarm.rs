//! Alarms by design: the kernel says that the very error came that was injected.
//!
//! A crash is an alarm only where one of three things is certain. All else is a finding.
//!
//! ```text
//! a warning, after which the kernel goes on
//!   ├─ its message says that a file system was given the injected error ──────────────▶ alarm
//!   └─ the checked expression is true of the injected error alone, and
//!      a fault fired below the call that checks it ───────────────────────────────────▶ alarm
//! an endless loop, in a function that has no error to return ─────────────────────────▶ alarm
//! ```
//!
//! What kills the kernel is no alarm: `BUG_ON(ret)` turns an error that can come into a dead
//! machine. Nor is a bad access, a lock, a hang, another loop or a leak, whatever was injected.

mod expression;

use self::expression::Checked;

/// A message by which a file system announces that it was given an error. The line must name the
/// injected one: file systems print the same for damage that they found themselves.
struct Announcement {
    /// The line has these, in this order, and starts with the first.
    pieces: &'static [&'static str],
    /// Why it is no defect.
    reason: &'static str,
}

/// The announcements that name an error (Linux 6.12). What names none, as "Aborting journal on
/// device" and "panic forced after error", leaves doubt.
#[rustfmt::skip]
const ANNOUNCEMENTS: &[Announcement] = &[
    // fs/btrfs/transaction.h, btrfs_abort_transaction(); fs/btrfs/messages.c,
    // __btrfs_handle_fs_error(). New campaigns make no crash of the first.
    Announcement { pieces: &["BTRFS: Transaction aborted (error "],
        reason: "btrfs_abort_transaction() warns of every error that ends a transaction" },
    Announcement { pieces: &["BTRFS: error (device ", " errno=-"],
        reason: "btrfs_handle_fs_error() tells the error for which the file system becomes read-only" },
    Announcement { pieces: &["BTRFS error (device "], reason: "btrfs tells of an error that it was given" },
    // fs/ext4/super.c, __ext4_error() and __ext4_std_error()
    Announcement { pieces: &["EXT4-fs error (device "],
        reason: "ext4_error() tells an error that ext4 was given, as the mount option errors= asks" },
    // fs/xfs/xfs_buf.c, xfs_buf_ioerror_alert()
    Announcement { pieces: &["XFS (", "metadata I/O error", "error "],
        reason: "XFS tells an I/O error of its metadata" },
];

/// Kind of findings after which the kernel goes on.
const WARNING: &str = "warning";
/// Kind of findings that are alarms where the kernel waits for what the plan never gives it.
const LOOP: &str = "loop";

/// Functions that ask for memory until they get some, as they have no error to return
/// (`fs/btrfs/extent-io-tree.c`, `search_again`, Linux 6.12).
const ASKING: &[&str] = &["__set_extent_bit", "__clear_extent_bit"];
/// Callers of a failed call among which such a function is; the others are the allocator's.
const NEAR: usize = 4;

/// A fault that fired, as this module looks at it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Injected<'a> {
    /// Its error's name, such as `ENOMEM`.
    pub(crate) error: &'a str,
    /// Innermost caller first.
    pub(crate) call_path: &'a [String],
}

/// Says why a crash is an alarm by design; nothing where it is none. `stack` has the functions of
/// the report's trace, innermost first, and `report` its lines.
pub(crate) fn alarm(
    (kind, key): (&str, &str),
    report: &str,
    stack: &[String],
    faults: &[Injected<'_>],
) -> Option<String> {
    match kind {
        WARNING if !faults.is_empty() => announced(report, faults).or_else(|| checked(key, stack, faults)),
        LOOP => asking(stack),
        _ => None,
    }
}

/// Looks whether the call that fails again and again, of these callers, is in a function that has
/// no error to return.
fn asking(call_path: &[String]) -> Option<String> {
    let function = call_path.iter().take(NEAR).find(|function| ASKING.contains(&function.as_str()))?;
    Some(format!("{function}() has no error to return: it asks for memory until it gets some, and here it never does"))
}

/// Gives the lines of a report that say what was wrong; its trace stands behind them.
pub(crate) fn head(report: &str) -> impl Iterator<Item = &str> {
    report.lines().map(str::trim).take_while(|line| !line.starts_with("Call Trace")).take(12)
}

/// Looks for an announcement in the lines above the trace.
fn announced(report: &str, faults: &[Injected<'_>]) -> Option<String> {
    let found = head(report).find_map(|line| {
        let announcement = ANNOUNCEMENTS.iter().find(|announcement| has_pieces(line, announcement.pieces))?;
        faults.iter().any(|fault| names(line, fault.error)).then_some(announcement)
    })?;
    Some(format!("{}: that is the injected error at work", found.reason))
}

fn has_pieces(line: &str, pieces: &[&str]) -> bool {
    let mut rest = line;
    pieces.iter().enumerate().all(|(index, piece)| match rest.find(piece) {
        Some(at) if index > 0 || at == 0 => {
            rest = &rest[at + piece.len()..];
            true
        }
        _ => false,
    })
}

/// Says whether a message names this error, by number or in the words of the kernel
/// (`fs/ext4/super.c`, `ext4_decode_error()`; `fs/btrfs/messages.c`, `btrfs_decode_error()`, 6.12).
fn names(line: &str, error: &str) -> bool {
    let Some(number) = number(error) else { return false };
    let words: &[&str] = match error {
        "EIO" => &["IO failure", "I/O error", "IO error", "i/o error"],
        "ENOMEM" | "true" | "NULL" => &["Out of memory", "out of memory"],
        "ENOSPC" => &["No space left"],
        "EROFS" => &["Readonly filesystem"],
        _ => &[],
    };
    words.iter().any(|words| line.contains(words)) || says_number(line, number)
}

/// Says whether a message has `-12`, or `error 12`; other numbers are blocks, inodes and devices.
fn says_number(line: &str, number: i64) -> bool {
    let negative = format!("-{number}");
    let ends = |at: usize| !line[at..].starts_with(|next: char| next.is_ascii_alphanumeric());
    let begins = |at: usize| !line[..at].ends_with(|before: char| before.is_ascii_alphanumeric());
    let found = |text: &str| line.match_indices(text).any(|(at, _)| begins(at) && ends(at + text.len()));
    found(&negative) || ["error ", "errno ", "errno=", "err "].iter().any(|word| found(&format!("{word}{number}")))
}

/// Gives the number of an error. An allocation that fails otherwise becomes ENOMEM in its caller.
fn number(error: &str) -> Option<i64> {
    match error {
        "true" | "NULL" => Some(12),
        name => fault_plan::Errno::from_name(name).map(|errno| i64::from(errno.number())),
    }
}

/// Looks whether the checked expression is about the injected error alone.
fn checked(key: &str, stack: &[String], faults: &[Injected<'_>]) -> Option<String> {
    let checked = Checked::of_key(key)?;
    faults.iter().find_map(|fault| {
        let function = below(stack, checked.function, fault.call_path)?;
        let number = number(fault.error)?;
        checked.is_about(-number).then(|| {
            format!(
                "{} warns that {function} was given an error: the fault below it returned {}",
                checked.text, fault.error
            )
        })
    })
}

/// Finds the function that reports on the call path of a fault, with the same callers: the fault
/// then fired below the very call that reports. `named` is the function that the check's source
/// stands in; the compiler may have made it a part of the one in the stack.
fn below<'a>(stack: &'a [String], named: &'a str, call_path: &[String]) -> Option<&'a str> {
    /// Callers of the function that must be the same.
    const CALLERS: usize = 3;
    let reporter = stack.first()?;
    let at = call_path.iter().position(|function| function == reporter)?;
    let (ours, theirs) = (call_path.get(at + 1..)?, stack.get(1..)?);
    let compared = ours.len().min(theirs.len()).min(CALLERS);
    (compared > 0 && ours[..compared] == theirs[..compared]).then_some(if named.is_empty() { reporter } else { named })
}

#[cfg(test)]
mod tests;
