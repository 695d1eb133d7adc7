//! Accesses: what a report says was done to which memory.

use super::{
    Access,
    rules::{self, Rule, Wording},
    slab,
};

/// Lines of a report's body, below its header, in which an access can stand.
const NEAR: usize = 20;

/// Reads the access of the report whose header, by `rule`, is the first of `body`; `context` stands
/// above it. Only some kinds have one.
pub(super) fn access(rule: &Rule, context: &[&str], body: &[&str]) -> Option<Access> {
    let near = || body.iter().take(NEAR).copied();
    match rule.wording {
        Wording::Kasan => near().find_map(of_kasan),
        Wording::Sanitizer => near().find_map(|line| of_kfence(line).or_else(|| of_kcsan(line))),
        Wording::Fault(_) | Wording::NamedFault => of_fault(body),
        Wording::Slab => {
            let detail = rules::detail_above(context);
            let frees = slab::defect(body.first()?, detail).is_callers;
            frees.then(|| Access { what: "free".to_owned(), bytes: None, address: None })
        }
        Wording::Bug(_) | Wording::Warning => context.iter().rev().find_map(|line| of_copy(line)),
        _ => None,
    }
}

/// Reads "Read of size 8 at addr ffff888011097d88 by task a/1" or "Free of addr ffff…"
/// (`print_error_description()` in `mm/kasan/report.c`, 6.12).
fn of_kasan(line: &str) -> Option<Access> {
    if let Some(rest) = line.strip_prefix("Free of addr ") {
        return Some(Access { what: "free".to_owned(), bytes: None, address: hex(rest) });
    }
    let (what, rest) = line.split_once(" of size ")?;
    let (bytes, rest) = rest.split_once(" at addr ")?;
    is_access(what).then(|| Access { what: what.to_owned(), bytes: bytes.parse().ok(), address: hex(rest) })
}

fn is_access(what: &str) -> bool {
    ["Read", "Write"].contains(&what)
}

/// Reads "Use-after-free read at 0xffff… (in kfence-#17):" (`kfence_report_error()` in
/// `mm/kfence/report.c`, 6.12).
fn of_kfence(line: &str) -> Option<Access> {
    let kinds = [(" read at 0x", "Read"), (" write at 0x", "Write"), ("Invalid free of 0x", "free")];
    let (what, rest) = kinds
        .iter()
        .find_map(|(words, what)| Some((*what, line.split_once(words)?.1)))
        .or_else(|| Some(("Write", line.strip_prefix("Corrupted memory at 0x")?)))?;
    Some(Access { what: what.to_owned(), bytes: None, address: Some(hex(rest)?) })
}

/// Reads "write to 0xffff… of 8 bytes by task 7 on cpu 0:" (`print_report()` in
/// `kernel/kcsan/report.c`, 6.12).
fn of_kcsan(line: &str) -> Option<Access> {
    let (what, rest) = line.split_once(" to 0x")?;
    let (address, rest) = rest.split_once(" of ")?;
    let what = match what.split(' ').next()? {
        "read" => "Read",
        "write" | "read-write" => "Write",
        _ => return None,
    };
    Some(Access { what: what.to_owned(), bytes: rest.split(' ').next()?.parse().ok(), address: hex(address) })
}

/// Reads the access of a fault: `show_fault_oops()` in `arch/x86/mm/fault.c` and
/// `exc_general_protection()` in `arch/x86/kernel/traps.c`, 6.12.
fn of_fault(body: &[&str]) -> Option<Access> {
    let near = || body.iter().take(NEAR);
    let mode = |words: &str| near().any(|line| line.contains(words));
    let what = match () {
        () if mode(" instruction fetch in ") => "call",
        () if mode(" write access in ") => "Write",
        () if mode(" read access in ") => "Read",
        () => "access",
    };
    let range = near().find_map(|line| line.strip_prefix("KASAN: ")?.split_once(" in range [").map(|(_, rest)| rest));
    let header = body.first()?;
    let after = |words: &str| header.split_once(words).map(|(_, rest)| rest);
    let text = range.or_else(|| after("address: ")).or_else(|| after("non-canonical address "))?;
    Some(Access { what: what.to_owned(), bytes: None, address: Some(hex(text)?) })
}

/// Reads "memcpy: detected field-spanning write (size 8) of single field" (`fortify_memcpy_chk()`
/// in `include/linux/fortify-string.h`) or "usercopy: Kernel memory exposure attempt detected from
/// SLUB object 'a' (offset 0, size 8)!" (`usercopy_abort()` in `mm/usercopy.c`), 6.12.
fn of_copy(line: &str) -> Option<Access> {
    let what = match () {
        () if line.contains(": detected field-spanning write (size ") => "Write",
        () if line.starts_with("usercopy: Kernel memory exposure ") => "Read",
        () if line.starts_with("usercopy: Kernel memory overwrite ") => "Write",
        () => return None,
    };
    let digits = line.split_once("size ")?.1;
    let bytes = digits.split(|character: char| !character.is_ascii_digit()).next()?.parse().ok();
    Some(Access { what: what.to_owned(), bytes, address: None })
}

/// Reads the hexadecimal number at the start of `text`.
fn hex(text: &str) -> Option<u64> {
    let text = text.strip_prefix("0x").unwrap_or(text);
    let digits = text.split(|character: char| !character.is_ascii_hexdigit()).next()?;
    u64::from_str_radix(digits, 16).ok()
}
