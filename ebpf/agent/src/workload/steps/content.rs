//! Contents of files: reading, writing, their length.

use std::{
    ffi::{CStr, CString},
    os::fd::AsFd,
};

use anyhow::Result;
use guest_protocol::RelativePath;
use nix::{
    fcntl::OFlag,
    sys::uio::pwrite,
    unistd::{close, read, truncate},
};

use super::{CHUNK_BYTES, PATTERN_PERIOD, PreparedStep, Workspace, below, offset, opened, signed};

/// Writes the pattern to an existing file.
pub(super) struct Write {
    path: CString,
    offset: i64,
    length: u32,
}

impl Write {
    pub(super) fn new(path: &RelativePath, at: u64, length: u32) -> Result<Self> {
        offset(at.saturating_add(u64::from(length)))?;
        Ok(Self { path: below(path)?, offset: offset(at)?, length })
    }
}

impl PreparedStep for Write {
    fn call(&mut self, workspace: &mut Workspace) -> nix::Result<i64> {
        written(&self.path, self.offset, self.length, &workspace.pattern)
    }
}

/// Reads a file to its end.
pub(super) struct Read(CString);

impl Read {
    pub(super) fn new(path: &RelativePath) -> Result<Self> {
        below(path).map(Self)
    }
}

impl PreparedStep for Read {
    fn call(&mut self, workspace: &mut Workspace) -> nix::Result<i64> {
        read_whole(&self.0, &mut workspace.buffer)
    }
}

/// Sets a file's length.
pub(super) struct Truncate {
    path: CString,
    length: i64,
}

impl Truncate {
    pub(super) fn new(path: &RelativePath, length: u64) -> Result<Self> {
        Ok(Self { path: below(path)?, length: offset(length)? })
    }
}

impl PreparedStep for Truncate {
    fn call(&mut self, _: &mut Workspace) -> nix::Result<i64> {
        truncate(&*self.path, self.length).map(|()| 0)
    }
}

fn written(path: &CStr, offset: i64, length: u32, pattern: &[u8]) -> nix::Result<i64> {
    let file = opened(path, OFlag::O_WRONLY)?;
    let end = offset + i64::from(length);
    let mut at = offset;
    while at < end {
        let phase = usize::try_from(at).unwrap_or_default() % PATTERN_PERIOD;
        let bytes = usize::try_from(end - at).unwrap_or(CHUNK_BYTES).min(CHUNK_BYTES);
        match pwrite(file.as_fd(), &pattern[phase..phase + bytes], at)? {
            0 => break,
            some => at += signed(some),
        }
    }
    close(file)?;
    Ok(at - offset)
}

fn read_whole(path: &CStr, buffer: &mut [u8]) -> nix::Result<i64> {
    let file = opened(path, OFlag::O_RDONLY)?;
    let mut total = 0;
    loop {
        match read(file.as_fd(), buffer)? {
            0 => break,
            some => total += signed(some),
        }
    }
    close(file)?;
    Ok(total)
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};

    use super::*;

    #[test]
    fn a_file_holds_the_pattern_of_its_offsets() {
        let workspace = Workspace::new().unwrap();
        let path = std::env::temp_dir().join(format!("agent-pattern-{}", std::process::id()));
        File::create(&path).unwrap();
        let name = CString::new(path.to_str().unwrap()).unwrap();
        let length = u32::try_from(CHUNK_BYTES * 2 + 7).unwrap();
        let result = written(&name, 100, length, &workspace.pattern);
        let mut buffer = vec![0; 1000];
        let read_back = read_whole(&name, &mut buffer);
        let content = fs::read(&path).unwrap();
        fs::remove_file(&path).unwrap();
        assert_eq!(result, Ok(i64::from(length)));
        assert_eq!(read_back, Ok(i64::from(length) + 100));
        assert!(content[..100].iter().all(|byte| *byte == 0));
        assert!((100..content.len()).all(|at| usize::from(content[at]) == at % PATTERN_PERIOD));
    }
}
