//! Mounting the disk and unmounting it.

use std::ffi::CString;

use anyhow::Result;
use nix::{
    errno::Errno,
    mount::{MntFlags, MsFlags, mount, umount2},
};

use super::{PreparedStep, Workspace};
use crate::workload::fs::options;

/// Mounts a disk.
pub(super) struct Mount {
    disk: CString,
    fstype: CString,
    flags: MsFlags,
    data: CString,
}

impl Mount {
    pub(super) fn new(fstype: &str, options: &str, disk: &str) -> Result<Self> {
        let (flags, data) = options::split(options);
        Ok(Self { disk: CString::new(disk)?, fstype: CString::new(fstype)?, flags, data: CString::new(data)? })
    }
}

impl PreparedStep for Mount {
    fn needs_mount(&self) -> bool {
        false
    }

    fn call(&mut self, workspace: &mut Workspace) -> nix::Result<i64> {
        let (disk, root) = (self.disk.as_c_str(), workspace.root.as_c_str());
        mount(Some(disk), root, Some(&*self.fstype), self.flags, Some(self.data.as_c_str()))?;
        workspace.mounted = true;
        Ok(0)
    }
}

/// Unmounts the disk, unless its file system is frozen.
pub(super) struct Umount;

impl PreparedStep for Umount {
    fn call(&mut self, workspace: &mut Workspace) -> nix::Result<i64> {
        // A frozen file system would stay when nothing leads to it any more.
        if workspace.frozen.is_some() {
            return Err(Errno::EBUSY);
        }
        umount2(&*workspace.root, MntFlags::empty())?;
        workspace.mounted = false;
        Ok(0)
    }
}
