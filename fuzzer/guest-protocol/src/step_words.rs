//! Words of steps that choose one of several things.

use serde::{Deserialize, Serialize};

/// A change of the blocks behind a part of a file. Mirrors `include/uapi/linux/falloc.h` (6.12).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fallocate {
    /// There are blocks, and the file reaches to the end of the part.
    #[default]
    Allocate,
    /// There are blocks, also beyond the file's end, and its length stays.
    KeepSize,
    /// There are none.
    PunchHole,
    /// The part is zero.
    ZeroRange,
    /// The part is cut out of the file.
    CollapseRange,
    /// The part is a hole that is put into the file.
    InsertRange,
    /// No block is shared with another file.
    Unshare,
}

/// Data that is written before a file system is stopped. Mirrors `EXT4_GOING_FLAGS_*` of
/// `fs/ext4/ext4.h` and `XFS_FSOP_GOING_FLAGS_*` of `fs/xfs/libxfs/xfs_fs.h` (6.12).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Shutdown {
    /// All of it.
    #[default]
    Flush,
    /// The log.
    LogFlush,
    /// None.
    NoFlush,
}

/// A kind of block groups of btrfs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BlockGroups {
    /// Contents of files.
    Data,
    /// The tree of chunks.
    System,
    /// All other trees.
    Metadata,
}

/// Profile of block groups of btrfs: how often there is what they hold, and on how many devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Profile {
    /// Once.
    Single,
    /// Twice on one device.
    Dup,
    /// Once, in stripes on all devices.
    Raid0,
    /// Twice, on two devices.
    Raid1,
    /// Twice, in stripes.
    Raid10,
    /// In stripes with parity.
    Raid5,
    /// In stripes with two parities.
    Raid6,
}
