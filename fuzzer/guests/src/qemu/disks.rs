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
    /// Says why executions with them do not repeat exactly. QEMU tells of each request's end in its
    /// main thread, even if the disk took no time: `blk_aio_complete_bh()` of QEMU 7.2's
    /// `block/block-backend.c`. The guest's processor runs on meanwhile.
    #[must_use]
    pub(crate) fn inexact(&self) -> Option<&'static str> {
        let virtio = self.kind == DiskKind::Virtio && self.count > 0;
        virtio.then_some("a virtio disk interrupts the guest at moments that nobody controls")
    }

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

#[cfg(test)]
mod tests {
    use super::*;

    fn disks(kind: DiskKind, count: u8) -> Disks {
        Disks { image: Some("/images/a,b.raw".into()), kind, count, mib: 128 }
    }

    #[test]
    fn a_disk_is_memory_of_the_guest_or_a_file_of_its_own() {
        let (memory, virtio) = (disks(DiskKind::Memory, 3), disks(DiskKind::Virtio, 2));
        assert_eq!(memory.kernel_words(), "brd.rd_nr=3 brd.rd_size=131072");
        assert_eq!(disks(DiskKind::Memory, 0).kernel_words(), "brd.rd_nr=0");
        assert_eq!(virtio.kernel_words(), "brd.rd_nr=0");
        assert_eq!((memory.files(), virtio.files()), (vec![], vec![128 << 20; 2]));
        assert_eq!((memory.memory_mib(), virtio.memory_mib()), (384, 0));
        assert_eq!((memory.inexact(), disks(DiskKind::Virtio, 0).inexact()), (None, None));
    }

    #[test]
    fn the_image_comes_first_and_cannot_be_written() {
        let contents = ["/proc/self/fd/16", "/proc/self/fd/17"].map(str::to_owned);
        let arguments = disks(DiskKind::Virtio, 2).qemu_arguments(&contents);
        let arguments: Vec<_> = arguments.iter().map(|argument| argument.to_str().unwrap()).collect();
        let expected = [("/images/a,b.raw", true), ("/proc/self/fd/16", false), ("/proc/self/fd/17", false)];
        assert_eq!(arguments.len(), 4 * expected.len());
        for (words, (path, read_only)) in arguments.chunks(4).zip(expected) {
            let node: serde_json::Value = serde_json::from_str(words[1]).unwrap();
            assert_eq!((&node["file"]["filename"], &node["read-only"]), (&path.into(), &read_only.into()));
            let name = node["node-name"].as_str().unwrap();
            assert_eq!(words[3], format!("virtio-blk-pci,drive={name},ioeventfd=off"));
        }
    }
}
