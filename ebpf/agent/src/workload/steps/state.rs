//! A mounted file system as a whole: its options, frozen, thawed, trimmed, stopped.

use std::{ffi::CString, os::fd::AsFd};

use anyhow::Result;
use guest_protocol::Shutdown as How;
use nix::{
    mount::{MsFlags, mount},
    unistd::close,
};

use super::{PreparedStep, Workspace, directory};
use crate::workload::fs::{ioctl, options};

/// Changes the mount's options.
pub(super) struct Remount {
    flags: MsFlags,
    data: CString,
}

impl Remount {
    pub(super) fn new(options: &str) -> Result<Self> {
        let (flags, data) = options::split(options);
        Ok(Self { flags: flags | MsFlags::MS_REMOUNT, data: CString::new(data)? })
    }
}

impl PreparedStep for Remount {
    fn call(&mut self, workspace: &mut Workspace) -> nix::Result<i64> {
        let (none, data) = (None::<&str>, Some(self.data.as_c_str()));
        mount(none, workspace.root.as_c_str(), none, self.flags, data).map(|()| 0)
    }
}

/// Freezes the file system. Its root stays open for the thaw: one that shuts down meanwhile lets
/// nobody open it (`xfs_dir_open` of `fs/xfs/xfs_file.c`, 6.12).
pub(super) struct Freeze;

impl PreparedStep for Freeze {
    fn call(&mut self, workspace: &mut Workspace) -> nix::Result<i64> {
        let root = directory(&workspace.root)?;
        ioctl::freeze(root.as_fd())?;
        workspace.frozen = Some(root);
        Ok(0)
    }
}

/// Thaws the file system.
pub(super) struct Thaw;

impl PreparedStep for Thaw {
    fn call(&mut self, workspace: &mut Workspace) -> nix::Result<i64> {
        workspace.stuck = workspace.frozen.is_some();
        match &workspace.frozen {
            Some(root) => ioctl::thaw(root.as_fd())?,
            None => ioctl::thaw(directory(&workspace.root)?.as_fd())?,
        };
        workspace.stuck = false;
        workspace.frozen.take().map_or(Ok(0), |root| close(root).map(|()| 0))
    }
}

/// Drops the blocks that are free.
pub(super) struct Fstrim;

impl PreparedStep for Fstrim {
    fn call(&mut self, workspace: &mut Workspace) -> nix::Result<i64> {
        let root = directory(&workspace.root)?;
        ioctl::trim(root.as_fd())?;
        close(root)?;
        Ok(0)
    }
}

/// Stops the file system.
pub(super) struct Shutdown(u32);

impl Shutdown {
    pub(super) fn new(how: How) -> Self {
        Self(match how {
            How::Flush => 0,
            How::LogFlush => 1,
            How::NoFlush => 2,
        })
    }
}

impl PreparedStep for Shutdown {
    fn call(&mut self, workspace: &mut Workspace) -> nix::Result<i64> {
        let root = directory(&workspace.root)?;
        ioctl::shutdown(root.as_fd(), self.0)?;
        close(root)?;
        Ok(0)
    }
}
