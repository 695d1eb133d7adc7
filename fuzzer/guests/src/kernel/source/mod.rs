//! Kernel sources: a Debian package's archive, and what is changed in its tree before a kernel is
//! built from it.
//!
//! ```text
//! CACHE/sources/PACKAGE.lock             held while an archive of PACKAGE is looked for or fetched
//! CACHE/sources/PACKAGE.log              output of the last fetch
//! CACHE/sources/.fetch-PACKAGE-PID/      a fetch under way, or what a killed one left
//! CACHE/sources/PACKAGE_VERSION/         an archive and source.json; appears by one rename
//! ```

mod apt;
mod archive;
mod uninstrumented;

use std::path::{Path, PathBuf};

use files::{TextFile, TextFileError};
use serde::Deserialize;

pub use self::archive::FETCH_LEFTOVER;
pub(super) use self::{
    archive::{Archive, obtain, substitute},
    uninstrumented::leave_out,
};
use super::KernelError;

/// Gives the text of the file `path`.
pub(super) fn read(path: &Path) -> Result<String, TextFileError> {
    Ok(TextFile::read(path)?.text)
}

/// Gives the names and texts of `patches`, files in `folder`.
pub(super) fn read_patches(folder: &Path, patches: &[PathBuf]) -> Result<Vec<(String, String)>, KernelError> {
    patches.iter().map(|patch| Ok((patch.display().to_string(), read(&folder.join(patch))?))).collect()
}

/// An entry `[source.NAME]` of `kernels.toml`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SourceEntry {
    package: String,
    version: String,
    archive: PathBuf,
    sha256: String,
    #[serde(default)]
    patches: Vec<PathBuf>,
    #[serde(default)]
    uninstrumented: Vec<String>,
}

/// A kernel tree that kernels are built from, with the content of everything that is changed in it.
#[derive(Clone, Debug)]
pub struct Source {
    /// Its name in `kernels.toml`.
    pub name: String,
    /// Debian package that has it.
    pub package: String,
    /// Version of that package.
    pub version: String,
    /// Path at which the package puts it, a compressed archive.
    pub archive: PathBuf,
    /// SHA-256 of the archive, in hexadecimal.
    pub sha256: String,
    /// The patches' names and texts, in the order in which they apply.
    pub patches: Vec<(String, String)>,
    /// Objects (`lib/bitmap.o`) and folders (`fs/kernfs/`) of the tree that are compiled without
    /// KCOV.
    pub uninstrumented: Vec<String>,
}

impl Source {
    /// Says whether the folder `folder` of the cache has the archive that kernels are built from,
    /// or one that stands in for it.
    #[must_use]
    pub fn is_in(&self, folder: &Path) -> bool {
        archive::is_kept(folder, self)
    }

    /// Reads the files that the entry names, which are in `folder` unless it says otherwise.
    pub(super) fn load(folder: &Path, name: &str, entry: SourceEntry) -> Result<Self, KernelError> {
        let refuse = |reason: String| KernelError::Entry { entry: format!("source {name}"), reason };
        if entry.sha256.len() != 64 || !entry.sha256.chars().all(|c| matches!(c, '0'..='9' | 'a'..='f')) {
            return Err(refuse("sha256 is not 64 lower-case hexadecimal digits".to_owned()));
        }
        // They become parts of a path (Debian Policy 5.6.1 and 5.6.12).
        let plain = |text: &str| {
            text.starts_with(|c: char| c.is_ascii_alphanumeric())
                && text.chars().all(|c| c.is_ascii_alphanumeric() || ".+-~:".contains(c))
        };
        for (key, value) in [("package", &entry.package), ("version", &entry.version)] {
            if !plain(value) {
                return Err(refuse(format!("{key} \"{value}\" is none that Debian allows")));
            }
        }
        if let Some(path) = entry.uninstrumented.iter().find(|path| !uninstrumented::is_path(path)) {
            return Err(refuse(format!("uninstrumented \"{path}\" is neither an object nor a folder of the tree")));
        }
        Ok(Self {
            name: name.to_owned(),
            patches: read_patches(folder, &entry.patches)?,
            package: entry.package,
            version: entry.version,
            archive: folder.join(entry.archive),
            sha256: entry.sha256,
            uninstrumented: entry.uninstrumented,
        })
    }
}
