//! Steps as calls of the C functions in `c/steps.c`.
//!
//! They make the system calls that the agent makes: `linkat()` is on call paths where `link()` is
//! not.

use guest_protocol::{BlockGroups, Fallocate, Ioctl, Profile, RelativePath, Shutdown, Step, pattern::shift_of};

/// Bytes of the programs' buffer, which is what one call writes. A direct write of more is one
/// call, as the agent's is.
const BUFFER_BYTES: u32 = 65536;

/// Options of `mount -o` that are flags of the system call: name, flag, and whether it is set.
const FLAGS: &[(&str, &str, bool)] = &[
    ("ro", "MS_RDONLY", true),
    ("rw", "MS_RDONLY", false),
    ("nosuid", "MS_NOSUID", true),
    ("suid", "MS_NOSUID", false),
    ("nodev", "MS_NODEV", true),
    ("dev", "MS_NODEV", false),
    ("noexec", "MS_NOEXEC", true),
    ("exec", "MS_NOEXEC", false),
    ("sync", "MS_SYNCHRONOUS", true),
    ("async", "MS_SYNCHRONOUS", false),
    ("dirsync", "MS_DIRSYNC", true),
    ("noatime", "MS_NOATIME", true),
    ("atime", "MS_NOATIME", false),
    ("nodiratime", "MS_NODIRATIME", true),
    ("diratime", "MS_NODIRATIME", false),
    ("relatime", "MS_RELATIME", true),
    ("norelatime", "MS_RELATIME", false),
    ("strictatime", "MS_STRICTATIME", true),
    ("lazytime", "MS_LAZYTIME", true),
    ("nolazytime", "MS_LAZYTIME", false),
    ("silent", "MS_SILENT", true),
    ("remount", "MS_REMOUNT", true),
];

/// A step in C.
pub(super) struct InC {
    /// The parts of `c/steps.c` that it needs.
    pub(super) parts: &'static str,
    /// The call.
    pub(super) call: String,
}

/// Says whether the step is left out while no disk is mounted.
pub(super) fn needs_mount(step: &Step) -> bool {
    !matches!(
        step,
        Step::Mount { .. }
            | Step::Trigger { .. }
            | Step::Sleep { .. }
            | Step::WriteFile { .. }
            | Step::ReadFile { .. }
            | Step::Fork { .. }
            | Step::DeviceForget { .. }
            | Step::CrashCopy {}
    )
}

/// Gives a step in C, the `number`-th of its sequence, from 1; nothing where there is none.
#[allow(clippy::too_many_lines, reason = "a table, with a line for each step")]
pub(super) fn in_c(step: &Step, number: u32) -> Option<InC> {
    let c = |parts, call: String| Some(InC { parts, call });
    let shift = shift_of(number);
    match step {
        Step::Mount { fstype, options, disk } => {
            let (flags, rest) = split(options);
            c("mount", format!("mount_disk(disk[{}], {}, {flags}, {})", disk.unwrap_or(0), text(fstype), text(&rest)))
        }
        Step::Umount {} => c("umount", "unmount()".to_owned()),
        Step::Remount { options } => {
            let (flags, rest) = split(options);
            c("remount", format!("remount({flags}, {})", text(&rest)))
        }
        Step::Mkdir { path } => c("", format!("done(mkdir({}, 0755))", below(path))),
        Step::Create { path } => c("create", format!("create({})", below(path))),
        Step::Write { path, offset, length, direct, sync } => {
            let flags = flags(&[("O_DIRECT", *direct), ("O_SYNC", *sync)]);
            let long = *direct && *length > BUFFER_BYTES;
            let (part, function) = if long { ("write-long", "write_long") } else { ("write", "write_file") };
            c(part, format!("{function}({}, {offset}, {length}, {flags}, {shift})", below(path)))
        }
        Step::MmapWrite { path, offset, length } => {
            c("mmap-write", format!("mmap_write({}, {offset}, {length}, {shift})", below(path)))
        }
        Step::Read { path } => c("read", format!("read_file({})", below(path))),
        Step::Fsync { path } => c("fsync", format!("flush_file({})", below(path))),
        Step::Truncate { path, length } => c("", format!("done(truncate({}, {length}))", below(path))),
        Step::Rename { from, to } => {
            c("", format!("done(renameat(AT_FDCWD, {}, AT_FDCWD, {}))", below(from), below(to)))
        }
        Step::Link { from, to } => {
            c("", format!("done(linkat(AT_FDCWD, {}, AT_FDCWD, {}, 0))", below(from), below(to)))
        }
        Step::Unlink { path } => c("", format!("done(unlink({}))", below(path))),
        Step::Symlink { target, path } => {
            c("", format!("done(symlinkat({}, AT_FDCWD, {}))", text(target), below(path)))
        }
        Step::SetXattr { path, name, value } => {
            c("", format!("done(lsetxattr({}, {}, {}, {}, 0))", below(path), text(name), text(value), value.len()))
        }
        Step::Chmod { path, mode } => c("", format!("done(fchmodat(AT_FDCWD, {}, 0{mode:o}, 0))", below(path))),
        Step::Chown { path, uid, gid } => {
            c("", format!("done(fchownat(AT_FDCWD, {}, {uid}, {gid}, AT_SYMLINK_NOFOLLOW))", below(path)))
        }
        Step::Readdir { path } => {
            c("readdir", format!("list({})", folder(path.as_ref().map_or("", RelativePath::as_str))))
        }
        Step::Sync {} => c("sync", "flush_all()".to_owned()),
        Step::Sleep { ms } => c("sleep", format!("pause_for({ms})")),
        Step::Fallocate { path, mode, offset, length } => {
            c("fallocate", format!("allocate({}, {}, {offset}, {length})", below(path), allocation(*mode)))
        }
        Step::Reflink { from, to, from_offset, to_offset, length } => {
            let (from, to) = (below(from), below(to));
            c("reflink", format!("reflink({from}, {to}, {from_offset}, {to_offset}, {length})"))
        }
        Step::Freeze {} => c("freeze", "freeze()".to_owned()),
        Step::Thaw {} => c("thaw", "thaw()".to_owned()),
        Step::Fstrim {} => c("fstrim", "trim()".to_owned()),
        Step::Shutdown { how } => c("shutdown", format!("stop({})", stop(*how))),
        Step::SubvolumeCreate { path } => c("volume", named(path, 14)),
        Step::SubvolumeDelete { path } => c("volume", named(path, 15)),
        Step::SubvolumeSnapshot { from, to, read_only } => {
            let (parent, name) = to.parent_and_name();
            let flag = u8::from(*read_only);
            c("snapshot", format!("snapshot({}, {}, {}, {flag})", below(from), folder(parent), text(name)))
        }
        Step::Trigger { name } => {
            let path = format!("/sys/kernel/debug/fuzz_selftest/{name}");
            c("write-file", format!("write_text({}, \"1\")", text(&path)))
        }
        Step::WriteFile { path, text: written } => {
            c("write-file", format!("write_text({}, {})", text(path.as_str()), text(written)))
        }
        Step::ReadFile { path } => c("read", format!("read_file({})", text(path.as_str()))),
        Step::Fork { exec } => c("fork", format!("start_process({})", u8::from(*exec))),
        Step::Balance { groups, convert, usage } => c("balance", balance(groups, *convert, *usage)),
        Step::Scrub { device, read_only } => {
            c("scrub", format!("scrub({}, {})", device.unwrap_or(1), u8::from(*read_only)))
        }
        Step::Defragment { path } => c("defragment", format!("defragment({})", below(path))),
        Step::Resize { device, size } => {
            c("volume", format!("name_in(ROOT, {}, 3)", text(&format!("{}:{size}", device.unwrap_or(1)))))
        }
        Step::DeviceAdd { disk } => c("volume", format!("name_in(ROOT, disk[{disk}], 10)")),
        Step::DeviceRemove { disk } => {
            let device = disk.map_or_else(|| text("missing"), |disk| format!("disk[{disk}]"));
            c("volume", format!("name_in(ROOT, {device}, 11)"))
        }
        Step::DeviceReplace { device, disk } => c("replace", format!("replace({device}, disk[{disk}])")),
        Step::DeviceForget { disk } => c("forget", format!("forget(disk[{disk}])")),
        Step::QuotaEnable { simple } => c("quota", format!("quota({})", if *simple { 4 } else { 1 })),
        Step::QuotaDisable {} => c("quota", "quota(2)".to_owned()),
        Step::QuotaRescan {} => c("rescan", "rescan()".to_owned()),
        Step::QuotaLimit { path, bytes } => c("limit", format!("limit({}, {bytes}u)", below(path))),
        Step::Send { path, parent } => {
            let parent = parent.as_ref().map_or_else(|| "NULL".to_owned(), below);
            c("send", format!("send_stream({}, {parent})", below(path)))
        }
        Step::Ioctl(request) => c("ioctl", ioctl(request)),
        Step::CrashCopy {} => None,
    }
}

/// Gives a text as a C string.
pub(super) fn text(text: &str) -> String {
    bytes(text.as_bytes())
}

fn bytes(bytes: &[u8]) -> String {
    let mut c = String::from("\"");
    for &byte in bytes {
        match byte {
            b'"' | b'\\' | b'?' => c.extend(['\\', char::from(byte)]),
            b' '..=b'~' => c.push(char::from(byte)),
            _ => c.push_str(&format!("\\{byte:03o}")),
        }
    }
    c.push('"');
    c
}

fn below(path: &RelativePath) -> String {
    format!("ROOT {}", text(&format!("/{path}")))
}

/// A folder below the mount point, empty for that itself.
fn folder(path: &str) -> String {
    if path.is_empty() { "ROOT".to_owned() } else { format!("ROOT {}", text(&format!("/{path}"))) }
}

fn named(path: &RelativePath, number: u32) -> String {
    let (parent, name) = path.parent_and_name();
    format!("name_in({}, {}, {number})", folder(parent), text(name))
}

fn flags(flags: &[(&'static str, bool)]) -> String {
    let set: Vec<_> = flags.iter().filter(|(_, set)| *set).map(|(name, _)| *name).collect();
    if set.is_empty() { "0".to_owned() } else { set.join(" | ") }
}

/// Splits mount options into flags of the system call and text for the file system, as mount does.
fn split(options: &str) -> (String, String) {
    let mut set: Vec<&'static str> = Vec::new();
    let mut rest = Vec::new();
    for option in options.split(',').filter(|option| !option.is_empty() && *option != "defaults") {
        match FLAGS.iter().find(|(name, ..)| *name == option) {
            Some((_, flag, on)) => {
                set.retain(|other| other != flag);
                if *on {
                    set.push(flag);
                }
            }
            None => rest.push(option),
        }
    }
    (if set.is_empty() { "0".to_owned() } else { set.join(" | ") }, rest.join(","))
}

/// A call of `ask` in `c/steps.c`. What a C string ends with is zero, as the rest of an argument
/// is.
fn ioctl(request: &Ioctl) -> String {
    let argument = request.argument();
    let begin = argument.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    let path = request.path.as_ref().map_or_else(|| "ROOT".to_owned(), below);
    let file = request.file.as_ref();
    let (file_at, file) = file.map_or_else(|| (0, "NULL".to_owned()), |file| (file.at, below(&file.path)));
    let (memory_at, memory) = request.memory.as_ref().map_or((0, 0), |memory| (memory.at, memory.bytes));
    format!(
        "ask({path}, {:#x}, {}, {begin}, {}, {file}, {file_at}, {memory}, {memory_at})",
        request.request,
        bytes(&argument[..begin]),
        argument.len()
    )
}

fn allocation(mode: Fallocate) -> &'static str {
    match mode {
        Fallocate::Allocate => "0",
        Fallocate::KeepSize => "FALLOC_FL_KEEP_SIZE",
        Fallocate::PunchHole => "FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE",
        Fallocate::ZeroRange => "FALLOC_FL_ZERO_RANGE",
        Fallocate::CollapseRange => "FALLOC_FL_COLLAPSE_RANGE",
        Fallocate::InsertRange => "FALLOC_FL_INSERT_RANGE",
        Fallocate::Unshare => "FALLOC_FL_UNSHARE_RANGE",
    }
}

fn stop(how: Shutdown) -> u8 {
    match how {
        Shutdown::Flush => 0,
        Shutdown::LogFlush => 1,
        Shutdown::NoFlush => 2,
    }
}

fn balance(groups: &[BlockGroups], convert: Option<Profile>, usage: Option<u8>) -> String {
    let (flags, target) = (BlockGroups::balance_flags(groups, convert), convert.map_or(0, Profile::bit));
    let (by_usage, usage) = (u8::from(usage.is_some()), usage.unwrap_or_default());
    format!("balance({flags}, {by_usage}, {usage}, {}, {target}ULL)", u8::from(convert.is_some()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_stays_what_it_is_in_c() {
        assert_eq!(text("a\"b\\c"), r#""a\"b\\c""#);
        assert_eq!(text("ä\n1"), r#""\303\244\0121""#);
        assert_eq!(text("??="), r#""\?\?=""#, "a trigraph");
    }

    #[test]
    fn two_steps_write_other_bytes() {
        let modulo = format!("(offset + index + shift) % {};", guest_protocol::pattern::PERIOD);
        assert!(include_str!("c/steps.c").contains(&modulo), "a program has the bytes that the agent writes");
        let write = Step::Write { path: "f".parse().unwrap(), offset: 1, length: 2, direct: false, sync: false };
        let mapped = Step::MmapWrite { path: "f".parse().unwrap(), offset: 1, length: 2 };
        assert_eq!(in_c(&write, 3).unwrap().call, r#"write_file(ROOT "/f", 1, 2, 0, 111)"#);
        let long = Step::Write { path: "f".parse().unwrap(), offset: 0, length: 65537, direct: true, sync: false };
        assert_eq!(in_c(&long, 1).unwrap().call, r#"write_long(ROOT "/f", 0, 65537, O_DIRECT, 37)"#);
        assert!(include_str!("c/steps.c").contains(&format!("buffer[{BUFFER_BYTES}]")));
        assert_eq!(in_c(&mapped, 7).unwrap().call, r#"mmap_write(ROOT "/f", 1, 2, 8)"#);
    }

    #[test]
    fn mount_options_are_split_as_mount_does() {
        assert_eq!(
            split("defaults,ro,compress=zstd:3,noatime,,a=b"),
            ("MS_RDONLY | MS_NOATIME".into(), "compress=zstd:3,a=b".into())
        );
        assert_eq!(split("ro,rw"), ("0".into(), String::new()));
    }
}
