//! Extended attributes.

use std::ffi::CString;

use anyhow::Result;
use guest_protocol::RelativePath;
use nix::{errno::Errno, libc};

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
