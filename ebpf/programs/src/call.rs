//! Who called: walks the frame pointers.
//!
//! The probe stands before the function's first instruction. So its return address is on top of the stack, and the
//! frame pointer is still the caller's, whose frame begins `{ the next frame pointer, its return address }`.

use core::ffi::c_long;

use abi::{Call, Control, GRANULE_BYTES, MAX_FRAMES, NAME_BLOCK, NO_NAME, SiteKey};
use aya_ebpf::helpers::{bpf_get_smp_processor_id, bpf_probe_read_kernel};

use crate::{
    Registers, maps,
    repeat::{BREAK, CONTINUE, repeat},
};

/// One non-maskable interrupt in the preemption count, as `__nmi_enter()` adds it: an `int3` probe counts as one.
/// Mirrors `include/linux/preempt.h` (6.12).
const NMI: u32 = (1 << 20) + (1 << 16);
const NMI_MASK: u32 = 0xf << 20;
/// Hard interrupts, and soft interrupts being served (not merely disabled).
const INTERRUPT_MASK: u32 = (0xf << 20) | (0xf << 16) | (1 << 8);

/// The walk from caller to caller.
struct Walk {
    /// The next frame pointer.
    frame: u64,
    /// The one before it.
    below: u64,
    /// The next return address.
    address: u64,
    key: SiteKey,
    name_set: u64,
    text_start: u64,
    text_end: u64,
    depth: u32,
    /// 1 when the walk came to the end of the chain.
    ended: u32,
}

/// Reads the callers of the function being entered into `call`; returns the site's key.
#[inline(always)]
pub(crate) fn read(registers: &Registers, control: &Control, function: u32, call: &mut Call) -> u64 {
    let mut walk = Walk {
        frame: registers.frame,
        below: registers.stack,
        // SAFETY: the helper checks the address.
        address: unsafe { bpf_probe_read_kernel(registers.stack as *const u64) }.unwrap_or(0),
        key: SiteKey::new(function),
        name_set: 0,
        text_start: control.text_start,
        text_end: control.text_end,
        depth: 0,
        ended: 0,
    };
    repeat(MAX_FRAMES as u32, step, &mut walk);
    call.depth = walk.depth;
    call.truncated = 1 - walk.ended;
    call.name_set = walk.name_set;
    walk.key.finish()
}

/// Notes one caller and goes to the next.
extern "C" fn step(index: u64, walk: *mut Walk) -> c_long {
    // SAFETY: it is what `read` hands to the loop.
    let walk = unsafe { &mut *walk };
    let Some(call) = maps::call() else { return BREAK };
    let address = walk.address;
    // Beyond the text lie trampolines and nothing.
    if address <= walk.text_start || address > walk.text_end || index >= MAX_FRAMES as u64 {
        walk.ended = 1;
        return BREAK;
    }
    // The return address may already belong to the next symbol when the call never returns.
    let name = name_of(walk.text_start, address - 1);
    call.names[index as usize] = name;
    call.addresses[index as usize] = address;
    walk.depth = index as u32 + 1;
    walk.key = walk.key.caller(name);
    walk.name_set |= abi::name_set(name);
    let frame = walk.frame;
    // 0 ends the chain, an odd one is saved registers of an interrupt or a system call, and a stack grows down.
    if frame <= walk.below || frame % 8 != 0 {
        walk.ended = 1;
        return BREAK;
    }
    // SAFETY: the helper checks the address.
    let Ok(next) = (unsafe { bpf_probe_read_kernel(frame as *const [u64; 2]) }) else {
        walk.ended = 1;
        return BREAK;
    };
    walk.below = frame;
    [walk.frame, walk.address] = next;
    CONTINUE
}

/// Name id of the symbol that covers `address`, for a kernel whose text begins at `text_start`.
#[inline(always)]
pub(crate) fn name_of(text_start: u64, address: u64) -> u32 {
    let granule = address.wrapping_sub(text_start) / GRANULE_BYTES;
    let block = granule / NAME_BLOCK as u64;
    if block > u64::from(u32::MAX) {
        return NO_NAME;
    }
    match maps::names(block as u32) {
        Some(names) => names[granule as usize % NAME_BLOCK],
        None => NO_NAME,
    }
}

/// Whether an interrupt is being served on the thread's processor, or that cannot be told.
#[inline(always)]
pub(crate) fn in_interrupt(control: &mut Control) -> bool {
    // SAFETY: the helper takes no arguments.
    let processor = unsafe { bpf_get_smp_processor_id() };
    if control.preempt_cpu != processor + 1 {
        let offset = control.per_cpu_offsets + u64::from(processor) * 8;
        // SAFETY: the helper checks the address.
        let Ok(base) = (unsafe { bpf_probe_read_kernel(offset as *const u64) }) else { return true };
        control.preempt_count = base.wrapping_add(control.preempt_offset);
        control.preempt_cpu = processor + 1;
    }
    // SAFETY: the helper checks the address.
    let Ok(mut count) = (unsafe { bpf_probe_read_kernel(control.preempt_count as *const u32) }) else { return true };
    if count & NMI_MASK != 0 {
        count -= NMI;
    }
    count & INTERRUPT_MASK != 0
}
