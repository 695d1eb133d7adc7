//! Blocks behind a part of a file: allocated, dropped, moved, shared.

use std::{
    ffi::CString,
    os::fd::{AsFd, AsRawFd},
};

use anyhow::Result;
use guest_protocol::{Fallocate as Mode, RelativePath};
use nix::{
    fcntl::{FallocateFlags, OFlag, fallocate},
    unistd::close,
};

use super::{PreparedStep, Workspace, below, offset, opened};
use crate::workload::fs::ioctl::{self, CloneRange};

/// Changes the blocks behind a part of a file.
pub(super) struct Fallocate {
    path: CString,
    flags: FallocateFlags,
    offset: i64,
    length: i64,
}

impl Fallocate {
    pub(super) fn new(path: &RelativePath, mode: Mode, at: u64, length: u64) -> Result<Self> {
        let flags = match mode {
            Mode::Allocate => FallocateFlags::empty(),
            Mode::KeepSize => FallocateFlags::FALLOC_FL_KEEP_SIZE,
            Mode::PunchHole => FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE,
            Mode::ZeroRange => FallocateFlags::FALLOC_FL_ZERO_RANGE,
            Mode::CollapseRange => FallocateFlags::FALLOC_FL_COLLAPSE_RANGE,
            Mode::InsertRange => FallocateFlags::FALLOC_FL_INSERT_RANGE,
            Mode::Unshare => FallocateFlags::FALLOC_FL_UNSHARE_RANGE,
        };
        Ok(Self { path: below(path)?, flags, offset: offset(at)?, length: offset(length)? })
    }
}

impl PreparedStep for Fallocate {
    fn call(&mut self, _: &mut Workspace) -> nix::Result<i64> {
        let file = opened(&self.path, OFlag::O_RDWR)?;
        fallocate(file.as_fd(), self.flags, self.offset, self.length)?;
        close(file)?;
        Ok(0)
    }
}

/// Makes a part of a file share the blocks of another's.
pub(super) struct Reflink {
    from: CString,
    to: CString,
    range: CloneRange,
}

impl Reflink {
    /// The last are the offset in `from`, the one in `to`, and the number of bytes.
    pub(super) fn new(from: &RelativePath, to: &RelativePath, [at, to_offset, length]: [u64; 3]) -> Result<Self> {
        let range = CloneRange { from: 0, from_offset: at, length, to_offset };
        Ok(Self { from: below(from)?, to: below(to)?, range })
    }
}

impl PreparedStep for Reflink {
    fn call(&mut self, _: &mut Workspace) -> nix::Result<i64> {
        let from = opened(&self.from, OFlag::O_RDONLY)?;
        let to = opened(&self.to, OFlag::O_RDWR)?;
        self.range.from = from.as_raw_fd().into();
        ioctl::reflink(to.as_fd(), &self.range)?;
        close(to)?;
        close(from)?;
        Ok(0)
    }
}
