//! Errors of kernels: of their descriptions, their builds and the cache.

use std::{io, path::PathBuf};

use files::TextFileError;
use thiserror::Error;

/// Why a kernel cannot be described, found or built.
#[derive(Debug, Error)]
pub enum KernelError {
    /// No such kernel.
    #[error("no kernel is called {name}; there are: {known}")]
    Unknown {
        /// Name that was asked for.
        name: String,
        /// Names that there are, separated by commas.
        known: String,
    },
    /// A file of the catalogue, or a configuration, cannot be read or understood.
    #[error(transparent)]
    File(#[from] TextFileError),
    /// An entry of the catalogue makes no sense.
    #[error("{entry}: {reason}")]
    Entry {
        /// The entry, such as `kernel small`.
        entry: String,
        /// Defect of the entry.
        reason: String,
    },
    /// The machine lacks what a build needs.
    #[error("building a kernel needs {missing}; install with: apt-get install --no-install-recommends {packages}")]
    Commands {
        /// Things that are missing, separated by commas.
        missing: String,
        /// Debian packages that have it, separated by spaces.
        packages: String,
    },
    /// There is no source, and no way to get it.
    #[error("no kernel source, {reason}: put the archive of Debian's {package} {version} at {path}")]
    NoSource {
        /// Debian package that has it.
        package: String,
        /// Version of the package.
        version: String,
        /// The archive.
        path: PathBuf,
        /// Why it cannot be fetched.
        reason: &'static str,
    },
    /// The source is another one.
    #[error(
        "the archive in {package} has SHA-256 {found}, but kernels/kernels.toml says {expected}: \
         if the package is the right one, write its checksum there"
    )]
    WrongSource {
        /// Debian package that has the archive, and its version.
        package: String,
        /// The archive's checksum.
        found: String,
        /// Checksum in `kernels.toml`.
        expected: String,
    },
    /// The source that stands in for the one of the catalogue cannot be changed as that one is.
    #[error(
        "{package} {wanted} is no longer in the package archive, and {found} does not take its place: \
         put the archive of {wanted} at {path}, or have kernels/kernels.toml name another version"
    )]
    Substitute {
        /// Debian package of the source.
        package: String,
        /// Version that `kernels.toml` names.
        wanted: String,
        /// Version that was unpacked.
        found: String,
        /// Place for the archive that is wanted.
        path: PathBuf,
        /// The change that failed.
        source: Box<KernelError>,
    },
    /// The configuration is not what was asked for.
    #[error("the kernel's configuration is not what {name} asks for:\n  {}", options.join("\n  "))]
    Unmet {
        /// The kernel.
        name: String,
        /// One line for each option.
        options: Vec<String>,
    },
    /// A command of the build failed.
    #[error("{step} failed ({status}); the whole log is {log}, its end:\n{tail}")]
    Failed {
        /// Step of the build, such as "unpacking the source".
        step: &'static str,
        /// Exit status of the command.
        status: String,
        /// The log.
        log: PathBuf,
        /// The log's last lines.
        tail: String,
    },
    /// The build's result is no kernel.
    #[error("{path} is no kernel that can be used: {reason}")]
    Vmlinux {
        /// The file.
        path: PathBuf,
        /// Defect of the file.
        reason: String,
    },
    /// A kernel in the cache is damaged.
    #[error("{path} in the cache is damaged ({reason}); delete that folder and build again")]
    Damaged {
        /// The kernel's folder.
        path: PathBuf,
        /// Damage that was found.
        reason: String,
    },
    /// The user asked to stop.
    #[error("stopped on request")]
    Stopped,
    /// The cache cannot be used.
    #[error("cannot {action} {path}")]
    Cache {
        /// Action that failed, such as "take the lock".
        action: &'static str,
        /// File or folder of the action.
        path: PathBuf,
        /// Underlying error.
        source: io::Error,
    },
}

impl KernelError {
    /// Says whether the user's input is wrong, and not the environment.
    #[must_use]
    pub fn is_input(&self) -> bool {
        matches!(self, Self::Unknown { .. } | Self::File(_) | Self::Entry { .. })
    }
}
