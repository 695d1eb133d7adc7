//! The BPF programs of the guest.
//!
//! `injectable` runs on the entry of every function that may fail. For calls of the tasks in scope
//! it reads the callers, records the site, and makes the call fail when a rule says so.
//! `block_write` records which parts of the disks are written to, by whomever. `work_queued` and
//! its like follow the work items that the workload causes. `returned` sees what becomes of a
//! fault.
//!
//! The agent reads and writes all maps through memory mappings; their layout and meaning are in the
//! crate `abi`.

#![no_std]
#![no_main]

mod arguments;
mod call;
mod dirty;
mod maps;
mod memory;
mod repeat;
mod returns;
mod rules;
mod scope;
mod sites;
mod works;

use abi::{Condition, Control, WORKLOAD};
use aya_ebpf::{
    bindings::pt_regs,
    helpers::generated::bpf_override_return,
    macros::{kprobe, raw_tracepoint, tracepoint},
    programs::{ProbeContext, RawTracePointContext, TracePointContext},
};

use crate::memory::Reader;

/// A function that may fail is being called.
#[kprobe]
fn injectable(context: ProbeContext) -> u32 {
    if let Some(control) = maps::control()
        && control.armed != 0
        && control.step != 0
        && let Some(scope) = scope::of_current(control)
    {
        on_call(context.regs, control, scope);
    }
    0
}

/// A call on the call path of a fault returns. Attached only in executions that trace faults.
#[kprobe]
fn returned(context: ProbeContext) -> u32 {
    if let Some(control) = maps::control() {
        returns::note(context.regs, control);
    }
    0
}

/// A block of data is on its way to a disk, or from it.
#[tracepoint]
fn block_write(context: TracePointContext) -> u32 {
    if let Some(control) = maps::control() {
        dirty::record(&context, control);
    }
    0
}

/// A work item is queued: `workqueue_queue_work(cpu, pool, work)` of
/// `include/trace/events/workqueue.h` (6.1 and 6.12), as are the next two.
#[raw_tracepoint]
fn work_queued(context: RawTracePointContext) -> i32 {
    works::queued(context.arg(2));
    0
}

/// A work item begins to run: `workqueue_execute_start(work)`.
#[raw_tracepoint]
fn work_started(context: RawTracePointContext) -> i32 {
    works::started(context.arg(0));
    0
}

/// A work item has run, and may be gone: `workqueue_execute_end(work, function)`.
#[raw_tracepoint]
fn work_ended(context: RawTracePointContext) -> i32 {
    works::ended(context.arg(0));
    0
}

/// The agent asks which work items still wait. Attached to nothing.
#[raw_tracepoint]
fn work_check(_: RawTracePointContext) -> i32 {
    works::check();
    0
}

#[inline(always)]
fn on_call(regs: *mut pt_regs, control: &mut Control, scope: u8) {
    let reader = Reader::new();
    if call::in_interrupt(reader, control) {
        return;
    }
    // SAFETY: the kernel hands the probe its registers.
    let registers = unsafe { Registers::read(reader, regs) };
    if is_guarded(&registers, control) {
        control.guarded += u32::from(scope == WORKLOAD);
        return;
    }
    let site = sites::slot_of(control, &registers, scope);
    if site == sites::GUARDED {
        control.guarded += u32::from(scope == WORKLOAD);
        return;
    }
    if site == sites::UNRELATED {
        return;
    }
    control.sequence += 1;
    sites::count(control, site);
    if let Some(return_value) = rules::apply(control, &registers, site) {
        // SAFETY: `regs` are the probe's own; the agent lowers only values that the function's
        // error type allows.
        unsafe { bpf_override_return(regs, return_value.cast_unsigned()) };
    }
}

/// The registers of interest on a function's entry.
struct Registers {
    /// Reader of the memory that they point to.
    reader: Reader,
    instruction: u64,
    stack: u64,
    frame: u64,
    /// Address of all of them, for the arguments. The verifier lets programs load directly only
    /// registers that they name.
    all: u64,
}

impl Registers {
    /// # Safety
    ///
    /// `regs` is what the kernel handed to the probe.
    #[inline(always)]
    unsafe fn read(reader: Reader, regs: *const pt_regs) -> Self {
        // SAFETY: see above. Volatile, lest the compiler compute an address among the registers:
        // the verifier allows constant ones only.
        unsafe {
            Self {
                reader,
                instruction: (&raw const (*regs).rip).read_volatile(),
                stack: (&raw const (*regs).rsp).read_volatile(),
                frame: (&raw const (*regs).rbp).read_volatile(),
                all: regs as u64,
            }
        }
    }
}

/// Says whether the kernel itself would never fail this call, or that cannot be told.
#[inline(always)]
fn is_guarded(registers: &Registers, control: &mut Control) -> bool {
    let Some(function) = control.functions.at(registers.instruction) else { return true };
    for condition in &mut function.never {
        if condition.part.argument == Condition::NONE.part.argument {
            break;
        }
        if arguments::holds(registers.reader, registers.all, condition) != Some(false) {
            return true;
        }
    }
    false
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 4] = *b"GPL\0";
