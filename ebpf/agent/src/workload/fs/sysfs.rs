//! ext4 and xfs: what they keep of a disk beyond its unmount shows in sysfs.

use std::path::PathBuf;

use guest_protocol::{Leftover, LeftoverKind};

use crate::{
    disk::name_of,
    oracles::{Oracle, leftover},
};

/// File systems that have a folder for each mounted disk in `/sys/fs/NAME`: `ext4_register_sysfs()`
/// in `fs/ext4/sysfs.c` and `xfs_mount_sysfs_init()` in `fs/xfs/xfs_sysfs.c` (6.12).
pub(super) const FILE_SYSTEMS: [&str; 2] = ["ext4", "xfs"];

/// The folder of a disk.
pub(super) struct Entry(PathBuf);

impl Entry {
    /// The folder that the file system `name` has for the disk with the device file `disk`.
    pub(super) fn new(name: &str, disk: &str) -> Self {
        Self(PathBuf::from(format!("/sys/fs/{name}/{}", name_of(disk))))
    }
}

impl Oracle for Entry {
    fn leftover(&mut self) -> Option<Leftover> {
        let path = self.0.display();
        let text = || format!("{path} is still there, and nothing is mounted");
        self.0.exists().then(|| leftover(LeftoverKind::FileSystem, text()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_that_stays_is_said() {
        assert!(Entry(PathBuf::from("/sys/fs/ext4/none")).leftover().is_none());
        let left = Entry(std::env::temp_dir()).leftover().unwrap();
        assert!(left.kind == LeftoverKind::FileSystem && left.text.ends_with("and nothing is mounted"));
        assert_eq!(Entry::new("xfs", "/dev/ram1").0, PathBuf::from("/sys/fs/xfs/ram1"));
    }
}
