//! btrfs: its ioctls, which mirror `include/uapi/linux/btrfs.h` (6.12), and its memory of disks.

pub(in crate::workload) mod send;
pub(in crate::workload) mod upkeep;

use std::{
    ffi::{CStr, CString},
    fs::{File, OpenOptions},
    os::fd::{AsFd, AsRawFd, BorrowedFd},
};

use nix::{Result, errno::Errno};

use guest_protocol::{Leftover, LeftoverKind};

use crate::oracles::{Oracle, leftover};

const CONTROL: &str = "/dev/btrfs-control";

const MAGIC: u8 = 0x94;
/// `BTRFS_PATH_NAME_MAX` with the closing zero.
const NAME_BYTES: usize = 4088;
/// `BTRFS_SUBVOL_RDONLY`.
const READ_ONLY: u64 = 1 << 1;
/// `BTRFS_SUBVOL_NAME_MAX` with the closing zero.
const NAME_V2_BYTES: usize = 4040;

/// `struct btrfs_ioctl_vol_args`.
#[repr(C)]
pub(in crate::workload) struct VolumeArguments {
    descriptor: i64,
    name: [u8; NAME_BYTES],
}

/// `struct btrfs_ioctl_vol_args_v2`.
#[repr(C)]
pub(in crate::workload) struct VolumeArgumentsV2 {
    descriptor: i64,
    transaction: u64,
    flags: u64,
    unused: [u64; 4],
    name: [u8; NAME_V2_BYTES],
}

const _: () = assert!(size_of::<VolumeArguments>() == 4096 && size_of::<VolumeArgumentsV2>() == 4096);

nix::ioctl_write_ptr!(resize_device, MAGIC, 3, VolumeArguments);
nix::ioctl_write_ptr!(forget_device, MAGIC, 5, VolumeArguments);
nix::ioctl_write_ptr!(add_device, MAGIC, 10, VolumeArguments);
nix::ioctl_write_ptr!(remove_device, MAGIC, 11, VolumeArguments);
nix::ioctl_write_ptr!(subvolume_create, MAGIC, 14, VolumeArguments);
nix::ioctl_write_ptr!(snapshot_destroy, MAGIC, 15, VolumeArguments);
nix::ioctl_write_ptr!(snapshot_create, MAGIC, 23, VolumeArgumentsV2);

impl VolumeArguments {
    /// The arguments that name `name`, which is cut off when it is longer than the kernel takes.
    pub(in crate::workload) fn new(name: &CStr) -> Box<Self> {
        let mut arguments = Box::new(Self { descriptor: 0, name: [0; NAME_BYTES] });
        copy(name, &mut arguments.name);
        arguments
    }
}

impl VolumeArgumentsV2 {
    /// As [`VolumeArguments::new`].
    pub(in crate::workload) fn new(name: &CStr, read_only: bool) -> Box<Self> {
        let name_bytes = [0; NAME_V2_BYTES];
        let flags = if read_only { READ_ONLY } else { 0 };
        let mut arguments = Box::new(Self { descriptor: 0, transaction: 0, flags, unused: [0; 4], name: name_bytes });
        copy(name, &mut arguments.name);
        arguments
    }
}

fn copy(name: &CStr, into: &mut [u8]) {
    let bytes = name.to_bytes();
    let length = bytes.len().min(into.len() - 1);
    into[..length].copy_from_slice(&bytes[..length]);
}

/// Makes a subvolume in the directory `parent`.
pub(in crate::workload) fn create(parent: BorrowedFd<'_>, arguments: &VolumeArguments) -> Result<i32> {
    // SAFETY: the kernel reads one structure of the layout that the request's number says.
    unsafe { subvolume_create(parent.as_raw_fd(), arguments) }
}

/// Makes a snapshot of `subvolume` in the directory `parent`.
pub(in crate::workload) fn snapshot(
    parent: BorrowedFd<'_>,
    subvolume: BorrowedFd<'_>,
    arguments: &mut VolumeArgumentsV2,
) -> Result<i32> {
    arguments.descriptor = i64::from(subvolume.as_raw_fd());
    // SAFETY: as in `create`.
    unsafe { snapshot_create(parent.as_raw_fd(), arguments) }
}

/// Deletes the subvolume or snapshot in the directory `parent`.
pub(in crate::workload) fn delete(parent: BorrowedFd<'_>, arguments: &VolumeArguments) -> Result<i32> {
    // SAFETY: as in `create`.
    unsafe { snapshot_destroy(parent.as_raw_fd(), arguments) }
}

/// Resizes a device of the file system of `root`: its number, a colon and the size.
pub(in crate::workload) fn resize(root: BorrowedFd<'_>, arguments: &VolumeArguments) -> Result<i32> {
    // SAFETY: as in `create`.
    unsafe { resize_device(root.as_raw_fd(), arguments) }
}

/// Adds the named device to the file system of `root`.
pub(in crate::workload) fn add(root: BorrowedFd<'_>, arguments: &VolumeArguments) -> Result<i32> {
    // SAFETY: as in `create`.
    unsafe { add_device(root.as_raw_fd(), arguments) }
}

/// Removes the named device, or the one that is `missing`, from the file system of `root`.
pub(in crate::workload) fn remove(root: BorrowedFd<'_>, arguments: &VolumeArguments) -> Result<i32> {
    // SAFETY: as in `create`.
    unsafe { remove_device(root.as_raw_fd(), arguments) }
}

/// A disk in btrfs's list of devices. A mount that failed or ended leaves the disk there, and the
/// next mount would take another path.
pub(crate) struct KnownDisk {
    control: File,
    path: String,
    arguments: Box<VolumeArguments>,
}

impl KnownDisk {
    /// Opens btrfs's control device for the disk with the device file `path`. Without that there is
    /// no btrfs in the kernel, as the mount step itself will say.
    pub(in crate::workload) fn open(path: &str) -> anyhow::Result<Option<Self>> {
        let arguments = VolumeArguments::new(&CString::new(path)?);
        let control = OpenOptions::new().read(true).write(true).open(CONTROL).ok();
        Ok(control.map(|control| Self { control, path: path.to_owned(), arguments }))
    }

    /// Has btrfs forget the disk.
    pub(in crate::workload) fn forget(&self) -> Result<i32> {
        // SAFETY: as in `create`.
        unsafe { forget_device(self.control.as_fd().as_raw_fd(), &raw const *self.arguments) }
    }
}

impl Oracle for KnownDisk {
    /// Has btrfs forget the disk, and says so when it does not.
    fn leftover(&mut self) -> Option<Leftover> {
        let error = match self.forget() {
            // ENOENT: it was not known.
            Ok(_) | Err(Errno::ENOENT) => return None,
            Err(error) => error,
        };
        // EBUSY: a file system has it open (`btrfs_free_stale_devices()` in `fs/btrfs/volumes.c`,
        // 6.12).
        let kind = if error == Errno::EBUSY { LeftoverKind::Device } else { LeftoverKind::FileSystem };
        Some(leftover(kind, format!("btrfs does not forget {}: {error}", self.path)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_bounded_and_end_in_zero() {
        assert_eq!(&VolumeArguments::new(c"sub").name[..4], b"sub\0");
        let long = CString::new(vec![b'x'; 5000]).unwrap();
        let arguments = VolumeArgumentsV2::new(&long, false);
        assert_eq!(arguments.name[NAME_V2_BYTES - 2..], *b"x\0");
    }
}
