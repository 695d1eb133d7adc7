//! Titles: what was wrong and in which function, in words that two runs and two builds share.

use sha2::{Digest as _, Sha256};

use super::{
    ReportKind, frames, lines,
    rules::{self, Rule, Wording},
    skip,
    slab::{self, Defect},
    stacks,
};

/// The longest title, in bytes.
pub(super) const MAX_TITLE: usize = 120;
/// The longest name for files, in bytes.
const MAX_SLUG: usize = 80;
/// Hexadecimal digits of the hash in such a name.
const HASH_DIGITS: usize = 8;

/// The title of the report whose header, by `rule`, is the first of `body`; `context` stands above
/// it, and it blames the function `blamed`.
pub(super) fn title(rule: &Rule, context: &[&str], body: &[&str], blamed: Option<&str>) -> String {
    let header = body.first().copied().unwrap_or_default();
    let detail = rules::detail_above(context);
    let words = match rule.wording {
        Wording::Kasan => format!("KASAN: {}", kasan_words(header, body)),
        Wording::Sanitizer => before_place(header.trim_start_matches("BUG: ")).to_owned(),
        Wording::Fault(words) => {
            bad_address(body).map_or_else(|| words.to_owned(), |access| format!("KASAN: {access}"))
        }
        Wording::NamedFault => {
            bad_address(body).map_or_else(|| fault_words(header), |access| format!("KASAN: {access}"))
        }
        Wording::Bug(words) => detail.unwrap_or(words).to_owned(),
        Wording::Warning => detail.unwrap_or("WARNING").to_owned(),
        Wording::In(words)
        | Wording::Waits(words)
        | Wording::Loops(words)
        | Wording::Only(words)
        | Wording::Alone(words)
        | Wording::HeldLock(words)
        | Wording::Work(words) => words.to_owned(),
        Wording::LockOrder => header.trim_end_matches(" detected").to_owned(),
        Wording::Slab => slab_words(header, detail),
        Wording::Ubsan => before_place(header.split(" at ").next().unwrap_or(header)).to_owned(),
        Wording::Leak => "memory leak".to_owned(),
        Wording::Header => header.trim_end_matches(['!', '.', ':']).to_owned(),
        Wording::Panic => format!("kernel panic: {}", header.trim_start_matches(rules::PANIC)),
    };
    // A panic's words say more than who called it.
    let function = blamed.filter(|_| rule.wording != Wording::Panic);
    let title = match function {
        Some(function) => format!("{words} in {function}"),
        None => words,
    };
    lines::cut(&clean(&title), MAX_TITLE).trim_end().to_owned()
}

/// Finds the function that the report blames, as far as it can blame one.
pub(super) fn blamed<'log>(rule: &Rule, context: &[&str], body: &[&'log str]) -> Option<&'log str> {
    let header = body.first().copied().unwrap_or_default();
    match rule.wording {
        Wording::Only(_) | Wording::Alone(_) => None,
        Wording::Waits(_) | Wording::Loops(_) => culprit(body, true),
        Wording::HeldLock(_) => body.iter().find_map(|line| lock_taker(line)),
        Wording::Work(_) => {
            let name = body.iter().find_map(|line| line.split_once("workfn=").map(|(_, name)| name.trim()))?;
            // The log may end behind the equals sign.
            Some(fault_plan::base_name(name)).filter(|name| !name.is_empty())
        }
        Wording::Slab => {
            let detail = rules::detail_above(context);
            culprit(body, false).filter(|_| slab::defect(header, detail).is_callers)
        }
        _ => culprit(body, false),
    }
}

/// The report's kind: a fault that KASAN explains is KASAN's.
pub(super) fn kind(rule: &Rule, body: &[&str]) -> ReportKind {
    match rule.wording {
        Wording::Fault(_) | Wording::NamedFault if bad_address(body).is_some() => ReportKind::Kasan,
        _ => rule.kind,
    }
}

/// The first function of the report that can be the culprit: the header's, then the trace's.
pub(super) fn culprit<'log>(body: &[&'log str], waits: bool) -> Option<&'log str> {
    let header = body.first().and_then(|header| header.split([' ', ',']).find_map(frames::function));
    let trace = stacks::call_trace(body);
    // The task is stuck, not the interrupt in which that was noticed.
    let outside = |frame: &&stacks::Entry<'log>| !(waits && frame.interrupt);
    let candidates = || header.into_iter().chain(trace.iter().filter(outside).map(|frame| frame.function));
    candidates()
        .find(|function| !skip::is_skipped(function, waits))
        .or_else(|| candidates().find(|function| !skip::is_reporting(function)))
        .or_else(|| candidates().next())
}

/// `slab-use-after-free Read`, from "BUG: KASAN: slab-use-after-free in f+0x1/0x2" and "Read of
/// size 8 at addr …".
pub(super) fn kasan_words(header: &str, body: &[&str]) -> String {
    let what = kasan_what(header);
    let access = body.iter().skip(1).take(6).find_map(|line| match line.split(' ').next() {
        Some(access @ ("Read" | "Write")) => Some(access),
        _ => None,
    });
    match access {
        Some(access) => format!("{what} {access}"),
        None => what.to_owned(),
    }
}

/// `slab-use-after-free`, from "BUG: KASAN: slab-use-after-free in f+0x1/0x2".
pub(super) fn kasan_what(header: &str) -> &str {
    before_place(header.trim_start_matches("BUG: KASAN: "))
}

/// Finds KASAN's class of a fault's address: `null-ptr-deref`, from "KASAN: null-ptr-deref in range
/// [0x…-0x…]" (`kasan_non_canonical_hook()` in `mm/kasan/report.c`, 6.12). KASAN cannot say whether
/// the access was a read.
pub(super) fn bad_address<'log>(body: &[&'log str]) -> Option<&'log str> {
    // It stands among the first lines of an Oops; a later one belongs to a later fault.
    body.iter().take(20).find_map(|line| {
        let (what, _) = line.strip_prefix("KASAN: ")?.split_once(" in range [")?;
        Some(what.trim_start_matches("probably ").trim_start_matches("maybe "))
    })
}

/// `divide error`, from "Oops: divide error: 0000 [#1]" or, in 6.1, "divide error: 0000 [#1]".
fn fault_words(header: &str) -> String {
    let words = header.trim_start_matches("Oops: ").split([':', ',', '[']).next().unwrap_or_default().trim();
    let unnamed = words.is_empty() || words == "Oops" || words.bytes().any(|byte| byte.is_ascii_digit());
    if unnamed { "BUG: Oops".to_owned() } else { words.to_owned() }
}

/// `BUG kmalloc-32: Poison overwritten`, from "BUG kmalloc-32 (Tainted: G B): Object corrupt" and
/// the line above it.
fn slab_words(header: &str, detail: Option<&str>) -> String {
    let Defect { words, cache, .. } = slab::defect(header, detail);
    format!("BUG {cache}: {words}")
}

/// The text up to the last " in ".
fn before_place(text: &str) -> &str {
    text.rsplit_once(" in ").map_or(text, |(what, _)| what)
}

/// The function in " #0: ffff8880 (&lock){+.+.}-{4:4}, at: f+0x1/0x2".
fn lock_taker(line: &str) -> Option<&str> {
    // Another line may have cut this one in two.
    frames::function(line.rsplit_once(", at: ")?.1.split(' ').next()?)
}

/// `text` without addresses, offsets and numbers of processors or tasks, in printable ASCII.
///
/// A number is digits that do not follow a letter or an underscore: `ext4` and `kmalloc-32` stay.
/// Digits that begin with `0x` are a number wherever they stand.
pub(super) fn clean(text: &str) -> String {
    let mut cleaned = String::with_capacity(text.len());
    for word in text.split(|character: char| !character.is_ascii_graphic()).filter(|word| !word.is_empty()) {
        if !cleaned.is_empty() {
            cleaned.push(' ');
        }
        let word = word.split_once("+0x").map_or(word, |(name, _)| name);
        let mut before = ' ';
        let mut rest = word;
        while let Some(next) = rest.chars().next() {
            let digits = digits(rest);
            let is_name = before.is_ascii_alphanumeric() || before == '_' || before == '-';
            let is_hex = digits > 2 && rest.starts_with("0x");
            if digits > 0 && (!is_name || is_hex || digits > 8) {
                cleaned.push('N');
                rest = &rest[digits..];
                before = 'N';
            } else {
                cleaned.push(next);
                before = next;
                rest = &rest[next.len_utf8()..];
            }
        }
    }
    cleaned
}

/// Counts the bytes at the start of `text` that are a number: decimal, `0x` and hexadecimal, or at
/// least eight hexadecimal digits of which one is decimal.
fn digits(text: &str) -> usize {
    let hex = |text: &str| text.bytes().take_while(u8::is_ascii_hexdigit).count();
    if let Some(rest) = text.strip_prefix("0x") {
        return 2 + hex(rest);
    }
    let address = hex(text);
    if address >= 8 && text.as_bytes()[..address].iter().any(u8::is_ascii_digit) {
        return address;
    }
    text.bytes().take_while(u8::is_ascii_digit).count()
}

/// Makes a file name of `text`: of `[A-Za-z0-9._-]`, at most 80 bytes, with a hash behind it where
/// the text had to be changed, so that different texts have different names.
#[must_use]
pub fn slug(text: &str) -> String {
    let mut slug = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            'A'..='Z' | 'a'..='z' | '0'..='9' | '_' | '.' => slug.push(character),
            _ if slug.ends_with('-') => {}
            _ => slug.push('-'),
        }
    }
    let slug = slug.trim_matches(['-', '.']);
    if slug == text && !slug.is_empty() && slug.len() <= MAX_SLUG {
        return slug.to_owned();
    }
    let mut named = slug[..slug.len().min(MAX_SLUG - 1 - HASH_DIGITS)].trim_end_matches(['-', '.']).to_owned();
    named.push_str(if named.is_empty() { "report-" } else { "-" });
    named.push_str(&hex::encode(&Sha256::digest(text)[..HASH_DIGITS / 2]));
    named
}
