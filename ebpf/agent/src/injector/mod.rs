//! The probes: loads the BPF programs, programs them with a plan, and reads what they saw.
//!
//! ```text
//!        load                 prepare              arm                  disarm               collect
//!  (none) ──▶ attached, disarmed ──▶ rules in place ──▶ counting, failing ──▶ nothing counts ──▶ hits, fired
//!                     ▲                                                                             │
//!                     └─────────────────────────────────────────────────────────────────────────────┘
//! ```
//!
//! - *load*: the programs are attached to the probed functions, once for the life of the guest.
//! - *prepare*: the plan's rules are written, and the counts of the execution before are void: they
//!   have another generation.
//! - *arm*: calls of the tasks in scope are counted and fail as the rules say.
//! - *disarm*: no call is counted or fails. The clean-up and the agent's own calls are safe. Work
//!   items are followed until [`Injector::settled`].
//! - *collect*: hits and fired faults are read; the next plan can be prepared.
//!
//! Plans, hits and faults go through mapped memory, and from [`Injector::arm`] to
//! [`Injector::disarm`] there is no system call: what an armed agent does can never fail by its own
//! plan.

mod attach;
mod chosen;
mod description;
mod functions;
mod guards;
mod interrupts;
mod lower;
mod mapping;
mod marks;
mod parts;
mod returns;
mod slots;
mod types;
mod works;

use std::{
    collections::BTreeSet,
    ops::Range,
    sync::atomic::{Ordering, compiler_fence},
};

use abi::{Control, DIRTY_BLOCKS, DIRTY_REGION_BLOCKS, FiredLog, MAX_RULES, Returns, Rule, SITE_SLOTS, Site, Touched};
use anyhow::Result;
use aya::Ebpf;
use fault_plan::{FaultPlan, InjectableFunction};
use guest_protocol::{FiredFault, Hit, LIMITS, LeftOut, REPLY_MAX_BYTES, Setup, SiteDescription, cut};

use self::{
    chosen::Chosen,
    description::{bytes_of, describe, fired_fault},
    lower::{Lowered, Lowering},
    mapping::Mapping,
    marks::marked,
    parts::AllShown,
    types::Types,
    works::WorkItems,
};
use crate::{coverage::pagemap, disk::Dirty, symbols::Symbols};

/// About how many bytes of a report the descriptions of sites may take: with the logs and the rest
/// they fit into it.
const DESCRIPTIONS_BYTES: usize = 3 << 20;
const _: () = assert!(DESCRIPTIONS_BYTES + 2 * LIMITS.log_bytes + SITE_SLOTS * 32 + (1 << 20) <= REPLY_MAX_BYTES);

/// The attached BPF programs and their memory.
pub(crate) struct Injector {
    control: Mapping<Control>,
    rules: Mapping<Rule>,
    sites: Mapping<Site>,
    touched: Mapping<Touched>,
    fired: Mapping<FiredLog>,
    returns: Mapping<Returns>,
    dirty: Mapping<abi::Dirty>,
    works: WorkItems,
    /// Slots of sites that an earlier report described.
    described: Vec<bool>,
    generation: u32,
    /// Steps of the workload.
    steps: u32,
    types: Types,
    shown: AllShown,
    /// Names in the plan's call paths that this kernel has no function of.
    unknown_names: BTreeSet<String>,
    /// Keeps programs and probes in place.
    bpf: Ebpf,
}

/// The calls that the programs saw in one execution.
pub(crate) struct Collected {
    /// The sites reached, in order of their first call.
    pub(crate) hits: Vec<Hit>,
    /// Those of them that were not described before, as many as fit.
    pub(crate) new_sites: Vec<SiteDescription>,
    /// The faults that fired, in that order.
    pub(crate) fired: Vec<FiredFault>,
    /// Calls that found no room in the site table.
    pub(crate) lost_hits: u32,
    /// Calls left alone because the kernel promises that they do not fail.
    pub(crate) guarded: u32,
    /// Names in the plan's call paths that this kernel has no function of.
    pub(crate) unknown_names: Vec<String>,
}

/// A field of the control block, as memory that the BPF program changes too.
macro_rules! control {
    ($injector:expr, $field:ident) => {{
        // SAFETY: the block is mapped and aligned for as long as the injector lives.
        unsafe { (&raw const (*$injector.control.only()).$field).read_volatile() }
    }};
    ($injector:expr, $field:ident = $value:expr) => {{
        let value = $value;
        // SAFETY: as above.
        unsafe { (&raw mut (*$injector.control.only()).$field).write_volatile(value) }
    }};
}

impl Injector {
    /// Loads the programs and attaches them: to the functions of the target `setup`, of which the
    /// kernel has `listed` on its list, and to the writes to its disks. Gives the functions that
    /// are probed, and those that are left out.
    ///
    /// # Errors
    ///
    /// The kernel lacks something that the programs need, or a function on its list cannot be
    /// probed, or none.
    pub(crate) fn load(
        symbols: &Symbols,
        listed: &[InjectableFunction],
        setup: &Setup,
    ) -> Result<(Self, Vec<InjectableFunction>, Vec<LeftOut>)> {
        let mut types = Types::default();
        let Chosen { probed, left_out } = Chosen::of(symbols, listed, &setup.functions, &mut types)?;
        let loaded = attach::load(symbols, setup, &probed, &mut types)?;
        let shown = AllShown::of(&setup.functions, &mut types);
        types.forget();
        let bpf = loaded.bpf;
        let mut control = Mapping::new(&bpf, "CONTROL", 1)?;
        control.write(0, loaded.control);
        let injector = Self {
            control,
            rules: Mapping::new(&bpf, "RULES", MAX_RULES)?,
            sites: Mapping::new(&bpf, "SITES", SITE_SLOTS)?,
            touched: Mapping::new(&bpf, "TOUCHED", 1)?,
            fired: Mapping::new(&bpf, "FIRED", 1)?,
            returns: Mapping::new(&bpf, "RETURNS", 1)?,
            dirty: Mapping::new(&bpf, "DIRTY", abi::MAX_DISKS)?,
            works: WorkItems::new(&bpf, setup.unrelated.iter().filter_map(|name| symbols.address(name)).collect())?,
            described: vec![false; SITE_SLOTS],
            generation: 0,
            steps: u32::try_from(setup.steps.len())?,
            types,
            shown,
            unknown_names: BTreeSet::new(),
            bpf,
        };
        Ok((injector, probed.into_iter().map(|probed| probed.function).collect(), left_out))
    }

    /// Puts the rules of `plan`, which was checked, in place and begins a new execution. The
    /// kernel's log was read up to the message of the time `seen_us`: the host tells by it which
    /// text on the console came before.
    ///
    /// # Errors
    ///
    /// The reason why the plan cannot be carried out on this kernel; then no rule is in place.
    pub(crate) fn prepare(&mut self, symbols: &Symbols, plan: &FaultPlan, seen_us: u64) -> Result<(), String> {
        self.disarm();
        // SAFETY: the log is mapped and aligned for as long as the injector lives.
        unsafe { (&raw mut (*self.fired.only()).seen_us).write_volatile(seen_us) };
        self.begin(0);
        self.unknown_names.clear();
        let scopes = control!(self, scopes);
        for (index, fault) in plan.faults.iter().enumerate() {
            let lowered =
                lower::lower(fault, &mut Lowering { symbols, types: &mut self.types, steps: self.steps, scopes });
            let Lowered { rule, unknown } = lowered.map_err(|reason| format!("fault {}: {reason}", index + 1))?;
            self.rules.write(index, self.shown.add(&fault.function, rule));
            self.unknown_names.extend(unknown.into_iter().map(|name| cut(name, LIMITS.text_bytes)));
        }
        self.types.forget();
        self.begin(u32::try_from(plan.faults.len()).map_err(|error| error.to_string())?);
        Ok(())
    }

    fn begin(&mut self, rules: u32) {
        self.works.clear();
        // Site slots start at generation 0.
        self.generation = self.generation.wrapping_add(1).max(1);
        let generation = self.generation;
        control!(self, generation = generation);
        control!(self, rule_count = rules);
        control!(self, sequence = 0);
        control!(self, touched = 0);
        control!(self, lost_sites = 0);
        control!(self, guarded = 0);
        // SAFETY: both are mapped and aligned for as long as the injector lives.
        unsafe {
            (&raw mut (*self.fired.only()).generation).write_volatile(generation);
            (&raw mut (*self.fired.only()).count).write_volatile(0);
            (&raw mut (*self.returns.only()).generation).write_volatile(generation);
        }
    }

    /// Has the execution that [`Injector::prepare`] then begins note what calls return to these
    /// addresses after the faults have fired. The error is the reason why this kernel cannot.
    pub(crate) fn trace(&mut self, symbols: &Symbols, faults: &[Vec<u64>]) -> Result<(), String> {
        self.disarm();
        returns::probe(&mut self.bpf, &mut self.returns, symbols, &mut self.types, faults)
            .map_err(|error| format!("{error:#}"))
    }

    /// From now on calls of the tasks in scope are counted, and fail as the plan says: the workload
    /// runs in the thread `thread` (kernel `pid`). Makes no system call.
    pub(crate) fn arm(&mut self, thread: u32) {
        control!(self, thread = thread);
        self.works.follow(true);
        compiler_fence(Ordering::SeqCst);
        control!(self, armed = 1);
        compiler_fence(Ordering::SeqCst);
    }

    /// From now on calls are in step `number` of the workload, from 1, or in none when it is 0.
    /// Makes no system call.
    pub(crate) fn enter_step(&mut self, number: u32) {
        compiler_fence(Ordering::SeqCst);
        control!(self, step = number);
        // SAFETY: the log is mapped and aligned for as long as the injector lives.
        unsafe { (&raw mut (*self.fired.only()).step).write_volatile(number) };
        compiler_fence(Ordering::SeqCst);
    }

    /// From now on no call is counted or fails. Makes no system call.
    pub(crate) fn disarm(&mut self) {
        compiler_fence(Ordering::SeqCst);
        control!(self, armed = 0);
        compiler_fence(Ordering::SeqCst);
    }

    /// Gives the address of the function of a work item that was queued since [`Injector::arm`] and
    /// has not ended.
    ///
    /// # Errors
    ///
    /// The kernel does not tell.
    pub(crate) fn outstanding(&self) -> Result<Option<u64>> {
        self.works.outstanding(&self.bpf)
    }

    /// From now on no work item is waited for that is queued.
    pub(crate) fn settled(&mut self) {
        self.works.follow(false);
    }

    /// Collects what the execution since [`Injector::prepare`] did. Sites are described the first
    /// time they are reached, or always with `describe_all`. What does not fit is left for a later
    /// execution.
    pub(crate) fn collect(&mut self, symbols: &Symbols, describe_all: bool) -> Collected {
        let touched = (control!(self, touched) as usize).min(SITE_SLOTS);
        let mut hits = Vec::with_capacity(touched);
        let (mut unknown, mut known) = (Vec::new(), Vec::new());
        for index in 0..touched {
            // SAFETY: the list is mapped and aligned, and `index` is below its length.
            let slot = unsafe { (&raw const (*self.touched.only()).slots[index]).read_volatile() } as usize;
            // The kernel's memory may be corrupted, and with it every number in it.
            let Some(described) = self.described.get(slot) else { continue };
            let site = self.sites.at(slot);
            // SAFETY: the site is mapped and aligned. Field by field, as most of it are callers
            // that nobody asks for.
            hits.push(unsafe {
                Hit {
                    site: (&raw const (*site).key).read_volatile(),
                    count: (&raw const (*site).count).read_volatile(),
                    first_sequence: (&raw const (*site).first_sequence).read_volatile(),
                }
            });
            if !*described {
                unknown.push(slot);
            } else if describe_all {
                known.push(slot);
            }
        }
        // First those never described: asked for all again and again, it describes all in the end.
        let new_sites = self.describe(unknown.into_iter().chain(known), symbols);
        let log = self.fired.read(0);
        let count = (log.count as usize).min(MAX_RULES);
        let fired = log.fired[..count].iter().map(|fired| fired_fault(fired, symbols)).collect();
        let unknown_names = self.unknown_names.iter().cloned().collect();
        let (lost_hits, guarded) = (control!(self, lost_sites), control!(self, guarded));
        Collected { hits, new_sites, fired, lost_hits, guarded, unknown_names }
    }

    /// Describes the sites in `slots`, as many as fit.
    fn describe(&mut self, slots: impl Iterator<Item = usize>, symbols: &Symbols) -> Vec<SiteDescription> {
        let mut descriptions = Vec::new();
        let mut bytes = 0;
        for slot in slots {
            let description = describe(&self.sites.read(slot), symbols);
            bytes += bytes_of(&description);
            if bytes > DESCRIPTIONS_BYTES {
                break;
            }
            descriptions.push(description);
            self.described[slot] = true;
        }
        descriptions
    }

    /// Guest-physical addresses of the log of fired faults, an [`abi::FiredLog`], and of the values
    /// that calls return, an [`abi::Returns`]. The error is that the kernel does not tell.
    pub(crate) fn log_addresses(&self) -> Result<[u64; 2]> {
        let (fired, returns) = (self.fired.only() as usize, self.returns.only() as usize);
        Ok([pagemap::physical_address(fired)?, pagemap::physical_address(returns)?])
    }

    /// The blocks of the disk `disk`, from 0, ([`abi::DIRTY_BLOCK_BYTES`] each) written to since
    /// [`Injector::clear_dirty`].
    pub(crate) fn dirty_blocks(&self, disk: usize) -> Dirty {
        if control!(self, disks)[0] == 0 || control!(self, dirty_overflow) != 0 {
            return Dirty::Everything;
        }
        let in_region = |region| {
            let marks = self.block_marks(disk, region).cast_const();
            // SAFETY: the marks of a region lie within the map, which is mapped.
            unsafe { marked(marks, DIRTY_REGION_BLOCKS) }
                .map(move |block| (region * DIRTY_REGION_BLOCKS + block) as u64)
        };
        Dirty::Blocks(self.dirty_regions(disk).flat_map(in_region).collect())
    }

    /// Says whether a disk was written to since [`Injector::clear_dirty`], or that is not known.
    pub(crate) fn is_dirty(&self) -> bool {
        let marked = |disk| self.dirty_regions(disk).next().is_some();
        control!(self, disks)[0] == 0 || control!(self, dirty_overflow) != 0 || self.disks().any(marked)
    }

    /// Forgets all writes so far. The disks must be quiet.
    pub(crate) fn clear_dirty(&mut self) {
        for disk in self.disks() {
            for region in self.dirty_regions(disk) {
                // SAFETY: the map is mapped, and the region lies within the disk's value.
                unsafe {
                    self.block_marks(disk, region).write_bytes(0, DIRTY_REGION_BLOCKS);
                    (&raw mut (*self.dirty.at(disk)).regions[region]).write_volatile(0);
                }
            }
        }
        control!(self, dirty_overflow = 0);
    }

    fn disks(&self) -> Range<usize> {
        let disks = control!(self, disks);
        0..disks.iter().position(|number| *number == 0).unwrap_or(disks.len())
    }

    /// The regions of a disk in which blocks are marked.
    fn dirty_regions(&self, disk: usize) -> impl Iterator<Item = usize> + use<> {
        // SAFETY: the map is mapped for as long as the injector lives.
        unsafe { marked((&raw const (*self.dirty.at(disk)).regions).cast(), DIRTY_BLOCKS / DIRTY_REGION_BLOCKS) }
    }

    /// Gives the address of the marks of the blocks of `region` of a disk.
    fn block_marks(&self, disk: usize, region: usize) -> *mut u8 {
        // SAFETY: the index is checked, so that what is computed lies within the map.
        unsafe { (&raw mut (*self.dirty.at(disk)).blocks[region * DIRTY_REGION_BLOCKS]).cast() }
    }
}

#[cfg(test)]
mod tests {
    use abi::MAX_FRAMES;
    use fault_plan::Scope;
    use guest_protocol::{FromAgent, Report};

    use super::*;

    #[test]
    fn the_largest_report_fits_into_the_window() {
        let site = SiteDescription {
            site: u64::MAX,
            function: "f".repeat(30),
            call_path: vec!["c".repeat(60); MAX_FRAMES],
            truncated: true,
            step: 4096,
            scope: Scope::Thread,
        };
        let report = |sites| {
            let new_sites = vec![site.clone(); sites];
            let hit = Hit { site: u64::MAX, count: u32::MAX, first_sequence: u32::MAX };
            let log = "x".repeat(LIMITS.log_bytes);
            let hits = vec![hit; SITE_SLOTS];
            FromAgent::Report(Box::new(Report { hits, new_sites, log_before: log.clone(), log, ..Report::default() }))
        };
        assert!(report(SITE_SLOTS).encode().is_err(), "all of them would not fit");
        assert!(report(DESCRIPTIONS_BYTES / bytes_of(&site)).encode().is_ok());
        let empty = report(0).encode().unwrap().len();
        assert!(report(100).encode().unwrap().len() - empty <= 100 * bytes_of(&site));
    }
}
