//! Keys: what a report is recognised by. One bug has one key in every run, in every build of one
//! source, and on kernels with other checks.
//!
//! ```text
//! access: null pointer in f            whoever noticed: the processor, or KASAN
//! access: bad memory Read in f         a stale pointer, or one beyond its object: KASAN says the one
//!                                      or the other, as somebody has the memory by then
//! access: double-free in f             whoever noticed, the slab allocator included
//! check: fs/f.c:7                      a check of the source at that place; not the function, as
//!                                      compilers make it part of another one
//! check: fs/f.c:7 count > 0            likewise, with the expression that the kernel printed
//! check: include/linux/f.h:7 in g      likewise, in a helper of all: the mistake is the caller's
//! hang: f                              whichever detector noticed
//! hang: below f                        a loop, which the detector met somewhere
//! slab: Poison overwritten in btrfs_path
//! lockdep: the title                   all others: the kind and the title
//! ```

use super::{
    ReportKind, frames, lines,
    rules::{self, Rule, Wording},
    skip, slab, stacks,
    standstill::Standstill,
    title,
};

/// The most bytes of a key.
pub(super) const MAX_KEY: usize = 400;
/// KASAN's words for memory of the heap that nobody or somebody else has: "use-after-free",
/// "slab-use-after-free", "slab-out-of-bounds", "vmalloc-out-of-bounds" (`get_bug_type()` in
/// `mm/kasan/report_generic.c`, 6.12).
const STALE: [&str; 2] = ["use-after-free", "out-of-bounds"];
/// Starts of those that are of no heap.
const OF_OTHERS: [&str; 3] = ["stack-", "global-", "alloca-"];
/// The first address that no user has (`TASK_SIZE_MAX`, x86-64).
const USER_END: u64 = 0x7fff_ffff_f000;

/// Gives the key of the report whose header, by `rule`, is the first of `body`; `context` stands
/// above it, and `title` is its title.
pub(super) fn key(rule: &Rule, context: &[&str], body: &[&str], title: &str) -> String {
    let header = body.first().copied().unwrap_or_default();
    let culprit = title::culprit(body, false);
    let named = |words: &str| match culprit {
        Some(function) => format!("{words} in {function}"),
        None => words.to_owned(),
    };
    let key = match rule.wording {
        Wording::Kasan => named(&format!("access: {}", kasan_access(header, body))),
        Wording::Fault(_) | Wording::NamedFault => match fault_access(header, body) {
            Some(access) => named(&format!("access: {access}")),
            None => other(rule, title),
        },
        Wording::Bug(_) | Wording::Warning => match place(context, body) {
            // Numbers tell checks apart.
            Some((place, helps)) => return printable(&check(&place, culprit.filter(|_| helps))),
            None => other(rule, title),
        },
        Wording::Waits(_) if rule.kind == ReportKind::Hang => hang(title::culprit(body, true)),
        Wording::Loops(_) => hang(Standstill::of_loop(body).map(|place| place.to_string()).as_deref()),
        Wording::Slab => match slab::defect(header, rules::detail_above(context)) {
            defect if defect.is_callers => named(&format!("access: {}", defect.words)),
            defect => format!("slab: {} in {}", defect.words, defect.cache),
        },
        _ => other(rule, title),
    };
    lines::cut(&title::clean(&key), MAX_KEY).to_owned()
}

/// Gives the key of a hang in `function`.
pub(super) fn hang(function: Option<&str>) -> String {
    format!("hang: {}", function.unwrap_or("somewhere"))
}

fn other(rule: &Rule, title: &str) -> String {
    format!("{}: {title}", rule.kind)
}

/// Gives one line of at most [`MAX_KEY`] bytes that any terminal shows as it is.
fn printable(text: &str) -> String {
    let is_odd = |character: char| !character.is_ascii_graphic() && character != ' ';
    lines::cut(&text.replace(is_odd, "?"), MAX_KEY).to_owned()
}

/// The kind of a bad access that KASAN reports in `header`.
fn kasan_access(header: &str, body: &[&str]) -> String {
    match title::kasan_what(header) {
        what @ ("null-ptr-deref" | "user-memory-access" | "wild-memory-access") => address_class(what).to_owned(),
        // Whoever has the memory by now decides which of these KASAN says of a stale pointer.
        what if STALE.iter().any(|stale| what.ends_with(stale))
            && !OF_OTHERS.iter().any(|other| what.starts_with(other)) =>
        {
            title::kasan_words(header, body).replacen(what, "bad memory", 1)
        }
        _ => title::kasan_words(header, body),
    }
}

/// The kind of a bad access that the processor reports, if it is one.
fn fault_access(header: &str, body: &[&str]) -> Option<&'static str> {
    // KASAN does not see what the processor fetches.
    if body.iter().take(3).any(|line| line.contains("supervisor instruction fetch")) {
        return Some(if header.contains("NULL pointer") { "null call" } else { "wild call" });
    }
    if let Some(what) = title::bad_address(body) {
        return Some(address_class(what));
    }
    if header.contains("NULL pointer dereference") {
        return Some("null pointer");
    }
    if header.contains("general protection fault") {
        return Some("wild address");
    }
    let address = header.split_once("page fault for address: ")?.1;
    let address = u64::from_str_radix(address.trim().trim_start_matches("0x"), 16).ok()?;
    Some(if address < USER_END { "user address" } else { "wild address" })
}

/// KASAN's classes of addresses (`kasan_non_canonical_hook()` in `mm/kasan/report.c`, 6.12).
fn address_class(what: &str) -> &'static str {
    match what {
        "null-ptr-deref" => "null pointer",
        "user-memory-access" => "user address",
        _ => "wild address",
    }
}

/// Place of a check in the kernel's source.
#[derive(Debug, PartialEq, Eq)]
struct Place<'log> {
    /// `fs/f.c:7`.
    location: String,
    /// The expression, where the kernel prints it.
    expression: Option<&'log str>,
}

fn check(place: &Place<'_>, caller: Option<&str>) -> String {
    let mut key = format!("check: {}", place.location);
    if let Some(expression) = place.expression {
        key.push(' ');
        key.push_str(expression);
    }
    if let Some(function) = caller {
        key.push_str(" in ");
        key.push_str(function);
    }
    key
}

/// Finds the check that reports, and says whether it stands in a function that only helps others
/// or reports for them, such as `refcount_warn_saturate()`. Such a check that says more in words
/// than its place does, which depends on what came before, has none.
fn place<'log>(context: &[&'log str], body: &[&'log str]) -> Option<(Place<'log>, bool)> {
    if let Some(place) = context.iter().rev().find_map(|line| assertion(line)) {
        return Some((place, false));
    }
    let reporter = body.first().and_then(|header| header.split([' ', ',']).find_map(frames::function));
    let reporter = reporter.or_else(|| stacks::call_trace(body).first().map(|frame| frame.function));
    let helps = reporter.is_some_and(|function| skip::is_skipped(function, false));
    if helps && context.iter().any(|line| rules::detail(line).is_some()) {
        return None;
    }
    let place = checked_place(body.first()?)?;
    let in_header = place.location.starts_with("include/");
    Some((place, helps || in_header))
}

/// Finds where the check stands that reports, `fs/f.c:7`, unless it stands in a function that only
/// helps others.
pub(super) fn place_of_caller(context: &[&str], body: &[&str]) -> Option<String> {
    place(context, body).filter(|(_, helps)| !helps).map(|(place, _)| place.location)
}

/// Reads the place in the header of a check: "WARNING: CPU: 0 PID: 7 at fs/f.c:7 f+0x1/0x2" or
/// "kernel BUG at fs/f.c:7!" (6.12), "WARNING: [count > 0] fs/f.c:7 at f+0x1/0x2" (newer, with
/// `CONFIG_DEBUG_BUGVERBOSE_DETAILED`).
fn checked_place(header: &str) -> Option<Place<'_>> {
    let words =
        header.split_once("] ").and_then(|(before, _)| before.split_once('[')).map(|(_, expression)| expression);
    let after = words.map_or(header, |expression| header.split_once(expression).map_or(header, |(_, after)| after));
    let location = after.split([' ', ']']).find_map(|word| {
        let word = word.trim_end_matches('!');
        let (file, line) = word.rsplit_once(':')?;
        (file.contains('.') && line.parse::<u32>().is_ok()).then(|| word.trim_start_matches("./").to_owned())
    })?;
    Some(Place { location, expression: words })
}

/// Reads the place and the expression of an assertion: "assertion failed: list_empty(list) :: 0, in
/// fs/btrfs/f.c:7" (`fs/btrfs/messages.h`) or "XFS: Assertion failed: count > 0, file:
/// fs/xfs/f.c, line: 7" (`fs/xfs/xfs_message.c`).
fn assertion(line: &str) -> Option<Place<'_>> {
    if let Some(rest) = line.strip_prefix("assertion failed: ") {
        let (expression, location) = rest.rsplit_once(", in ")?;
        let expression = expression.split_once(" :: ").map_or(expression, |(expression, _)| expression);
        return Some(Place { location: location.trim().to_owned(), expression: Some(expression) });
    }
    let rest = line.strip_prefix("XFS: Assertion failed: ").or_else(|| {
        let (device, rest) = line.split_once("): Assertion failed: ")?;
        device.starts_with("XFS (").then_some(rest)
    })?;
    let (expression, place) = rest.rsplit_once(", file: ")?;
    let (file, line) = place.split_once(", line: ")?;
    Some(Place { location: format!("{file}:{}", line.trim()), expression: Some(expression) })
}

#[cfg(test)]
mod tests {
    use crate::first_report;

    fn key_of(log: &str) -> String {
        first_report(log).unwrap().key
    }

    #[test]
    fn a_bad_access_has_one_key_whoever_noticed_it() {
        let trace = "Call Trace:\n <TASK>\n f+0x1/0x2\n g+0x1/0x2\n </TASK>\n";
        let lean = "BUG: kernel NULL pointer dereference, address: 0000000000000018\n#PF: supervisor read access in \
                    kernel mode\nOops: Oops: 0000 [#1] SMP\nRIP: 0010:f+0x1/0x2\n";
        let kasan = "Oops: general protection fault, probably for non-canonical address 0xdffffc0000000003: 0000 [#1]\n\
                     KASAN: null-ptr-deref in range [0x0000000000000018-0x000000000000001f]\nRIP: 0010:f+0x7/0x20\n";
        let direct = "BUG: KASAN: null-ptr-deref in memset+0x1/0x2\nWrite of size 8 at addr 0000000000000018 by task a/1\n\
                      Call Trace:\n kasan_report+0x1/0x2\n memset+0x1/0x2\n f+0x1/0x2\n";
        for log in [format!("{lean}{trace}"), format!("{kasan}{trace}"), direct.to_owned()] {
            assert_eq!(key_of(&log), "access: null pointer in f");
        }
        let call = lean.replace("read access", "instruction fetch").replace("f+0x1/0x2", "0x0");
        assert_eq!(key_of(&format!("{call}{trace}")), "access: null call in f", "another bug");
        let paged = |address: &str| {
            let header = format!("BUG: unable to handle page fault for address: {address}");
            key_of(&format!("{header}\nRIP: 0010:f+0x1/0x2\n{trace}"))
        };
        assert_eq!(paged("0000000000012345"), "access: user address in f");
        assert_eq!(paged("fffffffffffffff4"), "access: wild address in f");
    }

    #[test]
    fn a_held_lock_has_its_taker_also_where_another_line_cuts_its_own_in_two() {
        let log = |lock: &str| {
            let header = "WARNING: lock held when returning to user space!\n6.12.117-fuzz #1 Not tainted\n";
            key_of(&format!("{header}1 lock held by agent/1:\n #0: ffff88802fe08e60 {lock}"))
        };
        let whole = log("(&info->lock){+.+.}-{4:4}, at: f.isra.0+0xc3/0x1f2\n");
        assert_eq!(whole, "lockdep: WARNING: lock held when returning to user space in f");
        assert_eq!(log("\nBTRFS info: at work\n(&info->lock){+.+.}-{4:4}, at: f.isra.0+0xc3/0x1f2\n"), whole);
    }

    #[test]
    fn a_check_is_its_place_whatever_function_it_was_made_part_of() {
        let warning = |function: &str, line: u32| {
            key_of(&format!("WARNING: CPU: 0 PID: 7 at fs/f.h:{line} {function}+0x1/0x2\nCall Trace:\n g+0x1/0x2\n"))
        };
        assert_eq!(warning("f", 7), "check: fs/f.h:7");
        assert_eq!(warning("inlined", 7), warning("f", 7));
        assert_ne!(warning("f", 8), warning("f", 7));
        let newer = "WARNING: [count > 0 && \"a b\"] fs/f.c:7 at f+0x1/0x2, CPU#0: agent/289\n";
        assert_eq!(key_of(newer), "check: fs/f.c:7 count > 0 && \"a b\"");
        let inline = "WARNING: CPU: 0 PID: 7 at ./include/linux/kref.h:7 f+0x1/0x2\n";
        assert_eq!(key_of(inline), "check: include/linux/kref.h:7 in f");
        let helper = "refcount_t: underflow; use-after-free.\nWARNING: CPU: 0 PID: 7 at lib/refcount.c:28 \
                      refcount_warn_saturate+0x1/0x2\nCall Trace:\n f+0x1/0x2\n";
        assert_eq!(key_of(helper), "warning: refcount_t: underflow; use-after-free in f");
        let allocator =
            "WARNING: CPU: 0 PID: 7 at mm/page_alloc.c:7 __alloc_pages_noprof+0x1/0x2\nCall Trace:\n f+0x1/0x2\n";
        assert_eq!(key_of(allocator), "check: mm/page_alloc.c:7 in f");
        let assertion = "XFS: Assertion failed: a, b > 0, file: fs/xfs/f.c, line: 7\n------------[ cut here ]------------\n\
                         kernel BUG at fs/xfs/xfs_message.c:102!\nRIP: 0010:assfail+0x1/0x2\n";
        assert_eq!(key_of(assertion), "check: fs/xfs/f.c:7 a, b > 0");
    }
}
