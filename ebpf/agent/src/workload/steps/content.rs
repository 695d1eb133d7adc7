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

use super::{CHUNK_BYTES, PreparedStep, Workspace, below, offset, opened, signed};

/// Writes the pattern to an existing file.
pub(super) struct Write {
    path: CString,
    offset: i64,
    length: u32,
    flags: OFlag,
    /// Of the pattern: see [`shift_of`](guest_protocol::pattern::shift_of).
    shift: usize,
}

impl Write {
    pub(super) fn new(
        path: &RelativePath,
        at: u64,
        length: u32,
        [direct, sync]: [bool; 2],
        shift: usize,
    ) -> Result<Self> {
        offset(at.saturating_add(u64::from(length)))?;
        let mut flags = OFlag::O_WRONLY;
        flags.set(OFlag::O_DIRECT, direct);
        flags.set(OFlag::O_SYNC, sync);
        Ok(Self { path: below(path)?, offset: offset(at)?, length, flags, shift })
    }

    fn written(&self, workspace: &mut Workspace) -> nix::Result<i64> {
        let file = opened(&self.path, self.flags)?;
        let end = self.offset + i64::from(self.length);
        let mut at = self.offset;
        while at < end {
            let bytes = usize::try_from(end - at).unwrap_or(CHUNK_BYTES).min(CHUNK_BYTES);
            let data = workspace.pattern_at(at, self.shift, bytes, self.flags.contains(OFlag::O_DIRECT));
            match pwrite(file.as_fd(), data, at)? {
                0 => break,
                some => at += signed(some),
            }
        }
        close(file)?;
        Ok(at - self.offset)
    }
}

impl PreparedStep for Write {
    fn call(&mut self, workspace: &mut Workspace) -> nix::Result<i64> {
        self.written(workspace)
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

/// Reads the file to its end; the number of its bytes.
pub(super) fn read_whole(path: &CStr, buffer: &mut [u8]) -> nix::Result<i64> {
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

    use guest_protocol::pattern::PERIOD;

    use super::*;

    #[test]
    fn a_file_holds_the_pattern_of_its_offsets() {
        // Where the tests' files are, direct writes are not always possible: the flag is the
        // kernel's word, and the data is the same.
        for (at, bytes) in [(100, CHUNK_BYTES * 2 + 7), (512, CHUNK_BYTES)] {
            let mut workspace = Workspace::new(&[]).unwrap();
            let path = std::env::temp_dir().join(format!("agent-pattern-{}", std::process::id()));
            File::create(&path).unwrap();
            let name = CString::new(path.to_str().unwrap()).unwrap();
            let length = u32::try_from(bytes).unwrap();
            let mut write = Write {
                path: name.clone(),
                offset: signed(at),
                length,
                flags: OFlag::O_WRONLY | OFlag::O_SYNC,
                shift: 11,
            };
            let result = write.call(&mut workspace);
            let mut buffer = vec![0; 1000];
            let read_back = read_whole(&name, &mut buffer);
            let content = fs::read(&path).unwrap();
            fs::remove_file(&path).unwrap();
            assert_eq!(result, Ok(i64::from(length)));
            assert_eq!(read_back, Ok(i64::from(length) + signed(at)));
            assert!(content[..at].iter().all(|byte| *byte == 0));
            assert!((at..content.len()).all(|at| usize::from(content[at]) == (at + 11) % PERIOD));
        }
    }

    #[test]
    fn a_direct_write_has_the_same_data_in_aligned_memory() {
        let mut workspace = Workspace::new(&[]).unwrap();
        let plain = workspace.pattern_at(512 * 77, 3, 4096, false).to_vec();
        let direct = workspace.pattern_at(512 * 77, 3, 4096, true);
        assert_eq!(direct, plain);
        assert!((direct.as_ptr() as usize).is_multiple_of(4096));
    }
}
