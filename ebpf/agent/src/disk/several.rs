//! All disks of a target.

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;

use anyhow::{Context, Result};
use nix::libc::O_DIRECT;

use super::{Content, Dirty, Disk, ResetError, blocks_of};

/// The disks under test; none for a target without.
pub(crate) struct Disks(Vec<Disk>);

impl Disks {
    /// Opens the disks with these device files, and reads their images. They are written by the
    /// first [`Disks::reset`].
    pub(crate) fn open(paths: &[String]) -> Result<Self> {
        paths.iter().zip(0..).map(|(path, number)| Disk::open(path, number)).collect::<Result<Vec<_>>>().map(Self)
    }

    /// Says whether there is none.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Puts the images back where `dirty` says for each disk, from 0. It is asked when nobody else
    /// holds the disk any more. None must be mounted.
    ///
    /// # Errors
    ///
    /// The disk that was not put back, and the reason.
    pub(crate) fn reset(&mut self, dirty: impl Fn(usize) -> Dirty) -> Result<(), String> {
        for (number, disk) in self.0.iter_mut().enumerate() {
            let outcome = disk.reset(|| dirty(number));
            let path = &disk.path;
            outcome.map_err(|error| match error {
                ResetError::Held => format!("something in the kernel holds {path}, and nothing is mounted"),
                ResetError::Other(error) => format!("{path} cannot be put back: {error:#}"),
            })?;
        }
        Ok(())
    }

    /// Compares every block with the images', or every block of one of
    /// [`DISK_PARTS`](guest_protocol::DISK_PARTS) parts of each disk. Says which is the first that
    /// differs, if any. Nobody must write meanwhile.
    pub(crate) fn difference(&self, part: Option<u32>) -> Result<Option<String>> {
        for disk in &self.0 {
            if let Some(difference) = disk.difference(part)? {
                return Ok(Some(difference));
            }
        }
        Ok(None)
    }

    /// Takes `contents` for the images.
    pub(crate) fn take_images(&mut self, contents: Vec<Content>) {
        for (disk, content) in self.0.iter_mut().zip(contents) {
            disk.image = content;
        }
    }
}

/// Reads what the disks with these device files hold now, mounted or not.
pub(crate) fn read_all(paths: &[String]) -> Result<Vec<Content>> {
    let read = |path: &String| {
        let device = OpenOptions::new().read(true).custom_flags(O_DIRECT).open(path);
        let mut device = device.with_context(|| format!("cannot open {path}"))?;
        let blocks = blocks_of(&mut device, path)?;
        Content::read(&device, path, blocks)
    };
    paths.iter().map(read).collect()
}
