//! Words of steps that choose one of several things.

use serde::{Deserialize, Serialize};
use strum::VariantArray;

/// A change of the blocks behind a part of a file. Mirrors `include/uapi/linux/falloc.h` (6.12).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, VariantArray)]
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
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, VariantArray)]
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, VariantArray)]
#[serde(rename_all = "kebab-case")]
pub enum BlockGroups {
    /// Contents of files.
    Data,
    /// The tree of chunks.
    System,
    /// All other trees.
    Metadata,
}

impl BlockGroups {
    /// Gives its bit: `BTRFS_BALANCE_*` of `include/uapi/linux/btrfs.h` (6.12).
    #[must_use]
    pub fn bit(self) -> u64 {
        match self {
            Self::Data => 1,
            Self::System => 2,
            Self::Metadata => 4,
        }
    }

    /// Says whether a balance of these `groups`, all for none, takes this kind.
    #[must_use]
    pub fn is_in(self, groups: &[Self]) -> bool {
        groups.is_empty() || groups.contains(&self)
    }

    /// Gives the flags of a balance of these `groups`, all for none: the bits of those, and
    /// `BTRFS_BALANCE_FORCE` where the kernel asks for it, which is for the tree of chunks alone
    /// and for fewer copies.
    #[must_use]
    pub fn balance_flags(groups: &[Self], convert: Option<Profile>) -> u64 {
        const FORCE: u64 = 8;
        let kinds = [Self::Data, Self::System, Self::Metadata].into_iter().filter(|kind| kind.is_in(groups));
        let force = if convert.is_some() || groups == [Self::System] { FORCE } else { 0 };
        kinds.map(Self::bit).sum::<u64>() | force
    }
}

/// Profile of block groups of btrfs: how often there is what they hold, and on how many devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, VariantArray)]
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

impl Profile {
    /// Gives its bit: `BTRFS_BLOCK_GROUP_*`, and `BTRFS_AVAIL_ALLOC_BIT_SINGLE`, of
    /// `include/uapi/linux/btrfs_tree.h` (6.12).
    #[must_use]
    pub fn bit(self) -> u64 {
        match self {
            Self::Single => 1 << 48,
            Self::Raid0 => 1 << 3,
            Self::Raid1 => 1 << 4,
            Self::Dup => 1 << 5,
            Self::Raid10 => 1 << 6,
            Self::Raid5 => 1 << 7,
            Self::Raid6 => 1 << 8,
        }
    }
}
