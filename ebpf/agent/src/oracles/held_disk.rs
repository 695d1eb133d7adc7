//! A disk, held although nothing is mounted.

use guest_protocol::{Leftover, LeftoverKind};

use super::{Oracle, leftover};
use crate::disk::{ResetError, open_exclusively};

/// A disk under test, held by something in the kernel.
pub(crate) struct HeldDisk(String);

impl HeldDisk {
    /// The oracle of the disk with the device file `path`.
    pub(crate) fn new(path: &str) -> Self {
        Self(path.to_owned())
    }
}

impl Oracle for HeldDisk {
    /// Opens the disk as nobody can while a file system has it, mounted or not.
    fn leftover(&mut self) -> Option<Leftover> {
        let disk = &self.0;
        let text = match open_exclusively(disk) {
            Ok(_) => return None,
            Err(ResetError::Held) => format!("something in the kernel holds {disk}, and nothing is mounted"),
            Err(ResetError::Other(error)) => format!("{disk} cannot be opened: {error:#}"),
        };
        Some(leftover(LeftoverKind::Device, text))
    }

    /// It waits for a disk that is held, in vain where that is known.
    fn only(&self) -> Option<LeftoverKind> {
        Some(LeftoverKind::Device)
    }
}
