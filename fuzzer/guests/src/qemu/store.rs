//! Saved guests in the cache: a guest is booted once and prepared once for each target, and every
//! later start continues its clones at once.
//!
//! ```text
//! CACHE/templates/KEY.lock   held while KEY is looked for, made or removed; goes with it
//! CACHE/templates/KEY/       memory, state, disk0.., meta.json; appears by one rename, and nobody
//!                            writes to it again
//! ```
//!
//! The key is a hash of all that the guest is made of, so that an outdated one is simply not found.
//! The files are checked before they are used: a damaged one is removed and made anew.

use std::{
    fmt,
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    time::SystemTime,
};

use execution::Stop;
use guest_protocol::{PROTOCOL_VERSION, Setup};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{
    About, Disks, GuestConfig, GuestError,
    config::{Birth, Plumbing},
    identity::{file_identity, identity, short},
    memory::MemoryFile,
    pages::{checksum, copy},
    pauses::again,
};
use files::cache;

/// Changes with the format of the files.
const FORMAT: u32 = 3;
/// Number of guests in the cache, each some 200 MiB; those unused for the longest time go.
const KEPT: usize = 16;
/// Largest difference between the rate of the host's counter and the rate that the guest's kernel
/// was told, in parts of a thousand.
const RATE_TOLERANCE: u64 = 5;

/// The place of one guest in the cache.
#[derive(Debug)]
pub(super) struct Store {
    templates: PathBuf,
    key: String,
}

/// A saved guest: its memory, the disks that are not in it, the state of its devices and processor,
/// and facts about it.
#[derive(Debug)]
pub(super) struct Saved {
    pub(super) about: About,
    pub(super) memory: MemoryFile,
    pub(super) disks: Vec<MemoryFile>,
    pub(super) state: MemoryFile,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Meta {
    about: About,
    memory: Sum,
    disks: Vec<Sum>,
    state: Sum,
}

/// A file's size in bytes and its checksum.
type Sum = (u64, u32);

/// Why a guest in the cache is of no use.
#[derive(Debug)]
enum Useless {
    /// A file cannot be read.
    Io(io::Error),
    /// A file is not what was written.
    Damaged(String),
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
    /// The place in the folder `cache` for the guest of `config` that is prepared for `setup`.
    pub(super) fn prepared(cache: &Path, config: &GuestConfig, setup: &Setup) -> Result<Self, GuestError> {
        let disk = config.disks.image.as_deref().map(|disk| file_identity("the disk image", disk)).transpose()?;
        Ok(Self { templates: cache.join("templates"), key: key(config, &format!("{disk:?} {setup:?}"))? })
    }

    /// The place for a guest that is booted only. Until then it knows of a disk image's content no
    /// more than its size.
    pub(super) fn booted(cache: &Path, config: &GuestConfig) -> Result<Self, GuestError> {
        let size = |disk: &PathBuf| {
            let metadata = fs::metadata(disk).map_err(|source| GuestError::File {
                what: "the disk image",
                path: disk.clone(),
                source,
            });
            Ok::<_, GuestError>(metadata?.len())
        };
        let disk = config.disks.image.as_ref().map(size).transpose()?;
        Ok(Self { templates: cache.join("templates"), key: key(config, &format!("booted {disk:?}"))? })
    }

    /// Gives what `resume` gives for the guest at this place; without one of use, for the one that
    /// `make` gives, which is put there. Trouble with the cache costs only the time to make one.
    pub(super) fn cached<T>(
        &self,
        counter_khz: Option<u64>,
        stop: &Stop,
        resume: impl Fn(&Saved) -> Result<T, GuestError>,
        make: impl FnOnce() -> Result<Saved, GuestError>,
    ) -> Result<(Saved, T), GuestError> {
        let _lock = self.lock().inspect_err(|error| tracing::warn!(%error, "saved guests cannot be locked"));
        let resumed = |saved: Saved| again(stop, || resume(&saved)).map(|guest| (saved, guest));
        let useless = match self.load(counter_khz) {
            Ok(Some(saved)) => match resumed(saved) {
                Err(error) if !matches!(error, GuestError::Stopped) => Some(execution::chain(&error)),
                other => return other,
            },
            Ok(None) => None,
            Err(useless) => Some(useless.to_string()),
        };
        if let Some(reason) = useless {
            tracing::warn!(reason, "the guest in the cache is of no use, making it anew");
            if let Err(error) = self.forget() {
                tracing::warn!(%error, "it cannot be removed");
            }
        }
        let made = make()?;
        // From the file, its pages are shared with all other guests on this machine that are its
        // clones.
        let kept = self.keep(&made);
        resumed(kept.unwrap_or_else(|error| {
            tracing::warn!(%error, "the guest cannot be kept in the cache, the next start makes it anew");
            made
        }))
    }

    /// Keeps others from looking for this guest and from making it, until the returned file is
    /// dropped.
    fn lock(&self) -> io::Result<File> {
        fs::create_dir_all(&self.templates)?;
        cache::lock(&self.templates.join(format!("{}.lock", self.key)), || {
            tracing::info!("another process makes this guest ready: waiting for it");
        })
    }

    fn folder(&self) -> PathBuf {
        self.templates.join(&self.key)
    }

    /// The guest, checked; nothing when there is none.
    fn load(&self, counter_khz: Option<u64>) -> Result<Option<Saved>, Useless> {
        let folder = self.folder();
        let text = match fs::read(folder.join("meta.json")) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && !folder.exists() => return Ok(None),
            other => other?,
        };
        let damaged = |name: &str| Useless::Damaged(name.to_owned());
        let meta: Meta = serde_json::from_slice(&text).map_err(|_| damaged("meta.json"))?;
        if !same_rate(meta.about.counter_khz, counter_khz) {
            return Err(Useless::Clock);
        }
        let open = |name: &str, (bytes, sum): Sum| {
            let file = File::options().read(true).write(true).open(folder.join(name))?;
            if file.metadata()?.len() != bytes || checksum(&file)? != sum {
                return Err(damaged(name));
            }
            Ok(MemoryFile::from(file))
        };
        let memory = open("memory", meta.memory)?;
        let disks = (0..).zip(meta.disks).map(|(number, sum)| open(&disk_file(number), sum));
        let disks = disks.collect::<Result<Vec<_>, _>>()?;
        let state = open("state", meta.state)?;
        // The time of the last use, for `forget_oldest`; a cache that cannot be written only
        // forgets the wrong one.
        let _ = File::open(folder.join("meta.json")).and_then(|file| file.set_modified(SystemTime::now()));
        Ok(Some(Saved { about: meta.about, memory, disks, state }))
    }

    /// Puts a guest into the cache, whole or not at all, and returns it as it is there.
    fn keep(&self, guest: &Saved) -> io::Result<Saved> {
        let Saved { about, memory, disks, state } = guest;
        let prepared = self.templates.join(format!(".{}", self.key));
        if prepared.exists() {
            fs::remove_dir_all(&prepared)?;
        }
        fs::create_dir_all(&prepared)?;
        let copied = (|| {
            let copy = |file: &MemoryFile, name: &str| copy(file.file(), &File::create_new(prepared.join(name))?);
            let disks = (0..).zip(disks).map(|(number, disk)| copy(disk, &disk_file(number)));
            let disks = disks.collect::<io::Result<Vec<_>>>()?;
            let (memory, state) = (copy(memory, "memory")?, copy(state, "state")?);
            let meta = Meta { about: about.clone(), memory, disks, state };
            fs::write(prepared.join("meta.json"), serde_json::to_vec_pretty(&meta)?)?;
            cache::publish_directory(&prepared, &self.folder())
        })();
        if copied.is_err() {
            // The first error is the one to tell; what is left is removed before the next attempt.
            let _ = fs::remove_dir_all(&prepared);
        }
        copied?;
        forget_oldest(&self.templates, KEPT);
        let open =
            |name: &str| File::options().read(true).write(true).open(self.folder().join(name)).map(MemoryFile::from);
        let disks = (0..disks.len()).map(|number| open(&disk_file(number))).collect::<io::Result<Vec<_>>>()?;
        Ok(Saved { about: about.clone(), memory: open("memory")?, disks, state: open("state")? })
    }

    /// Removes the guest.
    fn forget(&self) -> io::Result<()> {
        fs::remove_dir_all(self.folder())
    }
}

/// All that the guest is made of; what is special to it is `also`. The clock's rate is not in it,
/// as it is measured and never twice the same. Nor is the path of the disk image.
fn key(config: &GuestConfig, also: &str) -> Result<String, GuestError> {
    let config = GuestConfig { disks: Disks { image: None, ..config.disks.clone() }, ..config.clone() };
    let none = String::new();
    let disks = config.disks.files().iter().map(u64::to_string).collect();
    let (memory, window) = (none.clone(), none);
    let plumbing = Plumbing { memory, window, disks, initramfs: None, doorbell: 0, qmp: 0, console: 0, gdb: None };
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
    add(also.as_bytes());
    Ok(short(hash))
}

/// Name of the file with the content of the disk `number`, from 0.
fn disk_file(number: usize) -> String {
    format!("disk{number}")
}

fn same_rate(then: Option<u64>, now: Option<u64>) -> bool {
    match (then, now) {
        (Some(then), Some(now)) => then.abs_diff(now) * 1000 <= then * RATE_TOLERANCE,
        (then, now) => then == now,
    }
}

/// Removes all but the `kept` guests used last, unless somebody is about to use them.
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
        let path = folder.with_extension("lock");
        if let Ok(Some(lock)) = cache::try_lock(&path)
            && let Err(error) = fs::remove_dir_all(&folder).and_then(|()| cache::remove_lock(&path, lock))
        {
            tracing::debug!(folder = %folder.display(), %error, "an old guest stays");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{os::unix::fs::FileExt, thread, time::Duration};

    use super::{
        super::pages::{PAGE, ZERO},
        *,
    };

    fn store(cache: &Path, key: &str) -> Store {
        Store { templates: cache.join("templates"), key: key.to_owned() }
    }

    fn keep(store: &Store) -> Saved {
        let memory = MemoryFile::new("test memory", 64 * PAGE as u64).unwrap();
        memory.file().write_all_at(b"kernel", 5 * PAGE as u64 + 7).unwrap();
        memory.file().write_all_at(&ZERO, 9 * PAGE as u64).unwrap();
        let disk = MemoryFile::new("test disk", 8 * PAGE as u64).unwrap();
        disk.file().write_all_at(b"superblock", PAGE as u64).unwrap();
        let state = MemoryFile::holding("test state", b"devices").unwrap();
        let about = About { counter_khz: Some(2_000_000), ..About::default() };
        store.keep(&Saved { about, memory, disks: vec![disk], state }).unwrap()
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
        let disk = found.disks[0].copied("test disk").unwrap();
        disk.file().write_all_at(b"S", PAGE as u64).unwrap();
        found.disks[0].file().read_exact_at(&mut word, PAGE as u64).unwrap();
        assert_eq!((&word, found.disks.len()), (b"superb", 1), "a copy is not what was saved");
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
            ("disk0", Some(page), 8 * page),
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
        drop(stores[2].lock().unwrap());
        let _lock = stores[1].lock().unwrap();
        forget_oldest(&stores[0].templates, 2);
        let left = stores.each_ref().map(|store| store.folder().exists());
        assert_eq!(left, [true, true, false, true]);
        assert!(!stores[2].templates.join("22.lock").exists(), "its lock file goes with it");
    }
}
