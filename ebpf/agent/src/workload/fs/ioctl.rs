//! Requests that several file systems serve. They mirror `include/uapi/linux/fs.h` (6.12), and what
//! ext4 and xfs share: `EXT4_IOC_SHUTDOWN` of `include/uapi/linux/ext4.h` and `XFS_IOC_GOINGDOWN`
//! of `fs/xfs/libxfs/xfs_fs.h` (6.12).

use std::os::fd::{AsRawFd, BorrowedFd};

use nix::Result;

/// `struct fstrim_range`.
#[repr(C)]
struct TrimRange {
    start: u64,
    length: u64,
    least: u64,
}

/// `struct file_clone_range`.
#[repr(C)]
pub(in crate::workload) struct CloneRange {
    /// The file that has the blocks.
    pub(in crate::workload) from: i64,
    /// Where in it.
    pub(in crate::workload) from_offset: u64,
    /// Bytes, 0 for all up to the end.
    pub(in crate::workload) length: u64,
    /// Where in the file that shares them.
    pub(in crate::workload) to_offset: u64,
}

nix::ioctl_readwrite!(fs_freeze, b'X', 119, i32);
nix::ioctl_readwrite!(fs_thaw, b'X', 120, i32);
nix::ioctl_readwrite!(fs_trim, b'X', 121, TrimRange);
nix::ioctl_read!(fs_shutdown, b'X', 125, u32);
nix::ioctl_write_ptr!(clone_range, 0x94, 13, CloneRange);

/// Freezes the file system of `root`.
pub(in crate::workload) fn freeze(root: BorrowedFd<'_>) -> Result<i32> {
    let mut unused = 0;
    // SAFETY: the kernel does not look at the argument.
    unsafe { fs_freeze(root.as_raw_fd(), &raw mut unused) }
}

/// Thaws the file system of `root`.
pub(in crate::workload) fn thaw(root: BorrowedFd<'_>) -> Result<i32> {
    let mut unused = 0;
    // SAFETY: the kernel does not look at the argument.
    unsafe { fs_thaw(root.as_raw_fd(), &raw mut unused) }
}

/// Drops all free blocks of the file system of `root`.
pub(in crate::workload) fn trim(root: BorrowedFd<'_>) -> Result<i32> {
    let mut range = TrimRange { start: 0, length: u64::MAX, least: 0 };
    // SAFETY: the kernel reads and writes one structure of the layout that the request's number
    // says.
    unsafe { fs_trim(root.as_raw_fd(), &raw mut range) }
}

/// Stops the file system of `root`; `how` is 0 to write all data first, 1 for the log, 2 for none.
pub(in crate::workload) fn shutdown(root: BorrowedFd<'_>, mut how: u32) -> Result<i32> {
    // SAFETY: as in `trim`.
    unsafe { fs_shutdown(root.as_raw_fd(), &raw mut how) }
}

/// Makes a part of `to` share blocks as `range` says.
pub(in crate::workload) fn reflink(to: BorrowedFd<'_>, range: &CloneRange) -> Result<i32> {
    // SAFETY: as in `trim`.
    unsafe { clone_range(to.as_raw_fd(), range) }
}

#[cfg(test)]
mod tests {
    #[test]
    fn structures_have_the_kernels_sizes() {
        assert_eq!((size_of::<super::TrimRange>(), size_of::<super::CloneRange>()), (0x18, 0x20));
    }
}
