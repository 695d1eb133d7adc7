//! Memory and state that the steps of a workload share.

use std::{
    ffi::{CString, c_void},
    fs::File,
    io::Write,
    os::fd::{AsFd, AsRawFd, OwnedFd, RawFd},
    ptr::NonNull,
};

use anyhow::{Context, Result};
use guest_protocol::pattern::{PERIOD, phase_of};
use nix::sys::{
    memfd::{MFdFlags, memfd_create},
    mman::munmap,
};

use super::{CHUNK_BYTES, MOUNT_POINT};
use crate::{disk::Content, workload::fs::ioctl};

/// Memory as direct transfers want it.
#[repr(C, align(4096))]
struct Aligned([u8; CHUNK_BYTES]);

/// A mapping of a file that nobody uses any more.
pub(super) struct Mapped {
    pub(super) memory: NonNull<c_void>,
    pub(super) bytes: usize,
}

// SAFETY: nobody else knows of the mapping, which belongs to no thread.
unsafe impl Send for Mapped {}

/// Memory and state that the steps of a workload share.
pub(in crate::workload) struct Workspace {
    /// True when a disk is mounted.
    pub(in crate::workload) mounted: bool,
    /// What a step has read of the disks.
    pub(in crate::workload) copies: Option<Vec<Content>>,
    /// The root of the file system when it is frozen.
    pub(super) frozen: Option<OwnedFd>,
    /// Mapping that could not be taken away.
    pub(super) mapped: Option<Mapped>,
    /// True when it could not be thawed: what writes to it would wait for ever.
    pub(super) stuck: bool,
    /// Device files of the disks.
    pub(super) disks: Vec<String>,
    pub(super) root: CString,
    pub(super) buffer: Vec<u8>,
    pattern: Vec<u8>,
    /// The pattern as a file of memory.
    pattern_file: File,
    aligned: Box<Aligned>,
}

impl Workspace {
    /// The workspace of a target with these disks.
    pub(in crate::workload) fn new(disks: &[String]) -> Result<Self> {
        let pattern: Vec<u8> = (0..=u8::MAX).take(PERIOD).cycle().take(CHUNK_BYTES + PERIOD).collect();
        let file = memfd_create(c"pattern", MFdFlags::MFD_CLOEXEC);
        let mut pattern_file = File::from(file.context("cannot make a file of memory (CONFIG_TMPFS)")?);
        pattern_file.write_all(&pattern).context("cannot write to a file of memory")?;
        Ok(Self {
            mounted: false,
            copies: None,
            frozen: None,
            stuck: false,
            mapped: None,
            disks: disks.to_vec(),
            root: CString::new(MOUNT_POINT)?,
            buffer: vec![0; CHUNK_BYTES],
            pattern,
            pattern_file,
            aligned: Box::new(Aligned([0; CHUNK_BYTES])),
        })
    }

    /// The bytes that the pattern of this `shift` has at the offset `at`, at most [`CHUNK_BYTES`];
    /// in aligned memory for a direct write.
    pub(super) fn pattern_at(&mut self, at: i64, shift: usize, bytes: usize, direct: bool) -> &[u8] {
        let phase = phase_of(usize::try_from(at).unwrap_or_default(), shift);
        let data = &self.pattern[phase..phase + bytes];
        if !direct {
            return data;
        }
        let aligned = &mut self.aligned.0[..bytes];
        aligned.copy_from_slice(data);
        aligned
    }

    /// The pattern as an open file.
    pub(super) fn pattern_file(&self) -> RawFd {
        self.pattern_file.as_raw_fd()
    }

    /// Undoes what a step could not: thaws the file system, takes a mapping away.
    pub(in crate::workload) fn undo(&mut self) {
        if let Some(root) = self.frozen.take() {
            // One that stays frozen is found by those who look for mounts.
            let _ = ioctl::thaw(root.as_fd());
        }
        self.stuck = false;
        if let Some(Mapped { memory, bytes }) = self.mapped.take() {
            // SAFETY: a step made the mapping, could not take it away, and has forgotten it.
            let _ = unsafe { munmap(memory, bytes) };
        }
    }
}
