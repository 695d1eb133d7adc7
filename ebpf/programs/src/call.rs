//! Callers of a function: walks the frame pointers.
//!
//! The probe stands before the function's first instruction. So its return address is on top of the
//! stack, and the frame pointer is still the caller's, whose frame begins `{ the next frame
//! pointer, its return address }`.

use abi::{Call, Control, GRANULE_BYTES, MAX_FRAMES, NAME_BLOCK, NO_NAME, Site, SiteKey};
use aya_ebpf::helpers::bpf_get_smp_processor_id;

use crate::{
    Registers, maps,
    memory::{Frame, RETURN_ADDRESS, Reader},
};

/// 2^31 divided by the golden ratio, odd: an instruction holds no larger number.
const MULTIPLIER: u64 = 0x4f1b_bcdd;

/// `THREAD_SIZE` of `arch/x86/include/asm/page_64_types.h` (6.12) at most, which is with KASAN.
const STACK_BYTES: u64 = 32 << 10;

/// One non-maskable interrupt in the preemption count, as `__nmi_enter()` adds it: an `int3` probe
/// counts as one. Mirrors `include/linux/preempt.h` (6.12).
const NMI: u32 = (1 << 20) + (1 << 16);
const NMI_MASK: u32 = 0xf << 20;
/// Hard interrupts, and soft interrupts being served (not merely disabled).
const INTERRUPT_MASK: u32 = (0xf << 20) | (0xf << 16) | (1 << 8);

/// A hash of the step that runs, whose call it is, where the function stands that is being entered,
/// and the return addresses of its callers, never 0.
///
/// This is most of what a call costs. So nothing is stored: they are read again by [`read`] where
/// they are asked for, which is at new paths and at failures.
#[inline(always)]
pub(crate) fn path(registers: &Registers, step: u32, scope: u8) -> u64 {
    // The upper halves of text addresses are all ones.
    let mut hash = registers.instruction ^ (u64::from(step) << 32) ^ (u64::from(scope) << 48);
    walk(registers, |_, address, _| hash = (hash ^ address).wrapping_mul(MULTIPLIER));
    // A product's upper half depends on all of both factors.
    hash ^= hash >> 32;
    if hash == 0 { 1 } else { hash }
}

/// Reads the return addresses of the callers of the function that is being entered into `call`.
#[inline(always)]
pub(crate) fn read(registers: &Registers, call: &mut Call) {
    let depth = &raw mut call.depth;
    let more = walk(registers, |index, address, _| {
        if let Some(slot) = call.stack.get_mut(index) {
            *slot = address;
        }
        // SAFETY: it is the call's own. Volatile, lest it be in a register, by which the verifier
        // would tell one turn from another.
        unsafe { depth.write_volatile(index as u32 + 1) };
    });
    call.truncated = u32::from(more);
}

/// Hands the return addresses of the callers to `each`, with their indices, innermost first, and
/// the addresses of the stack slots that hold them. Returns whether there are more than are read.
///
/// A plain loop, which the linker unrolls. The verifier follows it turn by turn, and then what
/// comes after it once: no register that is needed there tells one turn from another.
#[inline(always)]
pub(crate) fn walk(registers: &Registers, mut each: impl FnMut(usize, u64, u64)) -> bool {
    let reader = registers.reader;
    each(0, reader.number(registers.stack).unwrap_or(0), registers.stack);
    if !is_above(registers.frame, registers.stack) {
        return false;
    }
    let mut frame = reader.frame_at(registers.frame);
    for index in 1..MAX_FRAMES {
        let Some(Frame { next, address }) = reader.frame(frame) else { return false };
        each(index, address, (frame as u64).wrapping_add(RETURN_ADDRESS));
        if !is_above(next as u64, frame as u64) {
            return false;
        }
        frame = next;
    }
    true
}

/// Says whether there can be a frame at `frame`, on the same stack as what is at `below`. A stack
/// grows down: 0 ends the chain. An odd address is that of the registers saved by an interrupt or a
/// system call.
#[inline(always)]
fn is_above(frame: u64, below: u64) -> bool {
    frame.wrapping_sub(below).wrapping_sub(8) & !(STACK_BYTES - 8) == 0
}

/// Turns the return addresses of `call` into names, and describes by them the `site` of the
/// function that is being entered in this scope.
#[inline(always)]
pub(crate) fn name(registers: &Registers, call: &Call, control: &Control, scope: u8, site: &mut Site) {
    // The instruction pointer stands behind the probe, which is less than a granule long or was
    // entered as whole.
    let function = name_at(registers.instruction.wrapping_sub(1).wrapping_sub(control.text_start));
    let text_bytes = control.text_end.wrapping_sub(control.text_start);
    let mut key = SiteKey::new(control.step, scope, function);
    let mut name_set = 0;
    let mut depth = 0;
    let mut truncated = call.truncated as u8;
    for (address, name) in call.stack.iter().zip(&mut site.stack) {
        if depth >= call.depth {
            break;
        }
        // The return address may already belong to the next symbol when the call never returns.
        let offset = address.wrapping_sub(1).wrapping_sub(control.text_start);
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
    site.scope = scope;
    site.step = control.step as u16;
    site.name_set = name_set;
    site.key = key.finish();
}

/// Name id of the symbol that covers the byte at `offset` of the kernel's text.
#[inline(always)]
fn name_at(offset: u64) -> u32 {
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

/// Says whether an interrupt is being served, or that cannot be told. A soft interrupt that its own
/// thread serves is one too: `handle_softirqs()` of `kernel/softirq.c` (6.12) counts it there as
/// everywhere.
#[inline(always)]
pub(crate) fn in_interrupt(reader: Reader, control: &mut Control) -> bool {
    // SAFETY: the helper takes no arguments.
    let processor = unsafe { bpf_get_smp_processor_id() };
    if control.preempt_cpu != processor + 1 {
        let offset = control.per_cpu_offsets + u64::from(processor) * 8;
        let Some(base) = reader.number::<u64>(offset).filter(|base| *base != 0) else { return true };
        control.preempt_count = base.wrapping_add(control.preempt_offset);
        control.preempt_cpu = processor + 1;
    }
    let Some(mut count) = reader.number::<u32>(control.preempt_count) else { return true };
    if count & NMI_MASK != 0 {
        count -= NMI;
    }
    count & INTERRUPT_MASK != 0
}
