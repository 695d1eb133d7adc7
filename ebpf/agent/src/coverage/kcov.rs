//! One trace: memory that the kernel shares with us, and writes each basic block to that it enters.
//!
//! Mirrors `include/uapi/linux/kcov.h` and `kernel/kcov.c` (6.12), and our patch of them.

use std::{
    ffi::{c_int, c_ulong},
    fs::{File, OpenOptions},
    num::NonZeroUsize,
    os::fd::AsRawFd,
    ptr::NonNull,
    sync::atomic::{AtomicU64, Ordering},
};

use anyhow::{Context, Result};
use guest_protocol::MemoryRange;
use nix::{
    errno::Errno,
    sys::mman::{MapFlags, ProtFlags, mmap},
};

use super::pagemap;

const KCOV: &str = "/sys/kernel/debug/kcov";
const PAGE_BYTES: usize = 4096;
/// Words of a page: the smallest trace of whole pages.
const PAGE_WORDS: usize = PAGE_BYTES / size_of::<u64>();

nix::ioctl_write_int_bad!(kcov_init_trace, nix::request_code_read!(b'c', 1, size_of::<c_ulong>()));
nix::ioctl_write_int_bad!(kcov_enable, nix::request_code_none!(b'c', 100));
nix::ioctl_write_int_bad!(kcov_disable, nix::request_code_none!(b'c', 101));

/// Tasks that a trace follows: what `KCOV_ENABLE` takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub(super) enum Follow {
    /// The calling thread: `KCOV_TRACE_PC`.
    Caller = 0,
    /// User tasks outside of the calling process: `KCOV_TRACE_TASKS` of the patch.
    Tasks = 0x667a,
    /// Kernel threads: `KCOV_TRACE_THREADS` of the patch.
    Threads = 0x667b,
}

/// A trace and its memory.
pub(super) struct Kcov {
    file: File,
    area: NonNull<u64>,
    words: usize,
}

// SAFETY: the memory behind `area` is never unmapped and belongs to no thread; `file` is an
// ordinary descriptor.
unsafe impl Send for Kcov {}

impl Kcov {
    /// Opens a trace of so many words, the count included, and maps its memory. They are whole
    /// pages. It is closed.
    pub(super) fn open(words: usize) -> Result<Self> {
        let file = open_file(words)?;
        let length = NonZeroUsize::new(words * size_of::<u64>()).context("the trace has no size")?;
        let access = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: the mapping is fresh, so it overlaps nothing of ours.
        let area = unsafe { mmap(None, length, access, MapFlags::MAP_SHARED, &file, 0) };
        let kcov = Self { file, area: area.context("cannot map the coverage trace")?.cast(), words };
        kcov.clear();
        Ok(kcov)
    }

    /// Says whether this kernel can follow such tasks.
    pub(super) fn can(follow: Follow) -> Result<bool> {
        let file = open_file(PAGE_WORDS)?;
        // With the descriptor, which nothing is mapped from, the trace goes.
        Ok(enable(&file, follow) != Err(Errno::EINVAL))
    }

    /// Has the kernel follow the tasks. Each page of the memory is touched.
    pub(super) fn enable(&self, follow: Follow) -> nix::Result<()> {
        enable(&self.file, follow)
    }

    /// Ends that for the calling thread.
    pub(super) fn disable(&self) -> nix::Result<()> {
        // SAFETY: the descriptor is KCOV's, whose ioctl takes nothing.
        unsafe { kcov_disable(self.file.as_raw_fd(), 0) }.map(drop)
    }

    /// Empties the trace, and closes it.
    pub(super) fn clear(&self) {
        self.count().store(self.closed(), Ordering::SeqCst);
    }

    /// Empties the trace, and opens it. Makes no system call.
    pub(super) fn start(&self) {
        self.count().store(0, Ordering::SeqCst);
    }

    /// Closes the trace. Makes no system call.
    pub(super) fn stop(&self) {
        let (count, closed) = (self.count(), self.closed());
        count.store(closed + count.load(Ordering::SeqCst) % closed, Ordering::SeqCst);
    }

    /// Finds the physical addresses of the trace, at which the host reads it.
    pub(super) fn physical_ranges(&self) -> Result<Vec<MemoryRange>> {
        let bytes = self.words * size_of::<u64>();
        // Every page must be there before it can be asked for.
        for page in (0..bytes).step_by(PAGE_BYTES) {
            // SAFETY: the byte lies within the mapping. Volatile, as nobody uses what is read.
            unsafe { self.area.as_ptr().cast::<u8>().add(page).read_volatile() };
        }
        pagemap::physical_ranges(self.area.as_ptr() as usize, bytes)
    }

    /// Gives the number that is added to the count of a closed trace. The kernel compares the next
    /// word's number with the trace's words, so it writes no more.
    fn closed(&self) -> u64 {
        self.words as u64
    }

    fn count(&self) -> &AtomicU64 {
        // SAFETY: the first word is mapped and aligned to a page; kernel and agent only ever access
        // it whole.
        unsafe { AtomicU64::from_ptr(self.area.as_ptr()) }
    }
}

fn open_file(words: usize) -> Result<File> {
    let file = OpenOptions::new().read(true).write(true).open(KCOV);
    let file = file.with_context(|| format!("cannot open {KCOV}, which needs CONFIG_KCOV"))?;
    let words = c_int::try_from(words).context("the trace is too long")?;
    // SAFETY: the descriptor is KCOV's, whose ioctl takes the number of words by value.
    unsafe { kcov_init_trace(file.as_raw_fd(), words) }.context("cannot size the coverage trace")?;
    Ok(file)
}

fn enable(file: &File, follow: Follow) -> nix::Result<()> {
    // SAFETY: the descriptor is KCOV's, whose ioctl takes the mode by value.
    unsafe { kcov_enable(file.as_raw_fd(), follow as c_int) }.map(drop)
}
