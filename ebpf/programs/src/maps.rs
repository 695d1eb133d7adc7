//! The maps. All are arrays, which the agent maps into its memory, but for the three that are
//! the programs' own.

use abi::{
    Call, Control, Dirty, FiredLog, MAX_DISKS, MAX_RULES, NAME_BLOCK, OpenCalls, PATH_SLOTS, Path, Returns, Rule,
    SITE_SLOTS, Site, Touched, Works,
};
use aya_ebpf::{bindings::BPF_F_MMAPABLE, macros::map, maps::Array};

#[map]
static CONTROL: Array<Control> = Array::with_max_entries(1, BPF_F_MMAPABLE);
/// The agent sets the number of blocks to what the kernel's text takes.
#[map]
static NAMES: Array<[u32; NAME_BLOCK]> = Array::with_max_entries(1, BPF_F_MMAPABLE);
#[map]
static CALL: Array<Call> = Array::with_max_entries(1, BPF_F_MMAPABLE);
#[map]
static RULES: Array<Rule> = Array::with_max_entries(MAX_RULES as u32, BPF_F_MMAPABLE);
#[map]
static SITES: Array<Site> = Array::with_max_entries(SITE_SLOTS as u32 + 1, BPF_F_MMAPABLE);
#[map]
static INDEX: Array<u32> = Array::with_max_entries(SITE_SLOTS as u32, 0);
#[map]
static PATHS: Array<Path> = Array::with_max_entries(PATH_SLOTS as u32, 0);
#[map]
static TOUCHED: Array<Touched> = Array::with_max_entries(1, BPF_F_MMAPABLE);
#[map]
static FIRED: Array<FiredLog> = Array::with_max_entries(1, BPF_F_MMAPABLE);
#[map]
static OPEN: Array<OpenCalls> = Array::with_max_entries(MAX_RULES as u32, 0);
#[map]
static RETURNS: Array<Returns> = Array::with_max_entries(1, BPF_F_MMAPABLE);
#[map]
static DIRTY: Array<Dirty> = Array::with_max_entries(MAX_DISKS as u32, BPF_F_MMAPABLE);
#[map]
static WORKS: Array<Works> = Array::with_max_entries(1, BPF_F_MMAPABLE);

macro_rules! value_of {
    ($(#[$doc:meta])* $name:ident, $map:ident, $value:ty $(, $index:ident)?) => {
        $(#[$doc])*
        #[inline(always)]
        pub(crate) fn $name($($index: u32)?) -> Option<&'static mut $value> {
            let index = 0 $(+ $index)?;
            // SAFETY: map memory lives as long as the program. One call at a time changes the
            // value: see the head of `abi`. The dirty map is the exception: there every task stores
            // the same mark.
            $map.get_ptr_mut(index).map(|value| unsafe { &mut *value })
        }
    };
}

value_of!(control, CONTROL, Control);
value_of!(call, CALL, Call);
value_of!(rule, RULES, Rule, index);
value_of!(site, SITES, Site, slot);
value_of!(index, INDEX, u32, entry);
value_of!(path, PATHS, Path, slot);
value_of!(touched, TOUCHED, Touched);
value_of!(fired, FIRED, FiredLog);
value_of!(open, OPEN, OpenCalls, index);
value_of!(returns, RETURNS, Returns);
value_of!(dirty, DIRTY, Dirty, disk);
value_of!(works, WORKS, Works);

/// A block of the table from text granule to name id.
#[inline(always)]
pub(crate) fn names(block: u32) -> Option<&'static [u32; NAME_BLOCK]> {
    NAMES.get(block)
}
