//! Subvolumes and snapshots of btrfs.

use std::{ffi::CString, os::fd::AsFd};

use anyhow::Result;
use guest_protocol::RelativePath;
use nix::unistd::close;

use super::{PreparedStep, Workspace, below, directory, parent_and_name};
use crate::workload::fs::btrfs::{self, VolumeArguments, VolumeArgumentsV2};

/// Makes a subvolume.
pub(super) struct Create {
    parent: CString,
    arguments: Box<VolumeArguments>,
}

impl Create {
    pub(super) fn new(path: &RelativePath) -> Result<Self> {
        let (parent, name) = parent_and_name(path)?;
        Ok(Self { parent, arguments: VolumeArguments::new(&name) })
    }
}

impl PreparedStep for Create {
    fn call(&mut self, _: &mut Workspace) -> nix::Result<i64> {
        let parent = directory(&self.parent)?;
        btrfs::create(parent.as_fd(), &self.arguments)?;
        close(parent)?;
        Ok(0)
    }
}

/// Makes a snapshot.
pub(super) struct Snapshot {
    from: CString,
    parent: CString,
    arguments: Box<VolumeArgumentsV2>,
}

impl Snapshot {
    pub(super) fn new(from: &RelativePath, to: &RelativePath, read_only: bool) -> Result<Self> {
        let (parent, name) = parent_and_name(to)?;
        Ok(Self { from: below(from)?, parent, arguments: VolumeArgumentsV2::new(&name, read_only) })
    }
}

impl PreparedStep for Snapshot {
    fn call(&mut self, _: &mut Workspace) -> nix::Result<i64> {
        let subvolume = directory(&self.from)?;
        let parent = directory(&self.parent)?;
        btrfs::snapshot(parent.as_fd(), subvolume.as_fd(), &mut self.arguments)?;
        close(parent)?;
        close(subvolume)?;
        Ok(0)
    }
}

/// Deletes a subvolume or snapshot.
pub(super) struct Delete {
    parent: CString,
    arguments: Box<VolumeArguments>,
}

impl Delete {
    pub(super) fn new(path: &RelativePath) -> Result<Self> {
        let (parent, name) = parent_and_name(path)?;
        Ok(Self { parent, arguments: VolumeArguments::new(&name) })
    }
}

impl PreparedStep for Delete {
    fn call(&mut self, _: &mut Workspace) -> nix::Result<i64> {
        let parent = directory(&self.parent)?;
        btrfs::delete(parent.as_fd(), &self.arguments)?;
        close(parent)?;
        Ok(0)
    }
}
