//! The damage that a finding does, in the order in which people look at findings.
//!
//! The words by which it is recognised are data. They are those of `kernel-report`'s titles and
//! keys, of the oracles, and of the kernel's own first lines.

use serde::Serialize;

/// The damage that a finding does; the worst comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Impact {
    /// Memory is freed twice, or freed though it cannot be.
    InvalidFree,
    /// A write to memory that was freed.
    UseAfterFreeWrite,
    /// A write beyond an object.
    OutOfBoundsWrite,
    /// A read of memory that was freed.
    UseAfterFreeRead,
    /// A read beyond an object.
    OutOfBoundsRead,
    /// An access to an address that is nobody's.
    WildAccess,
    /// A damaged structure of the kernel: list, slab, page, reference counter.
    Corruption,
    /// Data that was acknowledged is gone or wrong, or a disk is damaged.
    LostData,
    /// Locks that can wait for each other for ever, or that nobody gives back.
    Deadlock,
    /// Nothing moves.
    Hang,
    /// An access through a null pointer.
    NullPointer,
    /// The kernel stops itself: `BUG()`, an assertion, a panic, another fault.
    Death,
    /// Undefined behaviour, or a rule of a context that was broken.
    Misuse,
    /// Memory, a device, a mount or a reference that nobody gives back.
    Leak,
    /// A warning, after which the kernel goes on.
    Warning,
}

/// A rule: a finding whose title, key or first lines have one of the words, and are of one of the
/// kinds, does this damage.
struct Rule {
    /// None stands for any text.
    words: &'static [&'static str],
    /// None stands for any kind.
    kinds: &'static [&'static str],
    impact: Impact,
}

const fn words(words: &'static [&'static str], impact: Impact) -> Rule {
    Rule { words, kinds: &[], impact }
}

const fn kinds(kinds: &'static [&'static str], impact: Impact) -> Rule {
    Rule { words: &[], kinds, impact }
}

/// The rules; the first that fits counts.
#[rustfmt::skip]
static RULES: &[Rule] = &[
    // mm/kasan/report_generic.c, mm/slub.c
    words(&["double-free", "invalid-free", "object already free", "invalid free"], Impact::InvalidFree),
    words(&["use-after-free write"], Impact::UseAfterFreeWrite),
    words(&["out-of-bounds write", "field-spanning write", "redzone overwritten", "padding overwritten"],
        Impact::OutOfBoundsWrite),
    words(&["use-after-free"], Impact::UseAfterFreeRead),
    words(&["out-of-bounds"], Impact::OutOfBoundsRead),
    // SLUB's poison of freed memory (POISON_FREE, include/linux/poison.h) in a pointer.
    words(&["address 0x6b6b6b6b", "address: 6b6b6b6b"], Impact::UseAfterFreeRead),
    words(&["poison overwritten"], Impact::UseAfterFreeWrite),
    words(&["access: wild", "wild-memory-access", "user-memory-access", "access: user address"], Impact::WildAccess),
    // lib/list_debug.c, lib/refcount.c, mm/slub.c, mm/page_alloc.c
    words(&["list_add ", "list_del ", "refcount_t: underflow", "refcount_t: addition on 0", "refcount_t: saturated",
        "slab: ", "bad page", "bad rss-counter", "usercopy"], Impact::Corruption),
    // The oracles of data and of checkers, and what file systems find in their own metadata.
    kinds(&["data", "fsck"], Impact::LostData),
    words(&["corruption: "], Impact::LostData),
    words(&["possible circular locking", "possible recursive locking", "possible irq lock inversion",
        "unsafe lock order", "inconsistent lock state", "lock held when returning", "still has locks held",
        "lock kept", "lock-held", "held lock freed", "workqueue leaked"], Impact::Deadlock),
    kinds(&["hang", "loop"], Impact::Hang),
    words(&["null pointer", "null-ptr-deref", "access: null call"], Impact::NullPointer),
    // include/linux/kernel.h, fs/super.c: the text of the check stands in the key. `BUG()` and
    // `WARN()` report them, and they are leaks all the same.
    words(&["busy inodes after unmount", "still in use"], Impact::Leak),
    kinds(&["bug", "panic", "assertion"], Impact::Death),
    kinds(&["leftover", "kmemleak", "leak"], Impact::Leak),
    kinds(&["ubsan", "lockdep", "errno"], Impact::Misuse),
    kinds(&["kasan"], Impact::OutOfBoundsRead),
];

impl Impact {
    /// Finds the damage of a finding from its kind, and from `text`: title, key and first lines.
    #[must_use]
    pub fn of(kind: &str, text: &str) -> Self {
        let text = text.to_lowercase();
        let fits = |rule: &&Rule| {
            (rule.words.is_empty() || rule.words.iter().any(|words| text.contains(words)))
                && (rule.kinds.is_empty() || rule.kinds.contains(&kind))
        };
        RULES.iter().find(fits).map_or(Self::Warning, |rule| rule.impact)
    }

    /// Gives it in words.
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            Self::InvalidFree => "memory is freed twice or wrongly",
            Self::UseAfterFreeWrite => "freed memory is written",
            Self::OutOfBoundsWrite => "memory beyond an object is written",
            Self::UseAfterFreeRead => "freed memory is read",
            Self::OutOfBoundsRead => "memory beyond an object is read",
            Self::WildAccess => "a wild address is accessed",
            Self::Corruption => "a structure of the kernel is damaged",
            Self::LostData => "data is lost or wrong",
            Self::Deadlock => "locks can block for ever",
            Self::Hang => "nothing moves any more",
            Self::NullPointer => "a null pointer is dereferenced",
            Self::Death => "the kernel stops itself",
            Self::Misuse => "a rule of the kernel is broken",
            Self::Leak => "something is never given back",
            Self::Warning => "the kernel warns and goes on",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn damage_is_recognised() {
        use Impact::*;
        for (kind, text, impact) in [
            ("kasan", "KASAN: double-free in f", InvalidFree),
            ("kasan", "KASAN: slab-use-after-free Write in f", UseAfterFreeWrite),
            ("kasan", "KASAN: use-after-free Read in btrfs_state_to_string", UseAfterFreeRead),
            ("kasan", "KASAN: slab-out-of-bounds Write in f", OutOfBoundsWrite),
            ("kasan", "KASAN: stack-out-of-bounds Read in f", OutOfBoundsRead),
            ("bug", "general protection fault in f, non-canonical address 0x6b6b6b6b6b6b6eeb", UseAfterFreeRead),
            ("bug", "access: wild address in f", WildAccess),
            ("bug", "list_del corruption in f", Corruption),
            ("warning", "refcount_t: underflow; use-after-free", UseAfterFreeRead),
            ("data", "data lost in file", LostData),
            ("fsck", "e2fsck: Inode N is too big", LostData),
            ("bug", "corruption: BTRFS: corrupt leaf: invalid level have N", LostData),
            ("errno", "fsync returned EINTR", Misuse),
            ("leak", "memory of fs/btrfs/ctree.c:7 is not freed", Leak),
            ("lockdep", "WARNING: possible recursive locking in f", Deadlock),
            ("lockdep", "BUG: sleeping function called from invalid context in f", Misuse),
            ("hang", "INFO: task hung in f", Hang),
            ("bug", "BUG: kernel NULL pointer dereference in f", NullPointer),
            ("bug", "BTRFS: assertion failed in f", Death),
            ("bug", "VFS: Busy inodes after unmount of ram0 (btrfs)", Leak),
            ("bug", "BUG: Dentry still in use", Leak),
            ("leftover", "device left open after a failure in f", Leak),
            ("warning", "WARNING in f", Warning),
            ("of a later version", "odd", Warning),
        ] {
            assert_eq!(Impact::of(kind, text), impact, "{text}");
        }
        assert!(InvalidFree < UseAfterFreeWrite && OutOfBoundsWrite < UseAfterFreeRead && Hang < NullPointer);
        assert!(NullPointer < Leak && Leak < Warning && LostData < Deadlock);
    }
}
