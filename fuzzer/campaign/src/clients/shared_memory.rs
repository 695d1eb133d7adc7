//! Memory that LibAFL's clients and broker share, for those that are threads of one process.
//!
//! LibAFL's own kinds have names, so that a killed process leaves them behind, or file descriptors
//! that both sides close. Here each side has a descriptor of its own of a memory file without a
//! name.

use std::{
    ffi::c_void,
    fs::File,
    num::NonZeroUsize,
    ops::{Deref, DerefMut},
    os::fd::{AsRawFd, BorrowedFd},
    ptr::NonNull,
    slice,
    sync::{Arc, OnceLock},
};

use libafl::Error;
use libafl_bolts::shmem::{ShMem, ShMemDescription, ShMemId, ShMemProvider};
use nix::sys::{
    memfd::{MFdFlags, memfd_create},
    mman::{MapFlags, ProtFlags, mmap, munmap},
};

/// A mapped memory file. Its id is the number of its descriptor, which means something in this
/// process only.
#[derive(Debug)]
pub(crate) struct SharedMemory {
    file: File,
    base: NonNull<c_void>,
    length: NonZeroUsize,
}

// SAFETY: the mapping belongs to no thread.
unsafe impl Send for SharedMemory {}

impl SharedMemory {
    fn map(file: File, length: usize) -> Result<Self, Error> {
        let length = NonZeroUsize::new(length).ok_or_else(|| Error::illegal_argument("shared memory of no size"))?;
        if file.metadata()?.len() != length.get() as u64 {
            return Err(Error::illegal_argument("shared memory of another size"));
        }
        let access = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // LLMP fills all of it sooner or later. It is counted from the start, so that growth is a
        // leak.
        let flags = MapFlags::MAP_SHARED | MapFlags::MAP_POPULATE;
        // SAFETY: a new mapping at an address of the kernel's choice touches no existing memory.
        let base = unsafe { mmap(None, length, access, flags, &file, 0) };
        Ok(Self { file, base: base.map_err(std::io::Error::from)?, length })
    }
}

// SAFETY: a mapping begins at a page.
unsafe impl ShMem for SharedMemory {
    fn id(&self) -> ShMemId {
        ShMemId::from_int(self.file.as_raw_fd())
    }
}

impl Deref for SharedMemory {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: `length` bytes are mapped at `base` until `drop`; LLMP, which is all that uses
        // this, orders its accesses by itself.
        unsafe { slice::from_raw_parts(self.base.as_ptr().cast(), self.length.get()) }
    }
}

impl DerefMut for SharedMemory {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above.
        unsafe { slice::from_raw_parts_mut(self.base.as_ptr().cast(), self.length.get()) }
    }
}

impl Drop for SharedMemory {
    fn drop(&mut self) {
        // SAFETY: `base` is the mapping made in `map`, of this length.
        if let Err(errno) = unsafe { munmap(self.base, self.length.get()) } {
            tracing::warn!(%errno, "shared memory stays mapped");
        }
    }
}

/// The provider of [`SharedMemory`]. It remembers its first piece, as LibAFL's broker tells only
/// over TCP where its own is that it made first.
#[derive(Clone, Debug, Default)]
pub(crate) struct Provider {
    first: Arc<OnceLock<ShMemDescription>>,
}

impl Provider {
    /// Describes the first piece that this provider or a clone of it made.
    pub(crate) fn first(&self) -> Option<ShMemDescription> {
        self.first.get().copied()
    }
}

impl ShMemProvider for Provider {
    type ShMem = SharedMemory;

    fn new() -> Result<Self, Error> {
        Ok(Self::default())
    }

    fn new_shmem(&mut self, length: usize) -> Result<SharedMemory, Error> {
        let file = memfd_create("campaign messages", MFdFlags::MFD_CLOEXEC).map_err(std::io::Error::from)?;
        let file = File::from(file);
        file.set_len(length as u64)?;
        let memory = SharedMemory::map(file, length)?;
        self.first.get_or_init(|| memory.description());
        Ok(memory)
    }

    fn shmem_from_id_and_size(&mut self, id: ShMemId, length: usize) -> Result<SharedMemory, Error> {
        // SAFETY: whoever gave the id keeps its descriptor open until this side has its own: LLMP
        // unmaps a page only when the other side has said that it is done with it.
        let theirs = unsafe { BorrowedFd::borrow_raw(i32::from(id)) };
        SharedMemory::map(File::from(theirs.try_clone_to_owned()?), length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_sides_see_the_same_and_go_one_after_the_other() {
        let mut provider = Provider::new().unwrap();
        let mut first = provider.new_shmem(4096).unwrap();
        let second = provider.shmem_from_description(first.description()).unwrap();
        assert_ne!(first.id(), second.id(), "each has a descriptor of its own");
        first[7] = 1;
        assert_eq!(second[7], 1);
        drop(first);
        assert_eq!(second[7], 1);
        assert!(provider.shmem_from_id_and_size(second.id(), 8192).is_err());
        assert!(provider.new_shmem(0).is_err());
        assert_eq!(provider.new_shmem(8192).unwrap().len(), 8192);
        assert_eq!(provider.clone().first().map(|first| first.size), Some(4096));
    }
}
