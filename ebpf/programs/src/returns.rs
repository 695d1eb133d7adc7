//! What the functions on a fault's call path return: see `abi::Returns`.

use core::ffi::c_long;

use abi::{Control, MAX_FRAMES, MAX_RULES, PROBE_BYTES};
use aya_ebpf::{bindings::pt_regs, helpers::generated::bpf_get_current_task};

use crate::{
    Registers, call, maps,
    repeat::{CONTINUE, repeat},
};

/// The most bytes between the return address of a function that aligns its stack and the copy that
/// it makes of it for its frame. No other call that returns to the same place does so between the
/// two: one in this call stands lower on the stack, and one around it returns later.
const REALIGNED: u64 = 32;

/// Notes which calls are open as the rule of this `index` fires.
#[inline(always)]
pub(crate) fn open(control: &Control, registers: &Registers, index: u32) {
    let Some(open) = maps::open(index) else { return };
    // SAFETY: the helper takes no arguments.
    open.task = unsafe { bpf_get_current_task() };
    open.generation = control.generation;
    for address in &mut open.addresses {
        *address = 0;
    }
    call::walk(registers, |index, address, slot| {
        if let (Some(to), Some(at)) = (open.addresses.get_mut(index), open.slots.get_mut(index)) {
            (*to, *at) = (address, slot);
        }
    });
}

/// A call that returns to a probe.
struct Return {
    task: u64,
    generation: u32,
    instruction: u64,
    stack: u64,
    value: u64,
}

/// Notes the value that a call returns, if the call was open when a rule fired.
#[inline(always)]
pub(crate) fn note(regs: *const pt_regs, control: &Control) {
    // SAFETY: the kernel hands the probe its registers, and the helper takes no arguments.
    let mut returning = unsafe {
        Return {
            task: bpf_get_current_task(),
            generation: control.generation,
            instruction: (&raw const (*regs).rip).read_volatile(),
            stack: (&raw const (*regs).rsp).read_volatile(),
            value: (&raw const (*regs).rax).read_volatile(),
        }
    };
    repeat(MAX_RULES as u32, note_in, &mut returning);
}

/// Looks for the call among those of one rule.
extern "C" fn note_in(index: u64, returning: *mut Return) -> c_long {
    // SAFETY: it is what `note` hands to the loop.
    let returning = unsafe { &*returning };
    let (Some(open), Some(returns)) = (maps::open(index as u32), maps::returns()) else { return CONTINUE };
    let Some(into) = returns.of.get_mut(index as usize) else { return CONTINUE };
    if open.task != returning.task || open.generation != returning.generation {
        return CONTINUE;
    }
    for frame in 0..MAX_FRAMES {
        let is_it = returning.stack.wrapping_sub(open.slots[frame]).wrapping_sub(8) <= REALIGNED
            && returning.instruction.wrapping_sub(open.addresses[frame]) <= PROBE_BYTES;
        if is_it && into.returned & 1 << frame == 0 {
            into.returned |= 1 << frame;
            into.values[frame] = returning.value;
        }
    }
    CONTINUE
}
