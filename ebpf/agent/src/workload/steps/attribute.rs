//! Attributes of files: permissions, owners, extended attributes.

use std::ffi::CString;

use anyhow::Result;
use guest_protocol::RelativePath;
use nix::{
    errno::Errno,
    fcntl::{AT_FDCWD, AtFlags},
    libc,
    sys::stat::{FchmodatFlags, Mode, fchmodat},
    unistd::{Gid, Uid, fchownat},
};

use super::{PreparedStep, Workspace, below};

/// Sets an extended attribute.
pub(super) struct SetXattr {
    path: CString,
    name: CString,
    value: CString,
}

impl SetXattr {
    pub(super) fn new(path: &RelativePath, name: &str, value: &str) -> Result<Self> {
        Ok(Self { path: below(path)?, name: CString::new(name)?, value: CString::new(value)? })
    }
}

impl PreparedStep for SetXattr {
    fn call(&mut self, _: &mut Workspace) -> nix::Result<i64> {
        let (path, name, value) = (self.path.as_ptr(), self.name.as_ptr(), self.value.to_bytes());
        // SAFETY: path and name end in zero, and `value` is as long as said.
        let result = unsafe { libc::lsetxattr(path, name, value.as_ptr().cast(), value.len(), 0) };
        Errno::result(result).map(|_| 0)
    }
}

/// Sets permissions.
pub(super) struct Chmod {
    path: CString,
    mode: Mode,
}

impl Chmod {
    pub(super) fn new(path: &RelativePath, mode: u32) -> Result<Self> {
        Ok(Self { path: below(path)?, mode: Mode::from_bits_truncate(mode) })
    }
}

impl PreparedStep for Chmod {
    fn call(&mut self, _: &mut Workspace) -> nix::Result<i64> {
        fchmodat(AT_FDCWD, &*self.path, self.mode, FchmodatFlags::FollowSymlink).map(|()| 0)
    }
}

/// Gives a file to another user.
pub(super) struct Chown {
    path: CString,
    uid: Uid,
    gid: Gid,
}

impl Chown {
    pub(super) fn new(path: &RelativePath, uid: u32, gid: u32) -> Result<Self> {
        Ok(Self { path: below(path)?, uid: Uid::from_raw(uid), gid: Gid::from_raw(gid) })
    }
}

impl PreparedStep for Chown {
    fn call(&mut self, _: &mut Workspace) -> nix::Result<i64> {
        let (uid, gid) = (Some(self.uid), Some(self.gid));
        fchownat(AT_FDCWD, &*self.path, uid, gid, AtFlags::AT_SYMLINK_NOFOLLOW).map(|()| 0)
    }
}
