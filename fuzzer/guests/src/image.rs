//! Disk images, made once by a target's recipe and kept in the cache.
//!
//! ```text
//! mkfs    ─┐
//! script  ─┼─▶ KEY.PID.tmp ──▶ CACHE/images/KEY.raw      KEY: hash of all that is known of the recipe
//! file    ─┘   size_mib, sparse
//! ```

mod source;

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use sha2::{Digest, Sha256};
use thiserror::Error;

use execution::{ImageRecipe, ImageSource};
use files::{cache::lock, cache::publish_file};

/// Why there is no image.
#[derive(Debug, Error)]
pub enum ImageError {
    /// The tool is missing.
    #[error("cannot run {command}: install the package it is in ({package})")]
    Missing {
        /// The command.
        command: String,
        /// The package that has it, as far as that is known.
        package: &'static str,
        /// Underlying error.
        source: io::Error,
    },
    /// The tool failed.
    #[error("{command} failed, {status}: {output}")]
    Failed {
        /// The command line.
        command: String,
        /// Its exit status.
        status: String,
        /// Text that the tool printed.
        output: String,
    },
    /// The file that it is made of is elsewhere, or another one by now.
    #[error("the file {name} that the disk is made of is not at hand, or has changed: its SHA-256 must be {sha256}")]
    Absent {
        /// The file's name.
        name: String,
        /// Its checksum.
        sha256: String,
    },
    /// The image does not fit.
    #[error("{what} is larger than size_mib, which is {size_mib}")]
    TooLarge {
        /// What is.
        what: String,
        /// Size of the disk in MiB.
        size_mib: u32,
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
/// recipe, of the file if it is made of one, and of the tool's version. Two processes that want the
/// same image make it once: the second waits.
///
/// # Errors
///
/// The tool is missing or fails, the file is not there, or the cache cannot be written.
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
            let path = entry.path();
            let _ = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
        }
    }
}

/// Makes the image in the new file `path`.
fn make(recipe: &ImageRecipe, path: &Path) -> Result<(), ImageError> {
    let bytes = u64::from(recipe.size_mib) << 20;
    let file = File::create_new(path).map_err(at(path))?;
    file.set_len(bytes).map_err(at(path))?;
    let what = match &recipe.source {
        ImageSource::Mkfs(mkfs) => source::run(mkfs, Some(path)).map(|_| mkfs[0].clone()),
        ImageSource::Script { name, text } => source::script(name, text, path).map(|()| format!("the script {name}")),
        ImageSource::File { name, sha256, path: from } => {
            let absent = || ImageError::Absent { name: name.clone(), sha256: sha256.clone() };
            let from = from.as_deref().ok_or_else(absent)?;
            if !source::copy(name, from, &file, bytes)?.eq_ignore_ascii_case(sha256) {
                return Err(absent());
            }
            Ok(name.clone())
        }
    }?;
    // A program may have put another file in its place.
    let metadata = fs::symlink_metadata(path).map_err(at(path))?;
    if !metadata.is_file() {
        return Err(at(path)(io::Error::other(format!("{what} left no file there"))));
    }
    if metadata.len() > bytes {
        return Err(ImageError::TooLarge { what: format!("the image that {what} made"), size_mib: recipe.size_mib });
    }
    File::options().write(true).open(path).and_then(|file| file.set_len(bytes)).map_err(at(path))
}

fn key(recipe: &ImageRecipe) -> Result<String, ImageError> {
    let mut hash = Sha256::new();
    let mut add = |bytes: &[u8]| hash.update(bytes);
    add(&recipe.size_mib.to_le_bytes());
    match &recipe.source {
        ImageSource::Mkfs(mkfs) => {
            for word in mkfs {
                add(word.as_bytes());
                add(&[0]);
            }
            add(&source::version(&mkfs[0])?);
        }
        ImageSource::Script { text, .. } => {
            add(b"script\0");
            add(text.as_bytes());
            // The versions of other tools are not known.
            for command in source::mkfs_commands(text) {
                add(&source::version(command).unwrap_or_default());
            }
        }
        ImageSource::File { name, sha256, .. } => {
            add(b"file\0");
            add(source::decompressor(name).unwrap_or_default().as_bytes());
            add(sha256.as_bytes());
        }
    }
    Ok(hex::encode(&hash.finalize()[..8]))
}

#[cfg(test)]
mod tests {
    use std::{thread, time::Duration};

    use execution::DiskKind;

    use super::*;

    fn recipe(words: &[&str]) -> ImageRecipe {
        ImageRecipe {
            size_mib: 128,
            disks: 1,
            kind: DiskKind::Memory,
            steps: Vec::new(),
            source: ImageSource::Mkfs(words.iter().map(ToString::to_string).collect()),
        }
    }

    fn script(text: &str) -> ImageRecipe {
        let (name, text) = ("make-image".to_owned(), format!("#!/bin/sh\n{text}\n"));
        ImageRecipe {
            size_mib: 1,
            disks: 1,
            kind: DiskKind::Memory,
            steps: Vec::new(),
            source: ImageSource::Script { name, text },
        }
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

    #[test]
    fn a_script_makes_an_image() {
        let cache = tempfile::tempdir().unwrap();
        let written = script("printf data >part && dd if=part of=\"$1\" seek=3 bs=4096 conv=notrunc 2>/dev/null");
        let path = image(&written, cache.path()).unwrap();
        let content = fs::read(&path).unwrap();
        assert_eq!((content.len(), &content[3 * 4096..][..5]), (1 << 20, b"data\0".as_slice()));
        assert_ne!(image(&script("true"), cache.path()).unwrap(), path);
        let short = image(&script("printf short >\"$1\""), cache.path()).unwrap();
        assert_eq!(fs::metadata(short).unwrap().len(), 1 << 20, "the rest is zero");
        let refused = |text: &str| execution::chain(&image(&script(text), cache.path()).unwrap_err());
        let failed = refused("echo no such tool >&2; exit 7");
        assert!(failed.contains("make-image") && failed.contains("7: no such tool"), "{failed}");
        assert!(refused("truncate -s 2M \"$1\"").contains("make-image made is larger than size_mib, which is 1"));
        assert!(refused("rm \"$1\"; mkdir \"$1\"").contains("left no file there"));
    }

    #[test]
    fn a_file_is_an_image_compressed_or_not() {
        let folder = tempfile::tempdir().unwrap();
        let plain = folder.path().join("dirty.img");
        let content = [vec![0; 8192], b"damaged".to_vec(), vec![0; 10_000]].concat();
        fs::write(&plain, &content).unwrap();
        let made = |name: &str| {
            let path = Some(folder.path().join(name));
            let sha256 = hex::encode(Sha256::digest(fs::read(folder.path().join(name)).unwrap()));
            let recipe = ImageRecipe {
                size_mib: 1,
                disks: 1,
                kind: DiskKind::Memory,
                steps: Vec::new(),
                source: ImageSource::File { name: name.to_owned(), sha256, path },
            };
            image(&recipe, folder.path())
        };
        for (tool, ending) in [("true", ""), ("zstd", ".zst"), ("xz", ".xz")] {
            let packed = std::process::Command::new(tool).args(["-q", "-k"]).arg(&plain).status().unwrap();
            assert!(packed.success(), "{tool}");
            let path = made(&format!("dirty.img{ending}")).unwrap();
            let image = fs::read(&path).unwrap();
            assert_eq!((image.len(), &image[..content.len()]), (1 << 20, content.as_slice()), "{tool}");
        }
        fs::write(folder.path().join("odd.xz"), "no archive").unwrap();
        assert!(execution::chain(&made("odd.xz").unwrap_err()).contains("xz"));
        fs::write(folder.path().join("large"), vec![1; (1 << 20) + 1]).unwrap();
        assert!(made("large").unwrap_err().to_string().contains("large is larger than size_mib, which is 1"));
        let source = ImageSource::File { name: "gone".to_owned(), sha256: "00".to_owned(), path: None };
        let absent = image(
            &ImageRecipe { size_mib: 1, disks: 1, kind: DiskKind::Memory, steps: Vec::new(), source },
            folder.path(),
        )
        .unwrap_err();
        assert!(absent.to_string().contains("the file gone"), "{absent}");
    }
}
