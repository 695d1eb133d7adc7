//! The archive that a kernel is built from: on this machine, in the cache, or fetched.
//!
//! A package archive keeps few versions. When the one that `kernels.toml` names is gone, the newest
//! of the package stands in for it. That one's checksum is part of the kernel's key, so that it
//! makes another kernel.

use std::{
    ffi::OsString,
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{
    super::{
        KernelError, Progress,
        lock::lock,
        make::{Log, failed},
    },
    Source,
    apt::Apt,
};
use execution::Stop;
use files::cache;

/// Prefix of the names of a fetch's temporary folders.
pub const FETCH_LEFTOVER: &str = ".fetch-";

/// An archive with a kernel tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::kernel) struct Archive {
    pub(in crate::kernel) path: PathBuf,
    /// Version of the package that it is from.
    pub(in crate::kernel) version: String,
    /// In hexadecimal.
    pub(in crate::kernel) sha256: String,
}

/// Facts about an archive in the cache: `source.json` beside it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kept {
    package: String,
    version: String,
    sha256: String,
    /// Version that was asked for. When it is another one, this archive stands in for that.
    wanted: String,
}

/// The archive in the cache that stands in for the version of `source`, if there is one.
pub(in crate::kernel) fn substitute(source: &Source, cache: &Path) -> Option<Archive> {
    let folders = fs::read_dir(cache.join("sources")).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut found: Vec<_> = folders
        .filter_map(|folder| {
            let kept = stands_for(&folder, source)?;
            let path = folder.join(source.archive.file_name()?);
            // The package's own time: a newer version has a later one.
            let made = fs::metadata(&path).and_then(|metadata| metadata.modified()).ok()?;
            (kept.version != source.version)
                .then_some((made, Archive { path, version: kept.version, sha256: kept.sha256 }))
        })
        .collect();
    found.sort_by(|(one, a), (other, b)| (one, &a.version).cmp(&(other, &b.version)));
    found.pop().map(|(_, archive)| archive)
}

/// Says whether the folder `folder` of the cache has an archive for `source`.
pub(super) fn is_kept(folder: &Path, source: &Source) -> bool {
    stands_for(folder, source).is_some()
}

fn stands_for(folder: &Path, source: &Source) -> Option<Kept> {
    let hidden = folder.file_name()?.to_str()?.starts_with('.');
    let kept: Kept = serde_json::from_slice(&fs::read(folder.join("source.json")).ok()?).ok()?;
    (!hidden && kept.package == source.package && kept.wanted == source.version).then_some(kept)
}

/// The archive of `source`, checked: what the package has installed, or what the cache has, or
/// fetched now.
///
/// # Errors
///
/// There is no way to fetch it, or that fails, or it is not what `kernels.toml` says; or the user
/// asks to stop.
pub(in crate::kernel) fn obtain(
    source: &Source,
    cache: &Path,
    stop: &Stop,
    progress: &mut dyn FnMut(Progress),
) -> Result<Archive, KernelError> {
    obtain_with(source, cache, Vec::new(), stop, progress)
}

/// Like [`obtain`], with options of apt.
fn obtain_with(
    source: &Source,
    cache: &Path,
    options: Vec<OsString>,
    stop: &Stop,
    progress: &mut dyn FnMut(Progress),
) -> Result<Archive, KernelError> {
    let sources = cache.join("sources");
    fs::create_dir_all(&sources).map_err(|error| failed("create", &sources, error))?;
    let _lock = lock(&sources.join(format!("{}.lock", source.package)), stop, progress)?;
    progress(Progress::Step("checking the source's checksum"));
    let name = source.archive.file_name().unwrap_or_default();
    let folder = sources.join(format!("{}_{}", source.package, source.version));
    for path in [source.archive.clone(), folder.join(name)] {
        if checksum(&path).is_ok_and(|sum| sum == source.sha256) {
            return Ok(Archive { path, version: source.version.clone(), sha256: source.sha256.clone() });
        }
    }
    let stand_in =
        substitute(source, cache).filter(|archive| checksum(&archive.path).is_ok_and(|sum| sum == archive.sha256));
    let archive = match stand_in {
        Some(archive) => archive,
        None => Fetch { source, sources: &sources, stop, options }.run(progress)?,
    };
    if archive.version != source.version {
        let (wanted, found) = (source.version.clone(), archive.version.clone());
        progress(Progress::Substitute { package: source.package.clone(), wanted, found });
    }
    Ok(archive)
}

/// One fetch from the package archive, while the package's lock is held.
struct Fetch<'a> {
    source: &'a Source,
    sources: &'a Path,
    stop: &'a Stop,
    /// Options of apt.
    options: Vec<OsString>,
}

impl Fetch<'_> {
    fn run(self, progress: &mut dyn FnMut(Progress)) -> Result<Archive, KernelError> {
        if !Apt::is_installed() {
            return Err(self.missing("this machine has no apt"));
        }
        let package = &self.source.package;
        self.remove_leftovers();
        let work = self.sources.join(format!("{FETCH_LEFTOVER}{package}-{}", std::process::id()));
        fs::create_dir(&work).map_err(|error| failed("create", &work, error))?;
        let mut log = Log::create(self.sources.join(format!("{package}.log")))?;
        let fetched = self.fetch(&work, &mut log, progress);
        // The first error is the one to tell; the next fetch removes what is left.
        let _ = fs::remove_dir_all(&work);
        fetched
    }

    fn fetch(&self, work: &Path, log: &mut Log, progress: &mut dyn FnMut(Progress)) -> Result<Archive, KernelError> {
        let Source { package, version: wanted, .. } = self.source;
        let tree = work.join("package");
        let mut apt = Apt { options: self.options.clone(), log, stop: self.stop };
        progress(Progress::Step("fetching the source, some 150 MB"));
        let known = apt.versions(package)?.contains(wanted);
        let version = match known.then(|| apt.unpack(package, wanted, &tree)) {
            Some(Ok(())) => wanted.clone(),
            Some(Err(KernelError::Stopped)) => return Err(KernelError::Stopped),
            // The lists are too old: they do not know it yet, or it has gone since.
            None => self.fetch_by_new_lists(work, &tree, &mut apt, progress)?,
            Some(Err(first)) => match self.fetch_by_new_lists(work, &tree, &mut apt, progress) {
                Ok(version) => version,
                Err(KernelError::Stopped) => return Err(KernelError::Stopped),
                // Without a network both fail, and the first error is about what was asked for.
                Err(_) => return Err(first),
            },
        };
        self.publish(&tree, work, version)
    }

    /// Unpacks the version that is wanted, or the newest one, in `tree`, and returns which.
    fn fetch_by_new_lists(
        &self,
        work: &Path,
        tree: &Path,
        apt: &mut Apt<'_>,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<String, KernelError> {
        let Source { package, version: wanted, .. } = self.source;
        progress(Progress::Step("fetching package lists"));
        let updated = apt.update(&work.join("lists"));
        let versions = apt.versions(package)?;
        let found = if versions.contains(wanted) {
            wanted
        } else {
            // A list that is missing may have it: only all of them show that it has gone.
            updated?;
            versions.first().ok_or_else(|| self.missing("the package archive has no version of it"))?
        };
        progress(Progress::Step("fetching the source, some 150 MB"));
        apt.unpack(package, found, tree)?;
        Ok(found.clone())
    }

    /// Moves the archive from the unpacked package in `tree` to its place in the cache.
    fn publish(&self, tree: &Path, work: &Path, version: String) -> Result<Archive, KernelError> {
        let Source { package, version: wanted, archive, .. } = self.source;
        let unpacked = tree.join(archive.strip_prefix("/").unwrap_or(archive));
        let sha256 = checksum(&unpacked).map_err(|error| failed("read", &unpacked, error))?;
        if version == *wanted && sha256 != self.source.sha256 {
            return Err(KernelError::WrongSource {
                package: format!("{package} {version}"),
                found: sha256,
                expected: self.source.sha256.clone(),
            });
        }
        let name = format!("{package}_{version}");
        let (prepared, destination) = (work.join(&name), self.sources.join(&name));
        let place = |folder: &Path| folder.join(archive.file_name().unwrap_or_default());
        let kept = Kept { package: package.clone(), version, sha256, wanted: wanted.clone() };
        let moved = (|| {
            fs::create_dir(&prepared)?;
            fs::rename(&unpacked, place(&prepared))?;
            fs::write(prepared.join("source.json"), serde_json::to_vec_pretty(&kept)?)?;
            match destination.exists() {
                // Damaged, or fetched for another version than is now wanted.
                true => cache::replace_directory(&prepared, &destination),
                false => cache::publish_directory(&prepared, &destination),
            }
        })();
        moved.map_err(|error| failed("publish", &destination, error))?;
        Ok(Archive { path: place(&destination), version: kept.version, sha256: kept.sha256 })
    }

    fn missing(&self, reason: &'static str) -> KernelError {
        let Source { package, version, archive, .. } = self.source.clone();
        KernelError::NoSource { package, version, path: archive, reason }
    }

    /// Removes what killed fetches left; nobody else fetches this package.
    fn remove_leftovers(&self) {
        let prefix = format!("{FETCH_LEFTOVER}{}-", self.source.package);
        for entry in fs::read_dir(self.sources).into_iter().flatten().flatten() {
            if entry.file_name().to_string_lossy().starts_with(&prefix) {
                // A leftover costs only disk space.
                let _ = fs::remove_dir_all(entry.path());
            }
        }
    }
}

/// SHA-256 of the file, in hexadecimal.
fn checksum(path: &Path) -> io::Result<String> {
    let mut hash = Sha256::new();
    io::copy(&mut File::open(path)?, &mut hash)?;
    Ok(hex::encode(hash.finalize()))
}

#[cfg(test)]
mod tests;
