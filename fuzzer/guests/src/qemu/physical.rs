//! The guest's physical memory, read out of its QEMU process: what the guest wrote is there without
//! its help, also when it has died, for as long as the process lives.

use std::{
    fs,
    io::{self, IoSliceMut},
    os::unix::fs::MetadataExt,
};

use guest_protocol::{MemoryRange, TraceRole};
use nix::{
    sys::uio::{RemoteIoVec, process_vm_readv},
    unistd::Pid,
};

use super::memory::MemoryFile;

/// The most pieces that the host's kernel reads at once: `IOV_MAX` of `include/uapi/linux/uio.h`
/// (`UIO_MAXIOV`, 6.12).
const PIECES: usize = 1024;

/// The memory of one guest.
#[derive(Clone, Copy, Debug)]
pub(super) struct Physical {
    qemu: Pid,
    /// Address in the process of the guest's address 0.
    base: u64,
    bytes: u64,
}

impl Physical {
    /// The `bytes` of memory that the process `qemu` has mapped from `file`, if this process may
    /// read it.
    pub(super) fn of(qemu: u32, file: &MemoryFile, bytes: u64) -> io::Result<Self> {
        let inode = file.file().metadata()?.ino();
        let maps = fs::read_to_string(format!("/proc/{qemu}/maps"))?;
        let base = mapped_at(&maps, inode, bytes);
        let base = base.ok_or_else(|| io::Error::other("QEMU has not mapped the guest's memory in one piece"))?;
        let memory = Self { qemu: Pid::from_raw(qemu.cast_signed()), base, bytes };
        memory.read(&[MemoryRange { address: 0, bytes }], &mut [0; WORD_BYTES])?;
        Ok(memory)
    }

    /// Fills `out` with what is in `ranges`, one after the other. What a guest says of where
    /// something is may be wrong.
    pub(super) fn read(&self, ranges: &[MemoryRange], out: &mut [u8]) -> io::Result<()> {
        let mut read = 0;
        for ranges in ranges.chunks(PIECES) {
            let left = &mut out[read..];
            if left.is_empty() {
                break;
            }
            let pieces = self.pieces(ranges, left.len())?;
            let wanted = pieces.iter().map(|piece| piece.len).sum::<usize>();
            let got = process_vm_readv(self.qemu, &mut [IoSliceMut::new(&mut left[..wanted])], &pieces)?;
            if got != wanted {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            read += got;
        }
        if read == out.len() { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    }

    /// Translates the first `most` bytes of `ranges` to addresses in the process.
    fn pieces(&self, ranges: &[MemoryRange], most: usize) -> io::Result<Vec<RemoteIoVec>> {
        let mut left = most;
        let mut pieces = Vec::with_capacity(ranges.len());
        for range in ranges {
            let inside = range.address.checked_add(range.bytes).is_some_and(|end| end <= self.bytes);
            if !inside {
                return Err(io::Error::other(format!("{:#x} is no address of the guest's memory", range.address)));
            }
            let bytes = usize::try_from(range.bytes).unwrap_or(usize::MAX).min(left);
            let base = usize::try_from(self.base + range.address).map_err(io::Error::other)?;
            if bytes > 0 {
                pieces.push(RemoteIoVec { base, len: bytes });
            }
            left -= bytes;
        }
        Ok(pieces)
    }
}

/// Finds the address at which the first `bytes` of the file with this inode number are mapped.
/// Reads the text of `/proc/PID/maps`: lines of `START-END PERMISSIONS OFFSET MAJOR:MINOR INODE
/// PATH`. Mirrors `show_map_vma()` of `fs/proc/task_mmu.c` (6.12).
///
/// The device number is not compared: btrfs and overlayfs show another one there than in `stat(2)`.
/// A guest's memory is larger than whatever else QEMU maps.
fn mapped_at(maps: &str, inode: u64, bytes: u64) -> Option<u64> {
    maps.lines().find_map(|line| {
        let mut words = line.split_ascii_whitespace();
        let (start, end) = words.next()?.split_once('-')?;
        let (start, end) = (u64::from_str_radix(start, 16).ok()?, u64::from_str_radix(end, 16).ok()?);
        let offset = u64::from_str_radix(words.nth(1)?, 16).ok()?;
        let ours = words.nth(1)?.parse() == Ok(inode);
        (ours && offset == 0 && end - start >= bytes).then_some(start)
    })
}

/// Traces by the [`TraceRole::index`] of their tasks; of a role without one it is empty.
pub type Traces = [Trace; TraceRole::ALL.len()];

/// Record of the code that ran in a guest, in order: the program counters that KCOV stores, one for
/// each basic block.
#[derive(Clone, Debug, Default)]
pub struct Trace {
    /// Words that were read, their count first; bytes behind them are left from other traces.
    bytes: Vec<u8>,
    /// Words behind the count.
    words: usize,
    /// True when there was no room for more.
    full: bool,
}

impl Trace {
    /// The program counters.
    pub fn words(&self) -> impl Iterator<Item = u64> + '_ {
        self.bytes.as_chunks().0.iter().skip(1).take(self.words).map(|word| u64::from_le_bytes(*word))
    }

    /// Says whether the trace filled its memory, so that its end is missing.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.full
    }

    /// Empties it.
    pub(super) fn clear(&mut self) {
        (self.words, self.full) = (0, false);
    }

    /// Replaces it by the one in `ranges` of a guest's memory (see
    /// [`guest_protocol::TraceMemory`]).
    pub(super) fn read(&mut self, memory: &Physical, ranges: &[MemoryRange]) -> io::Result<()> {
        self.clear();
        let bytes = ranges.iter().map(|range| range.bytes).sum::<u64>();
        let room = usize::try_from(bytes).map_err(io::Error::other)? / WORD_BYTES;
        let mut count = [0; WORD_BYTES];
        memory.read(ranges, &mut count)?;
        // The count stands in the first word and is not counted.
        let most = room.saturating_sub(1);
        let count = usize::try_from(u64::from_le_bytes(count)).unwrap_or(usize::MAX);
        let count = count.checked_sub(room).unwrap_or(count);
        let words = count.min(most);
        let bytes = (1 + words) * WORD_BYTES;
        if self.bytes.len() > KEPT_BYTES && bytes <= KEPT_BYTES {
            self.bytes.truncate(KEPT_BYTES);
            self.bytes.shrink_to_fit();
        }
        if self.bytes.len() < bytes {
            self.bytes.reserve_exact(bytes - self.bytes.len());
            self.bytes.resize(bytes, 0);
        }
        memory.read(ranges, &mut self.bytes[..bytes])?;
        (self.words, self.full) = (words, count >= most);
        Ok(())
    }
}

const WORD_BYTES: usize = 8;
/// Memory for a trace that is kept for the next one, several times what most need. One that loops
/// until its guest is given up has 16 MiB.
const KEPT_BYTES: usize = 4 << 20;

#[cfg(test)]
mod tests {
    use std::{os::unix::fs::FileExt, process};

    use nix::sys::mman::{MapFlags, ProtFlags, mmap};

    use super::*;

    const BYTES: u64 = 1 << 20;

    /// This process's own memory as a guest's, filled with the numbers of its words.
    fn memory() -> (MemoryFile, Physical) {
        let file = MemoryFile::new("test memory", BYTES).unwrap();
        let content: Vec<u8> = (0..BYTES / 8).flat_map(u64::to_le_bytes).collect();
        file.file().write_all_at(&content, 0).unwrap();
        let length = usize::try_from(BYTES).unwrap().try_into().unwrap();
        // SAFETY: a new mapping touches no existing memory; it stays until the test program ends.
        unsafe { mmap(None, length, ProtFlags::PROT_READ, MapFlags::MAP_PRIVATE, file.file(), 0) }.unwrap();
        let physical = Physical::of(process::id(), &file, BYTES).unwrap();
        (file, physical)
    }

    fn range(address: u64, bytes: u64) -> MemoryRange {
        MemoryRange { address, bytes }
    }

    #[test]
    fn ranges_are_read_one_after_the_other() {
        let (_file, memory) = memory();
        let word = |bytes: &[u8], index: usize| u64::from_le_bytes(bytes[index * 8..][..8].try_into().unwrap());
        let mut out = [0; 32];
        memory.read(&[range(800, 16), range(8, 8), range(BYTES - 8, 8)], &mut out).unwrap();
        assert_eq!([0, 1, 2, 3].map(|index| word(&out, index)), [100, 101, 1, BYTES / 8 - 1]);
        let many: Vec<_> = (0..3000).map(|index| range(index * 16, 8)).collect();
        let mut out = vec![0; 3000 * 8];
        memory.read(&many, &mut out).unwrap();
        assert!((0..3000).all(|index| word(&out, index) == index as u64 * 2));
    }

    #[test]
    fn a_mapping_is_found_by_its_file_and_size_whatever_the_device() {
        let maps = "55d0c0000000-55d0c0010000 r--p 00000000 00:1f 77 /usr/bin/qemu\n\
            7f0000000000-7f0000001000 rw-p 00000000 00:2c 900 /cache/memory\n\
            7f0000100000-7f0000200000 rw-p 00100000 00:2c 900 /cache/memory\n\
            7f0001000000-7f0001100000 rw-p 00000000 00:2c 900 /cache/memory\n";
        assert_eq!(mapped_at(maps, 900, BYTES), Some(0x7f00_0100_0000));
        assert_eq!(
            (mapped_at(maps, 900, 2 * BYTES), mapped_at(maps, 77, BYTES), mapped_at(maps, 9, 1)),
            (None, None, None)
        );
    }

    #[test]
    fn what_is_no_memory_is_not_read() {
        let (_file, memory) = memory();
        let mut out = [0; 16];
        for bad in [range(BYTES - 8, 16), range(u64::MAX - 7, 16), range(BYTES, 16), range(0, 8)] {
            assert!(memory.read(&[bad], &mut out).is_err(), "{bad:?}");
        }
        let other = MemoryFile::new("other memory", BYTES).unwrap();
        assert!(Physical::of(process::id(), &other, BYTES).is_err(), "it is not mapped");
    }

    #[test]
    fn an_uncommonly_long_trace_keeps_no_memory() {
        let (file, memory) = memory();
        file.file().write_all_at(&u64::MAX.to_le_bytes(), 0).unwrap();
        let mut trace = Trace::default();
        trace.read(&memory, &[range(0, BYTES); 6]).unwrap();
        assert!(trace.is_full() && trace.bytes.capacity() > KEPT_BYTES);
        trace.read(&memory, &[range(800, 16)]).unwrap();
        assert_eq!((trace.words().collect::<Vec<_>>(), trace.bytes.capacity()), (vec![101], KEPT_BYTES));
    }

    #[test]
    fn a_trace_is_as_long_as_it_says_and_as_there_is_room_for() {
        let (file, memory) = memory();
        let mut trace = Trace::default();
        // Word 5 says that 5 words follow.
        trace.read(&memory, &[range(40, 16), range(800, 400)]).unwrap();
        assert_eq!(trace.words().collect::<Vec<_>>(), [6, 100, 101, 102, 103]);
        assert!(!trace.is_full());
        file.file().write_all_at(&u64::MAX.to_le_bytes(), 40).unwrap();
        trace.read(&memory, &[range(40, 24)]).unwrap();
        assert_eq!((trace.words().collect::<Vec<_>>(), trace.is_full()), (vec![6, 7], true));
        for (count, words, full) in
            [(0, 0, false), (1, 1, false), (2, 2, true), (3, 0, false), (4, 1, false), (5, 2, true)]
        {
            file.file().write_all_at(&u64::to_le_bytes(count), 40).unwrap();
            trace.read(&memory, &[range(40, 24)]).unwrap();
            assert_eq!((trace.words().count(), trace.is_full()), (words, full), "{count}");
        }
    }
}
