//! Streams of btrfs snapshots. The structures mirror `include/uapi/linux/btrfs.h` (6.12).

use std::os::fd::{AsRawFd, BorrowedFd};

use nix::Result;

use super::MAGIC;

/// `BTRFS_FIRST_FREE_OBJECTID`: the root of a subvolume.
const FIRST_OBJECT: u64 = 256;

/// `struct btrfs_ioctl_ino_lookup_args`.
#[repr(C)]
pub(in crate::workload) struct Lookup {
    tree: u64,
    object: u64,
    name: [u8; 4080],
}

/// `struct btrfs_ioctl_send_args`.
#[repr(C)]
pub(in crate::workload) struct Request {
    descriptor: i64,
    sources_count: u64,
    sources: *const u64,
    parent: u64,
    flags: u64,
    version: u32,
    reserved: [u8; 28],
}

const _: () = assert!(size_of::<Lookup>() == 4096 && size_of::<Request>() == 72);

nix::ioctl_readwrite!(ino_lookup, MAGIC, 18, Lookup);
nix::ioctl_write_ptr!(send_stream, MAGIC, 38, Request);

/// Gives the number of the subvolume that `directory` is the root of.
pub(in crate::workload) fn number_of(directory: BorrowedFd<'_>) -> Result<u64> {
    let mut lookup = Box::new(Lookup { tree: 0, object: FIRST_OBJECT, name: [0; 4080] });
    // SAFETY: the kernel reads and writes one structure of the layout that the request's number
    // says.
    unsafe { ino_lookup(directory.as_raw_fd(), &raw mut *lookup) }?;
    Ok(lookup.tree)
}

/// Writes the read-only `snapshot` to the file `to`: whole, or what differs from the one of the
/// number `parent`. Data that is in that one is not written, but cloned.
pub(in crate::workload) fn send(snapshot: BorrowedFd<'_>, to: BorrowedFd<'_>, parent: Option<u64>) -> Result<i32> {
    let sources = parent.as_slice();
    let request = Request {
        descriptor: to.as_raw_fd().into(),
        sources_count: sources.len() as u64,
        sources: sources.as_ptr(),
        parent: parent.unwrap_or(0),
        flags: 0,
        version: 0,
        reserved: [0; 28],
    };
    // SAFETY: as in `number_of`; the kernel reads as many numbers as there are at `sources`.
    unsafe { send_stream(snapshot.as_raw_fd(), &raw const request) }
}
