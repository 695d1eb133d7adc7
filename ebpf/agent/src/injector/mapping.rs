//! A BPF map as memory.

use std::{ffi::c_void, num::NonZeroUsize, ptr::NonNull};

use anyhow::{Context, Result, bail};
use aya::{Ebpf, maps::Map};
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};

const PAGE_BYTES: usize = 4096;

/// The values of an array map, mapped into the agent's memory.
///
/// The BPF programs change them at any moment between two accesses, so values are copied in and out
/// whole or by field, and never borrowed.
pub(super) struct Mapping<T> {
    values: NonNull<T>,
    count: usize,
    bytes: usize,
}

// SAFETY: the memory is shared, belongs to no thread, and holds plain numbers.
unsafe impl<T: Copy + Send> Send for Mapping<T> {}

impl<T: Copy> Mapping<T> {
    /// Maps the first `count` values of the array map called `name`.
    pub(super) fn new(bpf: &Ebpf, name: &str, count: usize) -> Result<Self> {
        let Some(Map::Array(map)) = bpf.map(name) else { bail!("the BPF object has no array map \"{name}\"") };
        let info = map.info().with_context(|| format!("cannot ask for the BPF map \"{name}\""))?;
        let (value_bytes, entries) = (info.value_size() as usize, info.max_entries() as usize);
        if value_bytes != size_of::<T>() || entries < count || !size_of::<T>().is_multiple_of(8) {
            bail!(
                "the BPF map \"{name}\" has {entries} values of {value_bytes} bytes, not {count} of {}",
                size_of::<T>()
            );
        }
        let bytes = (value_bytes * count).next_multiple_of(PAGE_BYTES);
        let length = NonZeroUsize::new(bytes).with_context(|| format!("the BPF map \"{name}\" is empty"))?;
        let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: a fresh mapping at an address of the kernel's choice takes nobody's memory.
        let memory = unsafe { mmap(None, length, protection, MapFlags::MAP_SHARED, map.fd(), 0) };
        let memory =
            memory.with_context(|| format!("cannot map the BPF map \"{name}\" (BPF_F_MMAPABLE, Linux 5.5)"))?;
        Ok(Self { values: memory.cast(), count, bytes })
    }

    /// Gives the address of value `index`.
    ///
    /// # Panics
    ///
    /// There is no such value.
    pub(super) fn at(&self, index: usize) -> *mut T {
        assert!(index < self.count, "value {index} of {}", self.count);
        // SAFETY: the index was checked, and the mapping holds `count` values.
        unsafe { self.values.as_ptr().add(index) }
    }

    /// Gives the address of the only value.
    pub(super) fn only(&self) -> *mut T {
        self.at(0)
    }

    /// Copies value `index` out.
    pub(super) fn read(&self, index: usize) -> T {
        // SAFETY: `at` is valid and aligned, and `T` is plain numbers.
        unsafe { self.at(index).read_volatile() }
    }

    /// Replaces value `index`.
    pub(super) fn write(&mut self, index: usize, value: T) {
        // SAFETY: `at` is valid and aligned.
        unsafe { self.at(index).write_volatile(value) };
    }
}

impl<T> Drop for Mapping<T> {
    fn drop(&mut self) {
        // SAFETY: the range is the one that was mapped, and nothing points into it any more. Should
        // it stay mapped, only memory is lost.
        let _ = unsafe { munmap(self.values.cast::<c_void>(), self.bytes) };
    }
}
