//! Flushing to the disk.

use std::{ffi::CString, os::fd::AsFd};

use anyhow::Result;
use guest_protocol::RelativePath;
use nix::{
    fcntl::OFlag,
    unistd::{close, fsync, syncfs},
};

use super::{PreparedStep, Workspace, below, directory, opened};

/// Flushes one file.
pub(super) struct Fsync(CString);

impl Fsync {
    pub(super) fn new(path: &RelativePath) -> Result<Self> {
        below(path).map(Self)
    }
}

impl PreparedStep for Fsync {
    fn call(&mut self, _: &mut Workspace) -> nix::Result<i64> {
        let file = opened(&self.0, OFlag::O_RDONLY)?;
        fsync(file.as_fd())?;
        close(file)?;
        Ok(0)
    }
}

/// Flushes the whole file system.
pub(super) struct Sync;

impl PreparedStep for Sync {
    fn call(&mut self, workspace: &mut Workspace) -> nix::Result<i64> {
        let root = directory(&workspace.root)?;
        syncfs(root.as_fd())?;
        close(root)?;
        Ok(0)
    }
}
