//! What happens after a workload, with nothing armed: the guest becomes as it was before, or says why it cannot.

use std::{
    ffi::CString,
    fs::{self, File, OpenOptions},
    os::{fd::AsFd, unix::fs::FileExt},
    thread,
    time::Duration,
};

use anyhow::{Context, Result};
use guest_protocol::Step;
use nix::{
    errno::Errno,
    mount::{MntFlags, umount2},
    sys::sysinfo::sysinfo,
};

use crate::{
    disk::DISK,
    workload::{
        MOUNT_POINT,
        btrfs::{self, VolumeArguments},
    },
};

/// How often unmounting is tried before the mount is only detached.
const UNMOUNT_TRIES: u32 = 100;
const PAUSE: Duration = Duration::from_millis(2);
const MEMORY: &str = "/proc/meminfo";
/// Says by a number what has happened to the kernel that makes its word doubtful.
/// Mirrors `proc_taint()` of `kernel/sysctl.c` and `Documentation/admin-guide/tainted-kernels.rst` (6.12).
const TAINTED: &str = "/proc/sys/kernel/tainted";
/// With less than one part in this many left of what was available at first, memory has leaked: what comes next would
/// fail for want of it, and not by its plan.
const MEMORY_LEFT: u64 = 4;

/// Cleans up after the steps of one target.
pub(crate) struct CleanUp {
    /// btrfs' control device and the disk's name for it, when a step mounts btrfs.
    btrfs: Option<(File, Box<VolumeArguments>)>,
    /// KiB of memory that were available after the first run; 0 before.
    memory_kib: u64,
    tainted: File,
    /// What [`TAINTED`] said before the first run.
    taint: u64,
}

impl CleanUp {
    /// For a workload of `steps`.
    pub(crate) fn new(steps: &[Step]) -> Result<Self> {
        let mounts_btrfs = steps.iter().any(|step| matches!(step, Step::Mount { fstype, .. } if fstype == "btrfs"));
        let control = OpenOptions::new().read(true).write(true).open("/dev/btrfs-control");
        // Without the device there is no btrfs in the kernel, and the mount step itself will say so.
        let control = control.ok().filter(|_| mounts_btrfs);
        let name = CString::new(DISK)?;
        let btrfs = control.map(|control| (control, VolumeArguments::new(&name)));
        let tainted = File::open(TAINTED).with_context(|| format!("cannot open {TAINTED} (CONFIG_PROC_SYSCTL)"))?;
        let taint = taint(&tainted)?;
        Ok(Self { btrfs, memory_kib: 0, tainted, taint })
    }

    /// Takes the memory that is available now for what there should be after every workload.
    pub(crate) fn remember_memory(&mut self) -> Result<()> {
        self.memory_kib = available_kib()?;
        Ok(())
    }

    /// Unmounts the disk, and makes sure that memory came back and that nothing has tainted the kernel. Returns what is
    /// left.
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
        // Free memory is told at once, and what is available beyond that takes the kernel a while.
        if free_kib().is_none_or(|free| memory_defect(free, self.memory_kib).is_some()) {
            match available_kib() {
                Ok(left) => leftovers.extend(memory_defect(left, self.memory_kib)),
                Err(error) => leftovers.push(format!("how much memory is left cannot be told: {error:#}")),
            }
        }
        match taint(&self.tainted) {
            Ok(now) if now == self.taint => {}
            Ok(now) => leftovers.push(format!("the kernel is tainted: {now:#x}, and was {:#x}", self.taint)),
            Err(error) => leftovers.push(format!("whether the kernel is tainted cannot be told: {error:#}")),
        }
        leftovers
    }
}

/// What the open file [`TAINTED`] says.
fn taint(tainted: &File) -> Result<u64> {
    let mut text = [0; 32];
    let bytes = tainted.read_at(&mut text, 0).with_context(|| format!("cannot read {TAINTED}"))?;
    let text = String::from_utf8_lossy(&text[..bytes]);
    text.trim().parse().with_context(|| format!("{TAINTED} says \"{}\"", text.trim()))
}

/// KiB of memory that nothing uses.
fn free_kib() -> Option<u64> {
    sysinfo().ok().map(|info| info.ram_unused() >> 10)
}

/// KiB of memory that can be had without swapping.
fn available_kib() -> Result<u64> {
    let text = fs::read_to_string(MEMORY).with_context(|| format!("cannot read {MEMORY}"))?;
    available_in(&text).with_context(|| format!("{MEMORY} does not say how much memory is available"))
}

/// The number in the line `MemAvailable:  400000 kB`. Mirrors `meminfo_proc_show()` of `fs/proc/meminfo.c` (6.12).
fn available_in(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.trim().strip_suffix(" kB")?.parse().ok()
}

/// Why there is too little memory, if `left` of `first` KiB are.
fn memory_defect(left: u64, first: u64) -> Option<String> {
    let (left_mib, first_mib) = (left >> 10, first >> 10);
    (left < first / MEMORY_LEFT).then(|| format!("only {left_mib} MiB of {first_mib} MiB of memory are left"))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taint_is_read_again_and_again() {
        let path = std::env::temp_dir().join(format!("agent-tainted-{}", std::process::id()));
        fs::write(&path, "512\n").unwrap();
        let file = File::open(&path).unwrap();
        assert_eq!([taint(&file).unwrap(), taint(&file).unwrap()], [512, 512]);
        fs::write(&path, "").unwrap();
        assert!(taint(&file).is_err());
        fs::remove_file(&path).unwrap();
    }

    #[test]
    fn lost_memory_is_noticed() {
        let text = "MemTotal:         470000 kB\nMemFree:            9000 kB\nMemAvailable:     409600 kB\n";
        let first = available_in(text).unwrap();
        assert_eq!(first, 400 << 10);
        assert_eq!(memory_defect(first, 0), None, "nothing is remembered yet");
        assert_eq!(memory_defect(100 << 10, first), None);
        assert_eq!(memory_defect(99 << 10, first).unwrap(), "only 99 MiB of 400 MiB of memory are left");
        assert_eq!(available_in("MemFree: 1 kB\n"), None);
    }
}
