//! File systems: one module for each that needs more than mounting.

pub(super) mod btrfs;
pub(super) mod ioctl;
pub(crate) mod options;
mod sysfs;

use std::fs;

use anyhow::{Context, Result};
use guest_protocol::{Setup, Step};

use crate::oracles::Oracle;

/// Mount point of the disks.
pub(crate) const MOUNT_POINT: &str = "/mnt/t";

/// Makes the folder that the disks are mounted on.
pub(crate) fn make_mount_point() -> Result<()> {
    fs::create_dir_all(MOUNT_POINT).with_context(|| format!("cannot make {MOUNT_POINT}"))
}

/// The oracles of the file systems that a target mounts.
pub(crate) fn oracles(setup: &Setup) -> Result<Vec<Box<dyn Oracle>>> {
    let steps = || setup.image_steps.iter().chain(&setup.setup_steps).chain(&setup.steps);
    let mounts = |name: &str| steps().any(|step| matches!(&step.step, Step::Mount { fstype, .. } if fstype == name));
    let mut oracles: Vec<Box<dyn Oracle>> = Vec::new();
    for disk in &setup.disks {
        if mounts("btrfs") {
            oracles.extend(btrfs::KnownDisk::open(disk)?.map(|oracle| Box::new(oracle) as Box<dyn Oracle>));
        }
        for name in sysfs::FILE_SYSTEMS {
            if mounts(name) {
                oracles.push(Box::new(sysfs::Entry::new(name, disk)));
            }
        }
    }
    Ok(oracles)
}
