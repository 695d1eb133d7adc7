//! Names in directories: making, changing and removing them.

use std::ffi::CString;

use anyhow::Result;
use guest_protocol::RelativePath;
use nix::{
    fcntl::{AT_FDCWD, AtFlags, OFlag, renameat},
    sys::stat::Mode,
    unistd::{close, linkat, mkdir, unlink},
};

use super::{PreparedStep, Workspace, below, opened};

/// Makes a directory.
pub(super) struct Mkdir(CString);

impl Mkdir {
    pub(super) fn new(path: &RelativePath) -> Result<Self> {
        below(path).map(Self)
    }
}

impl PreparedStep for Mkdir {
    fn call(&mut self, _: &mut Workspace) -> nix::Result<i64> {
        mkdir(&*self.0, Mode::from_bits_truncate(0o755)).map(|()| 0)
    }
}

/// Creates a file, which must not exist.
pub(super) struct Create(CString);

impl Create {
    pub(super) fn new(path: &RelativePath) -> Result<Self> {
        below(path).map(Self)
    }
}

impl PreparedStep for Create {
    fn call(&mut self, _: &mut Workspace) -> nix::Result<i64> {
        close(opened(&self.0, OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL)?).map(|()| 0)
    }
}

/// Renames.
pub(super) struct Rename {
    from: CString,
    to: CString,
}

impl Rename {
    pub(super) fn new(from: &RelativePath, to: &RelativePath) -> Result<Self> {
        Ok(Self { from: below(from)?, to: below(to)? })
    }
}

impl PreparedStep for Rename {
    fn call(&mut self, _: &mut Workspace) -> nix::Result<i64> {
        renameat(AT_FDCWD, &*self.from, AT_FDCWD, &*self.to).map(|()| 0)
    }
}

/// Makes a hard link.
pub(super) struct Link {
    from: CString,
    to: CString,
}

impl Link {
    pub(super) fn new(from: &RelativePath, to: &RelativePath) -> Result<Self> {
        Ok(Self { from: below(from)?, to: below(to)? })
    }
}

impl PreparedStep for Link {
    fn call(&mut self, _: &mut Workspace) -> nix::Result<i64> {
        linkat(AT_FDCWD, &*self.from, AT_FDCWD, &*self.to, AtFlags::empty()).map(|()| 0)
    }
}

/// Removes a name.
pub(super) struct Unlink(CString);

impl Unlink {
    pub(super) fn new(path: &RelativePath) -> Result<Self> {
        below(path).map(Self)
    }
}

impl PreparedStep for Unlink {
    fn call(&mut self, _: &mut Workspace) -> nix::Result<i64> {
        unlink(&*self.0).map(|()| 0)
    }
}
