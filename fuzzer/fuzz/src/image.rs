//! Disk images, made once by a target's recipe and kept in the cache.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    process::Command,
};

use sha2::{Digest, Sha256};
use thiserror::Error;

use crate::{hex::hex, target::ImageRecipe};

/// Why there is no image.
#[derive(Debug, Error)]
pub enum ImageError {
    /// The tool is missing.
    #[error("cannot run {command}: install the package it is in (btrfs-progs, e2fsprogs or xfsprogs)")]
    Missing {
        /// The command.
        command: String,
        /// Why not.
        source: io::Error,
    },
    /// The tool failed.
    #[error("{command} failed: {output}")]
    Failed {
        /// The command line.
        command: String,
        /// What it said.
        output: String,
    },
    /// The file system says no.
    #[error("cannot write {path}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

/// The image for `recipe` under `cache`, made now if it is not there. Its name is the hash of the recipe and of the
/// tool's version.
///
/// # Errors
///
/// The tool is missing or fails, or the cache cannot be written.
pub fn image(recipe: &ImageRecipe, cache: &Path) -> Result<PathBuf, ImageError> {
    let folder = cache.join("images");
    let path = folder.join(format!("{}.raw", key(recipe)?));
    if path.is_file() {
        return Ok(path);
    }
    let io_error = |path: &Path| {
        let path = path.to_owned();
        move |source| ImageError::Io { path, source }
    };
    fs::create_dir_all(&folder).map_err(io_error(&folder))?;
    let temporary = path.with_extension(format!("{}.tmp", std::process::id()));
    let file = File::create(&temporary).map_err(io_error(&temporary))?;
    file.set_len(u64::from(recipe.size_mib) << 20).map_err(io_error(&temporary))?;
    run(recipe, &recipe.mkfs[1..], Some(&temporary))?;
    file.sync_all().map_err(io_error(&temporary))?;
    fs::rename(&temporary, &path).map_err(io_error(&path))?;
    Ok(path)
}

fn key(recipe: &ImageRecipe) -> Result<String, ImageError> {
    let mut hash = Sha256::new();
    hash.update(recipe.size_mib.to_le_bytes());
    for word in &recipe.mkfs {
        hash.update(word.as_bytes());
        hash.update([0]);
    }
    hash.update(run(recipe, &["-V".to_owned()], None)?);
    Ok(hex(&hash.finalize()[..8]))
}

fn run(recipe: &ImageRecipe, arguments: &[String], path: Option<&Path>) -> Result<Vec<u8>, ImageError> {
    let mut command = Command::new(&recipe.mkfs[0]);
    // A user's PATH on Debian lacks the folder that mkfs is in.
    let search = std::env::var("PATH").unwrap_or_default();
    command.env("PATH", format!("{search}:/usr/sbin:/sbin")).args(arguments).args(path);
    let output = command.output().map_err(|source| ImageError::Missing { command: recipe.mkfs[0].clone(), source })?;
    if output.status.success() {
        return Ok([output.stdout, output.stderr].concat());
    }
    let command = format!("{} {}", recipe.mkfs[0], arguments.join(" "));
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(ImageError::Failed { command, output: said })
}

#[cfg(test)]
mod tests {
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
    fn a_tool_that_fails_is_named_with_what_it_said() {
        let cache = tempfile::tempdir().unwrap();
        let failed = image(&recipe(&["mkfs.btrfs", "--no-such-option"]), cache.path()).unwrap_err();
        assert!(failed.to_string().contains("mkfs.btrfs --no-such-option"), "{failed}");
        let missing = image(&recipe(&["mkfs.no-such-file-system"]), cache.path()).unwrap_err();
        assert!(missing.to_string().contains("cannot run mkfs.no-such-file-system"), "{missing}");
    }
}
