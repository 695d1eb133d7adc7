//! Work items that the workload caused, until they have ended.

use abi::{WORK_SLOTS, Work, Works};
use anyhow::{Context, Result};
use aya::{
    Ebpf,
    programs::{RawTracePoint, TestRun as _},
};

use super::mapping::Mapping;

/// The program that looks which of the work items still wait.
const CHECK: &str = "work_check";

/// The work items that are followed.
pub(super) struct WorkItems {
    works: Mapping<Works>,
    /// Addresses of functions whose work has nothing to do with any workload.
    unrelated: Vec<u64>,
}

impl WorkItems {
    pub(super) fn new(bpf: &Ebpf, unrelated: Vec<u64>) -> Result<Self> {
        Ok(Self { works: Mapping::new(bpf, "WORKS", 1)?, unrelated })
    }

    /// Forgets all of them.
    pub(super) fn clear(&mut self) {
        self.follow(false);
        for slot in 0..WORK_SLOTS {
            // SAFETY: the slot lies within the map, which is mapped and aligned for as long as this
            // lives.
            unsafe { (&raw mut (*self.works.only()).slots[slot]).write_volatile(Work::NONE) };
        }
    }

    /// From now on work items that are queued are followed, or are not. Makes no system call.
    pub(super) fn follow(&mut self, follow: bool) {
        // SAFETY: as above.
        unsafe { (&raw mut (*self.works.only()).follow).write_volatile(u32::from(follow)) };
    }

    /// Gives the address of the function of one that has not ended: of those that run, else of
    /// those that wait, the one with the least address, which is the same in every run. One that
    /// waits may have been cancelled, of which the kernel tells nothing: the program looks.
    pub(super) fn outstanding(&self, bpf: &Ebpf) -> Result<Option<u64>> {
        if self.slots().all(|work| work.queued == 0) {
            return Ok(self.first());
        }
        let program = bpf.program(CHECK).context("the BPF object has no program that checks work items")?;
        let program: &RawTracePoint = program.try_into()?;
        program.test_run(Default::default()).context("cannot run the BPF program that checks work items")?;
        Ok(self.first())
    }

    fn first(&self) -> Option<u64> {
        let works = self.slots().filter(|work| !work.is_done() && !self.unrelated.contains(&work.function));
        works.map(|work| (work.running == 0, work.function)).min().map(|(_, function)| function)
    }

    fn slots(&self) -> impl Iterator<Item = Work> {
        // SAFETY: as above.
        (0..WORK_SLOTS).map(|slot| unsafe { (&raw const (*self.works.only()).slots[slot]).read_volatile() })
    }
}
