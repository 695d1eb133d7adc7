//! What happens after a workload, with nothing armed: the guest becomes as it was before, or says why it cannot.

use std::{
    ffi::CString,
    fs::{File, OpenOptions},
    os::fd::AsFd,
    thread,
    time::Duration,
};

use anyhow::Result;
use guest_protocol::Step;
use nix::{
    errno::Errno,
    mount::{MntFlags, umount2},
};

use crate::{
    disk::{self, DISK},
    workload::{
        MOUNT_POINT,
        btrfs::{self, VolumeArguments},
    },
};

/// How often unmounting is tried before the mount is only detached.
const UNMOUNT_TRIES: u32 = 100;
const PAUSE: Duration = Duration::from_millis(2);

/// Cleans up after the steps of one target.
pub(crate) struct CleanUp {
    has_disk: bool,
    /// btrfs' control device and the disk's name for it, when a step mounts btrfs.
    btrfs: Option<(File, Box<VolumeArguments>)>,
}

impl CleanUp {
    /// For a workload of `steps`.
    pub(crate) fn new(steps: &[Step], has_disk: bool) -> Result<Self> {
        let mounts_btrfs = steps.iter().any(|step| matches!(step, Step::Mount { fstype, .. } if fstype == "btrfs"));
        let control = OpenOptions::new().read(true).write(true).open("/dev/btrfs-control");
        // Without the device there is no btrfs in the kernel, and the mount step itself will say so.
        let control = control.ok().filter(|_| mounts_btrfs);
        let name = CString::new(DISK)?;
        Ok(Self { has_disk, btrfs: control.map(|control| (control, VolumeArguments::new(&name))) })
    }

    /// Unmounts the disk and makes sure that nothing holds it. Returns what is left.
    pub(crate) fn run(&self) -> Vec<String> {
        let mut leftovers = Vec::new();
        if let Err(reason) = unmount_all() {
            leftovers.push(reason);
        }
        if let Some((control, disk)) = &self.btrfs {
            // A mount that failed or ended leaves the device known to btrfs, and the next mount would take another
            // path. ENOENT: it was not known.
            match btrfs::forget(control.as_fd(), disk) {
                Ok(_) | Err(Errno::ENOENT) => {}
                Err(error) => leftovers.push(format!("btrfs does not forget {DISK}: {error}")),
            }
        }
        if self.has_disk {
            match disk::is_free() {
                Ok(true) => {}
                Ok(false) => leftovers.push(format!("something in the kernel holds {DISK}, and nothing is mounted")),
                Err(error) => leftovers.push(format!("whether {DISK} is free cannot be told: {error:#}")),
            }
        }
        leftovers
    }
}

/// Unmounts until nothing is mounted any more.
fn unmount_all() -> Result<(), String> {
    let mut reason = Errno::EBUSY;
    for _ in 0..UNMOUNT_TRIES {
        match umount2(MOUNT_POINT, MntFlags::empty()) {
            Ok(()) => {}
            // No mount point.
            Err(Errno::EINVAL) => return Ok(()),
            Err(error) => {
                reason = error;
                thread::sleep(PAUSE);
            }
        }
    }
    let outcome = match umount2(MOUNT_POINT, MntFlags::MNT_DETACH) {
        Ok(()) => "it was detached".to_owned(),
        Err(error) => format!("detaching it failed: {error}"),
    };
    Err(format!("{MOUNT_POINT} could not be unmounted ({reason}); {outcome}"))
}
