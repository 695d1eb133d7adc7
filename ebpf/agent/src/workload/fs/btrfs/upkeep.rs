//! Upkeep of a btrfs: balance, scrub, replacement of devices, defragmentation, quotas.
//!
//! The structures of the requests are plain words here, in the order of
//! `include/uapi/linux/btrfs.h` (6.12).

use std::os::fd::{AsRawFd, BorrowedFd};

use guest_protocol::{BlockGroups, Profile};
use nix::{Result, errno::Errno};

use super::MAGIC;

/// Words of `struct btrfs_ioctl_balance_args`, and of `struct btrfs_ioctl_scrub_args`.
const ARGUMENT_WORDS: usize = 128;
/// The words of [`Balance`] that say which block groups: `struct btrfs_balance_args` three times.
const FILTERS: [(BlockGroups, usize); 3] =
    [(BlockGroups::Data, 2), (BlockGroups::System, 36), (BlockGroups::Metadata, 19)];
/// Words of a filter.
const USAGE: usize = 1;
const TARGET: usize = 7;
const FLAGS: usize = 8;
/// `BTRFS_BALANCE_ARGS_USAGE` and `BTRFS_BALANCE_ARGS_CONVERT`.
const BY_USAGE: u64 = 1 << 1;
const CONVERT: u64 = 1 << 8;

/// `struct btrfs_ioctl_balance_args`.
pub(in crate::workload) type Balance = [u64; ARGUMENT_WORDS];

/// The request to balance these groups, or all.
pub(in crate::workload) fn balance_of(groups: &[BlockGroups], convert: Option<Profile>, usage: Option<u8>) -> Balance {
    let mut words = [0; ARGUMENT_WORDS];
    words[0] = BlockGroups::balance_flags(groups, convert);
    for (_, filter) in FILTERS.into_iter().filter(|(kind, _)| kind.is_in(groups)) {
        if let Some(usage) = usage {
            words[filter + FLAGS] |= BY_USAGE;
            words[filter + USAGE] = usage.into();
        }
        if let Some(profile) = convert {
            words[filter + FLAGS] |= CONVERT;
            words[filter + TARGET] = profile.bit();
        }
    }
    words
}

/// `struct btrfs_ioctl_scrub_args`.
pub(in crate::workload) type Scrub = [u64; ARGUMENT_WORDS];

/// The request to scrub all of a device.
pub(in crate::workload) fn whole_device(device: u64, read_only: bool) -> Scrub {
    let mut words = [0; ARGUMENT_WORDS];
    words[..4].copy_from_slice(&[device, 0, u64::MAX, read_only.into()]);
    words
}

/// Bytes of a device's name in [`Replace`]: `BTRFS_DEVICE_PATH_NAME_MAX` and the closing zero.
const NAME_BYTES: usize = 1025;

/// `struct btrfs_ioctl_dev_replace_args`, to begin.
#[repr(C)]
#[derive(Clone, Copy)]
pub(in crate::workload) struct Replace {
    command: u64,
    result: u64,
    device: u64,
    mode: u64,
    source: [u8; NAME_BYTES],
    target: [u8; NAME_BYTES],
    spare: [u64; 64],
}

impl Replace {
    /// The request to put the device file `path` in the place of the device of this number.
    pub(in crate::workload) fn new(device: u64, path: &str) -> Self {
        let mut target = [0; NAME_BYTES];
        for (to, from) in target[..NAME_BYTES - 1].iter_mut().zip(path.bytes()) {
            *to = from;
        }
        Self { command: 0, result: 0, device, mode: 0, source: [0; NAME_BYTES], target, spare: [0; 64] }
    }
}

/// `struct btrfs_ioctl_defrag_range_args`.
type Defragment = [u64; 6];
/// Of a whole file: its parts are put together whatever their length (`extent_thresh`), at once.
/// `defrag_collect_targets()` of `fs/btrfs/defrag.c` (6.12) leaves longer ones alone, also where
/// the threshold is 1, which the header says is for all.
static WHOLE: Defragment = [0, u64::MAX, 2, u32::MAX as u64, 0, 0];
/// `struct btrfs_ioctl_quota_ctl_args`.
type Quota = [u64; 2];
/// `struct btrfs_ioctl_quota_rescan_args`.
type Rescan = [u64; 8];

/// `struct btrfs_ioctl_qgroup_limit_args`.
type QuotaLimit = [u64; 6];
/// `BTRFS_QGROUP_LIMIT_MAX_RFER`.
const MOST_REFERENCED: u64 = 1;

/// Values of `btrfs_ioctl_quota_ctl_args.cmd`: `BTRFS_QUOTA_CTL_*`.
pub(in crate::workload) const QUOTA_ENABLE: u64 = 1;
pub(in crate::workload) const QUOTA_DISABLE: u64 = 2;
pub(in crate::workload) const QUOTA_ENABLE_SIMPLE: u64 = 4;

nix::ioctl_write_ptr!(defrag_range, MAGIC, 16, Defragment);
nix::ioctl_readwrite!(scrub_device, MAGIC, 27, Scrub);
nix::ioctl_readwrite!(balance_v2, MAGIC, 32, Balance);
nix::ioctl_readwrite!(quota_ctl, MAGIC, 40, Quota);
// The kernel reads it, whatever the direction in its number says.
nix::ioctl_read!(qgroup_limit, MAGIC, 43, QuotaLimit);
nix::ioctl_write_ptr!(quota_rescan, MAGIC, 44, Rescan);
nix::ioctl_none!(quota_rescan_wait, MAGIC, 46);
nix::ioctl_readwrite!(replace_device, MAGIC, 53, Replace);

/// Balances the file system of `root`. The kernel changes `request`.
pub(in crate::workload) fn balance(root: BorrowedFd<'_>, request: &mut Balance) -> Result<i32> {
    // SAFETY: the kernel reads and writes one structure of the layout that the request's number
    // says.
    unsafe { balance_v2(root.as_raw_fd(), request) }
}

/// Scrubs a device of the file system of `root`. The kernel changes `request`.
pub(in crate::workload) fn scrub(root: BorrowedFd<'_>, request: &mut Scrub) -> Result<i32> {
    // SAFETY: as in `balance`.
    unsafe { scrub_device(root.as_raw_fd(), request) }
}

/// Replaces a device of the file system of `root`, and waits for that. The kernel changes
/// `request`.
pub(in crate::workload) fn replace(root: BorrowedFd<'_>, request: &mut Replace) -> Result<i32> {
    // SAFETY: as in `balance`.
    unsafe { replace_device(root.as_raw_fd(), request) }?;
    // Not started, already started, or a scrub runs: `BTRFS_IOCTL_DEV_REPLACE_RESULT_*`.
    if request.result == 0 { Ok(0) } else { Err(Errno::EINPROGRESS) }
}

/// Defragments a file or directory.
pub(in crate::workload) fn defragment(file: BorrowedFd<'_>) -> Result<i32> {
    // SAFETY: as in `balance`.
    unsafe { defrag_range(file.as_raw_fd(), &raw const WHOLE) }
}

/// Switches the quotas of the file system of `root`.
pub(in crate::workload) fn quota(root: BorrowedFd<'_>, command: u64) -> Result<i32> {
    let mut request = [command, 0];
    // SAFETY: as in `balance`.
    unsafe { quota_ctl(root.as_raw_fd(), &raw mut request) }
}

/// Limits the bytes that `subvolume` uses.
pub(in crate::workload) fn limit(subvolume: BorrowedFd<'_>, bytes: u64) -> Result<i32> {
    let mut request: QuotaLimit = [0, MOST_REFERENCED, bytes, 0, 0, 0];
    // SAFETY: as in `balance`.
    unsafe { qgroup_limit(subvolume.as_raw_fd(), &raw mut request) }
}

/// Counts again what subvolumes of the file system of `root` use, and waits for that.
pub(in crate::workload) fn rescan(root: BorrowedFd<'_>) -> Result<i32> {
    let request = [0; 8];
    // SAFETY: as in `balance`.
    match unsafe { quota_rescan(root.as_raw_fd(), &raw const request) } {
        // The one that began with the quotas still runs.
        Ok(_) | Err(Errno::EINPROGRESS) => {}
        Err(error) => return Err(error),
    }
    // SAFETY: the request has no argument.
    unsafe { quota_rescan_wait(root.as_raw_fd()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn structures_have_the_kernels_sizes() {
        assert_eq!([size_of::<Defragment>(), size_of::<Scrub>(), size_of::<Balance>()], [0x30, 0x400, 0x400]);
        assert_eq!([size_of::<Quota>(), size_of::<Rescan>(), size_of::<Replace>()], [0x10, 0x40, 0xa28]);
        assert_eq!(size_of::<QuotaLimit>(), 0x30);
    }

    #[test]
    fn a_balance_names_its_block_groups() {
        let all = balance_of(&[], None, None);
        assert_eq!((all[0], all.iter().sum::<u64>()), (7, 7));
        let words = balance_of(&[BlockGroups::Metadata], Some(Profile::Raid1), Some(50));
        assert_eq!(words[0], 4 | 8);
        assert_eq!([words[19 + 1], words[19 + 7], words[19 + 8]], [50, 1 << 4, (1 << 8) | (1 << 1)]);
        assert!(words[2..19].iter().chain(&words[36..]).all(|word| *word == 0));
        assert_eq!(balance_of(&[BlockGroups::System], None, None)[0], 2 | 8);
    }

    #[test]
    fn a_replacement_names_the_device_file() {
        let replace = Replace::new(2, "/dev/ram2");
        assert_eq!((replace.device, &replace.target[..10]), (2, b"/dev/ram2\0".as_slice()));
        assert_eq!(Replace::new(1, &"x".repeat(2000)).target[NAME_BYTES - 2..], *b"x\0");
    }
}
