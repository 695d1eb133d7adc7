//! The workload's steps. They are data: `target.toml` lists them, and the agent has a file for each
//! kind.

use fault_plan::Errno;
use serde::{Deserialize, Serialize};
use strum::IntoStaticStr;

use crate::RelativePath;

/// One step. Paths are relative to the mount point of the target's disk.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, IntoStaticStr)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
#[strum(serialize_all = "kebab-case")]
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
}

/// The longest that a step sleeps, in milliseconds: far below the time that an execution may take.
pub const MAX_SLEEP_MS: u32 = 5000;

impl Step {
    /// The word for the step in files and reports.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        self.into()
    }

    /// Says what cannot be in it.
    #[must_use]
    pub fn defect(&self) -> Option<String> {
        match self {
            Self::Sleep { ms } => {
                (*ms > MAX_SLEEP_MS).then(|| format!("ms is {ms}, at most {MAX_SLEEP_MS} are possible"))
            }
            _ => None,
        }
    }
}

/// Outcome of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StepResult {
    /// It worked; the value is the system call's, 0 where there is none.
    Done(i64),
    /// It failed with this positive error number; 0 stands for one that is known to the kernel
    /// alone.
    Failed(i32),
    /// It needs the disk mounted, and it was not.
    Skipped,
}

impl StepResult {
    /// The result in words, such as `failed with ENOSPC (28)`.
    #[must_use]
    pub fn text(self) -> String {
        match self {
            Self::Done(0) => "ok".to_owned(),
            Self::Done(value) => format!("ok, {value}"),
            Self::Failed(number) => {
                let name = Errno::from_number(i64::from(number)).map_or("an unknown error", Errno::name);
                format!("failed with {name} ({number})")
            }
            Self::Skipped => "skipped: the disk is not mounted".to_owned(),
        }
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
            Step::SetXattr { path: path(), name: "user.a".to_owned(), value: String::new() },
            Step::SubvolumeSnapshot { from: path(), to: path() },
        ] {
            let written = toml::Value::try_from(&step).unwrap();
            let keys: Vec<_> = written.as_table().unwrap().keys().collect();
            assert_eq!(keys, [step.kind()]);
            assert_eq!(written.try_into::<Step>().unwrap(), step);
        }
    }
}
