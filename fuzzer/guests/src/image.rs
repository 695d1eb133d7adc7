//! Disk images, made once by a target's recipe and kept in the cache.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use sha2::{Digest, Sha256};
use thiserror::Error;

use crate::process;
use execution::ImageRecipe;
use files::{cache::lock, cache::publish_file};

/// Why there is no image.
#[derive(Debug, Error)]
pub enum ImageError {
    /// The tool is missing.
    #[error("cannot run {command}: install the package it is in (btrfs-progs, e2fsprogs or xfsprogs)")]
    Missing {
        /// The command.
        command: String,
        /// Underlying error.
        source: io::Error,
    },
    /// The tool failed.
    #[error("{command} failed: {output}")]
    Failed {
        /// The command line.
        command: String,
        /// Text that the tool printed.
        output: String,
    },
    /// The file system says no.
    #[error("cannot write {path}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Underlying error.
        source: io::Error,
    },
}

/// The image for `recipe` under `cache`, made now if it is not there. Its name is the hash of the
/// recipe and of the tool's version. Two processes that want the same image make it once: the
/// second waits.
///
/// # Errors
///
/// The tool is missing or fails, or the cache cannot be written.
pub fn image(recipe: &ImageRecipe, cache: &Path) -> Result<PathBuf, ImageError> {
    let folder = cache.join("images");
    let key = key(recipe)?;
    let path = folder.join(format!("{key}.raw"));
    if path.is_file() {
        return Ok(path);
    }
    fs::create_dir_all(&folder).map_err(at(&folder))?;
    let lock_path = folder.join(format!("{key}.lock"));
    let waiting = || tracing::debug!("this image is being made: waiting for it");
    let _lock = lock(&lock_path, waiting).map_err(at(&lock_path))?;
    if path.is_file() {
        return Ok(path);
    }
    remove_leftovers(&folder, &key);
    let temporary = folder.join(format!("{key}.{}.tmp", std::process::id()));
    let made = make(recipe, &temporary).and_then(|()| publish_file(&temporary, &path).map_err(at(&path)));
    if made.is_err() {
        // The first error is the one to tell; what stays is removed by the next attempt.
        let _ = fs::remove_file(&temporary);
    }
    made.map(|()| path)
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> ImageError {
    let path = path.to_owned();
    move |source| ImageError::Io { path, source }
}

/// Removes what killed processes left of the image `key`, whose lock is held.
fn remove_leftovers(folder: &Path, key: &str) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let rest = name.to_str().and_then(|name| name.strip_prefix(key));
        if rest.is_some_and(|rest| rest.starts_with('.') && rest.ends_with(".tmp")) {
            // A leftover costs only disk space.
            let _ = fs::remove_file(entry.path());
        }
    }
}

fn make(recipe: &ImageRecipe, path: &Path) -> Result<(), ImageError> {
    let file = File::create_new(path).map_err(at(path))?;
    file.set_len(u64::from(recipe.size_mib) << 20).map_err(at(path))?;
    run(recipe, &recipe.mkfs[1..], Some(path)).map(drop)
}

fn key(recipe: &ImageRecipe) -> Result<String, ImageError> {
    let mut hash = Sha256::new();
    hash.update(recipe.size_mib.to_le_bytes());
    for word in &recipe.mkfs {
        hash.update(word.as_bytes());
        hash.update([0]);
    }
    hash.update(run(recipe, &["-V".to_owned()], None)?);
    Ok(hex::encode(&hash.finalize()[..8]))
}

fn run(recipe: &ImageRecipe, arguments: &[String], path: Option<&Path>) -> Result<Vec<u8>, ImageError> {
    let mut command = Command::new(&recipe.mkfs[0]);
    // A user's PATH on Debian lacks the folder that mkfs is in.
    let search = std::env::var("PATH").unwrap_or_default();
    command.env("PATH", format!("{search}:/usr/sbin:/sbin")).args(arguments).args(path);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let output = process::start(command, Vec::new())
        .and_then(Child::wait_with_output)
        .map_err(|source| ImageError::Missing { command: recipe.mkfs[0].clone(), source })?;
    if output.status.success() {
        return Ok([output.stdout, output.stderr].concat());
    }
    let command = format!("{} {}", recipe.mkfs[0], arguments.join(" "));
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(ImageError::Failed { command, output: said })
}

#[cfg(test)]
mod tests {
    use std::{thread, time::Duration};

    use super::*;

    fn recipe(words: &[&str]) -> ImageRecipe {
        ImageRecipe { mkfs: words.iter().map(ToString::to_string).collect(), size_mib: 128 }
    }

    #[test]
    fn an_image_is_made_once() {
        let cache = tempfile::tempdir().unwrap();
        let btrfs = recipe(&["mkfs.btrfs", "-q"]);
        let path = image(&btrfs, cache.path()).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().len(), 128 << 20);
        let made = fs::metadata(&path).unwrap().modified().unwrap();
        assert_eq!(image(&btrfs, cache.path()).unwrap(), path);
        assert_eq!(fs::metadata(&path).unwrap().modified().unwrap(), made);
        assert_ne!(image(&recipe(&["mkfs.btrfs", "-q", "-L", "other"]), cache.path()).unwrap(), path);
    }

    #[test]
    fn nothing_is_left_of_attempts_that_failed_or_were_killed() {
        let cache = tempfile::tempdir().unwrap();
        let recipe = recipe(&["mkfs.btrfs", "--no-such-option"]);
        let key = key(&recipe).unwrap();
        let folder = cache.path().join("images");
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join(format!("{key}.12345.tmp")), "").unwrap();
        fs::write(folder.join("other.12345.tmp"), "").unwrap();
        assert!(matches!(image(&recipe, cache.path()), Err(ImageError::Failed { .. })));
        let mut left: Vec<_> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, [format!("{key}.lock").as_str(), "other.12345.tmp"]);
    }

    #[test]
    fn what_another_process_makes_is_waited_for() {
        let cache = tempfile::tempdir().unwrap();
        let recipe = recipe(&["mkfs.btrfs", "-q"]);
        let folder = cache.path().join("images");
        fs::create_dir(&folder).unwrap();
        let key = key(&recipe).unwrap();
        let held = lock(&folder.join(format!("{key}.lock")), || {}).unwrap();
        let path = cache.path().to_owned();
        let waits = thread::spawn(move || image(&recipe, &path).unwrap());
        thread::sleep(Duration::from_millis(100));
        fs::write(folder.join(format!("{key}.raw")), "theirs").unwrap();
        drop(held);
        assert_eq!(fs::read(waits.join().unwrap()).unwrap(), b"theirs");
    }

    #[test]
    fn a_tool_that_fails_is_named_with_what_it_said() {
        let cache = tempfile::tempdir().unwrap();
        let failed = image(&recipe(&["mkfs.btrfs", "--no-such-option"]), cache.path()).unwrap_err();
        assert!(failed.to_string().contains("mkfs.btrfs --no-such-option"), "{failed}");
        let missing = image(&recipe(&["mkfs.no-such-file-system"]), cache.path()).unwrap_err();
        assert!(missing.to_string().contains("cannot run mkfs.no-such-file-system"), "{missing}");
    }
}
