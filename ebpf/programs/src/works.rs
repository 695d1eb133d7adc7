//! Work items: which of those that were queued while the workload ran have not ended.
//!
//! ```text
//!            queue                start                end
//!   (free) ────────▶ queued ─────────────▶ running ──────────▶ (free)
//!      ▲                │                     │ queue: both
//!      └── check: it is on no queue ───────────┘
//! ```
//!
//! One that is cancelled gives no event, so the agent has those that wait checked.
//!
//! On the one processor a program may be interrupted by another of these, never by itself. At worst
//! a work item is followed no longer. One that finds no slot is not followed either.

use core::ffi::c_long;

use abi::{WORK_DATA, WORK_FUNCTION, WORK_PROBES, WORK_QUEUED, WORK_SLOTS, Work, Works, work_slot};

use crate::{
    maps,
    memory::Reader,
    repeat::{CONTINUE, repeat},
};

/// Notes that the work item at `address` was queued.
#[inline(always)]
pub(crate) fn queued(address: u64) {
    let Some(works) = maps::works() else { return };
    if works.follow == 0 {
        return;
    }
    let mut free = WORK_SLOTS;
    for probe in 0..WORK_PROBES {
        let slot = work_slot(address, probe);
        let work = &mut works.slots[slot];
        if work.is_done() {
            free = slot;
        } else if work.address == address {
            work.queued = 1;
            return;
        }
    }
    if free >= WORK_SLOTS {
        return;
    }
    let function = Reader::new().number(address.wrapping_add(WORK_FUNCTION)).unwrap_or(0);
    works.slots[free] = Work { address, function, queued: 1, running: 0 };
}

/// Notes that the work item at `address` begins to run.
#[inline(always)]
pub(crate) fn started(address: u64) {
    if let Some(work) = find(address) {
        work.running = 1;
        work.queued = 0;
    }
}

/// Notes that the work item at `address` has run.
#[inline(always)]
pub(crate) fn ended(address: u64) {
    if let Some(work) = find(address) {
        work.running = 0;
    }
}

#[inline(always)]
fn find(address: u64) -> Option<&'static mut Work> {
    let works: &'static mut Works = maps::works()?;
    let mut found = WORK_SLOTS;
    for probe in 0..WORK_PROBES {
        let slot = work_slot(address, probe);
        if works.slots[slot].address == address && !works.slots[slot].is_done() {
            found = slot;
        }
    }
    works.slots.get_mut(found)
}

/// Frees the slots of work items that wait no longer, and never ran.
#[inline(always)]
pub(crate) fn check() {
    repeat(WORK_SLOTS as u32, check_slot, &mut ());
}

extern "C" fn check_slot(slot: u64, _: *mut ()) -> c_long {
    if let Some(works) = maps::works()
        && let Some(work) = works.slots.get_mut(slot as usize)
        && work.queued != 0
        && work.running == 0
    {
        // Made here: what the loop hands over is no constant to the verifier.
        let reader = Reader::new();
        let data: u64 = reader.number(work.address.wrapping_add(WORK_DATA)).unwrap_or(0);
        let function: u64 = reader.number(work.address.wrapping_add(WORK_FUNCTION)).unwrap_or(0);
        if data & WORK_QUEUED != WORK_QUEUED || function != work.function {
            work.queued = 0;
        }
    }
    CONTINUE
}
