//! The workload's steps. They are data: `target.toml` lists them, the agent has one small function for each.

use serde::{Deserialize, Serialize};

/// One step. Paths are relative to the mount point of the target's disk.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Step {
    /// Mounts the disk.
    Mount {
        /// File system type, such as `btrfs`.
        fstype: String,
        /// Mount options as for `mount -o`; may be empty.
        #[serde(default)]
        options: String,
    },
    /// Unmounts the disk.
    Umount {},
    /// Makes a directory.
    Mkdir {
        /// The directory.
        path: String,
    },
    /// Creates a file; it must not exist.
    Create {
        /// The file.
        path: String,
    },
    /// Writes a repeating pattern to an existing file.
    Write {
        /// The file.
        path: String,
        /// Where, in bytes.
        #[serde(default)]
        offset: u64,
        /// How much, in bytes.
        length: u32,
    },
    /// Reads a file to its end; the result is the number of bytes.
    Read {
        /// The file.
        path: String,
    },
    /// Flushes one file to the disk.
    Fsync {
        /// The file or directory.
        path: String,
    },
    /// Sets a file's length.
    Truncate {
        /// The file.
        path: String,
        /// The new length, in bytes.
        length: u64,
    },
    /// Renames.
    Rename {
        /// The old name.
        from: String,
        /// The new name.
        to: String,
    },
    /// Makes a hard link.
    Link {
        /// The existing file.
        from: String,
        /// The new name.
        to: String,
    },
    /// Removes a name.
    Unlink {
        /// The file.
        path: String,
    },
    /// Sets an extended attribute.
    SetXattr {
        /// The file.
        path: String,
        /// Name with its name space, such as `user.note`.
        name: String,
        /// The value.
        value: String,
    },
    /// Makes a btrfs subvolume.
    SubvolumeCreate {
        /// The subvolume.
        path: String,
    },
    /// Makes a btrfs snapshot.
    SubvolumeSnapshot {
        /// The subvolume to take it of.
        from: String,
        /// The snapshot.
        to: String,
    },
    /// Deletes a btrfs subvolume or snapshot.
    SubvolumeDelete {
        /// The subvolume.
        path: String,
    },
    /// Flushes the whole file system (`syncfs`).
    Sync {},
    /// Pulls a trigger of the self-test module: writes to its file of that name in debugfs.
    Trigger {
        /// File under `/sys/kernel/debug/fuzz_selftest/`.
        name: String,
    },
}

impl Step {
    /// The word for the step in files and reports.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Mount { .. } => "mount",
            Self::Umount {} => "umount",
            Self::Mkdir { .. } => "mkdir",
            Self::Create { .. } => "create",
            Self::Write { .. } => "write",
            Self::Read { .. } => "read",
            Self::Fsync { .. } => "fsync",
            Self::Truncate { .. } => "truncate",
            Self::Rename { .. } => "rename",
            Self::Link { .. } => "link",
            Self::Unlink { .. } => "unlink",
            Self::SetXattr { .. } => "set-xattr",
            Self::SubvolumeCreate { .. } => "subvolume-create",
            Self::SubvolumeSnapshot { .. } => "subvolume-snapshot",
            Self::SubvolumeDelete { .. } => "subvolume-delete",
            Self::Sync {} => "sync",
            Self::Trigger { .. } => "trigger",
        }
    }

    /// The paths that the step names.
    #[must_use]
    pub fn paths(&self) -> Vec<&str> {
        match self {
            Self::Mount { .. } | Self::Umount {} | Self::Sync {} => Vec::new(),
            Self::Mkdir { path }
            | Self::Create { path }
            | Self::Write { path, .. }
            | Self::Read { path }
            | Self::Fsync { path }
            | Self::Truncate { path, .. }
            | Self::Unlink { path }
            | Self::SetXattr { path, .. }
            | Self::SubvolumeCreate { path }
            | Self::SubvolumeDelete { path } => vec![path],
            Self::Rename { from, to } | Self::Link { from, to } | Self::SubvolumeSnapshot { from, to } => {
                vec![from, to]
            }
            Self::Trigger { name } => vec![name],
        }
    }

    /// Why the step cannot be, if so.
    #[must_use]
    pub fn defect(&self) -> Option<String> {
        self.paths().into_iter().find_map(|path| {
            let inside =
                !path.is_empty() && path.split('/').all(|part| !part.is_empty() && part != "." && part != "..");
            (!inside).then(|| format!("\"{path}\" is not a plain path below the mount point"))
        })
    }
}

/// How a step ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StepResult {
    /// It worked; the value is the system call's, 0 where there is none.
    Done(i64),
    /// It failed with this positive error number; 0 stands for one that is known to the kernel alone.
    Failed(i32),
    /// It needs the disk mounted, and it was not.
    Skipped,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_stays_below_the_mount_point() {
        let mkdir = |path: &str| Step::Mkdir { path: path.to_owned() }.defect();
        assert_eq!(mkdir("a/b"), None);
        for bad in ["", "/etc", "../x", "a/../../x", "a//b", "."] {
            assert!(mkdir(bad).is_some(), "{bad}");
        }
    }
}
