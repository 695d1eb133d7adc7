//! The BPF programs of the guest.
//!
//! `injectable` runs on the entry of every function that may fail. For calls of the workload's thread it reads the
//! callers, records the site, and makes the call fail when a rule says so. `block_write` records which parts of
//! the disk are written to, by whomever.
//!
//! The agent reads and writes all maps through memory mappings; their layout and meaning are in the crate `abi`.

#![no_std]
#![no_main]

mod call;
mod dirty;
mod maps;
mod memory;
mod repeat;
mod rules;
mod sites;

use abi::{Control, GFP_NOFAIL, PROBE_BYTES};
use aya_ebpf::{
    EbpfContext as _,
    bindings::pt_regs,
    helpers::generated::bpf_override_return,
    macros::{kprobe, tracepoint},
    programs::{ProbeContext, TracePointContext},
};

use crate::memory::Reader;

/// A function that may fail is being called.
#[kprobe]
fn injectable(context: ProbeContext) -> u32 {
    if let Some(control) = maps::control()
        && control.armed != 0
        && context.pid() == control.thread
    {
        on_call(context.regs, control);
    }
    0
}

/// A block of data is on its way to a disk, or from it.
#[tracepoint]
fn block_write(context: TracePointContext) -> u32 {
    if let Some(control) = maps::control()
        && control.disk != 0
    {
        dirty::record(&context, control);
    }
    0
}

#[inline(always)]
fn on_call(regs: *mut pt_regs, control: &mut Control) {
    let reader = Reader::new();
    if call::in_interrupt(reader, control) {
        return;
    }
    // SAFETY: the kernel hands the probe its registers.
    let registers = unsafe { Registers::read(reader, regs) };
    if is_guarded(&registers, control) {
        control.guarded += 1;
        return;
    }
    let site = sites::slot_of(control, &registers);
    control.sequence += 1;
    sites::count(control, site);
    if let Some(return_value) = rules::apply(control, &registers, site) {
        // SAFETY: `regs` are the probe's own; the agent lowers only values that the function's error type allows.
        unsafe { bpf_override_return(regs, return_value.cast_unsigned()) };
    }
}

/// The registers of interest on a function's entry.
struct Registers {
    /// How the memory that they point to is read.
    reader: Reader,
    instruction: u64,
    stack: u64,
    frame: u64,
    /// The first four arguments.
    arguments: [u64; 4],
}

impl Registers {
    /// # Safety
    ///
    /// `regs` is what the kernel handed to the probe.
    #[inline(always)]
    unsafe fn read(reader: Reader, regs: *const pt_regs) -> Self {
        // SAFETY: see above. Volatile, lest the compiler compute an address among the registers: the verifier allows
        // constant ones only.
        unsafe {
            Self {
                reader,
                instruction: (&raw const (*regs).rip).read_volatile(),
                stack: (&raw const (*regs).rsp).read_volatile(),
                frame: (&raw const (*regs).rbp).read_volatile(),
                arguments: [
                    (&raw const (*regs).rdi).read_volatile(),
                    (&raw const (*regs).rsi).read_volatile(),
                    (&raw const (*regs).rdx).read_volatile(),
                    (&raw const (*regs).rcx).read_volatile(),
                ],
            }
        }
    }
}

/// Whether the kernel itself would never fail this call, or that cannot be told.
#[inline(always)]
fn is_guarded(registers: &Registers, control: &mut Control) -> bool {
    let [first, second, _, fourth] = registers.arguments;
    // Flags are an `unsigned int`: the upper half of the register is undefined.
    let never_fails = |flags: u64| flags as u32 & GFP_NOFAIL != 0;
    let entered = |entry: u64| registers.instruction.wrapping_sub(entry) <= PROBE_BYTES;
    if entered(control.slab_entry) {
        return never_fails(second) || is_bootstrap_cache(registers.reader, first, control);
    }
    entered(control.page_entry) && never_fails(first) || entered(control.folio_entry) && never_fails(fourth)
}

#[inline(always)]
fn is_bootstrap_cache(reader: Reader, cache: u64, control: &mut Control) -> bool {
    if control.bootstrap_cache == 0 {
        control.bootstrap_cache = reader.number(control.bootstrap_pointer).unwrap_or(0);
    }
    control.bootstrap_cache == 0 || control.bootstrap_cache == cache
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 4] = *b"GPL\0";
