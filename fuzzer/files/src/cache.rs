//! The cache folder, and files and folders that appear whole or not at all.

use std::{
    env,
    ffi::{OsStr, OsString},
    fs::{self, File, Metadata, TryLockError},
    io::{self, Write},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
use thiserror::Error;

/// Why there is no cache folder.
#[derive(Debug, Error)]
pub enum CacheError {
    /// Nothing says where it should be.
    #[error("no place for the cache: neither FUZZ_CACHE, XDG_CACHE_HOME nor HOME is set; set FUZZ_CACHE to a folder")]
    NoPlace,
    /// It cannot be made.
    #[error("cannot create the cache folder {path}; set FUZZ_CACHE to a folder that can be written to")]
    Create {
        /// The folder.
        path: PathBuf,
        /// Underlying error.
        source: io::Error,
    },
}

/// The cache folder, created if need be: `FUZZ_CACHE`, else `XDG_CACHE_HOME/fuzz`, else
/// `HOME/.cache/fuzz`.
///
/// All that is in it can be deleted while nothing runs; it is built again when needed.
///
/// # Errors
///
/// No variable says where, or the folder cannot be created.
pub fn directory() -> Result<PathBuf, CacheError> {
    let path = place(|name| env::var_os(name)).ok_or(CacheError::NoPlace)?;
    fs::create_dir_all(&path).map_err(|source| CacheError::Create { path: path.clone(), source })?;
    fs::canonicalize(&path).map_err(|source| CacheError::Create { path, source })
}

fn place(variable: impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    let set = |name| variable(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    set("FUZZ_CACHE")
        .or_else(|| set("XDG_CACHE_HOME").map(|path| path.join("fuzz")))
        .or_else(|| set("HOME").map(|path| path.join(".cache/fuzz")))
}

/// Writes `bytes` to `path` so that a reader, or a start after a kill or power loss, sees the old
/// content or the new.
///
/// The bytes go to a hidden file beside it (`.NAME.PID.N.tmp`), which then takes its name.
///
/// # Errors
///
/// Fails with the file system's error. `path` is then as before, unless all that failed is to bring
/// its folder to the disk. In that case it has the new content, but perhaps not after a power loss.
pub fn write_file(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let temporary = temporary_beside(path)?;
    let mut file = File::create_new(&temporary)?;
    let written = file.write_all(bytes).and_then(|()| publish_file(&temporary, path));
    if written.is_err() {
        // The first error is the one to tell; there is nothing to remove if the file has its name
        // already.
        let _ = fs::remove_file(&temporary);
    }
    written
}

/// Gives the finished file `prepared` its name `destination`, on the same file system; what had
/// that name is replaced. The content reaches the disk first, so that a file of that name is always
/// whole.
///
/// # Errors
///
/// Fails with the file system's error. `destination` is then as for [`write_file`].
pub fn publish_file(prepared: &Path, destination: &Path) -> io::Result<()> {
    File::open(prepared)?.sync_all()?;
    fs::rename(prepared, destination)?;
    sync_directory(parent(destination))
}

/// Gives the finished folder `prepared` its name `destination`, on the same file system. What is in
/// it reaches the disk first, so that a folder of that name is always whole.
///
/// # Errors
///
/// Fails with the file system's error; a folder that is not empty is never replaced.
pub fn publish_directory(prepared: &Path, destination: &Path) -> io::Result<()> {
    sync_tree(prepared)?;
    fs::rename(prepared, destination)?;
    sync_directory(parent(destination))
}

/// Puts the finished folder `prepared` in the place of the folder `destination`, on the same file
/// system; at every instant one of the two is there, whole.
///
/// # Errors
///
/// Fails with the file system's error.
pub fn replace_directory(prepared: &Path, destination: &Path) -> io::Result<()> {
    sync_tree(prepared)?;
    renameat2(AT_FDCWD, prepared, AT_FDCWD, destination, RenameFlags::RENAME_EXCHANGE)?;
    fs::remove_dir_all(prepared)?;
    sync_directory(parent(destination))
}

/// Takes the lock file `path`, creating it if need be; the lock ends with the returned file or with
/// this process. When somebody else has it, calls `waiting` once and waits.
///
/// Whoever has it may remove the file by [`remove_lock`]. So it counts only if the file that is
/// locked is the one at `path` then.
///
/// # Errors
///
/// Fails with the file system's error.
pub fn lock(path: &Path, waiting: impl FnOnce()) -> io::Result<File> {
    let mut waiting = Some(waiting);
    loop {
        let file = lock_file(path)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                if let Some(waiting) = waiting.take() {
                    waiting();
                }
                file.lock()?;
            }
            Err(TryLockError::Error(error)) => return Err(error),
        }
        if is_at(&file, path)? {
            return Ok(file);
        }
    }
}

/// Like [`lock`], but gives `None` at once when somebody else has it.
///
/// # Errors
///
/// Fails with the file system's error.
pub fn try_lock(path: &Path) -> io::Result<Option<File>> {
    loop {
        let file = lock_file(path)?;
        match file.try_lock() {
            Ok(()) if is_at(&file, path)? => return Ok(Some(file)),
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(error)) => return Err(error),
        }
    }
}

/// Removes the lock file `path`, of which this process has the `lock`, and gives that up. Whoever
/// waits for it takes a new file.
///
/// # Errors
///
/// Fails with the file system's error.
pub fn remove_lock(path: &Path, lock: File) -> io::Result<()> {
    fs::remove_file(path)?;
    drop(lock);
    Ok(())
}

/// Says whether `file` is the one at `path`.
fn is_at(file: &File, path: &Path) -> io::Result<bool> {
    let identity = |metadata: Metadata| (metadata.dev(), metadata.ino());
    match fs::metadata(path) {
        Ok(there) => Ok(identity(there) == identity(file.metadata()?)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

fn lock_file(path: &Path) -> io::Result<File> {
    File::options().create(true).truncate(false).write(true).open(path)
}

fn temporary_beside(path: &Path) -> io::Result<PathBuf> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let name = path.file_name().ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "the path has no name"))?;
    let mut temporary = OsString::from(".");
    temporary.push(name);
    temporary.push(format!(".{}.{}.tmp", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed)));
    Ok(path.with_file_name(temporary))
}

fn parent(path: &Path) -> &Path {
    path.parent().filter(|parent| *parent != OsStr::new("")).unwrap_or_else(|| Path::new("."))
}

fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

fn sync_tree(directory: &Path) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        if kind.is_dir() {
            sync_tree(&entry.path())?;
        } else if kind.is_file() {
            File::open(entry.path())?.sync_all()?;
        }
    }
    sync_directory(directory)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(directory: &Path) -> Vec<OsString> {
        fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name()).collect()
    }

    #[test]
    fn the_most_specific_variable_decides() {
        let all = |name: &str| Some(OsString::from(format!("/{name}")));
        assert_eq!(place(all), Some("/FUZZ_CACHE".into()));
        assert_eq!(place(|name| all(name).filter(|_| name != "FUZZ_CACHE")), Some("/XDG_CACHE_HOME/fuzz".into()));
        assert_eq!(place(|name| all(name).filter(|_| name == "HOME")), Some("/HOME/.cache/fuzz".into()));
        assert_eq!(place(|_| Some(OsString::new())), None, "an empty variable is one that is not set");
    }

    #[test]
    fn a_file_is_replaced_and_nothing_else_is_left() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("plan.json");
        write_file(&path, b"old").unwrap();
        write_file(&path, b"new").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(names(directory.path()), ["plan.json"]);
    }

    #[test]
    fn a_failed_write_leaves_the_old_content_and_no_temporary_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("taken");
        fs::create_dir(&path).unwrap();
        fs::write(path.join("inside"), "kept").unwrap();
        assert!(write_file(&path, b"new").is_err(), "a file cannot take a folder's name");
        assert_eq!(fs::read(path.join("inside")).unwrap(), b"kept");
        assert_eq!(names(directory.path()), ["taken"]);
    }

    #[test]
    fn a_file_of_somebody_else_is_not_removed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("plan.json");
        let taken = temporary_beside(&path).unwrap().display().to_string();
        let (start, number) = taken.trim_end_matches(".tmp").rsplit_once('.').unwrap();
        let number: u64 = number.parse().unwrap();
        // Other tests take numbers meanwhile.
        let others: Vec<_> = (number + 1..number + 1000).map(|number| format!("{start}.{number}.tmp")).collect();
        others.iter().for_each(|other| fs::write(other, "theirs").unwrap());
        assert_eq!(write_file(&path, b"new").unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert!(others.iter().all(|other| fs::read(other).unwrap() == b"theirs"));
        assert!(!path.exists());
    }

    #[test]
    fn a_published_folder_is_whole_and_replaced_only_on_purpose() {
        let directory = tempfile::tempdir().unwrap();
        let prepare = |content: &str| {
            let prepared = directory.path().join(".prepared");
            fs::create_dir_all(prepared.join("inner")).unwrap();
            fs::write(prepared.join("inner/file"), content).unwrap();
            prepared
        };
        let destination = directory.path().join("kernel");
        publish_directory(&prepare("first"), &destination).unwrap();
        assert!(publish_directory(&prepare("second"), &destination).is_err());
        assert_eq!(fs::read_to_string(destination.join("inner/file")).unwrap(), "first");
        replace_directory(&prepare("third"), &destination).unwrap();
        assert_eq!(fs::read_to_string(destination.join("inner/file")).unwrap(), "third");
        assert_eq!(names(directory.path()), ["kernel"]);
    }

    #[test]
    fn a_lock_that_is_held_is_waited_for() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("kernel.lock");
        let held = lock(&path, || panic!("nobody else has it")).unwrap();
        assert!(try_lock(&path).unwrap().is_none());
        let (told, waits) = std::sync::mpsc::channel();
        let second = std::thread::spawn({
            let path = path.clone();
            move || lock(&path, || told.send(()).unwrap()).map(drop)
        });
        waits.recv().expect("the second one says that it waits");
        drop(held);
        second.join().unwrap().unwrap();
    }

    #[test]
    fn whoever_waits_for_a_lock_file_that_is_removed_takes_the_next_one() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("template.lock");
        let first = lock(&path, || panic!("nobody else has it")).unwrap();
        let (told, waits) = std::sync::mpsc::channel();
        let second = std::thread::spawn({
            let path = path.clone();
            move || lock(&path, || told.send(()).unwrap())
        });
        waits.recv().expect("the second one says that it waits");
        remove_lock(&path, first).unwrap();
        let second = second.join().unwrap().unwrap();
        assert!(try_lock(&path).unwrap().is_none(), "the second one has the file that is there");
        remove_lock(&path, second).unwrap();
        assert!(names(directory.path()).is_empty());
    }
}
