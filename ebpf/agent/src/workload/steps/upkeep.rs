//! Upkeep of a btrfs: balance, scrub, devices, defragmentation, size, quotas.

use std::{
    ffi::CString,
    os::fd::{AsFd, BorrowedFd},
};

use anyhow::{Context, Result};
use guest_protocol::{BlockGroups, Profile, RelativePath};
use nix::{errno::Errno, fcntl::OFlag, unistd::close};

use super::{PreparedStep, Workspace, below, directory, opened};
use crate::workload::fs::btrfs::{
    self, KnownDisk, VolumeArguments,
    upkeep::{self, QUOTA_DISABLE, QUOTA_ENABLE, QUOTA_ENABLE_SIMPLE},
};

/// A request of the file system as a whole.
pub(super) enum Upkeep {
    Balance(Box<upkeep::Balance>),
    Scrub(Box<upkeep::Scrub>),
    Resize(Box<VolumeArguments>),
    Add(Box<VolumeArguments>),
    Remove(Box<VolumeArguments>),
    Replace(Box<upkeep::Replace>),
    Quota(u64),
    Rescan,
}

impl Upkeep {
    pub(super) fn balance(groups: &[BlockGroups], convert: Option<Profile>, usage: Option<u8>) -> Self {
        Self::Balance(Box::new(upkeep::balance_of(groups, convert, usage)))
    }

    pub(super) fn scrub(device: Option<u64>, read_only: bool) -> Self {
        Self::Scrub(Box::new(upkeep::whole_device(device.unwrap_or(1), read_only)))
    }

    pub(super) fn resize(device: Option<u64>, size: &str) -> Result<Self> {
        named(&format!("{}:{size}", device.unwrap_or(1))).map(Self::Resize)
    }

    pub(super) fn add(disk: &str) -> Result<Self> {
        named(disk).map(Self::Add)
    }

    pub(super) fn remove(disk: Option<&str>) -> Result<Self> {
        named(disk.unwrap_or("missing")).map(Self::Remove)
    }

    pub(super) fn replace(device: u64, disk: &str) -> Self {
        Self::Replace(Box::new(upkeep::Replace::new(device, disk)))
    }

    pub(super) fn quota_enable(simple: bool) -> Self {
        Self::Quota(if simple { QUOTA_ENABLE_SIMPLE } else { QUOTA_ENABLE })
    }

    pub(super) fn quota_disable() -> Self {
        Self::Quota(QUOTA_DISABLE)
    }

    /// Makes the request. The kernel changes some of them, so that it gets a copy.
    fn request(&self, root: BorrowedFd<'_>) -> nix::Result<i32> {
        match self {
            Self::Balance(request) => upkeep::balance(root, &mut request.as_ref().clone()),
            Self::Scrub(request) => upkeep::scrub(root, &mut request.as_ref().clone()),
            Self::Resize(arguments) => btrfs::resize(root, arguments),
            Self::Add(arguments) => btrfs::add(root, arguments),
            Self::Remove(arguments) => btrfs::remove(root, arguments),
            Self::Replace(request) => upkeep::replace(root, &mut request.as_ref().clone()),
            Self::Quota(command) => upkeep::quota(root, *command),
            Self::Rescan => upkeep::rescan(root),
        }
    }
}

fn named(name: &str) -> Result<Box<VolumeArguments>> {
    Ok(VolumeArguments::new(&CString::new(name)?))
}

impl PreparedStep for Upkeep {
    fn call(&mut self, workspace: &mut Workspace) -> nix::Result<i64> {
        let root = directory(&workspace.root)?;
        let value = self.request(root.as_fd())?;
        close(root)?;
        // Positive is a reason of btrfs's own: `enum btrfs_err_code` in
        // `include/uapi/linux/btrfs.h` (6.12).
        if value > 0 { Err(Errno::EINVAL) } else { Ok(0) }
    }
}

/// Puts the parts of a file together.
pub(super) struct Defragment(CString);

impl Defragment {
    pub(super) fn new(path: &RelativePath) -> Result<Self> {
        below(path).map(Self)
    }
}

impl PreparedStep for Defragment {
    fn call(&mut self, _: &mut Workspace) -> nix::Result<i64> {
        let file = opened(&self.0, OFlag::O_RDONLY)?;
        upkeep::defragment(file.as_fd())?;
        close(file)?;
        Ok(0)
    }
}

/// Limits what a subvolume uses.
pub(super) struct QuotaLimit {
    subvolume: CString,
    bytes: u64,
}

impl QuotaLimit {
    pub(super) fn new(path: &RelativePath, bytes: u64) -> Result<Self> {
        Ok(Self { subvolume: below(path)?, bytes })
    }
}

impl PreparedStep for QuotaLimit {
    fn call(&mut self, _: &mut Workspace) -> nix::Result<i64> {
        let subvolume = directory(&self.subvolume)?;
        upkeep::limit(subvolume.as_fd(), self.bytes)?;
        close(subvolume)?;
        Ok(0)
    }
}

/// Makes btrfs forget a disk.
pub(super) struct Forget(KnownDisk);

impl Forget {
    pub(super) fn new(disk: &str) -> Result<Self> {
        KnownDisk::open(disk)?.context("cannot open /dev/btrfs-control: is CONFIG_BTRFS_FS set?").map(Self)
    }
}

impl PreparedStep for Forget {
    fn needs_mount(&self) -> bool {
        false
    }

    fn call(&mut self, _: &mut Workspace) -> nix::Result<i64> {
        match self.0.forget() {
            Ok(_) | Err(Errno::ENOENT) => Ok(0),
            Err(error) => Err(error),
        }
    }
}
