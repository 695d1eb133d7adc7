//! The disk under test: `/dev/ram0`, put back to the content of the image `/dev/vda` after each execution.
//!
//! The image stays in the agent's memory, only the blocks that are not all zero. Putting it back writes the blocks
//! that the last execution wrote to and nothing else.

use std::{
    fs::{File, OpenOptions},
    io::{Seek, SeekFrom},
    os::{
        fd::AsRawFd,
        unix::fs::{FileExt, OpenOptionsExt},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use nix::libc::{EBUSY, O_DIRECT, O_EXCL};

const IMAGE: &str = "/dev/vda";
/// The disk that the steps mount.
pub(crate) const DISK: &str = "/dev/ram0";
/// The disk's number as the kernel encodes it: major 1, minor 0.
pub(crate) const DISK_NUMBER: u32 = 1 << 20;
/// Bytes of one block, the unit in which writes are recorded.
const BLOCK_BYTES: u64 = abi::DIRTY_BLOCK_BYTES;
/// Blocks read or zeroed at once.
const BATCH: usize = 256;
/// How long the kernel may take to let go of an unmounted disk.
const RELEASE_DEADLINE: Duration = Duration::from_millis(60);

nix::ioctl_write_ptr_bad!(blkdiscard, nix::request_code_none!(0x12, 119), [u64; 2]);

/// A block, aligned as direct transfers want it.
#[repr(C, align(4096))]
#[derive(Clone)]
struct Block([u8; 4096]);

const _: () = assert!(size_of::<Block>() as u64 == BLOCK_BYTES);

static ZERO: Block = Block([0; 4096]);

/// Which blocks of the disk may differ from the image.
pub(crate) enum Dirty {
    /// These, in ascending order.
    Blocks(Vec<u64>),
    /// Any.
    Everything,
}

/// The image and the disk.
pub(crate) struct Disk {
    /// Blocks of the disk.
    blocks: u64,
    /// Numbers of the image's blocks that are not all zero, ascending.
    numbers: Vec<u64>,
    /// Their contents, in the same order.
    contents: Vec<Block>,
    zeros: Vec<Block>,
    /// Whether the disk can drop blocks (Linux 6.1's cannot).
    discards: bool,
}

/// Why the disk was not put back.
#[derive(Debug)]
pub(crate) enum ResetError {
    /// Something in the kernel still holds it, although nothing is mounted.
    Held,
    /// Something else went wrong.
    Other(anyhow::Error),
}

impl Disk {
    /// Reads the image. The disk is written by the first [`Disk::reset`].
    pub(crate) fn read_image() -> Result<Self> {
        let image = OpenOptions::new().read(true).custom_flags(O_DIRECT).open(IMAGE);
        let mut image = image.with_context(|| format!("cannot open the image {IMAGE}"))?;
        let image_blocks = blocks_of(&mut image, IMAGE)?;
        let mut disk = File::open(DISK).with_context(|| format!("cannot open {DISK}: is CONFIG_BLK_DEV_RAM set?"))?;
        let blocks = blocks_of(&mut disk, DISK)?;
        if image_blocks > blocks {
            let (has, needs) = (blocks * BLOCK_BYTES / 1024, image_blocks * BLOCK_BYTES / 1024);
            bail!("the image has {needs} KiB but {DISK} only {has} KiB: boot the kernel with brd.rd_size={needs}");
        }
        if blocks > abi::DIRTY_BLOCKS as u64 {
            bail!("{DISK} is larger than 1 GiB, beyond which writes are not recorded");
        }
        let (numbers, contents) = blocks_that_matter(&image, image_blocks)?;
        Ok(Self { blocks, numbers, contents, zeros: vec![ZERO.clone(); BATCH], discards: true })
    }

    /// Puts the image back where `dirty` says, which is asked when nobody else holds the disk any more. It must not be
    /// mounted.
    pub(crate) fn reset(&mut self, dirty: impl FnOnce() -> Dirty) -> Result<(), ResetError> {
        // Exclusive, and waits a while for that: fails as long as a file system, mounted or leaked, claims the disk.
        // Closing it again drops the page cache, and lets kernels mount that refuse disks open for writing.
        let disk = open_exclusively()?;
        match dirty() {
            Dirty::Blocks(numbers) => {
                for run in numbers.chunk_by(|before, after| before + 1 == *after) {
                    self.restore_run(&disk, run).map_err(ResetError::Other)?;
                }
            }
            Dirty::Everything => {
                self.clear(&disk, 0, self.blocks).map_err(ResetError::Other)?;
                self.write_image(&disk, 0, self.numbers.len()).map_err(ResetError::Other)?;
            }
        }
        Ok(())
    }

    /// Restores consecutive blocks: those in the image are written, those between them cleared.
    fn restore_run(&mut self, disk: &File, run: &[u64]) -> Result<()> {
        let (Some(&first), Some(&last)) = (run.first(), run.last()) else { return Ok(()) };
        let last = last.min(self.blocks - 1);
        let from = self.numbers.partition_point(|number| *number < first);
        let to = self.numbers.partition_point(|number| *number <= last);
        let mut next = first;
        for index in from..to {
            let number = self.numbers[index];
            self.clear(disk, next, number)?;
            next = number + 1;
        }
        self.clear(disk, next, last + 1)?;
        self.write_image(disk, from, to)
    }

    /// Writes the image's blocks `from..to` (indices), consecutive ones at once.
    fn write_image(&self, disk: &File, mut from: usize, to: usize) -> Result<()> {
        for run in self.numbers[from..to].chunk_by(|before, after| before + 1 == *after) {
            let contents = bytes(&self.contents[from..from + run.len()]);
            disk.write_all_at(contents, run[0] * BLOCK_BYTES)
                .with_context(|| format!("cannot write {} blocks from block {} on to {DISK}", run.len(), run[0]))?;
            from += run.len();
        }
        Ok(())
    }

    /// Makes the blocks from `first` to before `end` zero, and free where the disk can do that.
    fn clear(&mut self, disk: &File, first: u64, end: u64) -> Result<()> {
        if first >= end {
            return Ok(());
        }
        let range = [first * BLOCK_BYTES, (end - first) * BLOCK_BYTES];
        if self.discards {
            // SAFETY: the descriptor is a block device's, whose ioctl reads two words: where and how many bytes.
            match unsafe { blkdiscard(disk.as_raw_fd(), &raw const range) } {
                Ok(_) => return Ok(()),
                Err(nix::Error::EOPNOTSUPP) => self.discards = false,
                Err(error) => return Err(error).with_context(|| format!("cannot discard blocks of {DISK}")),
            }
        }
        let mut next = first;
        while next < end {
            let count = usize::try_from(end - next).unwrap_or(BATCH).min(BATCH);
            disk.write_all_at(bytes(&self.zeros[..count]), next * BLOCK_BYTES)
                .with_context(|| format!("cannot clear blocks of {DISK}"))?;
            next += count as u64;
        }
        Ok(())
    }
}

fn open_exclusively() -> Result<File, ResetError> {
    let deadline = Instant::now() + RELEASE_DEADLINE;
    loop {
        match OpenOptions::new().write(true).custom_flags(O_DIRECT | O_EXCL).open(DISK) {
            Ok(disk) => return Ok(disk),
            Err(error) if error.raw_os_error() == Some(EBUSY) && Instant::now() < deadline => {
                thread::sleep(Duration::from_millis(1));
            }
            Err(error) if error.raw_os_error() == Some(EBUSY) => return Err(ResetError::Held),
            Err(error) => return Err(ResetError::Other(anyhow::Error::new(error).context("cannot open the disk"))),
        }
    }
}

fn blocks_of(device: &mut File, path: &str) -> Result<u64> {
    let bytes = device.seek(SeekFrom::End(0)).with_context(|| format!("cannot tell the size of {path}"))?;
    if bytes == 0 || bytes % BLOCK_BYTES != 0 {
        bail!("{path} has {bytes} bytes, which is no multiple of {BLOCK_BYTES}");
    }
    Ok(bytes / BLOCK_BYTES)
}

/// The blocks of the image that are not all zero.
fn blocks_that_matter(image: &File, image_blocks: u64) -> Result<(Vec<u64>, Vec<Block>)> {
    let (mut numbers, mut contents) = (Vec::new(), Vec::new());
    let mut batch = vec![ZERO.clone(); BATCH];
    let mut first = 0;
    while first < image_blocks {
        let count = usize::try_from(image_blocks - first).unwrap_or(BATCH).min(BATCH);
        image
            .read_exact_at(bytes_mut(&mut batch[..count]), first * BLOCK_BYTES)
            .with_context(|| format!("cannot read the image {IMAGE} at block {first}"))?;
        for (number, block) in (first..).zip(&batch[..count]) {
            if block.0 != ZERO.0 {
                numbers.push(number);
                contents.push(block.clone());
            }
        }
        first += count as u64;
    }
    Ok((numbers, contents))
}

fn bytes(blocks: &[Block]) -> &[u8] {
    // SAFETY: a block is an array of bytes without padding, and the length is that of `blocks`.
    unsafe { std::slice::from_raw_parts(blocks.as_ptr().cast(), size_of_val(blocks)) }
}

fn bytes_mut(blocks: &mut [Block]) -> &mut [u8] {
    // SAFETY: as in `bytes`; every value of its bytes is a block.
    unsafe { std::slice::from_raw_parts_mut(blocks.as_mut_ptr().cast(), size_of_val(blocks)) }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileTypeExt;

    use super::*;

    const BLOCKS: u64 = 64;

    /// A disk over the blocks `numbers`, each filled with its number; on a plain file discarding is not to be had.
    fn disk(numbers: &[u64]) -> Disk {
        let contents = numbers.iter().map(|number| Block([u8::try_from(*number).unwrap(); 4096])).collect();
        let zeros = vec![ZERO.clone(); BATCH];
        Disk { blocks: BLOCKS, numbers: numbers.to_vec(), contents, zeros, discards: false }
    }

    fn file_of(name: &str, byte: u8) -> File {
        let path = std::env::temp_dir().join(format!("agent-disk-{}-{name}", std::process::id()));
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        file.write_all_at(&vec![byte; usize::try_from(BLOCKS * BLOCK_BYTES).unwrap()], 0).unwrap();
        assert!(!file.metadata().unwrap().file_type().is_block_device());
        file
    }

    fn first_bytes(file: &File) -> Vec<u8> {
        (0..BLOCKS)
            .map(|number| {
                let mut block = [0; 4096];
                file.read_exact_at(&mut block, number * BLOCK_BYTES).unwrap();
                assert!(block.iter().all(|byte| *byte == block[0]), "block {number} is of one piece");
                block[0]
            })
            .collect()
    }

    #[test]
    fn only_dirty_blocks_are_put_back() {
        let mut disk = disk(&[0, 1, 5, 6, 7, 63]);
        let file = file_of("dirty", 0xee);
        disk.restore_run(&file, &[4, 5, 6]).unwrap();
        disk.restore_run(&file, &[62, 63, 64, 65]).unwrap();
        let mut expected = vec![0xee; 64];
        expected[4..7].copy_from_slice(&[0, 5, 6]);
        expected[62..64].copy_from_slice(&[0, 63]);
        assert_eq!(first_bytes(&file), expected);
    }

    #[test]
    fn the_matter_of_an_image_is_found_and_written() {
        let image = file_of("image", 0);
        for number in [3_u8, 9, 10] {
            image.write_all_at(&[number; 4096], u64::from(number) * BLOCK_BYTES).unwrap();
        }
        let (numbers, contents) = blocks_that_matter(&image, BLOCKS).unwrap();
        assert_eq!(numbers, [3, 9, 10]);
        let disk = Disk { numbers, contents, ..disk(&[]) };
        let copy = file_of("copy", 0);
        disk.write_image(&copy, 0, 3).unwrap();
        assert_eq!(first_bytes(&copy), first_bytes(&image));
    }
}
