//! Finished kernels, found in the cache.

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::{Built, Catalogue, DEBUG, Kernel, KernelError, Meta, PLACES, SLOTS, checks, source};

/// A kernel of the catalogue, and whether the cache has it.
#[derive(Clone, Debug)]
pub struct Listed<'a> {
    /// The kernel.
    pub kernel: &'a Kernel,
    /// Folder of the finished kernel, there or not.
    pub dir: PathBuf,
    /// The finished kernel.
    pub built: Option<Built>,
}

/// The finished `kernel` in the cache folder `cache`, if it is there.
///
/// # Errors
///
/// The compiler, which is part of the kernel's identity, cannot be run, or the folder in the cache
/// is damaged.
pub fn find(kernel: &Kernel, cache: &Path) -> Result<Option<Built>, KernelError> {
    Ok(locate(kernel, cache)?.1)
}

/// Finds the folder of the finished `kernel` in the cache folder `cache`, there or not, and the
/// kernel in it. It may be built from an archive that stands in for the source's version.
fn locate(kernel: &Kernel, cache: &Path) -> Result<(PathBuf, Option<Built>), KernelError> {
    let dir = place(kernel, &kernel.cache_key(&kernel.source.sha256)?, cache);
    if let Some(built) = open(kernel, &dir)? {
        return Ok((dir, Some(built)));
    }
    let Some(archive) = source::substitute(&kernel.source, cache) else { return Ok((dir, None)) };
    let dir = place(kernel, &kernel.cache_key(&archive.sha256)?, cache);
    let built = open(kernel, &dir)?;
    Ok((dir, built))
}

/// All kernels of the catalogue, sorted by name, and whether they are in the cache folder `cache`.
///
/// # Errors
///
/// As for [`find`].
pub fn list<'a>(catalogue: &'a Catalogue, cache: &Path) -> Result<Vec<Listed<'a>>, KernelError> {
    let listed = |kernel: &'a Kernel| {
        let (dir, built) = locate(kernel, cache)?;
        Ok(Listed { kernel, dir, built })
    };
    catalogue.kernels().iter().map(listed).collect()
}

/// Finds a kernel in the cache folder `cache` whose facts `fits`, whether the catalogue still knows
/// it or not; nothing where there is none. One that says where its coverage is comes first. What it
/// lacks of a kernel of today is found out by whoever asks for it.
#[must_use]
pub fn find_built(cache: &Path, fits: impl Fn(&Meta) -> bool) -> Option<Built> {
    let entries = fs::read_dir(cache.join("kernels")).ok()?.flatten();
    let mut folders: Vec<_> = entries.map(|entry| entry.path()).collect();
    folders.sort_by_key(|dir| (!dir.join(PLACES).is_file(), dir.clone()));
    folders.into_iter().find_map(|dir| {
        let built = in_folder(&dir, "").ok()?;
        fits(&built.meta).then_some(built)
    })
}

/// Reads the facts about the finished kernel in the folder `dir`.
///
/// # Errors
///
/// The file is gone or damaged.
pub fn read_meta(dir: &Path) -> Result<Meta, KernelError> {
    let damaged =
        |reason: String| KernelError::Damaged { path: dir.to_owned(), reason: format!("meta.json: {reason}") };
    let text = fs::read_to_string(dir.join("meta.json")).map_err(|error| damaged(error.to_string()))?;
    serde_json::from_str(&text).map_err(|error| damaged(error.to_string()))
}

/// Gives the kernel with these `options` in the folder `dir`, whose files may be missing.
fn in_folder(dir: &Path, options: &str) -> Result<Built, KernelError> {
    Ok(Built {
        dir: dir.to_owned(),
        vmlinux: dir.join("vmlinux"),
        config: dir.join("config"),
        slots: Some(dir.join(SLOTS)).filter(|slots| slots.is_file()),
        meta: read_meta(dir)?,
        options: options.to_owned(),
    })
}

/// Characters of the key in a folder's name.
const SHORT_KEY: usize = 16;

/// Gives the folder of the `kernel` with this `key`, there or not.
pub(super) fn place(kernel: &Kernel, key: &str, cache: &Path) -> PathBuf {
    cache.join("kernels").join(format!("{}-{}", kernel.name, key.get(..SHORT_KEY).unwrap_or(key)))
}

/// Opens the `kernel` in the folder `dir`, if that is there.
pub(super) fn open(kernel: &Kernel, dir: &Path) -> Result<Option<Built>, KernelError> {
    if !dir.exists() {
        return Ok(None);
    }
    let built = in_folder(dir, &kernel.options)?;
    let damaged = |reason: String| KernelError::Damaged { path: dir.to_owned(), reason };
    let missing = |file: &Path| damaged(format!("{} is missing", file.display()));
    for file in [&built.vmlinux, &built.config, &dir.join(checks::FILE), &dir.join(PLACES), &dir.join(DEBUG)] {
        if !file.is_file() {
            return Err(missing(file));
        }
    }
    let config = fs::read_to_string(&built.config).map_err(|error| damaged(format!("config: {error}")))?;
    if built.slots.is_none() && config.lines().any(|line| line == "CONFIG_MODULES=y") {
        return Err(missing(&dir.join(SLOTS)));
    }
    Ok(Some(built))
}
