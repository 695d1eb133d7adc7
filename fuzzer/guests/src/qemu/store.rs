//! Templates in the cache: a guest is booted and prepared once, and every later start continues its
//! clones at once.
//!
//! ```text
//! CACHE/templates/KEY.lock   held while KEY is looked for or made
//! CACHE/templates/KEY/       memory, state, meta.json; appears by one rename and is never written to again
//! ```
//!
//! The key is a hash of all that the guest is made of, so that an outdated template is simply not
//! found. The files are checked before they are used: a damaged one is removed and made anew.

use std::{
    fmt,
    fs::{self, File},
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    time::SystemTime,
};

use guest_protocol::{PROTOCOL_VERSION, Setup};
use nix::{
    errno::Errno,
    unistd::{Whence, lseek},
};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{
    About, GuestConfig, GuestError,
    config::{Birth, Plumbing},
    identity::{file_identity, identity, short},
    memory::MemoryFile,
};
use files::cache;

/// Changes with the format of the files.
const FORMAT: u32 = 1;
/// Number of templates in the cache, each some 200 MiB; those unused for the longest time go.
const KEPT: usize = 12;
const PAGE: usize = 4096;
static ZERO: [u8; PAGE] = [0; PAGE];
/// Largest difference between the rate of the host's counter and the rate that the template's
/// kernel was told, in parts of a thousand.
const RATE_TOLERANCE: u64 = 5;

/// The place of one template in the cache.
#[derive(Debug)]
pub(super) struct Store {
    templates: PathBuf,
    key: String,
}

/// Memory, state and what is known of a template.
#[derive(Debug)]
pub(super) struct Saved {
    pub(super) about: About,
    pub(super) memory: MemoryFile,
    pub(super) state: MemoryFile,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Meta {
    about: About,
    memory_bytes: u64,
    memory_sum: u32,
    state_bytes: u64,
    state_sum: u32,
}

/// Why a template in the cache is of no use.
#[derive(Debug)]
pub(super) enum Useless {
    /// A file cannot be read.
    Io(io::Error),
    /// A file is not what was written.
    Damaged(&'static str),
    /// The host's clock runs at another rate.
    Clock,
}

impl From<io::Error> for Useless {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl fmt::Display for Useless {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) => write!(f, "it cannot be read: {error}"),
            Self::Damaged(file) => write!(f, "its {file} is damaged"),
            Self::Clock => write!(f, "this host's counter has another rate"),
        }
    }
}

impl Store {
    /// The place in the folder `cache` for the template of `config` and `setup`.
    pub(super) fn new(cache: &Path, config: &GuestConfig, setup: &Setup) -> Result<Self, GuestError> {
        Ok(Self { templates: cache.join("templates"), key: key(config, setup)? })
    }

    /// Keeps others from looking for this template and from making it, until the returned file is
    /// dropped.
    pub(super) fn lock(&self) -> io::Result<File> {
        fs::create_dir_all(&self.templates)?;
        cache::lock(&self.templates.join(format!("{}.lock", self.key)), || {
            tracing::info!("another process makes this guest ready: waiting for it");
        })
    }

    fn folder(&self) -> PathBuf {
        self.templates.join(&self.key)
    }

    /// The template, checked; nothing when there is none.
    pub(super) fn load(&self, counter_khz: Option<u64>) -> Result<Option<Saved>, Useless> {
        let folder = self.folder();
        let text = match fs::read(folder.join("meta.json")) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && !folder.exists() => return Ok(None),
            other => other?,
        };
        let meta: Meta = serde_json::from_slice(&text).map_err(|_| Useless::Damaged("meta.json"))?;
        if !same_rate(meta.about.counter_khz, counter_khz) {
            return Err(Useless::Clock);
        }
        let open = |name, bytes, sum| {
            let file = File::options().read(true).write(true).open(folder.join(name))?;
            if file.metadata()?.len() != bytes || checksum(&file)? != sum {
                return Err(Useless::Damaged(name));
            }
            Ok(MemoryFile::from(file))
        };
        let memory = open("memory", meta.memory_bytes, meta.memory_sum)?;
        let state = open("state", meta.state_bytes, meta.state_sum)?;
        // The time of the last use, for `forget_oldest`; a cache that cannot be written only
        // forgets the wrong one.
        let _ = File::open(folder.join("meta.json")).and_then(|file| file.set_modified(SystemTime::now()));
        Ok(Some(Saved { about: meta.about, memory, state }))
    }

    /// Puts a template into the cache, whole or not at all, and returns it as it is there.
    pub(super) fn keep(&self, about: &About, memory: &MemoryFile, state: &MemoryFile) -> io::Result<Saved> {
        let prepared = self.templates.join(format!(".{}", self.key));
        if prepared.exists() {
            fs::remove_dir_all(&prepared)?;
        }
        fs::create_dir_all(&prepared)?;
        let copied = (|| {
            let (memory_bytes, memory_sum) = copy(memory.file(), &prepared.join("memory"))?;
            let (state_bytes, state_sum) = copy(state.file(), &prepared.join("state"))?;
            let meta = Meta { about: about.clone(), memory_bytes, memory_sum, state_bytes, state_sum };
            fs::write(prepared.join("meta.json"), serde_json::to_vec_pretty(&meta)?)?;
            cache::publish_directory(&prepared, &self.folder())
        })();
        if copied.is_err() {
            // The first error is the one to tell; what is left is removed before the next attempt.
            let _ = fs::remove_dir_all(&prepared);
        }
        copied?;
        forget_oldest(&self.templates, KEPT);
        let open = |name| File::options().read(true).write(true).open(self.folder().join(name)).map(MemoryFile::from);
        Ok(Saved { about: about.clone(), memory: open("memory")?, state: open("state")? })
    }

    /// Removes the template.
    pub(super) fn forget(&self) -> io::Result<()> {
        fs::remove_dir_all(self.folder())
    }
}

/// All that the guest is made of. The clock's rate is not in it, as it is measured and never twice
/// the same.
fn key(config: &GuestConfig, setup: &Setup) -> Result<String, GuestError> {
    let none = String::new();
    let plumbing = Plumbing { memory: none.clone(), window: none, initramfs: None, doorbell: 0, qmp: 0, console: 0 };
    let mut hash = Sha256::new();
    let mut add = |part: &[u8]| {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    };
    add(&FORMAT.to_le_bytes());
    add(&PROTOCOL_VERSION.to_le_bytes());
    add(identity(&config.qemu, &config.vmlinux)?.as_bytes());
    for argument in config.qemu_arguments(&plumbing, Birth::Clone) {
        add(argument.as_encoded_bytes());
    }
    add(config.kernel_command_line(None).as_bytes());
    add(&config.initramfs);
    if let Some(disk) = &config.disk {
        add(file_identity("the disk image", disk)?.as_bytes());
    }
    add(format!("{setup:?}").as_bytes());
    Ok(short(hash))
}

fn same_rate(then: Option<u64>, now: Option<u64>) -> bool {
    match (then, now) {
        (Some(then), Some(now)) => then.abs_diff(now) * 1000 <= then * RATE_TOLERANCE,
        (then, now) => then == now,
    }
}

/// Removes all but the `kept` templates used last, unless somebody is about to use them.
fn forget_oldest(templates: &Path, kept: usize) {
    let used = |folder: &Path| fs::metadata(folder.join("meta.json")).and_then(|meta| meta.modified()).ok();
    let mut all: Vec<_> = fs::read_dir(templates)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| Some((used(&entry.path())?, entry.path())))
        .collect();
    all.sort();
    let surplus = all.len().saturating_sub(kept);
    for (_, folder) in all.into_iter().take(surplus) {
        if let Ok(Some(_lock)) = cache::try_lock(&folder.with_extension("lock"))
            && let Err(error) = fs::remove_dir_all(&folder)
        {
            tracing::debug!(folder = %folder.display(), %error, "an old template stays");
        }
    }
}

/// Copies what is not zero to the new file `to`. Returns its size in bytes and its checksum.
fn copy(from: &File, to: &Path) -> io::Result<(u64, u32)> {
    let to = File::create_new(to)?;
    let bytes = from.metadata()?.len();
    to.set_len(bytes)?;
    let sum = each_page(from, |offset, page| to.write_all_at(page, offset))?;
    Ok((bytes, sum))
}

fn checksum(file: &File) -> io::Result<u32> {
    each_page(file, |_, _| Ok(()))
}

/// Calls `with` for each page that is not all zero, and returns the CRC-32 of those pages and their
/// offsets. Whether zeros are holes makes no difference.
fn each_page(file: &File, mut with: impl FnMut(u64, &[u8]) -> io::Result<()>) -> io::Result<u32> {
    let mut sum = crc32fast::Hasher::new();
    let mut buffer = vec![0; 256 * PAGE];
    let mut offset = 0;
    while let Some(data) = next_data(file, offset)? {
        offset = data - data % PAGE as u64;
        let length = read_at_most(file, &mut buffer, offset)?;
        for page in buffer[..length].chunks(PAGE) {
            if *page != ZERO[..page.len()] {
                sum.update(&offset.to_le_bytes());
                sum.update(page);
                with(offset, page)?;
            }
            offset += page.len() as u64;
        }
        if length == 0 {
            break;
        }
    }
    Ok(sum.finalize())
}

/// Finds the offset at which data begins, at or after `offset`, if there is any.
fn next_data(file: &File, offset: u64) -> io::Result<Option<u64>> {
    let from = i64::try_from(offset).map_err(io::Error::other)?;
    match lseek(file, from, Whence::SeekData) {
        Ok(at) => Ok(Some(u64::try_from(at).map_err(io::Error::other)?)),
        Err(Errno::ENXIO) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}

/// Fills `buffer` as far as the file goes; returns how far.
fn read_at_most(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut length = 0;
    while length < buffer.len() {
        match file.read_at(&mut buffer[length..], offset + length as u64) {
            Ok(0) => break,
            Ok(more) => length += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(length)
}

#[cfg(test)]
mod tests {
    use std::{thread, time::Duration};

    use super::*;

    fn store(cache: &Path, key: &str) -> Store {
        Store { templates: cache.join("templates"), key: key.to_owned() }
    }

    fn keep(store: &Store) -> Saved {
        let memory = MemoryFile::new("test memory", 64 * PAGE as u64).unwrap();
        memory.file().write_all_at(b"kernel", 5 * PAGE as u64 + 7).unwrap();
        memory.file().write_all_at(&ZERO, 9 * PAGE as u64).unwrap();
        let state = MemoryFile::holding("test state", b"devices").unwrap();
        store.keep(&About { counter_khz: Some(2_000_000), ..About::default() }, &memory, &state).unwrap()
    }

    fn why_useless(store: &Store) -> String {
        store.load(Some(2_000_001)).unwrap_err().to_string()
    }

    #[test]
    fn what_is_kept_is_found() {
        let cache = tempfile::tempdir().unwrap();
        let store = store(cache.path(), "00");
        let _lock = store.lock().unwrap();
        assert!(store.load(None).unwrap().is_none());
        keep(&store);
        let found = store.load(Some(2_000_001)).unwrap().unwrap();
        let mut word = [0; 6];
        found.memory.file().read_exact_at(&mut word, 5 * PAGE as u64 + 7).unwrap();
        assert_eq!(&word, b"kernel");
        assert_eq!(found.memory.file().metadata().unwrap().len(), 64 * PAGE as u64);
        assert_eq!(found.state.file().metadata().unwrap().len(), 7);
        store.forget().unwrap();
        assert!(store.load(None).unwrap().is_none());
    }

    #[test]
    fn damage_and_another_clock_are_seen() {
        let cache = tempfile::tempdir().unwrap();
        let store = store(cache.path(), "00");
        keep(&store);
        assert!(store.load(Some(2_100_000)).unwrap_err().to_string().contains("another rate"));
        let page = PAGE as u64;
        // A byte written somewhere, or a new length.
        let damage = [
            ("memory", Some(40 * page), 64 * page),
            ("memory", None, 63 * page),
            ("state", Some(3), 7),
            ("state", None, 0),
            ("meta.json", None, 9),
        ];
        for (name, byte, length) in damage {
            let file = File::options().write(true).open(store.folder().join(name)).unwrap();
            byte.into_iter().for_each(|at| file.write_all_at(b"x", at).unwrap());
            file.set_len(length).unwrap();
            assert_eq!(why_useless(&store), format!("its {name} is damaged"));
            store.forget().unwrap();
            keep(&store);
        }
        fs::remove_file(store.folder().join("state")).unwrap();
        assert!(why_useless(&store).contains("cannot be read"));
    }

    #[test]
    fn those_not_used_for_long_are_forgotten_but_not_those_in_use() {
        let cache = tempfile::tempdir().unwrap();
        let stores = ["00", "11", "22", "33"].map(|key| store(cache.path(), key));
        for store in &stores {
            keep(store);
            thread::sleep(Duration::from_millis(20));
        }
        stores[0].load(Some(2_000_000)).unwrap();
        let _lock = stores[1].lock().unwrap();
        forget_oldest(&stores[0].templates, 2);
        let left = stores.each_ref().map(|store| store.folder().exists());
        assert_eq!(left, [true, true, false, true]);
    }
}
