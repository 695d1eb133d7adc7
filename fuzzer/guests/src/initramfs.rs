//! The initial file system of the guest: the agent as `/init`, the kernel's module of slots,
//! checkers of file systems, and the few names it needs before it has mounted anything.
//!
//! The format is `newc` of `Documentation/driver-api/early-userspace/buffer-format.rst` (Linux
//! 6.12): for each entry a header of ASCII hexadecimal fields, the name, the content, each padded
//! to four bytes. Device nodes are plain entries here, so that writing one needs no privilege.

use std::collections::BTreeMap;

use guest_protocol::{CHECKER_FOLDER, SLOTS_FILE};

const MAGIC: &[u8] = b"070701";
const TRAILER: &str = "TRAILER!!!";
const DIRECTORY: u32 = 0o040_755;
const EXECUTABLE: u32 = 0o100_755;
const FILE: u32 = 0o100_644;
const CHARACTER_DEVICE: u32 = 0o020_600;
/// Major and minor number of `/dev/console`, which the kernel opens for process 1 before any file
/// system is mounted.
const CONSOLE: (u32, u32) = (5, 1);

struct Entry<'a> {
    name: String,
    mode: u32,
    device: (u32, u32),
    content: &'a [u8],
}

/// The initial file system whose `/init` is the program `agent`, and whose `/slots.ko` is the
/// module `slots`, where there is one, and whose `/checker` has the files `checkers`. The same
/// content gives the same bytes.
///
/// # Panics
///
/// A file is larger than 4 GiB, which the format cannot hold.
#[must_use]
pub fn initramfs(agent: &[u8], slots: Option<&[u8]>, checkers: &BTreeMap<String, Vec<u8>>) -> Vec<u8> {
    let mut files = Files::new();
    files.program("init", agent);
    if let Some(slots) = slots {
        files.file(SLOTS_FILE, slots);
    }
    if !checkers.is_empty() {
        files.directory(CHECKER_FOLDER);
    }
    for (name, content) in checkers {
        files.program(&format!("{CHECKER_FOLDER}/{name}"), content);
    }
    files.archive()
}

/// The files of an initial file system, after the folders and the console that each has.
pub(crate) struct Files<'a>(Vec<Entry<'a>>);

impl<'a> Files<'a> {
    pub(crate) fn new() -> Self {
        let mut files = Self(Vec::new());
        for name in ["dev", "proc", "sys", "mnt", "tmp"] {
            files.directory(name);
        }
        let name = "dev/console".to_owned();
        files.0.push(Entry { name, mode: CHARACTER_DEVICE, device: CONSOLE, content: &[] });
        files
    }

    /// Adds a folder, before what is in it.
    pub(crate) fn directory(&mut self, name: &str) -> &mut Self {
        self.0.push(Entry { name: name.to_owned(), mode: DIRECTORY, device: (0, 0), content: &[] });
        self
    }

    /// Adds a program.
    pub(crate) fn program(&mut self, name: &str, content: &'a [u8]) -> &mut Self {
        self.0.push(Entry { name: name.to_owned(), mode: EXECUTABLE, device: (0, 0), content });
        self
    }

    /// Adds a file that only root changes.
    pub(crate) fn file(&mut self, name: &str, content: &'a [u8]) -> &mut Self {
        self.0.push(Entry { name: name.to_owned(), mode: FILE, device: (0, 0), content });
        self
    }

    /// Gives the archive.
    pub(crate) fn archive(&self) -> Vec<u8> {
        let trailer = Entry { name: TRAILER.to_owned(), mode: 0, device: (0, 0), content: &[] };
        let mut archive = Vec::new();
        for (inode, entry) in (1..).zip(self.0.iter().chain([&trailer])) {
            append(&mut archive, inode, entry);
        }
        archive
    }
}

fn append(archive: &mut Vec<u8>, inode: u32, entry: &Entry<'_>) {
    let size = |bytes: usize| u32::try_from(bytes).expect("an entry is smaller than 4 GiB");
    archive.extend_from_slice(MAGIC);
    let fields = [
        inode,
        entry.mode,
        0, // owner
        0, // group
        1, // links
        0, // time of change
        size(entry.content.len()),
        0, // major and minor of the archived file's own device
        0,
        entry.device.0,
        entry.device.1,
        size(entry.name.len() + 1),
        0, // checksum, unused in this variant
    ];
    for field in fields {
        archive.extend_from_slice(format!("{field:08X}").as_bytes());
    }
    archive.extend_from_slice(entry.name.as_bytes());
    archive.push(0);
    pad(archive);
    archive.extend_from_slice(entry.content);
    pad(archive);
}

fn pad(archive: &mut Vec<u8>) {
    archive.resize(archive.len().next_multiple_of(4), 0);
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER_BYTES: usize = 110;

    /// An entry as another reader of the format sees it.
    struct Read {
        name: String,
        mode: u32,
        device: (u32, u32),
        content: Vec<u8>,
    }

    fn read(archive: &[u8]) -> Vec<Read> {
        let mut entries = Vec::new();
        let mut at = 0;
        while at < archive.len() {
            let header = &archive[at..at + HEADER_BYTES];
            assert_eq!(&header[..6], MAGIC, "a header stands at {at}");
            let field = |index: usize| {
                let digits = std::str::from_utf8(&header[6 + index * 8..14 + index * 8]).unwrap();
                u32::from_str_radix(digits, 16).unwrap()
            };
            let (content_bytes, name_bytes) = (field(6) as usize, field(11) as usize);
            let name_at = at + HEADER_BYTES;
            let content_at = (name_at + name_bytes).next_multiple_of(4);
            assert_eq!(archive[name_at + name_bytes - 1], 0, "a name ends in a zero");
            entries.push(Read {
                name: String::from_utf8(archive[name_at..name_at + name_bytes - 1].to_vec()).unwrap(),
                mode: field(1),
                device: (field(9), field(10)),
                content: archive[content_at..content_at + content_bytes].to_vec(),
            });
            at = (content_at + content_bytes).next_multiple_of(4);
        }
        assert_eq!(at, archive.len(), "nothing is cut off");
        entries
    }

    #[test]
    fn the_agent_is_init() {
        for length in 0..9 {
            let agent: Vec<u8> = (0..length).collect();
            let entries = read(&initramfs(&agent, None, &BTreeMap::new()));
            assert!(entries.iter().all(|entry| entry.name != "slots.ko"));
            let init = entries.iter().find(|entry| entry.name == "init").unwrap();
            assert_eq!(init.content, agent);
            assert_eq!(init.mode, 0o100_755);
        }
    }

    #[test]
    fn the_module_of_slots_is_a_file() {
        let entries = read(&initramfs(b"agent", Some(b"module"), &BTreeMap::new()));
        let slots = entries.iter().find(|entry| entry.name == "slots.ko").unwrap();
        assert_eq!((slots.mode, slots.content.as_slice()), (0o100_644, &b"module"[..]));
        assert_eq!(entries.last().unwrap().name, TRAILER);
    }

    #[test]
    fn checkers_have_a_folder() {
        let checkers = BTreeMap::from([("e2fsck".to_owned(), b"program".to_vec())]);
        let entries = read(&initramfs(b"agent", None, &checkers));
        let at = |name: &str| entries.iter().position(|entry| entry.name == name).unwrap();
        assert!(at("checker") < at("checker/e2fsck"));
        let checker = &entries[at("checker/e2fsck")];
        assert_eq!((checker.mode, checker.content.as_slice()), (0o100_755, &b"program"[..]));
    }

    #[test]
    fn the_console_is_a_device_after_its_directory() {
        let entries = read(&initramfs(b"agent", None, &BTreeMap::new()));
        let at = |name: &str| entries.iter().position(|entry| entry.name == name).unwrap();
        assert!(at("dev") < at("dev/console"));
        let console = &entries[at("dev/console")];
        assert_eq!((console.mode & 0o170_000, console.device), (0o020_000, (5, 1)));
        for directory in ["dev", "proc", "sys", "mnt"] {
            assert_eq!(entries[at(directory)].mode & 0o170_000, 0o040_000, "{directory}");
        }
    }

    #[test]
    fn the_trailer_ends_the_archive() {
        assert_eq!(read(&initramfs(b"agent", None, &BTreeMap::new())).last().unwrap().name, TRAILER);
    }
}
