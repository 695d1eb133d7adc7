//! The disks under test, put back to the content of their images after each execution.
//!
//! The first one's image is `/dev/vda`, and the others' are all zero; the target's steps may make
//! others of these. Images stay in the agent's memory, only the blocks that are not all zero and
//! few between them. Putting one back writes the blocks that the last execution wrote to and, where
//! they are near one another, those between.

mod compare;
mod content;
mod several;

use std::{
    fs::{File, OpenOptions},
    io::{Seek, SeekFrom},
    ops::Range,
    os::{
        fd::AsRawFd,
        unix::fs::{FileExt, OpenOptionsExt},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use nix::{
    libc::{EBUSY, O_DIRECT, O_EXCL},
    sys::stat::{major, minor, stat},
};

pub(crate) use self::{
    content::Content,
    several::{Disks, read_all},
};

const IMAGE: &str = "/dev/vda";
const _: () = assert!(abi::MAX_DISKS == guest_protocol::MAX_DISKS as usize);
/// Bytes of one block, the unit in which writes are recorded.
const BLOCK_BYTES: u64 = abi::DIRTY_BLOCK_BYTES;
/// Blocks read or zeroed at once.
const BATCH: usize = 256;
/// Time that the kernel may take to let go of an unmounted disk.
const RELEASE_DEADLINE: Duration = Duration::from_millis(60);

nix::ioctl_write_ptr_bad!(blkdiscard, nix::request_code_none!(0x12, 119), [u64; 2]);

/// A block, aligned as direct transfers want it.
#[repr(C, align(4096))]
#[derive(Clone)]
struct Block([u8; 4096]);

const _: () = assert!(size_of::<Block>() as u64 == BLOCK_BYTES);

static ZERO: Block = Block([0; 4096]);

/// The most blocks between two which are put back together with them: a block more costs less than
/// a system call more.
const GAP: usize = 8;

/// Blocks that are put back at once.
#[derive(Debug, PartialEq, Eq)]
enum Extent {
    /// Consecutive blocks of the image, by their indices there.
    Image(Range<usize>),
    /// Consecutive blocks that are not in the image.
    Zeros(Range<u64>),
}

/// Which blocks of the disk may differ from the image.
pub(crate) enum Dirty {
    /// These, in ascending order.
    Blocks(Vec<u64>),
    /// Any.
    Everything,
}

/// An image and its disk.
pub(crate) struct Disk {
    /// Its device file.
    path: String,
    /// Blocks of the disk.
    blocks: u64,
    image: Content,
    zeros: Vec<Block>,
    /// The block layer's count of requests under way, those that read and those that write.
    in_flight: File,
    /// True when the disk can drop blocks (Linux 6.1's cannot), and they read as zeros then.
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
    /// Opens the disk with the device file `path`, which is `number`, from 0, and reads its image.
    /// The disk is written by the first [`Disk::reset`].
    fn open(path: &str, number: usize) -> Result<Self> {
        let path = path.to_owned();
        let why = || format!("cannot open {path}: are CONFIG_BLK_DEV_RAM and CONFIG_VIRTIO_BLK set?");
        let mut disk = File::open(&path).with_context(why)?;
        let blocks = blocks_of(&mut disk, &path)?;
        if blocks > abi::DIRTY_BLOCKS as u64 {
            bail!("{path} is larger than 1 GiB, beyond which writes are not recorded");
        }
        let image = if number == 0 { read_image(&path, blocks)? } else { Content::default() };
        let in_flight = in_flight_of(&path)?;
        let mut disk = Self { path, blocks, image, zeros: vec![ZERO.clone(); BATCH], in_flight, discards: true };
        disk.try_discard()?;
        Ok(disk)
    }

    /// Asks the disk whether blocks that are dropped read as zeros: nothing but its word says that
    /// of a discard. Where they do not, zeros are written.
    fn try_discard(&mut self) -> Result<()> {
        let disk = OpenOptions::new().read(true).write(true).custom_flags(O_DIRECT | O_EXCL).open(&self.path);
        let disk = disk.with_context(|| format!("cannot open {} for writing", self.path))?;
        let mut block = Block([0xa5; 4096]);
        disk.write_all_at(&block.0, 0).with_context(|| format!("cannot write to {}", self.path))?;
        self.clear(&disk, 0, 1)?;
        disk.read_exact_at(&mut block.0, 0).with_context(|| format!("cannot read {}", self.path))?;
        self.discards &= block.0 == ZERO.0;
        Ok(())
    }

    /// Puts the image back where `dirty` says, which is asked when nobody else holds the disk any
    /// more. It must not be mounted.
    fn reset(&mut self, dirty: impl FnOnce() -> Dirty) -> Result<(), ResetError> {
        // Exclusive, and waits a while for that: fails as long as a file system, mounted or leaked,
        // claims the disk. Closing it again drops the page cache, and lets kernels mount that
        // refuse disks open for writing.
        let disk = open_exclusively(&self.path)?;
        wait_until_quiet(&self.in_flight)?;
        match dirty() {
            Dirty::Blocks(numbers) => self.put_back(&disk, &self.extents(&numbers)),
            Dirty::Everything => {
                self.clear(&disk, 0, self.blocks).map_err(ResetError::Other)?;
                self.put_back(&disk, &self.extents(&self.image.numbers))
            }
        }
        .map_err(ResetError::Other)
    }

    /// The extents to write when the blocks `dirty`, in ascending order, are put back. A few blocks
    /// between them are written too.
    fn extents(&self, dirty: &[u64]) -> Vec<Extent> {
        let mut extents = Vec::new();
        let known = &self.image.numbers;
        for &number in dirty.iter().take_while(|number| **number < self.blocks) {
            let index = known.partition_point(|block| *block < number);
            let in_image = known.get(index) == Some(&number);
            match extents.last_mut() {
                Some(Extent::Image(range))
                    if in_image
                        && index - range.end <= GAP
                        && number - known[range.start] == (index - range.start) as u64 =>
                {
                    range.end = index + 1;
                }
                Some(Extent::Zeros(range))
                    if !in_image
                        && number - range.end <= GAP as u64
                        && known[..index].last().is_none_or(|block| *block < range.start) =>
                {
                    range.end = number + 1;
                }
                _ if in_image => extents.push(Extent::Image(index..index + 1)),
                _ => extents.push(Extent::Zeros(number..number + 1)),
            }
        }
        extents
    }

    fn put_back(&mut self, disk: &File, extents: &[Extent]) -> Result<()> {
        for extent in extents {
            match extent {
                Extent::Image(range) => {
                    let first = self.image.numbers[range.start];
                    disk.write_all_at(bytes(&self.image.blocks[range.clone()]), first * BLOCK_BYTES).with_context(
                        || format!("cannot write {} blocks from block {first} on to {}", range.len(), self.path),
                    )?;
                }
                Extent::Zeros(range) => self.clear(disk, range.start, range.end)?,
            }
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
            // SAFETY: the descriptor is a block device's, whose ioctl reads two words: where and
            // how many bytes.
            match unsafe { blkdiscard(disk.as_raw_fd(), &raw const range) } {
                Ok(_) => return Ok(()),
                Err(nix::Error::EOPNOTSUPP) => self.discards = false,
                Err(error) => return Err(error).with_context(|| format!("cannot discard blocks of {}", self.path)),
            }
        }
        let mut next = first;
        while next < end {
            let count = usize::try_from(end - next).unwrap_or(BATCH).min(BATCH);
            disk.write_all_at(bytes(&self.zeros[..count]), next * BLOCK_BYTES)
                .with_context(|| format!("cannot clear blocks of {}", self.path))?;
            next += count as u64;
        }
        Ok(())
    }
}

/// Opens the disk `path` as nobody can while a file system has it, mounted or not. Waits a while
/// for the kernel to let go of it.
pub(crate) fn open_exclusively(path: &str) -> Result<File, ResetError> {
    let deadline = Instant::now() + RELEASE_DEADLINE;
    loop {
        match OpenOptions::new().write(true).custom_flags(O_DIRECT | O_EXCL).open(path) {
            Ok(disk) => return Ok(disk),
            Err(error) if error.raw_os_error() == Some(EBUSY) && Instant::now() < deadline => {
                thread::sleep(Duration::from_millis(1));
            }
            Err(error) if error.raw_os_error() == Some(EBUSY) => return Err(ResetError::Held),
            Err(error) => return Err(ResetError::Other(anyhow::Error::new(error).context("cannot open the disk"))),
        }
    }
}

/// Opens the count of requests under way of the disk `path`. Mirrors `part_inflight_show()` of
/// `block/genhd.c` (6.12).
fn in_flight_of(path: &str) -> Result<File> {
    let count = format!("/sys/block/{}/inflight", name_of(path));
    File::open(&count).with_context(|| format!("cannot open {count}"))
}

/// Waits a while for the end of all requests. A write under way would undo what is put back: it was
/// recorded when it was made.
fn wait_until_quiet(in_flight: &File) -> Result<(), ResetError> {
    let deadline = Instant::now() + RELEASE_DEADLINE;
    loop {
        let mut text = [0; 64];
        let bytes = in_flight.read_at(&mut text, 0).context("cannot read the count of requests under way");
        let bytes = bytes.map_err(ResetError::Other)?;
        if text[..bytes].iter().all(|byte| matches!(byte, b'0' | b' ' | b'\n')) {
            return Ok(());
        }
        if Instant::now() >= deadline {
            return Err(ResetError::Held);
        }
        thread::sleep(Duration::from_millis(1));
    }
}

/// The kernel's name of the disk with the device file `path`.
pub(crate) fn name_of(path: &str) -> &str {
    path.trim_start_matches("/dev/")
}

/// The number of the device `path` as the kernel encodes it: `MKDEV()` of
/// `include/linux/kdev_t.h` (6.12).
pub(crate) fn number_of(path: &str) -> Result<u32> {
    let device = stat(path).with_context(|| format!("cannot tell the number of {path}"))?.st_rdev;
    u32::try_from(major(device) << 20 | minor(device)).with_context(|| format!("{path} has a number beyond 32 bits"))
}

fn blocks_of(device: &mut File, path: &str) -> Result<u64> {
    let bytes = device.seek(SeekFrom::End(0)).with_context(|| format!("cannot tell the size of {path}"))?;
    if bytes == 0 || bytes % BLOCK_BYTES != 0 {
        bail!("{path} has {bytes} bytes, which is no multiple of {BLOCK_BYTES}");
    }
    Ok(bytes / BLOCK_BYTES)
}

/// Reads the image of the first disk, which has so many `blocks`.
fn read_image(path: &str, blocks: u64) -> Result<Content> {
    let image = OpenOptions::new().read(true).custom_flags(O_DIRECT).open(IMAGE);
    let mut image = image.with_context(|| format!("cannot open the image {IMAGE}"))?;
    let image_blocks = blocks_of(&mut image, IMAGE)?;
    if image_blocks > blocks {
        let (has, needs) = (blocks * BLOCK_BYTES / 1024, image_blocks * BLOCK_BYTES / 1024);
        bail!("the image has {needs} KiB but {path} only {has} KiB");
    }
    Content::read(&image, IMAGE, image_blocks)
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

    pub(super) const BLOCKS: u64 = 64;

    /// A disk over the blocks `numbers`, each filled with its number; on a plain file discarding is
    /// not to be had.
    pub(super) fn disk(numbers: &[u64]) -> Disk {
        let contents = numbers.iter().map(|number| Block([u8::try_from(*number).unwrap(); 4096])).collect();
        let zeros = vec![ZERO.clone(); BATCH];
        let image = Content { numbers: numbers.to_vec(), blocks: contents };
        let in_flight = file_of("requests", b' ');
        Disk { path: "a file".to_owned(), blocks: BLOCKS, image, zeros, in_flight, discards: false }
    }

    pub(super) fn file_of(name: &str, byte: u8) -> File {
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
    fn a_disk_is_put_back_when_no_request_is_under_way() {
        let requests = file_of("inflight", b' ');
        for (text, quiet) in
            [("       0        0\n", true), ("       0        1\n", false), ("      10        0\n", false)]
        {
            requests.write_all_at(text.as_bytes(), 0).unwrap();
            assert_eq!(wait_until_quiet(&requests).is_ok(), quiet, "{text}");
        }
    }

    #[test]
    fn only_dirty_blocks_are_put_back() {
        let mut disk = disk(&[0, 1, 5, 6, 7, 63]);
        let file = file_of("dirty", 0xee);
        disk.put_back(&file, &disk.extents(&[4, 5, 6, 62, 63, 64, 65])).unwrap();
        let mut expected = vec![0xee; 64];
        expected[4..7].copy_from_slice(&[0, 5, 6]);
        expected[62..64].copy_from_slice(&[0, 63]);
        assert_eq!(first_bytes(&file), expected);
    }

    #[test]
    fn what_is_near_is_put_back_at_once() {
        use Extent::{Image, Zeros};
        let disk = disk(&[0, 1, 2, 3, 5, 6, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30]);
        for (dirty, expected) in [
            (vec![0, 3], vec![Image(0..4)]),
            // Block 4 is not in the image.
            (vec![3, 5], vec![Image(3..4), Image(4..5)]),
            (vec![3, 4, 5], vec![Image(3..4), Zeros(4..5), Image(4..5)]),
            (vec![7, 10, 19], vec![Zeros(7..20)]),
            // The image's blocks 5 and 6 are between.
            (vec![4, 7], vec![Zeros(4..5), Zeros(7..8)]),
            // Ten blocks are between.
            (vec![8, 19], vec![Zeros(8..9), Zeros(19..20)]),
            (vec![20, 30], vec![Image(6..7), Image(16..17)]),
            (vec![20, 29], vec![Image(6..16)]),
            (vec![63, 64], vec![Zeros(63..64)]),
        ] {
            assert_eq!(disk.extents(&dirty), expected, "{dirty:?}");
        }
    }

    #[test]
    fn the_matter_of_an_image_is_found_and_written() {
        let image = file_of("image", 0);
        for number in [3_u8, 20, 22] {
            image.write_all_at(&[number; 4096], u64::from(number) * BLOCK_BYTES).unwrap();
        }
        let content = Content::read(&image, "a file", BLOCKS).unwrap();
        assert_eq!(content.numbers, [3, 20, 21, 22]);
        let mut disk = Disk { image: content, ..disk(&[]) };
        let copy = file_of("copy", 0);
        disk.put_back(&copy, &disk.extents(&[3, 20, 21, 22])).unwrap();
        assert_eq!(first_bytes(&copy), first_bytes(&image));
    }
}
