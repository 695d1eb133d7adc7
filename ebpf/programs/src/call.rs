//! Who called: walks the frame pointers.
//!
//! The probe stands before the function's first instruction. So its return address is on top of the stack, and the
//! frame pointer is still the caller's, whose frame begins `{ the next frame pointer, its return address }`.

use core::ffi::c_void;

use abi::{Call, Control, Frame, GRANULE_BYTES, MAX_FRAMES, NAME_BLOCK, NO_NAME, Site, SiteKey};
use aya_ebpf::helpers::{bpf_get_smp_processor_id, bpf_probe_read_kernel, generated};

use crate::{Registers, maps};

const FRAME_BYTES: u32 = size_of::<Frame>() as u32;
/// 2^64 divided by the golden ratio, odd.
const MULTIPLIER: u64 = 0x9e37_79b9_7f4a_7c15;

/// One non-maskable interrupt in the preemption count, as `__nmi_enter()` adds it: an `int3` probe counts as one.
/// Mirrors `include/linux/preempt.h` (6.12).
const NMI: u32 = (1 << 20) + (1 << 16);
const NMI_MASK: u32 = 0xf << 20;
/// Hard interrupts, and soft interrupts being served (not merely disabled).
const INTERRUPT_MASK: u32 = (0xf << 20) | (0xf << 16) | (1 << 8);

/// Reads the frames of the callers of `function`, which is being entered, into `call`. Returns a hash of the function and
/// their return addresses, never 0.
///
/// A plain loop, which the verifier follows turn by turn, and then what comes after it once: no register that is needed
/// there tells one turn from another.
#[inline(always)]
pub(crate) fn read(registers: &Registers, function: u32, call: &mut Call) -> u64 {
    // SAFETY: the helper checks the address.
    let address = unsafe { bpf_probe_read_kernel(registers.stack as *const u64) }.unwrap_or(0);
    call.frames[0] = Frame { next: registers.frame, address };
    let mut key = mix(u64::from(function), address);
    let mut frame = registers.frame;
    let mut depth = 1;
    call.truncated = 0;
    // A stack grows down.
    if is_frame(frame, registers.stack) {
        for slot in &mut call.frames[1..] {
            let place: *mut Frame = slot;
            // SAFETY: the place is as large as said, and the helper checks the address.
            let failed = unsafe { generated::bpf_probe_read_kernel(place.cast(), FRAME_BYTES, frame as *const c_void) };
            if failed != 0 {
                break;
            }
            depth += 1;
            key = mix(key, slot.address);
            let next = slot.next;
            if !is_frame(next, frame) {
                break;
            }
            frame = next;
            if depth == MAX_FRAMES as u32 {
                call.truncated = 1;
            }
        }
    }
    call.depth = depth;
    if key == 0 { 1 } else { key }
}

/// Whether there can be a frame at `frame`, above the one at `below`: 0 ends the chain, and an odd address is that of the
/// registers saved by an interrupt or a system call.
#[inline(always)]
fn is_frame(frame: u64, below: u64) -> bool {
    frame > below && frame % 8 == 0
}

/// The hash `key` with one more address.
#[inline(always)]
fn mix(key: u64, address: u64) -> u64 {
    let mixed = (key ^ address).wrapping_mul(MULTIPLIER);
    mixed ^ (mixed >> 32)
}

/// Turns the return addresses of `call` into names, for a site of `function`.
#[inline(always)]
pub(crate) fn name(call: &Call, control: &Control, function: u32, site: &mut Site) {
    let text_bytes = control.text_end.wrapping_sub(control.text_start);
    let mut key = SiteKey::new(function);
    let mut name_set = 0;
    let mut depth = 0;
    let mut truncated = call.truncated;
    for (frame, name) in call.frames.iter().zip(&mut site.stack) {
        if depth >= call.depth {
            break;
        }
        // The return address may already belong to the next symbol when the call never returns.
        let offset = frame.address.wrapping_sub(1).wrapping_sub(control.text_start);
        // Beyond the text lie trampolines and nothing.
        if offset >= text_bytes {
            truncated = 0;
            break;
        }
        *name = name_at(offset);
        key = key.caller(*name);
        name_set |= abi::name_set(*name);
        depth += 1;
    }
    site.function = function;
    site.depth = depth;
    site.truncated = truncated;
    site.name_set = name_set;
    site.key = key.finish();
}

/// Name id of the symbol that covers the byte at `offset` of the kernel's text.
#[inline(always)]
pub(crate) fn name_at(offset: u64) -> u32 {
    let granule = offset / GRANULE_BYTES;
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
