//! Files in which the kernel tells something, or is told something.

use std::{ffi::CString, os::fd::AsFd};

use anyhow::Result;
use guest_protocol::SystemPath;
use nix::{
    fcntl::OFlag,
    unistd::{close, write},
};

use super::{PreparedStep, Workspace, content::read_whole, opened, signed};

/// Writes a text, at once.
pub(super) struct WriteFile {
    path: CString,
    text: String,
}

impl WriteFile {
    pub(super) fn new(path: &SystemPath, text: &str) -> Result<Self> {
        Ok(Self { path: CString::new(path.as_str())?, text: text.to_owned() })
    }
}

impl PreparedStep for WriteFile {
    fn needs_mount(&self) -> bool {
        false
    }

    fn call(&mut self, _: &mut Workspace) -> nix::Result<i64> {
        let file = opened(&self.path, OFlag::O_WRONLY)?;
        let written = write(file.as_fd(), self.text.as_bytes())?;
        close(file)?;
        Ok(signed(written))
    }
}

/// Reads a file to its end.
pub(super) struct ReadFile(CString);

impl ReadFile {
    pub(super) fn new(path: &SystemPath) -> Result<Self> {
        Ok(Self(CString::new(path.as_str())?))
    }
}

impl PreparedStep for ReadFile {
    fn needs_mount(&self) -> bool {
        false
    }

    fn call(&mut self, workspace: &mut Workspace) -> nix::Result<i64> {
        read_whole(&self.0, &mut workspace.buffer)
    }
}
