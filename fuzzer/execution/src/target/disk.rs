//! Kinds of disks.

use serde::{Deserialize, Serialize};

/// Kind of device that the target's disks are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DiskKind {
    /// The guest's memory (`drivers/block/brd.c`, Linux 6.12): done when it was asked for.
    #[default]
    Memory,
    /// A file of the host (`drivers/block/virtio_blk.c`, 6.12): an interrupt says that it is done.
    Virtio,
}

impl DiskKind {
    /// Gives the device file of the disk `number`, from 0. `/dev/vda` is the image.
    #[must_use]
    pub fn path(self, number: u8) -> String {
        match self {
            Self::Memory => format!("/dev/ram{number}"),
            Self::Virtio => format!("/dev/vd{}", char::from(b'b' + number)),
        }
    }

    /// Says whether it is the default.
    #[allow(clippy::trivially_copy_pass_by_ref, reason = "serde hands over references")]
    pub(super) fn is_memory(&self) -> bool {
        *self == Self::Memory
    }
}
