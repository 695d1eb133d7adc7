//! Mount options as `mount -o` takes them, split into what the system call takes as flags and what
//! it hands on to the file system.

use nix::mount::MsFlags;

/// Options that are flags: the name, the flag, and whether the option sets it.
const FLAGS: &[(&str, MsFlags, bool)] = &[
    ("ro", MsFlags::MS_RDONLY, true),
    ("rw", MsFlags::MS_RDONLY, false),
    ("nosuid", MsFlags::MS_NOSUID, true),
    ("suid", MsFlags::MS_NOSUID, false),
    ("nodev", MsFlags::MS_NODEV, true),
    ("dev", MsFlags::MS_NODEV, false),
    ("noexec", MsFlags::MS_NOEXEC, true),
    ("exec", MsFlags::MS_NOEXEC, false),
    ("sync", MsFlags::MS_SYNCHRONOUS, true),
    ("async", MsFlags::MS_SYNCHRONOUS, false),
    ("dirsync", MsFlags::MS_DIRSYNC, true),
    ("noatime", MsFlags::MS_NOATIME, true),
    ("atime", MsFlags::MS_NOATIME, false),
    ("nodiratime", MsFlags::MS_NODIRATIME, true),
    ("diratime", MsFlags::MS_NODIRATIME, false),
    ("relatime", MsFlags::MS_RELATIME, true),
    ("norelatime", MsFlags::MS_RELATIME, false),
    ("strictatime", MsFlags::MS_STRICTATIME, true),
    ("lazytime", MsFlags::MS_LAZYTIME, true),
    ("nolazytime", MsFlags::MS_LAZYTIME, false),
    ("silent", MsFlags::MS_SILENT, true),
    ("remount", MsFlags::MS_REMOUNT, true),
];

/// Splits `options`; `defaults` and empty options mean nothing.
pub(crate) fn split(options: &str) -> (MsFlags, String) {
    let mut flags = MsFlags::empty();
    let mut rest = Vec::new();
    for option in options.split(',').filter(|option| !option.is_empty() && *option != "defaults") {
        match FLAGS.iter().find(|(name, ..)| *name == option) {
            Some((_, flag, set)) => flags.set(*flag, *set),
            None => rest.push(option),
        }
    }
    (flags, rest.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_told_from_the_file_systems_options() {
        assert_eq!(split(""), (MsFlags::empty(), String::new()));
        assert_eq!(
            split("defaults,ro,compress=zstd:3,noatime,,space_cache=v2"),
            (MsFlags::MS_RDONLY | MsFlags::MS_NOATIME, "compress=zstd:3,space_cache=v2".to_owned())
        );
        assert_eq!(split("ro,rw"), (MsFlags::empty(), String::new()), "the last one counts");
    }
}
