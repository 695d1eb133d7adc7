//! Comparison of the disk with the image, block by block.

use std::{
    fs::{File, OpenOptions},
    ops::Range,
    os::unix::fs::{FileExt, OpenOptionsExt},
};

use anyhow::{Context, Result};
use guest_protocol::DISK_PARTS;
use nix::libc::O_DIRECT;

use super::{BATCH, BLOCK_BYTES, Block, Disk, ZERO, bytes_mut};

impl Disk {
    /// Compares every block of the disk with the image's, or every block of one of [`DISK_PARTS`]
    /// parts. Says which is the first that differs, if any. Nobody must write to the disk
    /// meanwhile.
    pub(super) fn difference(&self, part: Option<u32>) -> Result<Option<String>> {
        let disk = OpenOptions::new().read(true).custom_flags(O_DIRECT).open(&self.path);
        let part = part.map_or(0..self.blocks, |part| {
            let bound = |part: u32| self.blocks * u64::from(part.min(DISK_PARTS)) / u64::from(DISK_PARTS);
            bound(part)..bound(part.saturating_add(1))
        });
        self.difference_on(&disk.with_context(|| format!("cannot open {}", self.path))?, part)
    }

    fn difference_on(&self, disk: &File, part: Range<u64>) -> Result<Option<String>> {
        let mut batch = vec![ZERO.clone(); BATCH];
        let mut first = part.start;
        let known = self.image.numbers.partition_point(|number| *number < first);
        let mut image = self.image.numbers[known..].iter().zip(&self.image.blocks[known..]).peekable();
        while first < part.end {
            let count = usize::try_from(part.end - first).unwrap_or(BATCH).min(BATCH);
            disk.read_exact_at(bytes_mut(&mut batch[..count]), first * BLOCK_BYTES)
                .with_context(|| format!("cannot read {} at block {first}", self.path))?;
            for (number, found) in (first..).zip(&batch[..count]) {
                let expected = image.next_if(|(block, _)| **block == number).map_or(&ZERO, |(_, content)| content);
                if found.0 != expected.0 {
                    return Ok(Some(self.words(number, found, expected)));
                }
            }
            first += count as u64;
        }
        Ok(None)
    }

    /// Says where the block `number` differs.
    fn words(&self, number: u64, found: &Block, expected: &Block) -> String {
        let byte = found.0.iter().zip(&expected.0).position(|(found, expected)| found != expected).unwrap_or(0);
        format!(
            "block {number} of {} ({BLOCK_BYTES} bytes each) is not the image's: byte {byte} is {:#04x}, not {:#04x}",
            self.path, found.0[byte], expected.0[byte]
        )
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::tests::{BLOCKS, disk, file_of},
        *,
    };

    #[test]
    fn every_block_is_compared_with_the_image() {
        let mut disk = disk(&[0, 1, 5, 63]);
        let file = file_of("compared", 0);
        let everything: Vec<_> = (0..BLOCKS).collect();
        disk.put_back(&file, &disk.extents(&everything)).unwrap();
        assert_eq!(disk.difference_on(&file, 0..BLOCKS).unwrap(), None);
        for (block, byte) in [(5, 0), (6, 4095), (63, 7)] {
            file.write_all_at(&[0x77], block * BLOCK_BYTES + byte).unwrap();
            let found = disk.difference_on(&file, 0..BLOCKS).unwrap().unwrap();
            assert!(
                found.starts_with(&format!("block {block} ")) && found.contains(&format!("byte {byte} is 0x77")),
                "{found}"
            );
            assert_eq!(disk.difference_on(&file, block + 1..BLOCKS).unwrap(), None);
            disk.put_back(&file, &disk.extents(&[block])).unwrap();
        }
        let short = file_of("short", 0);
        short.set_len(BLOCK_BYTES).unwrap();
        assert!(disk.difference_on(&short, 0..BLOCKS).is_err());
    }
}
