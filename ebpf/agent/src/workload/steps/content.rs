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

/// Most bytes of one direct write.
const DIRECT_BYTES: usize = 8 << 20;

/// Writes the pattern to an existing file.
pub(super) struct Write {
    path: CString,
    offset: i64,
    length: u32,
    flags: OFlag,
    /// Of the pattern: see [`shift_of`](guest_protocol::pattern::shift_of).
    shift: usize,
    /// Memory of a direct write that is too long for the workspace's.
    long: Option<Scattered>,
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
        let bytes = usize::try_from(length)?;
        let long = (direct && bytes > CHUNK_BYTES).then(|| Scattered::new(bytes.min(DIRECT_BYTES)));
        Ok(Self { path: below(path)?, offset: offset(at)?, length, flags, shift, long })
    }

    fn written(&mut self, workspace: &mut Workspace) -> nix::Result<i64> {
        let file = opened(&self.path, self.flags)?;
        let end = self.offset + i64::from(self.length);
        let mut at = self.offset;
        while at < end {
            let rest = usize::try_from(end - at).unwrap_or_default();
            let data = match &mut self.long {
                Some(long) => long.pattern_at(at, self.shift, rest, workspace),
                None => {
                    let direct = self.flags.contains(OFlag::O_DIRECT);
                    workspace.pattern_at(at, self.shift, rest.min(CHUNK_BYTES), direct)
                }
            };
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

/// Aligned memory whose pages do not follow each other in the machine's memory, as where it has run
/// for long. So a page is an entry of a request, and a request has 256 of them.
struct Scattered {
    memory: Vec<u8>,
    bytes: usize,
}

impl Scattered {
    const PAGE_BYTES: usize = 4096;

    /// Memory of so many bytes. Its pages are touched, and so given by the kernel, every other one
    /// first.
    fn new(bytes: usize) -> Self {
        let mut memory = vec![0; bytes + Self::PAGE_BYTES];
        for first in [0, Self::PAGE_BYTES] {
            memory.iter_mut().skip(first).step_by(2 * Self::PAGE_BYTES).for_each(|byte| *byte = 1);
        }
        Self { memory, bytes }
    }

    /// The bytes that the pattern of this `shift` has at the offset `at`, at most `most` of them.
    fn pattern_at(&mut self, at: i64, shift: usize, most: usize, workspace: &mut Workspace) -> &[u8] {
        let start = self.memory.as_ptr().align_offset(Self::PAGE_BYTES);
        let data = &mut self.memory[start..start + most.min(self.bytes)];
        for (part, at) in data.chunks_mut(CHUNK_BYTES).zip((at..).step_by(CHUNK_BYTES)) {
            part.copy_from_slice(workspace.pattern_at(at, shift, part.len(), false));
        }
        data
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
        let long = Some(Scattered::new(CHUNK_BYTES * 2));
        for (at, bytes, long) in
            [(100, CHUNK_BYTES * 2 + 7, None), (512, CHUNK_BYTES, None), (512, CHUNK_BYTES * 5 + 512, long)]
        {
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
                long,
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
        let mut long = Scattered::new(10_000);
        let data = long.pattern_at(512 * 77, 3, 4096, &mut workspace);
        assert_eq!(data, plain);
        assert!((data.as_ptr() as usize).is_multiple_of(4096));
    }
}
