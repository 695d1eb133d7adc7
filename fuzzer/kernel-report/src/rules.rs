//! The headers of the kernel's reports.

use super::ReportKind;

/// Ends the report of an Oops, a warning or UBSAN (`print_oops_end_marker()` in `kernel/panic.c`,
/// 6.12).
pub(super) const END_TRACE: &str = "---[ end ";
/// Begins that of a warning or `BUG()` (`include/asm-generic/bug.h`).
pub(super) const CUT_HERE: &str = "[ cut here ]";
/// Every panic's line.
pub(super) const PANIC: &str = "Kernel panic - not syncing: ";

/// Form of a report's title.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wording {
    /// `KASAN: what Read in function`.
    Kasan,
    /// The words of the header up to " in ", then the function.
    Sanitizer,
    /// A fault: the given words and the function, or what KASAN says of the address.
    Fault(&'static str),
    /// A fault that is named by the header.
    NamedFault,
    /// `BUG()`: these words, or what was printed just before, and the function.
    Bug(&'static str),
    /// `WARN()`: likewise.
    Warning,
    /// The given words and the function that the trace shows.
    In(&'static str),
    /// Likewise, the function being what waits.
    Waits(&'static str),
    /// Likewise, the function being where a processor was that does not get on.
    Loops(&'static str),
    /// The given words, without a function.
    Only(&'static str),
    /// Likewise, of a report without a call trace.
    Alone(&'static str),
    /// Lock classes in the header, then the function.
    LockOrder,
    /// The function that took the first of the held locks.
    HeldLock(&'static str),
    /// The work function in the next line.
    Work(&'static str),
    /// `BUG cache: what`.
    Slab,
    /// The header's first words and the function.
    Ubsan,
    /// `memory leak in function`.
    Leak,
    /// The header, cleaned.
    Header,
    /// `kernel panic: reason`.
    Panic,
}

impl Wording {
    /// Says whether a call trace is the last part of such a report.
    pub(super) fn ends_with_its_trace(self) -> bool {
        matches!(self, Self::In(_) | Self::Waits(_) | Self::Loops(_) | Self::LockOrder | Self::Work(_) | Self::Header)
    }
}

/// One kind of header.
#[derive(Debug)]
pub(super) struct Rule {
    /// The line starts with the first and has the others behind it, in this order.
    pieces: &'static [&'static str],
    pub(super) kind: ReportKind,
    pub(super) wording: Wording,
}

const fn rule(pieces: &'static [&'static str], kind: ReportKind, wording: Wording) -> Rule {
    Rule { pieces, kind, wording }
}

/// Words of a panic that only follows from the report before it, which asked for a panic or killed
/// its task.
const CONSEQUENCES: &[&str] = &[
    // arch/x86/kernel/dumpstack.c, kernel/exit.c
    "Fatal exception",
    "Aiee, killing interrupt handler!",
    "Attempted to kill init!",
    "Attempted to kill the idle task!",
    // kernel/panic.c, watchdog.c, hung_task.c, rcu/tree_stall.h; what asks for it may stand in
    // front
    "panic_on_warn set",
    "softlockup: hung tasks",
    "Hard LOCKUP",
    "hung_task: blocked tasks",
    "RCU Stall",
];

/// Lines that look like a header and are none.
const IGNORED: &[&[&str]] = &[
    // Lockdep has run out of room and stops checking (`print_lockdep_off()` in
    // `kernel/locking/lockdep.c`).
    &["BUG: MAX_"],
    &["BUG: Bad page state: ", " messages suppressed"],
    &["BUG: Bad page map: ", " messages suppressed"],
    &["INFO: Stall ended before state dump start"],
    &["INFO: ", "suppressed full report"],
];

/// Parts of lines by which a kernel says that it is no longer fit to judge: a detector of it has
/// switched itself off, or memory ran out and not because a fault was injected. An injected failure
/// of an allocation prints none of them.
const IMPAIRED: &[&str] = &[
    // kernel/locking/lockdep.c, kernel/panic.c (`add_taint()`)
    "BUG: MAX_",
    "turning off the locking correctness validator",
    "INFO: lockdep is turned off",
    "Disabling lock debugging due to kernel taint",
    // mm/kmemleak.c
    "Kernel memory leak detector disabled",
    "Cannot allocate a kmemleak_object structure",
    // lib/debugobjects.c
    "ODEBUG disabled",
    // mm/page_alloc.c (`warn_alloc()`), mm/slub.c (`slab_out_of_memory()`), mm/oom_kill.c
    ": page allocation failure: order:",
    "SLUB: Unable to allocate memory on ",
    " invoked oom-killer: ",
    "Out of memory and no killable processes",
];

/// Words of a panic for want of memory (`out_of_memory()` and `check_panic_on_oom()` in
/// `mm/oom_kill.c`, 6.12): trouble of the guest, no defect.
const OUT_OF_MEMORY: &[&str] = &["System is deadlocked on memory", "Out of memory: "];

/// Starts of warnings (`WARN()`) in which a file system announces an error that it was given. That
/// is the error path at work, no defect.
const EXPECTED: &[&str] = &[
    // `btrfs_abort_transaction()` in `fs/btrfs/transaction.h`.
    "BTRFS: Transaction aborted (error ",
];

use ReportKind::{Bug, Hang, Kasan, Kmemleak, Lockdep, Panic, Ubsan, Warning};

/// The headers; the first that fits counts.
#[rustfmt::skip]
static RULES: &[Rule] = &[
    // mm/kasan/report.c
    rule(&["BUG: KASAN: "], Kasan, Wording::Kasan),
    rule(&["KASAN: ", " in range ["], Kasan, Wording::Fault("KASAN: bad access")),
    // mm/kfence/report.c, mm/kmsan/report.c, kernel/kcsan/report.c
    rule(&["BUG: KFENCE: "], Kasan, Wording::Sanitizer),
    rule(&["BUG: KMSAN: "], Kasan, Wording::Sanitizer),
    rule(&["BUG: KCSAN: "], Kasan, Wording::Sanitizer),

    // arch/x86/mm/fault.c
    rule(&["BUG: kernel NULL pointer dereference"], Bug, Wording::Fault("BUG: kernel NULL pointer dereference")),
    rule(&["BUG: unable to handle page fault"], Bug, Wording::Fault("BUG: unable to handle page fault")),
    rule(&["BUG: unable to handle kernel"], Bug, Wording::Fault("BUG: unable to handle page fault")),
    rule(&["BUG: ", "stack guard page was hit"], Bug, Wording::Fault("BUG: stack guard page was hit")),
    // arch/x86/kernel/traps.c, dumpstack.c; 6.1 prints no "Oops: " before them
    rule(&["PANIC: double fault"], Bug, Wording::Fault("double fault")),
    rule(&["general protection fault"], Bug, Wording::Fault("general protection fault")),
    rule(&["segment-related general protection fault"], Bug, Wording::Fault("general protection fault")),
    rule(&["Oops: general protection fault"], Bug, Wording::Fault("general protection fault")),
    rule(&["Oops: segment-related general protection fault"], Bug, Wording::Fault("general protection fault")),
    rule(&["Oops: ", " [#"], Bug, Wording::NamedFault),
    rule(&["divide error: ", " [#"], Bug, Wording::NamedFault),
    rule(&["invalid opcode: ", " [#"], Bug, Wording::NamedFault),
    rule(&["stack segment: ", " [#"], Bug, Wording::NamedFault),
    rule(&["double fault: ", " [#"], Bug, Wording::NamedFault),
    rule(&["alignment check: ", " [#"], Bug, Wording::NamedFault),
    rule(&["int3: ", " [#"], Bug, Wording::NamedFault),
    // lib/bug.c
    rule(&["kernel BUG at "], Bug, Wording::Bug("kernel BUG")),
    rule(&["Kernel BUG at "], Bug, Wording::Bug("kernel BUG")),

    // kernel/locking/lockdep.c
    rule(&["WARNING: possible circular locking dependency"], Lockdep, Wording::In("WARNING: possible circular locking")),
    rule(&["WARNING: possible recursive locking"], Lockdep, Wording::In("WARNING: possible recursive locking")),
    rule(&["WARNING: possible irq lock inversion"], Lockdep, Wording::In("WARNING: possible irq lock inversion")),
    rule(&["WARNING: ", "-safe -> ", "-unsafe lock order detected"], Lockdep, Wording::LockOrder),
    rule(&["WARNING: inconsistent lock state"], Lockdep, Wording::In("WARNING: inconsistent lock state")),
    rule(&["WARNING: bad unlock balance detected"], Lockdep, Wording::In("WARNING: bad unlock balance")),
    rule(&["WARNING: bad contention detected"], Lockdep, Wording::In("WARNING: bad contention")),
    rule(&["WARNING: Nested lock was not taken"], Lockdep, Wording::In("WARNING: nested lock was not taken")),
    rule(&["WARNING: held lock freed"], Lockdep, Wording::In("WARNING: held lock freed")),
    rule(&["WARNING: lock held when returning to user space"], Lockdep,
        Wording::HeldLock("WARNING: lock held when returning to user space")),
    rule(&["WARNING: ", " still has locks held"], Lockdep, Wording::HeldLock("WARNING: still has locks held")),
    rule(&["WARNING: suspicious RCU usage"], Lockdep, Wording::In("WARNING: suspicious RCU usage")),
    rule(&["WARNING: chain_key collision"], Lockdep, Wording::In("WARNING: chain_key collision")),
    rule(&["[ BUG: Invalid wait context ]"], Lockdep, Wording::In("BUG: invalid wait context")),
    rule(&["INFO: trying to register non-static key"], Lockdep, Wording::In("INFO: trying to register non-static key")),
    rule(&["BUG: looking up invalid subclass"], Lockdep, Wording::In("BUG: looking up invalid lock subclass")),
    // kernel/sched/core.c, lib/smp_processor_id.c, kernel/locking/spinlock_debug.c,
    // kernel/workqueue.c
    rule(&["BUG: sleeping function called from invalid context"], Lockdep,
        Wording::Waits("BUG: sleeping function called from invalid context")),
    rule(&["BUG: scheduling while atomic"], Lockdep, Wording::Waits("BUG: scheduling while atomic")),
    rule(&["BUG: scheduling in a non-blocking section"], Lockdep, Wording::Waits("BUG: scheduling in a non-blocking section")),
    rule(&["BUG: assuming atomic context"], Lockdep, Wording::In("BUG: assuming atomic context")),
    rule(&["BUG: assuming non migratable context"], Lockdep, Wording::In("BUG: assuming non migratable context")),
    rule(&["BUG: using ", " in preemptible"], Lockdep, Wording::In("BUG: using per-CPU data in preemptible code")),
    rule(&["BUG: spinlock bad magic"], Lockdep, Wording::In("BUG: spinlock bad magic")),
    rule(&["BUG: spinlock lockup suspected"], Hang, Wording::Waits("BUG: spinlock lockup suspected")),
    rule(&["BUG: spinlock recursion"], Lockdep, Wording::In("BUG: spinlock recursion")),
    rule(&["BUG: spinlock already unlocked"], Lockdep, Wording::In("BUG: spinlock already unlocked")),
    rule(&["BUG: spinlock wrong "], Lockdep, Wording::In("BUG: spinlock wrong owner")),
    rule(&["BUG: spinlock cpu recursion"], Lockdep, Wording::In("BUG: spinlock cpu recursion")),
    rule(&["BUG: rwlock "], Lockdep, Wording::In("BUG: rwlock misuse")),
    rule(&["BUG: workqueue leaked"], Lockdep, Wording::Work("BUG: workqueue leaked atomic, lock or RCU")),

    // kernel/hung_task.c, watchdog.c, rcu/tree_stall.h, rcu/tree_exp.h, workqueue.c
    rule(&["INFO: task ", " blocked for more than "], Hang, Wording::Waits("INFO: task hung")),
    rule(&["BUG: soft lockup"], Hang, Wording::Loops("BUG: soft lockup")),
    rule(&["Watchdog detected hard LOCKUP"], Hang, Wording::Loops("BUG: hard lockup")),
    rule(&["INFO: rcu", "detected", "stall"], Hang, Wording::Loops("INFO: rcu detected stall")),
    rule(&["BUG: workqueue lockup"], Hang, Wording::Alone("BUG: workqueue lockup")),

    // kernel/panic.c; "at" also where newer kernels leave out "CPU:"
    rule(&["WARNING: ", " at ", "+0x"], Warning, Wording::Warning),
    // lib/ubsan.c, mm/kmemleak.c
    rule(&["UBSAN: "], Ubsan, Wording::Ubsan),
    rule(&["unreferenced object 0x"], Kmemleak, Wording::Leak),

    // fs/dcache.c
    rule(&["BUG: Dentry ", " still in use"], Bug, Wording::Only("BUG: Dentry still in use")),

    // mm/slub.c, mm/page_alloc.c, mm/memory.c, mm/filemap.c, kernel/fork.c
    rule(&["BUG ", " (", "): "], Bug, Wording::Slab),
    rule(&["BUG: Bad page state"], Bug, Wording::In("BUG: Bad page state")),
    rule(&["BUG: Bad page map"], Bug, Wording::In("BUG: Bad page map")),
    rule(&["BUG: Bad page cache"], Bug, Wording::In("BUG: Bad page cache")),
    rule(&["BUG: Bad rss-counter state"], Bug, Wording::Alone("BUG: Bad rss-counter state")),
    rule(&["BUG: non-zero pgtables_bytes"], Bug, Wording::Alone("BUG: non-zero pgtables_bytes")),

    rule(&["BUG: "], Bug, Wording::Header),
    rule(&[PANIC], Panic, Wording::Panic),
];

/// Lines that are printed just before a `BUG()` or with a `WARN()` and say more than it does. Each
/// entry has the start of such a line, and the words for the title. Without words the line's own
/// are taken, up to the first full stop or parenthesis.
const DETAILS: &[(&str, Option<&str>)] = &[
    // lib/list_debug.c
    ("list_add corruption", Some("list_add corruption")),
    ("list_add double add", Some("list_add double add")),
    ("list_del corruption", Some("list_del corruption")),
    // lib/refcount.c, lib/debugobjects.c
    ("refcount_t: ", None),
    ("ODEBUG: ", None),
    // fs/btrfs/messages.h, fs/xfs/xfs_message.c
    ("assertion failed: ", Some("BTRFS: assertion failed")),
    ("XFS: Assertion failed: ", Some("XFS: assertion failed")),
    // include/linux/fortify-string.h, mm/usercopy.c
    ("memcpy: detected field-spanning write", Some("field-spanning write")),
    ("usercopy: Kernel memory ", Some("usercopy: bad copy")),
    // mm/slub.c
    ("[Poison overwritten] ", Some("Poison overwritten")),
    ("[Left Redzone overwritten] ", Some("Redzone overwritten")),
    ("[Right Redzone overwritten] ", Some("Redzone overwritten")),
    ("[kmalloc Redzone overwritten] ", Some("Redzone overwritten")),
    ("[Alignment padding overwritten] ", Some("Padding overwritten")),
    ("[Object padding overwritten] ", Some("Padding overwritten")),
];

/// The rule whose header `line` is.
pub(super) fn matching(line: &str) -> Option<&'static Rule> {
    // Most lines of a log are told apart by their first letter.
    if !line.starts_with(['B', 'W', 'I', 'U', 'O', 'K', 'k', 'u', 'g', 's', 'd', 'i', 'a', 'P', '[']) {
        return None;
    }
    let rule = RULES.iter().find(|rule| has_pieces(line, rule.pieces))?;
    (!IGNORED.iter().any(|pieces| has_pieces(line, pieces))).then_some(rule)
}

pub(super) fn has_pieces(line: &str, pieces: &[&str]) -> bool {
    let Some((first, others)) = pieces.split_first() else { return false };
    let Some(mut rest) = line.strip_prefix(first) else { return false };
    for piece in others {
        let Some(at) = rest.find(piece) else { return false };
        rest = &rest[at + piece.len()..];
    }
    true
}

/// Says whether this is the header of a panic that an earlier report explains.
pub(super) fn is_consequence(line: &str) -> bool {
    line.strip_prefix(PANIC).is_some_and(|reason| CONSEQUENCES.iter().any(|words| reason.contains(words)))
}

/// Says whether by this line a kernel is no longer fit to judge.
pub(super) fn is_impaired(line: &str) -> bool {
    IMPAIRED.iter().any(|words| line.contains(words))
}

/// Says whether this is the header of a panic for want of memory.
pub(super) fn is_out_of_memory(line: &str) -> bool {
    line.strip_prefix(PANIC).is_some_and(|reason| OUT_OF_MEMORY.iter().any(|words| reason.starts_with(words)))
}

/// Says whether a warning with this line announces an error that was given from outside.
pub(super) fn is_expected(line: &str) -> bool {
    EXPECTED.iter().any(|words| line.starts_with(words))
}

/// A line of `=` above (and, for KASAN, below) a report.
pub(super) fn is_ruler(line: &str) -> bool {
    line.len() >= 20 && line.bytes().all(|byte| byte == b'=')
}

/// The words of the last line of `context` that says more than the header below it.
pub(super) fn detail_above<'log>(context: &[&'log str]) -> Option<&'log str> {
    context.iter().rev().find_map(|line| detail(line))
}

/// The words of `line` when it says more than the header below it.
pub(super) fn detail(line: &str) -> Option<&str> {
    let (_, words) = DETAILS.iter().find(|(start, _)| line.starts_with(start))?;
    Some(words.unwrap_or_else(|| line.split(['.', '(']).next().unwrap_or(line).trim_end()))
}
