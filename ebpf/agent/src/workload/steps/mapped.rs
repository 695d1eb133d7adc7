//! Writing through a mapping of a file.

use std::{ffi::CString, num::NonZeroUsize, os::fd::AsFd, ptr::NonNull};

use anyhow::Result;
use guest_protocol::{RelativePath, pattern::phase_of};
use nix::{
    errno::Errno,
    fcntl::OFlag,
    libc::{self, c_void},
    sys::mman::{MapFlags, ProtFlags, mmap, munmap},
    unistd::close,
};

use super::{CHUNK_BYTES, PreparedStep, Workspace, below, offset, opened, workspace::Mapped};

const PAGE_BYTES: u64 = 4096;

/// Writes the pattern through a shared mapping.
pub(super) struct MmapWrite {
    path: CString,
    /// Offset of the mapping in the file, of whole pages.
    start: i64,
    bytes: NonZeroUsize,
    /// Offset of the first byte in the mapping, and of the one behind the last.
    first: usize,
    end: usize,
    /// Of the pattern: see [`shift_of`](guest_protocol::pattern::shift_of).
    shift: usize,
}

impl MmapWrite {
    pub(super) fn new(path: &RelativePath, at: u64, length: u32, shift: usize) -> Result<Self> {
        let start = at - at % PAGE_BYTES;
        let first = usize::try_from(at - start)?;
        let end = first + usize::try_from(length)?;
        let bytes = NonZeroUsize::new(end).unwrap_or(NonZeroUsize::MIN);
        Ok(Self { path: below(path)?, start: offset(start)?, bytes, first, end, shift })
    }

    /// Has the kernel write the pattern to the mapping `memory`: where the file cannot take it, it
    /// says so. A write of our own would end the agent.
    fn fill(&self, memory: NonNull<c_void>, workspace: &Workspace) -> nix::Result<()> {
        let mut at = self.first;
        while at < self.end {
            let bytes = (self.end - at).min(CHUNK_BYTES);
            let phase = phase_of(usize::try_from(self.start).unwrap_or_default() + at, self.shift);
            // SAFETY: the range lies within the mapping.
            let to = unsafe { memory.as_ptr().byte_add(at) };
            let phase = i64::try_from(phase).unwrap_or_default();
            // SAFETY: as above, and nothing else knows of the mapping.
            let read = unsafe { libc::pread(workspace.pattern_file(), to, bytes, phase) };
            match usize::try_from(Errno::result(read)?).unwrap_or_default() {
                0 => return Err(Errno::EIO),
                some => at += some,
            }
        }
        Ok(())
    }
}

impl PreparedStep for MmapWrite {
    fn call(&mut self, workspace: &mut Workspace) -> nix::Result<i64> {
        let file = opened(&self.path, OFlag::O_RDWR)?;
        let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: a fresh mapping at an address of the kernel's choice takes nobody's memory.
        let memory = unsafe { mmap(None, self.bytes, protection, MapFlags::MAP_SHARED, file.as_fd(), self.start) }?;
        let filled = self.fill(memory, workspace);
        // SAFETY: the range is the one that was mapped, and nothing points into it any more.
        let unmapped = unsafe { munmap(memory, self.bytes.get()) };
        if unmapped.is_err() {
            workspace.mapped = Some(Mapped { memory, bytes: self.bytes.get() });
        }
        filled.and(unmapped)?;
        close(file)?;
        Ok(super::signed(self.end - self.first))
    }
}
