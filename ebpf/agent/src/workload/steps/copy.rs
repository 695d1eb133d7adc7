//! A copy of what the disks hold while they are in use, as a crash would leave them.

use nix::errno::Errno;

use super::{PreparedStep, Workspace};
use crate::{disk, init};

/// Takes what the disks hold now. Only for steps that make an image: it is not a system call
/// alone.
pub(super) struct CrashCopy;

impl PreparedStep for CrashCopy {
    fn needs_mount(&self) -> bool {
        false
    }

    fn call(&mut self, workspace: &mut Workspace) -> nix::Result<i64> {
        let copies = disk::read_all(&workspace.disks);
        workspace.copies = Some(copies.map_err(|error| {
            init::say(&format!("{error:#}"));
            Errno::EIO
        })?);
        Ok(0)
    }
}
