//! The oracles of the guest: what a workload left behind, looked for with nothing armed.
//!
//! They know no file system. What one keeps beyond an unmount is an oracle of its own, in
//! `workload/fs/`.

mod allocations;
mod held_disk;
mod kmemleak;
mod memory;
mod mounts;
mod taint;

use anyhow::Result;
use guest_protocol::{LIMITS, Leftover, LeftoverKind, cut};

pub(crate) use self::{allocations::Allocations, held_disk::HeldDisk, kmemleak::unreferenced};
use self::{memory::Memory, mounts::Mounts, taint::Taint};

/// Something that a workload can leave behind.
pub(crate) trait Oracle {
    /// Takes what there is now for what there should be after every workload.
    fn remember(&mut self) -> Result<()> {
        Ok(())
    }

    /// Looks for what the last workload left behind, and removes it where that can be done.
    fn leftover(&mut self) -> Option<Leftover>;

    /// Gives the only kind of leftover that it finds, if it need not look where such a one is
    /// explained.
    fn only(&self) -> Option<LeftoverKind> {
        None
    }
}

/// Makes a leftover of this kind, of which `text` says more.
pub(crate) fn leftover(kind: LeftoverKind, text: impl Into<String>) -> Leftover {
    Leftover { kind, text: cut(text.into(), LIMITS.text_bytes) }
}

/// The oracles of one target, in the order in which they look.
pub(crate) struct Oracles(Vec<Box<dyn Oracle>>);

impl Oracles {
    /// The oracles for a workload that mounts its disk at `mount_point`. Those of the file systems
    /// and of the disk, `unmounted`, look when nothing is mounted any more.
    pub(crate) fn new(mount_point: &'static str, unmounted: Vec<Box<dyn Oracle>>) -> Result<Self> {
        let mut oracles: Vec<Box<dyn Oracle>> = vec![Box::new(Mounts(mount_point))];
        oracles.extend(unmounted);
        oracles.push(Box::new(Memory::default()));
        oracles.push(Box::new(Taint::open()?));
        Ok(Self(oracles))
    }

    /// Takes what there is now for what there should be after every workload.
    pub(crate) fn remember(&mut self) -> Result<()> {
        self.0.iter_mut().try_for_each(|oracle| oracle.remember())
    }

    /// All that the last workload left behind: of each kind the first, which says most. A mount
    /// that stays explains whatever its file system holds.
    pub(crate) fn leftovers(&mut self) -> Vec<Leftover> {
        let mut found: Vec<Leftover> = Vec::new();
        for oracle in &mut self.0 {
            if oracle.only().is_some_and(|kind| is_explained(kind, &found)) {
                continue;
            }
            found.extend(oracle.leftover().filter(|leftover| !is_explained(leftover.kind, &found)));
        }
        found
    }
}

/// Says whether what was `found` explains one more leftover of this kind.
fn is_explained(kind: LeftoverKind, found: &[Leftover]) -> bool {
    let held = matches!(kind, LeftoverKind::Device | LeftoverKind::FileSystem);
    found.iter().any(|other| other.kind == kind || held && other.kind == LeftoverKind::Mount)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Always(LeftoverKind, &'static str);

    impl Oracle for Always {
        fn leftover(&mut self) -> Option<Leftover> {
            Some(leftover(self.0, self.1))
        }
    }

    #[test]
    fn of_each_kind_the_first_counts_and_a_mount_explains_what_it_holds() {
        use LeftoverKind::{Device, FileSystem, Memory, Mount};
        let found = |oracles: &[(LeftoverKind, &'static str)]| {
            let oracles = oracles.iter().map(|(kind, text)| Box::new(Always(*kind, text)) as Box<dyn Oracle>);
            let found = Oracles(oracles.collect()).leftovers();
            found.into_iter().map(|leftover| (leftover.kind, leftover.text)).collect::<Vec<_>>()
        };
        let said = |kind, text: &str| (kind, text.to_owned());
        assert_eq!(found(&[(Device, "btrfs"), (Device, "disk")]), [said(Device, "btrfs")]);
        let all = [(Mount, "a"), (FileSystem, "b"), (Device, "c"), (Memory, "d")];
        assert_eq!(found(&all), [said(Mount, "a"), said(Memory, "d")]);
    }
}
