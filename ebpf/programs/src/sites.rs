//! The table of injection sites.

use core::ffi::c_long;

use abi::{Call, Control, MAX_FRAMES, SITE_PROBES, SITE_SLOTS, Site};

use crate::{
    maps,
    repeat::{BREAK, CONTINUE, repeat},
};

/// The search for a site's slot.
struct Search {
    key: u64,
    /// The slot, plus 1; 0 while none is found.
    found: u32,
}

/// Counts a call of `function` at the site numbered `key`.
#[inline(always)]
pub(crate) fn record(control: &mut Control, function: u32, key: u64, call: &Call) {
    let mut search = Search { key, found: 0 };
    repeat(SITE_PROBES as u32, probe, &mut search);
    let Some(slot) = search.found.checked_sub(1) else {
        control.lost_sites += 1;
        return;
    };
    let Some(site) = maps::site(slot) else { return };
    if site.key == 0 {
        describe(site, function, key, call);
    }
    count(control, site, slot);
}

/// Looks at one slot.
extern "C" fn probe(index: u64, search: *mut Search) -> c_long {
    // SAFETY: it is what `record` hands to the loop.
    let search = unsafe { &mut *search };
    let slot = (search.key.wrapping_add(index) % SITE_SLOTS as u64) as u32;
    let Some(site) = maps::site(slot) else { return BREAK };
    if site.key != 0 && site.key != search.key {
        return CONTINUE;
    }
    search.found = slot + 1;
    BREAK
}

#[inline(always)]
fn describe(site: &mut Site, function: u32, key: u64, call: &Call) {
    site.function = function;
    site.depth = call.depth;
    site.truncated = call.truncated;
    for index in 0..MAX_FRAMES {
        site.stack[index] = call.names[index];
    }
    site.generation = 0;
    site.key = key;
}

#[inline(always)]
fn count(control: &mut Control, site: &mut Site, slot: u32) {
    if site.generation == control.generation {
        site.count += 1;
        return;
    }
    site.generation = control.generation;
    site.count = 1;
    site.first_sequence = control.sequence;
    if let Some(touched) = maps::touched()
        && let Some(entry) = touched.slots.get_mut(control.touched as usize)
    {
        *entry = slot;
        control.touched += 1;
    }
}
