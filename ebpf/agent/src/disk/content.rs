//! Contents of a disk.

use std::{fs::File, os::unix::fs::FileExt};

use anyhow::{Context, Result};

use super::{BATCH, BLOCK_BYTES, Block, GAP, ZERO, bytes_mut};

/// The blocks of a disk that are not all zero, and those between them where they are few: in
/// btrfs's nodes the middle mostly is.
#[derive(Default)]
pub(crate) struct Content {
    /// Their numbers, ascending.
    pub(super) numbers: Vec<u64>,
    /// The blocks, in the same order.
    pub(super) blocks: Vec<Block>,
}

impl Content {
    /// Reads all `count` blocks of `device`, which people know as `path`.
    pub(super) fn read(device: &File, path: &str, count: u64) -> Result<Self> {
        let mut content = Self::default();
        let mut batch = vec![ZERO.clone(); BATCH];
        let mut first = 0;
        while first < count {
            let count = usize::try_from(count - first).unwrap_or(BATCH).min(BATCH);
            device
                .read_exact_at(bytes_mut(&mut batch[..count]), first * BLOCK_BYTES)
                .with_context(|| format!("cannot read {path} at block {first}"))?;
            for (number, block) in (first..).zip(&batch[..count]) {
                if block.0 != ZERO.0 {
                    content.add(number, block);
                }
            }
            first += count as u64;
        }
        Ok(content)
    }

    fn add(&mut self, number: u64, block: &Block) {
        let after_last = self.numbers.last().map_or(number, |last| last + 1);
        if number - after_last <= GAP as u64 {
            self.blocks.extend((after_last..number).map(|_| ZERO.clone()));
            self.numbers.extend(after_last..number);
        }
        self.numbers.push(number);
        self.blocks.push(block.clone());
    }
}
