//! The memory that the BPF programs and the agent share: every map's value, byte for byte.
//!
//! All maps are arrays that user space maps (`BPF_F_MMAPABLE`): programming, arming, disarming and
//! reading them takes no system call, so that an armed agent can never be failed by its own plan.
//!
//! Many tasks make calls, and nothing here is atomic but the dirty map's idempotent marks. The
//! guest has one processor, whose kernel does not preempt, and a program runs to its end before
//! another task does: `kprobe_ftrace_handler()` of `arch/x86/kernel/kprobes/ftrace.c` disables
//! preemption, and an `int3` interrupts as well. An interrupt may come in between. Its calls of
//! probed functions find `kprobe_running()`, and `trace_call_bpf()` of `kernel/trace/bpf_trace.c`
//! runs no program while another one is active (all of 6.12). So a call's scratch memory is its
//! own.
//!
//! Names are numbers here: the agent gives every kernel symbol (without compiler suffixes) a *name
//! id*, in sorted order from 1, and fills a table from text address to name id. 0 is "no such
//! name".

#![no_std]

mod function;
mod matcher;
mod part;
mod returns;
mod site_key;
mod work;

pub use function::{Condition, Function, Functions, NO_FUNCTION};
pub use matcher::{MAX_MATCH_STEPS, Match, Verdict};
pub use part::{ARGUMENTS, Part};
pub use returns::{OpenCalls, Returned, Returns, return_type};
pub use site_key::SiteKey;
pub use work::{WORK_DATA, WORK_FUNCTION, WORK_PROBES, WORK_QUEUED, WORK_SLOTS, Work, Works, work_slot};

/// Upper half of all addresses of the kernel's text: `__START_KERNEL_map` of
/// `arch/x86/include/asm/page_64_types.h` (6.12).
pub const TEXT_HALF: u64 = 0xffff_ffff << 32;
/// The most callers that are read at a call.
pub const MAX_FRAMES: usize = 24;
/// The most rules, one per fault of a plan.
pub const MAX_RULES: usize = 16;
/// Times that one rule fires in an execution, at most. Who asks as often for what fails each time
/// is in a loop: whole workloads make fewer calls of a function.
pub const MOST_FIRES: u32 = 8192;
/// The most functions that can be probed.
pub const MAX_FUNCTIONS: usize = 512;
/// The most conditions on arguments under which a function never fails.
pub const MAX_CONDITIONS: usize = 4;
/// The most conditions on arguments that a rule has.
pub const MAX_RULE_CONDITIONS: usize = 2;
/// The most parts of a call's arguments that are noted when a rule fires.
pub const MAX_SHOWN: usize = 4;
/// The number noted for a part that is not there.
pub const NOT_SHOWN: u64 = u64::MAX;
/// Bytes of a text that is noted.
pub const SHOWN_TEXT: usize = 24;
/// The most callers below which a function never fails.
pub const MAX_CALLERS: usize = 12;
/// The most callers below which calls of other tasks have nothing to do with the workload.
pub const MAX_UNRELATED: usize = 32;
/// The scope of the workload's own task: a scope is `Scope::number()` of the crate `fault-plan`.
pub const WORKLOAD: u8 = 0;
/// The scope of user tasks outside of the agent's process.
pub const CHILD: u8 = 1;
/// The scope of kernel threads that run work items.
pub const WORKER: u8 = 2;
/// The scope of other kernel threads.
pub const THREAD: u8 = 3;
/// Bits of the number of a slot of the index of functions, which makes 32,768 slots.
pub const FUNCTION_SLOT_BITS: u32 = 15;
/// Slots of the site table, and of its index, a power of two.
pub const SITE_SLOTS: usize = 1 << 14;
/// Number of entries of the index that are tried before a site counts as lost.
pub const SITE_PROBES: usize = 32;
/// Slots of the path table, a power of two: several paths of addresses may be one of names.
pub const PATH_SLOTS: usize = 1 << 15;
/// Those that are tried first, a power of two. Paths that come first fill them, so that an
/// execution's are on few pages.
pub const PATH_FRONT: usize = 1 << 12;
/// Number of slots that are tried for a path.
pub const PATH_PROBES: usize = 4;
/// A probe's saved instruction pointer stands at most this far behind the function's entry: behind
/// a breakpoint, or behind the call of the function tracer as if it were one, and both may come
/// after an `endbr64`.
pub const PROBE_BYTES: u64 = 5;
/// Bytes of kernel text that share one entry of the name table.
pub const GRANULE_BYTES: u64 = 8;
/// Entries of the name table in one value of its map.
pub const NAME_BLOCK: usize = 1024;
/// The name id that no symbol has.
pub const NO_NAME: u32 = 0;
/// The element of a rule's path that stands for any callers.
pub const ELLIPSIS: u32 = u32::MAX;
/// Bytes of disk behind one mark of the dirty map.
pub const DIRTY_BLOCK_BYTES: u64 = 4096;
/// Blocks of the dirty map: disks up to 1 GiB.
pub const DIRTY_BLOCKS: usize = (1 << 30) / 4096;
/// The most disks whose writes are recorded.
pub const MAX_DISKS: usize = 4;
/// Blocks behind one mark of the dirty map's overview: 2 MiB.
pub const DIRTY_REGION_BLOCKS: usize = 512;

/// The set of name ids with just `name` in it. A set is the union of its members' bits; names may
/// share one.
#[inline(always)]
#[must_use]
pub const fn name_set(name: u32) -> u64 {
    1 << (name % 64)
}

/// A helper's number that no kernel has. The programs call it for `bpf_rdonly_cast()`, a function
/// of the kernel, until the agent puts that in its place.
pub const CAST: u32 = 0x7f00_0001;

/// Offsets of the fields of the event `block/block_bio_queue`, in bytes from its start.
///
/// Mirrors `DECLARE_EVENT_CLASS(block_bio, ...)` in `include/trace/events/block.h` (6.1 and 6.12).
/// The agent compares them with the `format` file of the running kernel.
pub mod block_event {
    /// `dev`, 32 bits: the device number in the kernel's encoding.
    pub const DEVICE: usize = 8;
    /// `sector`, 64 bits: the first sector.
    pub const SECTOR: usize = 16;
    /// `nr_sector`, 32 bits: how many.
    pub const SECTORS: usize = 24;
    /// `rwbs`, text: `R` first for a read, after an `F` when data is flushed first.
    pub const OPERATION: usize = 28;
}

/// Only value of map `CONTROL`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Control {
    /// 1 while calls are recorded and faults fire, else 0.
    pub armed: u32,
    /// Thread (kernel `pid`) that runs the workload.
    pub thread: u32,
    /// Process (kernel `tgid`) of the agent; calls of its other threads are left alone.
    pub process: u32,
    /// A bit for each scope whose calls are recorded and fail, `1 << scope`.
    pub scopes: u32,
    /// Offset of `flags` in `struct task_struct`, by which the scopes of other tasks are told.
    pub task_flags: u32,
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
    /// Writes that lay beyond the dirty map: when not 0 all of the disks is dirty.
    pub dirty_overflow: u32,
    /// Device numbers (kernel encoding, `major << 20 | minor`) of the disks whose writes are
    /// recorded; 0 for none.
    pub disks: [u32; MAX_DISKS],
    /// Sites in map `SITES`.
    pub sites: u32,
    /// The processor that `preempt_count` is of, plus 1; 0 when `preempt_count` is yet to be
    /// computed.
    pub preempt_cpu: u32,
    /// Step of the workload that runs, from 1; 0 while none does, when calls are left alone.
    pub step: u32,
    /// Always 0.
    pub reserved: u32,
    /// First address of the kernel's text.
    pub text_start: u64,
    /// First address after it.
    pub text_end: u64,
    /// Address of the array `__per_cpu_offset`.
    pub per_cpu_offsets: u64,
    /// Offset of the preemption count in every processor's area.
    pub preempt_offset: u64,
    /// Address of that processor's preemption count.
    pub preempt_count: u64,
    /// [`name_set`] of `unrelated`.
    pub unrelated_set: u64,
    /// Name ids: a call of another task with one of them among its callers is left alone. Unused
    /// entries are [`NO_NAME`].
    pub unrelated: [u32; MAX_UNRELATED],
    /// The functions that are probed.
    pub functions: Functions,
}

/// A value of map `RULES`: one fault of the plan, lowered.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Rule {
    /// Name id of the function.
    pub function: u32,
    /// Which matching call fails first, from 1.
    pub occurrence: u32,
    /// Number of further matching calls in a row that fail.
    pub more: u32,
    /// Matching calls so far in this execution.
    pub seen: u32,
    /// Its entry in map `FIRED`, plus 1; 0 while it has not fired.
    pub fired: u32,
    /// The rule that must have fired before, plus 1; 0 for none.
    pub after: u32,
    /// A bit for each scope of which calls match, `1 << scope`.
    pub scopes: u32,
    /// Elements of `path` in use.
    pub elements: u32,
    /// The step of which calls match, from 1; 0 for all steps.
    pub step: u32,
    /// The part in `shown` that points to a text, which is noted too, from 1; 0 for none.
    pub text: u32,
    /// The value that the call returns.
    pub return_value: i64,
    /// The conditions that hold for calls that match. Behind the last one stands
    /// [`Condition::NONE`], unless there is no room.
    pub conditions: [Condition; MAX_RULE_CONDITIONS],
    /// [`name_set`] of all names in `path`: a call whose set lacks a bit cannot match.
    pub name_set: u64,
    /// What is noted of the arguments when it fires. Unused entries are [`Part::NONE`].
    pub shown: [Part; MAX_SHOWN],
    /// The callers as name ids, innermost first, or [`ELLIPSIS`].
    pub path: [u32; MAX_FRAMES],
}

/// The call being looked at: the one value of map `CALL`, the BPF program's scratch memory.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Call {
    /// Return addresses in use.
    pub depth: u32,
    /// 1 when there were more than fit.
    pub truncated: u32,
    /// The match in progress. It is here and not among the program's variables because the verifier
    /// follows known values through every turn of a loop, but knows nothing of what stands in a
    /// map.
    pub state: Match,
    /// The return addresses, innermost first.
    pub stack: [u64; MAX_FRAMES],
}

/// A value of map `PATHS`, an open-addressed hash table: which site a path of return addresses is
/// in a step and a scope.
/// It spares all calls on a path but the first one to look for the callers' names.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Path {
    /// Hash of the step, the scope, the probe's address and the return addresses; 0 marks a free
    /// slot.
    pub key: u64,
    /// Slot of map `SITES`.
    pub site: u32,
    /// Always 0.
    pub reserved: u32,
}

/// A value of map `SITES`: the sites, one for each step and scope, in the order in which they were
/// found, so that an execution touches few pages. Map `INDEX` is an open-addressed hash table of
/// their slots plus 1: entry `key % SITE_SLOTS`, then the next ones. Behind its slots `SITES` has
/// one more value, for the site at hand while its slot is looked for, and when there is none.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Site {
    /// Hash of step, scope, function and callers' name ids; never 0 in a slot that is taken.
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
    pub truncated: u8,
    /// Scope of its calls.
    pub scope: u8,
    /// Step of the workload that its calls are in, from 1.
    pub step: u16,
    /// [`name_set`] of all callers.
    pub name_set: u64,
    /// The callers' name ids, innermost first.
    pub stack: [u32; MAX_FRAMES],
}

/// One fault that fired.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Fired {
    /// Index of the rule, hence of the plan's fault, from 0.
    pub rule: u32,
    /// Sequence number of the call, from 1; always of the first time.
    pub sequence: u32,
    /// Callers in `stack`.
    pub depth: u32,
    /// Step of the workload that the call was in, from 1.
    pub step: u32,
    /// Hash of the site.
    pub site: u64,
    /// Scope of the call.
    pub scope: u32,
    /// Number of times that the rule fired. The rest is of the first time, or of the last one where
    /// it fired [`MOST_FIRES`] times.
    pub times: u32,
    /// Lower halves of the return addresses, innermost first. All are of the kernel's text, whose
    /// addresses have [`TEXT_HALF`] as their upper half.
    pub stack: [u32; MAX_FRAMES],
    /// The registers that [`ARGUMENTS`] names, whether the function has as many arguments or not.
    pub arguments: [u64; ARGUMENTS.len()],
    /// What the rule wants noted of them, or [`NOT_SHOWN`].
    pub shown: [u64; MAX_SHOWN],
    /// The text among these, with zeros behind it.
    pub text: [u8; SHOWN_TEXT],
}

/// Only value of map `FIRED`. It fills less than a page, whose physical address the agent tells the
/// host. So the host can read what fired even in a guest that died.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct FiredLog {
    /// Execution it belongs to.
    pub generation: u32,
    /// Entries in use.
    pub count: u32,
    /// Time of the last message in the kernel's log before the plan was in place, in microseconds.
    pub seen_us: u64,
    /// Step of the workload that runs, from 1; 0 while none does.
    pub step: u32,
    /// Always 0.
    pub reserved: u32,
    /// The faults, in the order in which they fired.
    pub fired: [Fired; MAX_RULES],
}

const _: () = assert!(size_of::<FiredLog>() <= 4096, "the log of a dead guest is read as one page");
const _: () = assert!(size_of::<Control>() == 128 + 4 * MAX_UNRELATED + size_of::<Functions>());
const _: () = assert!(size_of::<Site>() == 136);

/// A value of map `DIRTY`: the blocks of one disk that were written to. A mark is a byte, so
/// that tasks that set marks at the same time need no atomic operation.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Dirty {
    /// Not 0 when any block of the region is marked: block `n` is in region `n /
    /// DIRTY_REGION_BLOCKS`.
    pub regions: [u8; DIRTY_BLOCKS / DIRTY_REGION_BLOCKS],
    /// Not 0 when the block was written to.
    pub blocks: [u8; DIRTY_BLOCKS],
}

/// Only value of map `TOUCHED`: the slots of the sites that were reached, in order of their first
/// call.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Touched {
    /// Indices into map `SITES`.
    pub slots: [u32; SITE_SLOTS],
}
