//! The workload's steps. They are data: `target.toml` lists them, and the agent has a file for each
//! kind.

use serde::{Deserialize, Serialize};
use strum::{IntoStaticStr, VariantNames};

use crate::{BlockGroups, Fallocate, Ioctl, Profile, RelativePath, Shutdown, SystemPath};

/// One step. Paths are relative to the mount point of the target's disks.
///
/// Fields that steps of older files lack are `false` or none, and are then left out of files: see
/// [`WorkloadStep`](crate::WorkloadStep).
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, IntoStaticStr, VariantNames)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
#[strum(serialize_all = "kebab-case")]
pub enum Step {
    /// Mounts a disk.
    Mount {
        /// File system type, such as `btrfs`.
        fstype: String,
        /// Mount options as for `mount -o`; may be empty.
        #[serde(default)]
        options: String,
        /// Number of the disk, from 0, which it is without.
        #[serde(default)]
        disk: Option<u8>,
    },
    /// Unmounts the disk.
    Umount {},
    /// Makes a directory.
    Mkdir {
        /// The directory.
        path: RelativePath,
    },
    /// Creates a file; it must not exist.
    Create {
        /// The file.
        path: RelativePath,
    },
    /// Writes a repeating pattern to an existing file.
    Write {
        /// The file.
        path: RelativePath,
        /// Offset of the first byte.
        #[serde(default)]
        offset: u64,
        /// Number of bytes.
        length: u32,
        /// True to write past the page cache (`O_DIRECT`). Offset and length are then multiples of
        /// [`SECTOR_BYTES`](crate::SECTOR_BYTES).
        #[serde(default)]
        direct: bool,
        /// True to wait for the disk (`O_SYNC`).
        #[serde(default)]
        sync: bool,
    },
    /// Reads a file to its end; the result is the number of bytes.
    Read {
        /// The file.
        path: RelativePath,
    },
    /// Flushes one file to the disk.
    Fsync {
        /// The file or directory.
        path: RelativePath,
    },
    /// Sets a file's length.
    Truncate {
        /// The file.
        path: RelativePath,
        /// The new length, in bytes.
        length: u64,
    },
    /// Renames.
    Rename {
        /// The old name.
        from: RelativePath,
        /// The new name.
        to: RelativePath,
    },
    /// Makes a hard link.
    Link {
        /// The existing file.
        from: RelativePath,
        /// The new name.
        to: RelativePath,
    },
    /// Removes a name.
    Unlink {
        /// The file.
        path: RelativePath,
    },
    /// Sets an extended attribute.
    SetXattr {
        /// The file.
        path: RelativePath,
        /// Name with its name space, such as `user.note`.
        name: String,
        /// The value.
        value: String,
    },
    /// Makes a btrfs subvolume.
    SubvolumeCreate {
        /// The subvolume.
        path: RelativePath,
    },
    /// Makes a btrfs snapshot.
    SubvolumeSnapshot {
        /// The subvolume to take it of.
        from: RelativePath,
        /// The snapshot.
        to: RelativePath,
        /// True for one that nothing changes.
        #[serde(default)]
        read_only: bool,
    },
    /// Deletes a btrfs subvolume or snapshot.
    SubvolumeDelete {
        /// The subvolume.
        path: RelativePath,
    },
    /// Flushes the whole file system (`syncfs`).
    Sync {},
    /// Pulls a trigger of the self-test module: writes to its file of that name in debugfs.
    Trigger {
        /// File under `/sys/kernel/debug/fuzz_selftest/`.
        name: RelativePath,
    },
    /// Waits, which gives the kernel's threads time to work. Needs no disk.
    Sleep {
        /// Milliseconds, at most [`MAX_SLEEP_MS`].
        ms: u32,
    },
    /// Writes the pattern through a shared mapping of an existing file, which must be long enough.
    MmapWrite {
        /// The file.
        path: RelativePath,
        /// Offset of the first byte.
        #[serde(default)]
        offset: u64,
        /// Number of bytes.
        length: u32,
    },
    /// Changes the blocks behind a part of a file.
    Fallocate {
        /// The file.
        path: RelativePath,
        /// The change.
        #[serde(default)]
        mode: Fallocate,
        /// Offset of the first byte.
        #[serde(default)]
        offset: u64,
        /// Number of bytes.
        length: u64,
    },
    /// Makes a part of an existing file share the blocks of another's (`FICLONERANGE`).
    Reflink {
        /// The file that has the blocks.
        from: RelativePath,
        /// The file that shares them.
        to: RelativePath,
        /// Offset in `from`.
        #[serde(default)]
        from_offset: u64,
        /// Offset in `to`.
        #[serde(default)]
        to_offset: u64,
        /// Number of bytes; 0 for all up to the end.
        #[serde(default)]
        length: u64,
    },
    /// Sets the permissions of a file.
    Chmod {
        /// The file.
        path: RelativePath,
        /// Permissions, such as `0o644`.
        mode: u32,
    },
    /// Gives a file to another user.
    Chown {
        /// The file; not what a symbolic link leads to.
        path: RelativePath,
        /// The user.
        uid: u32,
        /// The group.
        gid: u32,
    },
    /// Makes a symbolic link.
    Symlink {
        /// Text of the link.
        target: String,
        /// The link.
        path: RelativePath,
    },
    /// Lists a directory; the result is the number of names.
    Readdir {
        /// The directory; the mount point without.
        #[serde(default)]
        path: Option<RelativePath>,
    },
    /// Changes the mount's options.
    Remount {
        /// Mount options as for `mount -o remount,…`.
        options: String,
    },
    /// Lets nothing write to the file system any more (`FIFREEZE`).
    Freeze {},
    /// Ends a [`Step::Freeze`] (`FITHAW`).
    Thaw {},
    /// Drops the blocks that are free (`FITRIM`).
    Fstrim {},
    /// Stops the file system, as if the machine had lost its power (ext4 and xfs).
    Shutdown {
        /// Data that is written first.
        #[serde(default)]
        how: Shutdown,
    },
    /// Makes a request of a file; the result is what it returns.
    Ioctl(Ioctl),
    /// Takes what the disks hold now for their image. Only among the steps that make an image.
    CrashCopy {},
    /// Writes to a file of the kernel's. Needs no disk.
    WriteFile {
        /// The file.
        path: SystemPath,
        /// Text that is written, at once.
        text: String,
    },
    /// Reads a file of the kernel's to its end; the result is the number of bytes. Needs no disk.
    ReadFile {
        /// The file.
        path: SystemPath,
    },
    /// Starts a process and waits for its end. Needs no disk.
    Fork {
        /// True when it executes a program, which starts and ends a process of its own; else it
        /// ends at once.
        #[serde(default)]
        exec: bool,
    },
    /// Moves block groups of btrfs to other places.
    Balance {
        /// Kinds of block groups; all without.
        #[serde(default)]
        groups: Vec<BlockGroups>,
        /// The profile that they have afterwards.
        #[serde(default)]
        convert: Option<Profile>,
        /// Only block groups that are used to less than so much, in per cent.
        #[serde(default)]
        usage: Option<u8>,
    },
    /// Reads a device of a btrfs, checks all of it and repairs what is damaged.
    Scrub {
        /// Number of the device in the file system, from 1, which it is without.
        #[serde(default)]
        device: Option<u64>,
        /// True to repair nothing.
        #[serde(default)]
        read_only: bool,
    },
    /// Puts the parts of a file of btrfs together, and on the disk.
    Defragment {
        /// The file or directory.
        path: RelativePath,
    },
    /// Changes the size of a device of a btrfs.
    Resize {
        /// Number of the device in the file system, from 1, which it is without.
        #[serde(default)]
        device: Option<u64>,
        /// Size as `btrfs filesystem resize` takes it: `max`, `100m`, `-16m`, `+8m`.
        size: String,
    },
    /// Adds a disk to a btrfs.
    DeviceAdd {
        /// Number of the disk, from 0.
        disk: u8,
    },
    /// Removes a disk from a btrfs.
    DeviceRemove {
        /// Number of the disk, from 0; without, the device that is missing.
        #[serde(default)]
        disk: Option<u8>,
    },
    /// Puts a disk in the place of a device of a btrfs, which may be missing.
    DeviceReplace {
        /// Number of the device in the file system, from 1.
        device: u64,
        /// Number of the new disk, from 0.
        disk: u8,
    },
    /// Makes btrfs forget a disk that is not mounted. Needs no disk mounted.
    DeviceForget {
        /// Number of the disk, from 0.
        disk: u8,
    },
    /// Begins to count what the subvolumes of a btrfs use.
    QuotaEnable {
        /// True to count only what is written from now on (`--simple`).
        #[serde(default)]
        simple: bool,
    },
    /// Ends a [`Step::QuotaEnable`].
    QuotaDisable {},
    /// Counts again what the subvolumes of a btrfs use, and waits for that.
    QuotaRescan {},
    /// Limits what a subvolume of a btrfs with quotas uses.
    QuotaLimit {
        /// The subvolume.
        path: RelativePath,
        /// The most bytes.
        bytes: u64,
    },
    /// Writes a read-only snapshot of a btrfs as a stream, which nobody keeps.
    Send {
        /// The snapshot.
        path: RelativePath,
        /// Earlier snapshot of the same subvolume. The stream has what differs from that.
        #[serde(default)]
        parent: Option<RelativePath>,
    },
}

impl Step {
    /// The word for the step in files and reports.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        self.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_steps_kind_is_the_word_that_files_have_for_it() {
        let path = || "a".parse::<RelativePath>().unwrap();
        for step in [
            Step::Umount {},
            Step::Fallocate { path: path(), mode: Fallocate::PunchHole, offset: 1, length: 2 },
            Step::SetXattr { path: path(), name: "user.a".to_owned(), value: String::new() },
            Step::SubvolumeSnapshot { from: path(), to: path(), read_only: false },
        ] {
            let written = toml::Value::try_from(&step).unwrap();
            let keys: Vec<_> = written.as_table().unwrap().keys().collect();
            assert_eq!(keys, [step.kind()]);
            assert_eq!(written.try_into::<Step>().unwrap(), step);
        }
    }
}
