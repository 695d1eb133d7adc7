//! The memory that the BPF programs and the agent share: every map's value, byte for byte.
//!
//! All maps are arrays that user space maps (`BPF_F_MMAPABLE`): programming, arming, disarming and reading them
//! takes no system call, so that an armed agent can never be failed by its own plan. One thread runs the workload,
//! so nothing here needs to be atomic.
//!
//! Names are numbers here: the agent gives every kernel symbol (without compiler suffixes) a *name id*, in sorted
//! order from 1, and fills a table from text address to name id. 0 is "no such name".

#![no_std]

/// The most callers that are read at a call.
pub const MAX_FRAMES: usize = 24;
/// The most rules, one per fault of a plan.
pub const MAX_RULES: usize = 16;
/// The most functions that can be probed.
pub const MAX_FUNCTIONS: usize = 64;
/// Slots of the site table, a power of two.
pub const SITE_SLOTS: usize = 1 << 14;
/// How many slots are tried before a site counts as lost.
pub const SITE_PROBES: usize = 32;
/// Bytes of kernel text that share one entry of the name table.
pub const GRANULE_BYTES: u64 = 8;
/// Entries of the name table in one value of its map.
pub const NAME_BLOCK: usize = 1024;
/// The name id that no symbol has.
pub const NO_NAME: u32 = 0;
/// The element of a rule's path that stands for any callers.
pub const ELLIPSIS: u32 = u32::MAX;
/// Bytes of disk behind one bit of the dirty map.
pub const DIRTY_BLOCK_BYTES: u64 = 4096;
/// 64-bit words of the dirty map: disks up to 1 GiB.
pub const DIRTY_WORDS: usize = (1 << 30) / (4096 * 64);

/// What guards a probed function: which of its calls the kernel promises never to fail.
pub mod guard {
    /// No call is protected.
    pub const NONE: u32 = 0;
    /// `should_failslab(cache, gfp)`: the bootstrap cache and `__GFP_NOFAIL`.
    /// Mirrors `__should_failslab()` in `mm/failslab.c` (6.12).
    pub const SLAB: u32 = 1;
    /// `should_fail_alloc_page(gfp, order)`: `__GFP_NOFAIL`.
    /// Mirrors `__should_fail_alloc_page()` in `mm/fail_page_alloc.c` (6.12).
    pub const PAGE: u32 = 2;
}

/// The one value of map `CONTROL`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Control {
    /// 1 while calls are recorded and faults fire, else 0.
    pub armed: u32,
    /// Thread (kernel `pid`) that runs the workload; calls of all others are left alone.
    pub thread: u32,
    /// Number of the execution; a site or log of another generation is stale.
    pub generation: u32,
    /// Rules in use.
    pub rule_count: u32,
    /// Calls recorded in this execution; the next call's sequence number less one.
    pub sequence: u32,
    /// Entries of map `TOUCHED` in use.
    pub touched: u32,
    /// Calls whose site found no slot.
    pub lost_sites: u32,
    /// Calls left alone because the kernel promises that they do not fail.
    pub guarded: u32,
    /// First address of the kernel's text.
    pub text_start: u64,
    /// First address after it.
    pub text_end: u64,
    /// Address of the pointer `kmem_cache`, the bootstrap cache; 0 when unknown.
    pub bootstrap_cache: u64,
    /// Device number (kernel encoding, `major << 20 | minor`) of the disk whose writes are recorded.
    pub disk: u32,
    /// Writes that lay beyond the dirty map: when not 0 the whole disk is dirty.
    pub dirty_overflow: u32,
}

/// A value of map `FUNCTIONS`, keyed by the function's entry address.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Function {
    /// Name id of the function.
    pub name: u32,
    /// One of [`guard`].
    pub guard: u32,
}

/// A value of map `RULES`: one fault of the plan, lowered.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Rule {
    /// Name id of the function.
    pub function: u32,
    /// Which matching call fails, from 1.
    pub occurrence: u32,
    /// Matching calls so far in this execution.
    pub seen: u32,
    /// Elements of `path` in use.
    pub elements: u32,
    /// What the call returns.
    pub return_value: i64,
    /// The callers as name ids, innermost first, or [`ELLIPSIS`].
    pub path: [u32; MAX_FRAMES],
}

/// A value of map `SITES`, an open-addressed hash table: slot `key % SITE_SLOTS`, then the next ones.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Site {
    /// Hash of function and callers' name ids; 0 marks a free slot.
    pub key: u64,
    /// Execution that `count` and `first_sequence` belong to.
    pub generation: u32,
    /// Calls in that execution.
    pub count: u32,
    /// Sequence number of its first call, from 1.
    pub first_sequence: u32,
    /// Name id of the function.
    pub function: u32,
    /// Callers in `stack`.
    pub depth: u32,
    /// 1 when there were more callers than fit.
    pub truncated: u32,
    /// The callers' name ids, innermost first.
    pub stack: [u32; MAX_FRAMES],
}

/// One fault that fired.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Fired {
    /// Index of the rule, hence of the plan's fault, from 0.
    pub rule: u32,
    /// Sequence number of the call, from 1.
    pub sequence: u32,
    /// Callers in `stack`.
    pub depth: u32,
    /// Always 0.
    pub reserved: u32,
    /// Hash of the site.
    pub site: u64,
    /// Return addresses, innermost first.
    pub stack: [u64; MAX_FRAMES],
}

/// The one value of map `FIRED`. It fills less than a page, whose physical address the agent tells the host: a
/// guest that died can still be asked what fired.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct FiredLog {
    /// Execution it belongs to.
    pub generation: u32,
    /// Entries in use.
    pub count: u32,
    /// The faults, in the order in which they fired.
    pub fired: [Fired; MAX_RULES],
}

const _: () = assert!(size_of::<FiredLog>() <= 4096, "the log of a dead guest is read as one page");
const _: () = assert!(size_of::<Control>() == 64);
const _: () = assert!(size_of::<Site>() == 128 + 8);

/// The one value of map `DIRTY`: a bit per [`DIRTY_BLOCK_BYTES`] of the disk that was written to.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Dirty {
    /// Bit `n % 64` of word `n / 64` stands for block `n`.
    pub words: [u64; DIRTY_WORDS],
}
