//! Which blocks of the disks were written to.

use core::ffi::c_long;

use abi::{Control, DIRTY_BLOCK_BYTES, DIRTY_BLOCKS, DIRTY_REGION_BLOCKS, block_event};
use aya_ebpf::{EbpfContext as _, programs::TracePointContext};

use crate::{
    maps,
    repeat::{BREAK, CONTINUE, repeat},
};

/// Bytes of a sector, the block layer's unit.
const SECTOR_BYTES: u64 = 512;
const SECTORS_PER_BLOCK: u64 = DIRTY_BLOCK_BYTES / SECTOR_BYTES;
/// The most blocks of one write before all of the disks counts as dirty: 8 MiB.
const MAX_BLOCKS: u32 = 2048;

/// Notes a write, discard or zeroing in the dirty map.
#[inline(always)]
pub(crate) fn record(context: &TracePointContext, control: &mut Control) {
    let event = context.as_ptr();
    // SAFETY: the verifier lets a program read the fields of its event; the agent compared their
    // offsets with the running kernel's. Volatile, lest the compiler merge them into reads that the
    // verifier refuses.
    let (device, sector, sectors, operation) = unsafe {
        (
            event.add(block_event::DEVICE).cast::<u32>().read_volatile(),
            event.add(block_event::SECTOR).cast::<u64>().read_volatile(),
            event.add(block_event::SECTORS).cast::<u32>().read_volatile(),
            event.add(block_event::OPERATION).cast::<u8>().read_volatile(),
        )
    };
    let Some(disk) = control.disks.iter().position(|disk| *disk == device) else { return };
    if device == 0 || sectors == 0 || operation == b'R' {
        return;
    }
    let last = (sector + u64::from(sectors) - 1) / SECTORS_PER_BLOCK;
    let mut extent = Extent { disk: disk as u32, next: sector / SECTORS_PER_BLOCK, last };
    repeat(MAX_BLOCKS, mark, &mut extent);
    if extent.next <= extent.last {
        control.dirty_overflow = 1;
    }
}

/// Blocks yet to be marked.
struct Extent {
    disk: u32,
    next: u64,
    last: u64,
}

/// Marks one block.
extern "C" fn mark(_: u64, extent: *mut Extent) -> c_long {
    // SAFETY: it is what `record` hands to the loop.
    let extent = unsafe { &mut *extent };
    let block = extent.next;
    let Some(dirty) = maps::dirty(extent.disk) else { return BREAK };
    if block > extent.last || block >= DIRTY_BLOCKS as u64 {
        return BREAK;
    }
    dirty.blocks[block as usize] = 1;
    dirty.regions[block as usize / DIRTY_REGION_BLOCKS] = 1;
    extent.next = block + 1;
    CONTINUE
}
