//! The table of injection sites, and the one that finds them by return addresses.

use core::ffi::c_long;

use abi::{
    Control, MAX_CALLERS, MAX_FRAMES, NO_NAME, PATH_FRONT, PATH_PROBES, PATH_SLOTS, SITE_PROBES, SITE_SLOTS, Site,
    WORKLOAD,
};

use crate::{
    Registers, call, maps,
    repeat::{BREAK, CONTINUE, repeat},
};

/// The value behind the table's slots.
const SPARE: u32 = SITE_SLOTS as u32;
/// The slot of no site: the kernel would never fail a call with these callers. It stands in the
/// path table, so that only the first call on a path is looked at.
pub(crate) const GUARDED: u32 = SPARE + 1;
/// The slot of no site: the call has nothing to do with the workload.
pub(crate) const UNRELATED: u32 = SPARE + 2;

/// The slot of the site of the call with these `registers` in this scope; the spare one when the
/// table is full, and [`GUARDED`] or [`UNRELATED`] when it is none.
#[inline(always)]
pub(crate) fn slot_of(control: &mut Control, registers: &Registers, scope: u8) -> u32 {
    let path = call::path(registers, control.step, scope);
    if let Some(known) = maps::path(path_slot(path, 0))
        && known.key == path
    {
        return known.site;
    }
    let mut search = PathSearch { key: path, site: SPARE, free: PATH_SLOTS as u32 };
    repeat(PATH_PROBES as u32, probe_path, &mut search);
    if search.site != SPARE {
        return search.site;
    }
    let slot = slot_by_names(control, registers, scope);
    if slot != SPARE
        && let Some(path) = maps::path(search.free)
    {
        path.site = slot;
        path.key = search.key;
    }
    slot
}

/// Which slot of the path table is tried as number `probe`, from 0, for the path `key`.
#[inline(always)]
fn path_slot(key: u64, probe: u64) -> u32 {
    let slots = if probe == 0 { PATH_FRONT } else { PATH_SLOTS };
    key.wrapping_add(probe) as u32 % slots as u32
}

/// The search for a path.
struct PathSearch {
    key: u64,
    /// The site's slot; the spare one while none is found.
    site: u32,
    /// A free slot of the path table, if there is one.
    free: u32,
}

/// Looks at one slot of the path table.
extern "C" fn probe_path(index: u64, search: *mut PathSearch) -> c_long {
    // SAFETY: it is what `slot_of` hands to the loop.
    let search = unsafe { &mut *search };
    let slot = path_slot(search.key, index);
    let Some(path) = maps::path(slot) else { return BREAK };
    if path.key == search.key {
        search.site = path.site;
        return BREAK;
    }
    if path.key == 0 {
        search.free = slot;
        return BREAK;
    }
    CONTINUE
}

/// Finds the callers' names, and the site by them, which is put into the table if it is not there.
#[inline(always)]
fn slot_by_names(control: &mut Control, registers: &Registers, scope: u8) -> u32 {
    let (Some(spare), Some(call)) = (maps::site(SPARE), maps::call()) else { return SPARE };
    call::read(registers, call);
    call::name(registers, call, control, scope, spare);
    if scope != WORKLOAD && is_unrelated(control, spare) {
        return UNRELATED;
    }
    if is_guarded(control, registers, spare) {
        return GUARDED;
    }
    let mut search = Search { key: spare.key, found: SPARE, free: SPARE };
    repeat(SITE_PROBES as u32, probe, &mut search);
    let slot = control.sites;
    if search.found == SPARE
        && slot < SPARE
        && let (Some(free), Some(site)) = (maps::index(search.free), maps::site(slot))
    {
        describe(site, spare);
        *free = slot + 1;
        control.sites += 1;
        return slot;
    }
    search.found
}

/// Says whether one of the callers of the spare `site` is one below which its function never fails.
#[inline(always)]
fn is_guarded(control: &mut Control, registers: &Registers, site: &Site) -> bool {
    let Some(function) = control.functions.at(registers.instruction) else { return true };
    if function.never_below_set & site.name_set == 0 {
        return false;
    }
    let mut search = CallerSearch { never_below: function.never_below, found: 0 };
    repeat(site.depth.min(MAX_FRAMES as u32), compare_caller, &mut search);
    search.found != 0
}

/// Says whether one of the callers of the spare `site` is one whose work has nothing to do with the
/// workload.
#[inline(always)]
fn is_unrelated(control: &Control, site: &Site) -> bool {
    if control.unrelated_set & site.name_set == 0 {
        return false;
    }
    let mut found = 0_u32;
    repeat(site.depth.min(MAX_FRAMES as u32), compare_unrelated, &mut found);
    found != 0
}

/// Compares one caller of the spare site with those of unrelated work.
extern "C" fn compare_unrelated(index: u64, found: *mut u32) -> c_long {
    let Some(caller) = maps::site(SPARE).and_then(|site| site.stack.get(index as usize)) else { return BREAK };
    let (caller, Some(control)) = (*caller, maps::control()) else { return BREAK };
    if caller != NO_NAME && control.unrelated.iter().any(|name| *name == caller) {
        // SAFETY: it is what `is_unrelated` hands to the loop.
        unsafe { *found = 1 };
        return BREAK;
    }
    CONTINUE
}

/// The search for a caller below which the function never fails.
struct CallerSearch {
    never_below: [u32; MAX_CALLERS],
    found: u32,
}

/// Compares one caller of the spare site.
extern "C" fn compare_caller(index: u64, search: *mut CallerSearch) -> c_long {
    // SAFETY: it is what `is_guarded` hands to the loop.
    let search = unsafe { &mut *search };
    let Some(caller) = maps::site(SPARE).and_then(|site| site.stack.get(index as usize)) else { return BREAK };
    let caller = *caller;
    if caller != NO_NAME && search.never_below.iter().any(|name| *name == caller) {
        search.found = 1;
        return BREAK;
    }
    CONTINUE
}

/// The search for a site's slot.
struct Search {
    key: u64,
    /// The site's slot; the spare one while none is found.
    found: u32,
    /// A free entry of the index, if there is one.
    free: u32,
}

/// Looks at one entry of the index.
extern "C" fn probe(index: u64, search: *mut Search) -> c_long {
    // SAFETY: it is what `slot_by_names` hands to the loop.
    let search = unsafe { &mut *search };
    let entry = (search.key.wrapping_add(index) % SITE_SLOTS as u64) as u32;
    let Some(slot) = maps::index(entry) else { return BREAK };
    let Some(slot) = slot.checked_sub(1) else {
        search.free = entry;
        return BREAK;
    };
    let Some(site) = maps::site(slot) else { return BREAK };
    if site.key != search.key {
        return CONTINUE;
    }
    search.found = slot;
    BREAK
}

#[inline(always)]
fn describe(site: &mut Site, found: &Site) {
    site.function = found.function;
    site.depth = found.depth;
    site.truncated = found.truncated;
    site.scope = found.scope;
    site.step = found.step;
    site.name_set = found.name_set;
    for index in 0..MAX_FRAMES {
        site.stack[index] = found.stack[index];
    }
    site.generation = 0;
    site.key = found.key;
}

/// Counts a call at the site in `slot`.
#[inline(always)]
pub(crate) fn count(control: &mut Control, slot: u32) {
    if slot == SPARE {
        control.lost_sites += 1;
        return;
    }
    let Some(site) = maps::site(slot) else { return };
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
