//! Pages of files that are mostly zeros: guests' memory.

use std::{fs::File, io, os::unix::fs::FileExt};

use nix::{
    errno::Errno,
    unistd::{Whence, lseek},
};

/// Size of a page in bytes.
pub(super) const PAGE: usize = 4096;
/// A page of zeros.
pub(super) static ZERO: [u8; PAGE] = [0; PAGE];

/// Copies what is not zero to the empty file `to`. Returns its size in bytes and its checksum.
pub(super) fn copy(from: &File, to: &File) -> io::Result<(u64, u32)> {
    let bytes = from.metadata()?.len();
    to.set_len(bytes)?;
    let sum = each_page(from, |offset, page| to.write_all_at(page, offset))?;
    Ok((bytes, sum))
}

/// Gives the checksum of a file.
pub(super) fn checksum(file: &File) -> io::Result<u32> {
    each_page(file, |_, _| Ok(()))
}

/// Calls `with` for each page that is not all zero, and returns the CRC-32 of those pages and their
/// offsets. Whether zeros are holes makes no difference.
fn each_page(file: &File, mut with: impl FnMut(u64, &[u8]) -> io::Result<()>) -> io::Result<u32> {
    let mut sum = crc32fast::Hasher::new();
    let mut buffer = vec![0; 256 * PAGE];
    let mut offset = 0;
    while let Some(data) = next_data(file, offset)? {
        offset = data - data % PAGE as u64;
        let length = read_at_most(file, &mut buffer, offset)?;
        for page in buffer[..length].chunks(PAGE) {
            if *page != ZERO[..page.len()] {
                sum.update(&offset.to_le_bytes());
                sum.update(page);
                with(offset, page)?;
            }
            offset += page.len() as u64;
        }
        if length == 0 {
            break;
        }
    }
    Ok(sum.finalize())
}

/// Finds the offset at which data begins, at or after `offset`, if there is any.
fn next_data(file: &File, offset: u64) -> io::Result<Option<u64>> {
    let from = i64::try_from(offset).map_err(io::Error::other)?;
    match lseek(file, from, Whence::SeekData) {
        Ok(at) => Ok(Some(u64::try_from(at).map_err(io::Error::other)?)),
        Err(Errno::ENXIO) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}

/// Fills `buffer` as far as the file goes; returns how far.
fn read_at_most(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut length = 0;
    while length < buffer.len() {
        match file.read_at(&mut buffer[length..], offset + length as u64) {
            Ok(0) => break,
            Ok(more) => length += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(length)
}
