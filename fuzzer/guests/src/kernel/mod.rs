//! Kernels as a product: described in `kernels/kernels.toml`, built once, kept in the cache under
//! the content of everything that went into them.
//!
//! ```text
//! CACHE/kernels/NAME-KEY.lock        held while NAME-KEY is being built
//! CACHE/kernels/NAME-KEY.log         output of its last build
//! CACHE/kernels/.build-NAME-KEY-PID  a build under way, or what a killed one left
//! CACHE/kernels/NAME-KEY/            vmlinux, vmlinux.debug, config, checks.json, places.txt,
//!                                    meta.json, slots.ko if it has modules; appears by one rename
//! ```

mod build;
mod catalogue;
mod checks;
mod decode;
mod error;
mod find;
mod fragment;
mod lock;
mod make;
mod meter;
mod source;
mod tools;
mod tree;

use std::{collections::BTreeMap, fmt, fs, path::PathBuf, time::Duration};

pub use build::{BUILD_LEFTOVER, build};
pub use catalogue::{Catalogue, Kernel};
pub(crate) use checks::Checks;
pub use decode::decode;
pub use error::KernelError;
pub use find::{Listed, find, find_built, list, read_meta};
use kcov_parser::{CallSites, Places, SourceLines};
use serde::{Deserialize, Serialize};
pub use source::{FETCH_LEFTOVER, Source};

/// File of a kernel's folder that says where in the source its coverage is.
const PLACES: &str = "places.txt";
/// File of a kernel's folder that has its debug information. The kernel's image names it, so that a
/// debugger finds it by itself.
const DEBUG: &str = "vmlinux.debug";
/// The module in a kernel's folder by which functions get on its list of those that may fail.
const SLOTS: &str = guest_protocol::SLOTS_FILE;

/// A finished kernel in the cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Built {
    /// Its folder.
    pub dir: PathBuf,
    /// The kernel with its symbols; QEMU boots it as it is.
    pub vmlinux: PathBuf,
    /// Its configuration.
    pub config: PathBuf,
    /// The module by which functions get on its list of those that may fail; none of a kernel
    /// without modules.
    pub slots: Option<PathBuf>,
    /// Facts about it.
    pub meta: Meta,
    /// Options of its command line, besides those of every guest.
    pub options: String,
}

/// Facts about a finished kernel: `meta.json` in its folder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Meta {
    /// Name in the catalogue.
    pub name: String,
    /// Release, as `uname -r` says in it.
    pub release: String,
    /// GNU build id in hexadecimal; it tells this build from every other.
    pub build_id: String,
    /// Digest of all that went into it, in hexadecimal.
    pub key: String,
    /// First line of `gcc --version`.
    pub compiler: String,
    /// Debian package of the source and its version.
    pub source: String,
    /// Objects that were compiled or taken from the compiler's cache.
    pub objects: u32,
    /// Time that the build took, in seconds.
    pub seconds: u64,
}

impl Built {
    /// Reads where in the source each place is that can report coverage.
    ///
    /// # Errors
    ///
    /// The file cannot be read, or is damaged.
    pub fn places(&self) -> Result<Places, KernelError> {
        let damaged =
            |reason: &str| KernelError::Damaged { path: self.dir.clone(), reason: format!("{PLACES}: {reason}") };
        let text = fs::read_to_string(self.dir.join(PLACES)).map_err(|error| damaged(&error.to_string()))?;
        Places::parse(&text).ok_or_else(|| damaged("it is of another form"))
    }

    /// Reads the kernel's debug information, for the source lines of a few addresses. That takes
    /// two seconds and some 400 MB of memory.
    ///
    /// # Errors
    ///
    /// The file cannot be read, or is damaged.
    pub fn source_lines(&self) -> Result<SourceLines, KernelError> {
        let path = self.dir.join(DEBUG);
        let elf = fs::read(&path).map_err(|source| make::failed("read", &path, source))?;
        SourceLines::from_elf(&elf).map_err(|error| KernelError::Vmlinux { path, reason: error.to_string() })
    }

    /// Counts the places with these `addresses`, as KCOV reports them, by the folder of the
    /// kernel's source that they are in.
    ///
    /// # Errors
    ///
    /// A file of the kernel cannot be read, or is damaged.
    pub fn count_by_folder(&self, addresses: impl Iterator<Item = u64>) -> Result<BTreeMap<String, u64>, KernelError> {
        let elf = fs::read(&self.vmlinux).map_err(|source| make::failed("read", &self.vmlinux, source))?;
        let sites = CallSites::from_elf(&elf)
            .map_err(|error| KernelError::Vmlinux { path: self.vmlinux.clone(), reason: error.to_string() })?;
        let places = self.places()?;
        let counts = places.count_by_folder(addresses.filter_map(|address| sites.index_of(address)));
        Ok(counts.into_iter().map(|(folder, count)| (folder.to_owned(), count)).collect())
    }
}

/// Progress of a build. `Display` is a line for the user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Somebody else builds the same kernel; this build waits for that one.
    Waiting,
    /// A step begins.
    Step(&'static str),
    /// The package archive no longer has the version of the source that is asked for, and another
    /// one is taken.
    Substitute {
        /// Debian package of the source.
        package: String,
        /// Version that `kernels.toml` names.
        wanted: String,
        /// Version that the kernel is built from.
        found: String,
    },
    /// Compiling goes on.
    Compiling {
        /// Objects so far.
        done: u32,
        /// Objects in the end, an estimate; never less than `done`.
        total: u32,
        /// Time that it will still take, estimated from the time it took so far; none at the very
        /// beginning.
        left: Option<Duration>,
    },
}

impl fmt::Display for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Waiting => write!(f, "waiting for another process that builds this kernel"),
            Self::Step(step) => write!(f, "{step}"),
            Self::Substitute { package, wanted, found } => {
                write!(f, "{package} {wanted} is no longer in the package archive: building from {found}")
            }
            Self::Compiling { done, total, left: Some(left) } if done < total => {
                let minutes = left.as_secs().div_ceil(60);
                write!(f, "compiled {done} of about {total} objects, about {minutes} min left")
            }
            Self::Compiling { done, total, .. } => write!(f, "compiled {done} of about {total} objects"),
        }
    }
}
