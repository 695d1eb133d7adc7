//! Memory files that host and guests share.

use std::{
    fs::File,
    io::{self, Write},
    num::NonZeroUsize,
    os::fd::{AsRawFd, OwnedFd},
    ptr::NonNull,
};

use guest_protocol::{WINDOW_BYTES, Window};
use nix::{
    fcntl::{FcntlArg, SealFlag, fcntl},
    sys::{
        memfd::{MFdFlags, memfd_create},
        mman::{MapFlags, ProtFlags, mmap, munmap},
    },
};

use super::{GuestError, pages::copy};

/// A file that is a guest's memory or state: mostly one in memory without a name
/// (`memfd_create(2)`), gone when its last user is.
#[derive(Debug)]
pub(super) struct MemoryFile {
    file: File,
}

impl From<File> for MemoryFile {
    fn from(file: File) -> Self {
        Self { file }
    }
}

impl MemoryFile {
    /// A file of zeros that keeps its size: the other side cannot take pages from under a mapping.
    pub(super) fn new(what: &'static str, bytes: u64) -> Result<Self, GuestError> {
        let file = Self::growing(what)?;
        let sealed = file.file.set_len(bytes).and_then(|()| {
            fcntl(&file.file, FcntlArg::F_ADD_SEALS(SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW))?;
            Ok(())
        });
        sealed.map_err(|source| GuestError::Host { what, source })?;
        Ok(file)
    }

    /// An empty file that grows as it is written.
    pub(super) fn growing(what: &'static str) -> Result<Self, GuestError> {
        let descriptor: OwnedFd = memfd_create(what, MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING)
            .map_err(|errno| GuestError::Host { what, source: errno.into() })?;
        Ok(Self { file: File::from(descriptor) })
    }

    /// A file with this content.
    pub(super) fn holding(what: &'static str, content: &[u8]) -> Result<Self, GuestError> {
        let mut file = Self::growing(what)?;
        file.file.write_all(content).map_err(|source| GuestError::Host { what, source })?;
        Ok(file)
    }

    /// A copy of it that keeps its size.
    pub(super) fn copied(&self, what: &'static str) -> Result<Self, GuestError> {
        let error = |source| GuestError::Host { what, source };
        let copied = Self::new(what, self.file.metadata().map_err(error)?.len())?;
        copy(&self.file, &copied.file).map_err(error)?;
        Ok(copied)
    }

    pub(super) fn file(&self) -> &File {
        &self.file
    }

    /// The file's path in a process that has inherited it.
    pub(super) fn inherited_path(&self) -> String {
        format!("/proc/self/fd/{}", self.file.as_raw_fd())
    }

    /// The file opened again, with a position of its own.
    pub(super) fn open_again(&self) -> io::Result<File> {
        File::open(self.inherited_path())
    }
}

/// The window of one guest: its file, and the mapping that [`Window`] works on.
#[derive(Debug)]
pub(super) struct MappedWindow {
    file: MemoryFile,
    window: Window,
    base: NonNull<std::ffi::c_void>,
}

// SAFETY: the mapping belongs to no thread; `Window` is the only way to it and is `Send` itself.
unsafe impl Send for MappedWindow {}

impl MappedWindow {
    pub(super) fn new() -> Result<Self, GuestError> {
        let what = "window memory";
        let length = NonZeroUsize::new(WINDOW_BYTES).unwrap_or(NonZeroUsize::MIN);
        let file = MemoryFile::new(what, length.get() as u64)?;
        // SAFETY: a new mapping at an address of the kernel's choice touches no existing memory.
        let base = unsafe {
            mmap(None, length, ProtFlags::PROT_READ | ProtFlags::PROT_WRITE, MapFlags::MAP_SHARED, &file.file, 0)
        };
        let base = base.map_err(|errno| GuestError::Host { what, source: errno.into() })?;
        // SAFETY: `WINDOW_BYTES` are mapped at `base` until `drop`, the file can neither shrink nor
        // grow, and nothing else points into the mapping.
        let window = unsafe { Window::new(base.as_ptr().cast()) };
        Ok(Self { file, window, base })
    }

    pub(super) fn file(&self) -> &MemoryFile {
        &self.file
    }

    pub(super) fn window(&mut self) -> &mut Window {
        &mut self.window
    }
}

impl Drop for MappedWindow {
    fn drop(&mut self) {
        // SAFETY: `base` is the mapping made in `new`, of this length; the window that uses it goes
        // with it.
        let unmapped = unsafe { munmap(self.base, WINDOW_BYTES) };
        if let Err(errno) = unmapped {
            tracing::warn!(%errno, "a guest's window stays mapped");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use guest_protocol::Direction;

    use super::*;

    #[test]
    fn a_memory_file_keeps_its_size() {
        let memory = MemoryFile::new("test memory", 8192).unwrap();
        assert_eq!(memory.file().metadata().unwrap().len(), 8192);
        assert!(memory.file().set_len(4096).is_err());
        assert!(memory.file().set_len(16384).is_err());
    }

    #[test]
    fn each_opening_reads_from_the_start() {
        let memory = MemoryFile::holding("test memory", b"state").unwrap();
        for _ in 0..2 {
            let mut text = String::new();
            memory.open_again().unwrap().read_to_string(&mut text).unwrap();
            assert_eq!(text, "state");
        }
    }

    #[test]
    fn a_window_is_its_file() {
        let mut mapped = MappedWindow::new().unwrap();
        mapped.window().put(Direction::Request, 7, b"run").unwrap();
        let mut header = [0; 8];
        mapped.file().open_again().unwrap().read_exact(&mut header).unwrap();
        assert_eq!(header, [7, 0, 0, 0, 3, 0, 0, 0]);
    }
}
