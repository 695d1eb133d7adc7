//! Mounting the disk and unmounting it.

use std::ffi::CString;

use anyhow::Result;
use nix::mount::{MntFlags, MsFlags, mount, umount2};

use super::{PreparedStep, Workspace};
use crate::workload::fs::options;

/// Mounts the disk.
pub(super) struct Mount {
    fstype: CString,
    flags: MsFlags,
    data: CString,
}

impl Mount {
    pub(super) fn new(fstype: &str, options: &str) -> Result<Self> {
        let (flags, data) = options::split(options);
        Ok(Self { fstype: CString::new(fstype)?, flags, data: CString::new(data)? })
    }
}

impl PreparedStep for Mount {
    fn needs_mount(&self) -> bool {
        false
    }

    fn call(&mut self, workspace: &mut Workspace) -> nix::Result<i64> {
        let (disk, root) = (workspace.disk.as_c_str(), workspace.root.as_c_str());
        mount(Some(disk), root, Some(&*self.fstype), self.flags, Some(self.data.as_c_str()))?;
        workspace.mounted = true;
        Ok(0)
    }
}

/// Unmounts the disk.
pub(super) struct Umount;

impl PreparedStep for Umount {
    fn call(&mut self, workspace: &mut Workspace) -> nix::Result<i64> {
        umount2(&*workspace.root, MntFlags::empty())?;
        workspace.mounted = false;
        Ok(0)
    }
}
