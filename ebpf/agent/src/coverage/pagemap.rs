//! Physical addresses of the agent's memory.

use std::{fs::File, os::unix::fs::FileExt as _};

use anyhow::{Context, Result};
use guest_protocol::MemoryRange;

const PAGEMAP: &str = "/proc/self/pagemap";
const PAGE_BYTES: u64 = 4096;
/// Set when the page is in memory. Mirrors `PM_PRESENT` of `fs/proc/task_mmu.c` (6.12).
const PRESENT: u64 = 1 << 63;
/// The page frame number. Mirrors `PM_PFRAME_MASK` of `fs/proc/task_mmu.c` (6.12).
const FRAME: u64 = (1 << 55) - 1;

/// The physical address of the memory at `address`, which must stay where it is.
pub(crate) fn physical_address(address: usize) -> Result<u64> {
    let page = address as u64 / PAGE_BYTES;
    let frames = frames_of(page, 1)?;
    Ok(frames[0] * PAGE_BYTES + address as u64 % PAGE_BYTES)
}

/// Finds the physical addresses of the `bytes` bytes of memory at `address`, which must stay there.
/// Both are whole pages.
pub(crate) fn physical_ranges(address: usize, bytes: usize) -> Result<Vec<MemoryRange>> {
    let frames = frames_of(address as u64 / PAGE_BYTES, bytes as u64 / PAGE_BYTES)?;
    let runs = frames.chunk_by(|before, after| before + 1 == *after);
    let range = |run: &[u64]| MemoryRange { address: run[0] * PAGE_BYTES, bytes: run.len() as u64 * PAGE_BYTES };
    Ok(runs.map(range).collect())
}

/// The page frame numbers of `count` pages from number `page` on.
fn frames_of(page: u64, count: u64) -> Result<Vec<u64>> {
    let file = File::open(PAGEMAP).with_context(|| format!("cannot open {PAGEMAP} (CONFIG_PROC_PAGE_MONITOR)"))?;
    let mut entry = [0; 8];
    (page..page + count)
        .map(|page| {
            file.read_exact_at(&mut entry, page * 8).with_context(|| format!("cannot read {PAGEMAP}"))?;
            let address = page * PAGE_BYTES;
            frame_of(u64::from_le_bytes(entry))
                .with_context(|| format!("{PAGEMAP} does not say where the page of address {address:#x} is"))
        })
        .collect()
}

/// The page frame number in an entry; the kernel shows 0 to those who may not know.
fn frame_of(entry: u64) -> Option<u64> {
    let frame = entry & FRAME;
    (entry & PRESENT != 0 && frame != 0).then_some(frame)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_present_page_with_a_frame_has_an_address() {
        assert_eq!(frame_of(PRESENT | 0x1234), Some(0x1234));
        assert_eq!(frame_of(PRESENT | 1 << 55 | 0x1234), Some(0x1234), "bit 55 says that the page is soft-dirty");
        assert_eq!(frame_of(PRESENT), None);
        assert_eq!(frame_of(0x1234), None);
    }
}
