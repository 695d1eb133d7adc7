//! Coverage: the kernel writes each basic block that the tracing thread enters into memory shared
//! with us.
//!
//! Mirrors `include/uapi/linux/kcov.h` and `kernel/kcov.c` (6.12).
//!
//! A thread whose coverage is asked for stays enabled: `KCOV_ENABLE` touches every page of the
//! memory, most of which no execution needs. Between executions the trace is *closed*: its count is
//! beyond what there is room for, so that the kernel writes nothing. See
//! [`guest_protocol::Ready::trace`].

pub(crate) mod pagemap;

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
use nix::sys::mman::{MapFlags, ProtFlags, mmap};

/// Words of the trace, the count included: thirty times what mounting and unmounting btrfs writes.
const TRACE_WORDS: usize = 1 << 21;
const PAGE_BYTES: usize = 4096;
/// The number added to the count of a closed trace. The kernel compares the next word's number with
/// [`TRACE_WORDS`], so it writes no more.
const CLOSED: u64 = TRACE_WORDS as u64;
/// `KCOV_TRACE_PC`: record program counters.
const TRACE_PC: c_int = 0;

nix::ioctl_write_int_bad!(kcov_init_trace, nix::request_code_read!(b'c', 1, size_of::<c_ulong>()));
nix::ioctl_write_int_bad!(kcov_enable, nix::request_code_none!(b'c', 100));
nix::ioctl_write_int_bad!(kcov_disable, nix::request_code_none!(b'c', 101));

/// A trace and its memory, for one thread at a time.
pub(crate) struct Kcov {
    file: File,
    area: NonNull<u64>,
    enabled: bool,
}

// SAFETY: the memory behind `area` is never unmapped and belongs to no thread; `file` is an
// ordinary descriptor.
unsafe impl Send for Kcov {}

impl Kcov {
    /// Opens the trace and maps its memory.
    pub(crate) fn open() -> Result<Self> {
        let file = OpenOptions::new().read(true).write(true).open("/sys/kernel/debug/kcov");
        let file = file.context("cannot open /sys/kernel/debug/kcov, which needs CONFIG_KCOV")?;
        let words = c_int::try_from(TRACE_WORDS).context("the trace is too long")?;
        // SAFETY: the descriptor is KCOV's, whose ioctl takes the number of words by value.
        unsafe { kcov_init_trace(file.as_raw_fd(), words) }.context("cannot size the coverage trace")?;
        let length = NonZeroUsize::new(TRACE_WORDS * size_of::<u64>()).context("the trace has no size")?;
        let access = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: the mapping is fresh, so it overlaps nothing of ours.
        let area = unsafe { mmap(None, length, access, MapFlags::MAP_SHARED, &file, 0) };
        Ok(Self { file, area: area.context("cannot map the coverage trace")?.cast(), enabled: false })
    }

    /// Empties the trace, and closes it.
    pub(crate) fn clear(&mut self) {
        self.count().store(CLOSED, Ordering::SeqCst);
    }

    /// Enables or disables coverage of the calling thread, always the same one.
    pub(crate) fn enable(&mut self, enabled: bool) -> nix::Result<()> {
        if enabled == self.enabled {
            return Ok(());
        }
        self.clear();
        let file = self.file.as_raw_fd();
        // SAFETY: the descriptor is KCOV's, whose ioctls take the mode by value, and nothing.
        unsafe { if enabled { kcov_enable(file, TRACE_PC) } else { kcov_disable(file, 0) } }?;
        self.enabled = enabled;
        Ok(())
    }

    /// Starts an empty trace of the enabled thread, which calls this.
    pub(crate) fn start(&mut self) {
        if self.enabled {
            self.count().store(0, Ordering::SeqCst);
        }
    }

    /// Ends the trace of the thread that calls this, which enters the kernel for nothing in here.
    pub(crate) fn stop(&mut self) {
        let count = self.count();
        count.store(CLOSED + count.load(Ordering::SeqCst) % CLOSED, Ordering::SeqCst);
    }

    /// Finds the physical addresses of the trace, at which the host reads it.
    pub(crate) fn physical_ranges(&self) -> Result<Vec<MemoryRange>> {
        let bytes = TRACE_WORDS * size_of::<u64>();
        // Every page must be there before it can be asked for.
        for page in (0..bytes).step_by(PAGE_BYTES) {
            // SAFETY: the byte lies within the mapping. Volatile, as nobody uses what is read.
            unsafe { self.area.as_ptr().cast::<u8>().add(page).read_volatile() };
        }
        pagemap::physical_ranges(self.area.as_ptr() as usize, bytes)
    }

    fn count(&self) -> &AtomicU64 {
        // SAFETY: the first word is mapped and aligned to a page; kernel and agent only ever access
        // it whole.
        unsafe { AtomicU64::from_ptr(self.area.as_ptr()) }
    }
}
