//! File systems: one module for each that needs more than mounting.

pub(super) mod btrfs;
pub(super) mod options;

use std::fs;

use anyhow::{Context, Result};
use guest_protocol::{Setup, Step};

use crate::oracles::Oracle;

/// Mount point of the disk.
pub(crate) const MOUNT_POINT: &str = "/mnt/t";

/// Makes the folder that the disk is mounted on.
pub(crate) fn make_mount_point() -> Result<()> {
    fs::create_dir_all(MOUNT_POINT).with_context(|| format!("cannot make {MOUNT_POINT}"))
}

/// The oracles of the file systems that a target mounts.
pub(crate) fn oracles(setup: &Setup) -> Result<Vec<Box<dyn Oracle>>> {
    let mut steps = setup.setup_steps.iter().chain(&setup.steps);
    let mut mounts = |name: &str| steps.any(|step| matches!(&step.step, Step::Mount { fstype, .. } if fstype == name));
    let btrfs = if mounts("btrfs") { btrfs::KnownDisk::open()? } else { None };
    Ok(btrfs.into_iter().map(|oracle| Box::new(oracle) as Box<dyn Oracle>).collect())
}
