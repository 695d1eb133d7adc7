//! The disks of a guest: the image that its agent reads, and those that a target mounts.
//!
//! Disks in the guest's memory are in every clone as the template had them. The content of a virtio
//! disk is a file, of which each guest gets a copy of its own.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
};

use execution::DiskKind;
use serde_json::json;

/// The disks of a guest.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Disks {
    /// A raw image that the guest sees, read-only, as `/dev/vda`.
    pub image: Option<PathBuf>,
    /// Kind of those that a target mounts.
    pub kind: DiskKind,
    /// Number of them.
    pub count: u8,
    /// Size of each of them in MiB.
    pub mib: u32,
}

/// Has a device do what the guest asks for in the thread of the guest's processor. Else QEMU's main
/// thread does it, at a moment that nobody controls, and asks each queue of a clone once when that
/// has begun to run: to the guest an interrupt for nothing, or two
/// (`virtio_device_start_ioeventfd_impl()` in QEMU 7.2's `hw/virtio/virtio.c`).
pub(super) const NOTIFIED_AT_ONCE: &str = "ioeventfd=off";

impl Disks {
    /// Memory in MiB that they may take of the guest's.
    pub(super) fn memory_mib(&self) -> u32 {
        if self.kind == DiskKind::Memory { u32::from(self.count) * self.mib } else { 0 }
    }

    /// Size in bytes of each file that holds a disk's content, of which there is one a virtio disk.
    pub(crate) fn files(&self) -> Vec<u64> {
        let count = if self.kind == DiskKind::Virtio { self.count } else { 0 };
        vec![u64::from(self.mib) << 20; count.into()]
    }

    /// The words of the kernel's command line by which it makes those in its memory.
    pub(super) fn kernel_words(&self) -> String {
        match (self.kind, self.count) {
            (DiskKind::Virtio, _) | (_, 0) => "brd.rd_nr=0".to_owned(),
            (DiskKind::Memory, count) => format!("brd.rd_nr={count} brd.rd_size={}", u64::from(self.mib) << 10),
        }
    }

    /// QEMU's arguments for the image, and for the disks whose content is in the files `contents`.
    pub(super) fn qemu_arguments(&self, contents: &[String]) -> Vec<OsString> {
        let image = self.image.iter().map(|path| ("disk".to_owned(), path.as_path(), true));
        let disks = (0..).zip(contents).map(|(number, path)| (format!("disk{number}"), Path::new(path), false));
        let arguments = |(name, path, read_only): (String, &Path, bool)| {
            let device = format!("virtio-blk-pci,drive={name},{NOTIFIED_AT_ONCE}");
            let node = disk_node(&name, path, read_only);
            ["-blockdev".into(), node.into(), "-device".into(), device.into()]
        };
        image.chain(disks).flat_map(arguments).collect()
    }
}

/// Describes the disk `name` in the file `path`. It is JSON, so that any character may stand in the
/// path but what is no UTF-8. Blocks that the guest discards become holes of the file.
pub(crate) fn disk_node(name: &str, path: &Path, read_only: bool) -> String {
    let file = json!({
        "driver": "file", "filename": path.to_string_lossy(), "read-only": read_only, "locking": "off",
        "discard": "unmap",
    });
    json!({ "driver": "raw", "node-name": name, "read-only": read_only, "discard": "unmap", "file": file }).to_string()
}
