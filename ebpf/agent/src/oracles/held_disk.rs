//! The disk, held although nothing is mounted.

use guest_protocol::{Leftover, LeftoverKind};

use super::{Oracle, leftover};
use crate::disk::{DISK, ResetError, open_exclusively};

/// The disk under test, held by something in the kernel.
pub(crate) struct HeldDisk;

impl Oracle for HeldDisk {
    /// Opens the disk as nobody can while a file system has it, mounted or not.
    fn leftover(&mut self) -> Option<Leftover> {
        let text = match open_exclusively() {
            Ok(_) => return None,
            Err(ResetError::Held) => format!("something in the kernel holds {DISK}, and nothing is mounted"),
            Err(ResetError::Other(error)) => format!("{DISK} cannot be opened: {error:#}"),
        };
        Some(leftover(LeftoverKind::Device, text))
    }
}
