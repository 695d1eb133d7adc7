//! The oracles of the guest: what a workload left behind, looked for with nothing armed.
//!
//! They know no file system. What one keeps beyond an unmount is an oracle of its own, in
//! `workload/fs/`.

mod memory;
mod mounts;
mod taint;

use anyhow::Result;

use self::{memory::Memory, mounts::Mounts, taint::Taint};

/// Something that a workload can leave behind.
pub(crate) trait Oracle {
    /// Takes what there is now for what there should be after every workload.
    fn remember(&mut self) -> Result<()> {
        Ok(())
    }

    /// Looks for what the last workload left behind, and removes it where that can be done.
    fn leftover(&mut self) -> Option<String>;
}

/// The oracles of one target, in the order in which they look.
pub(crate) struct Oracles(Vec<Box<dyn Oracle>>);

impl Oracles {
    /// The oracles for a workload that mounts its disk at `mount_point`, and whose file systems
    /// have oracles of their own, `file_systems`. These look when nothing is mounted any more.
    pub(crate) fn new(mount_point: &'static str, file_systems: Vec<Box<dyn Oracle>>) -> Result<Self> {
        let mut oracles: Vec<Box<dyn Oracle>> = vec![Box::new(Mounts(mount_point))];
        oracles.extend(file_systems);
        oracles.push(Box::new(Memory::default()));
        oracles.push(Box::new(Taint::open()?));
        Ok(Self(oracles))
    }

    /// Takes what there is now for what there should be after every workload.
    pub(crate) fn remember(&mut self) -> Result<()> {
        self.0.iter_mut().try_for_each(|oracle| oracle.remember())
    }

    /// All that the last workload left behind.
    pub(crate) fn leftovers(&mut self) -> Vec<String> {
        self.0.iter_mut().filter_map(|oracle| oracle.leftover()).collect()
    }
}
