//! Mounts that are left.

use std::{thread, time::Duration};

use nix::{
    errno::Errno,
    mount::{MntFlags, umount2},
};

use guest_protocol::{Leftover, LeftoverKind};

use super::{Oracle, leftover};

/// Number of attempts to unmount before the mount is only detached.
const UNMOUNT_TRIES: u32 = 100;
const PAUSE: Duration = Duration::from_millis(2);

/// Mounts of the disk, at this place.
pub(super) struct Mounts(pub(super) &'static str);

impl Oracle for Mounts {
    /// Unmounts until nothing is mounted any more; a mount that stays is detached and said.
    fn leftover(&mut self) -> Option<Leftover> {
        let mut reason = Errno::EBUSY;
        for _ in 0..UNMOUNT_TRIES {
            match umount2(self.0, MntFlags::empty()) {
                Ok(()) => {}
                // No mount point.
                Err(Errno::EINVAL) => return None,
                Err(error) => {
                    reason = error;
                    thread::sleep(PAUSE);
                }
            }
        }
        let outcome = match umount2(self.0, MntFlags::MNT_DETACH) {
            Ok(()) => "it was detached".to_owned(),
            Err(error) => format!("detaching it failed: {error}"),
        };
        let place = self.0;
        Some(leftover(LeftoverKind::Mount, format!("{place} could not be unmounted ({reason}); {outcome}")))
    }
}
