//! File systems' own programs that check a disk, which run in the guest.

/// Folder in the guest's initial file system with the checkers, and the libraries that they need.
pub const CHECKER_FOLDER: &str = "checker";
/// Name in [`CHECKER_FOLDER`] of the dynamic linker, which starts them: nothing has to be where it
/// is on the host.
pub const CHECKER_LINKER: &str = "ld.so";

/// A program that reads a disk which is not mounted, changes nothing, and fails when it complains.
#[derive(Debug, PartialEq, Eq)]
pub struct Checker {
    /// The types of file systems that it checks, as mounts name them.
    pub file_systems: &'static [&'static str],
    /// Name of the program.
    pub command: &'static str,
    /// Its arguments, before the disk.
    pub arguments: &'static [&'static str],
    /// The exit status when it complains. Another one but 0 says that it could not check.
    pub complains: i32,
    /// Package of Debian that has it.
    pub package: &'static str,
}

/// All of them.
static CHECKERS: &[Checker] = &[
    Checker {
        file_systems: &["btrfs"],
        command: "btrfs",
        arguments: &["check", "--readonly"],
        complains: 1,
        package: "btrfs-progs",
    },
    // 4 of e2fsck(8): errors are left uncorrected.
    Checker {
        file_systems: &["ext2", "ext3", "ext4"],
        command: "e2fsck",
        arguments: &["-fn"],
        complains: 4,
        package: "e2fsprogs",
    },
    Checker { file_systems: &["xfs"], command: "xfs_repair", arguments: &["-n"], complains: 1, package: "xfsprogs" },
];

impl Checker {
    /// Finds the one of a type of file systems.
    #[must_use]
    pub fn of(file_system: &str) -> Option<&'static Self> {
        CHECKERS.iter().find(|checker| checker.file_systems.contains(&file_system))
    }

    /// Gives what people type: `btrfs check --readonly`.
    #[must_use]
    pub fn words(&self) -> String {
        [&[self.command], self.arguments].concat().join(" ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_system_has_its_checker() {
        assert_eq!(Checker::of("ext3").unwrap().words(), "e2fsck -fn");
        assert_eq!(Checker::of("btrfs").unwrap().words(), "btrfs check --readonly");
        assert_eq!(Checker::of("fuzz_selftest"), None);
    }
}
