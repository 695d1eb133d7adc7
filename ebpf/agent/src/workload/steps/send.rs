//! Streams of btrfs snapshots.

use std::{ffi::CString, os::fd::AsFd};

use anyhow::Result;
use guest_protocol::RelativePath;
use nix::{
    sys::memfd::{MFdFlags, memfd_create},
    unistd::close,
};

use super::{PreparedStep, Workspace, below, directory};
use crate::workload::fs::btrfs::send;

/// Writes a snapshot as a stream to a file of memory, which nobody reads. The kernel does not write
/// to `/dev/null` by itself (`warn_unsupported()` of `fs/read_write.c`, 6.12).
pub(super) struct Send {
    snapshot: CString,
    parent: Option<CString>,
}

impl Send {
    pub(super) fn new(path: &RelativePath, parent: Option<&RelativePath>) -> Result<Self> {
        Ok(Self { snapshot: below(path)?, parent: parent.map(below).transpose()? })
    }
}

impl PreparedStep for Send {
    fn call(&mut self, _: &mut Workspace) -> nix::Result<i64> {
        let parent = self.parent.as_deref().map(|parent| send::number_of(directory(parent)?.as_fd())).transpose()?;
        let stream = memfd_create(c"stream", MFdFlags::MFD_CLOEXEC)?;
        let snapshot = directory(&self.snapshot)?;
        send::send(snapshot.as_fd(), stream.as_fd(), parent)?;
        close(snapshot)?;
        Ok(0)
    }
}
