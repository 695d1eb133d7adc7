//! What the command line can ask for. Results go to `out`, progress to standard error through `say`.

mod bench;
mod cache;
mod doctor;
mod fuzz;
mod kernels;
mod replay;
mod targets;

use std::{io, net::SocketAddr, path::PathBuf};

use thiserror::Error;

pub use self::{
    bench::{Bench, BenchOptions, bench},
    cache::{Kind, PruneOptions, cache_list, cache_prune},
    doctor::doctor,
    fuzz::{FuzzOptions, fuzz},
    kernels::{kernel_build, kernel_list},
    replay::{ReplayOptions, replay},
    targets::targets,
};
use crate::{
    cache::CacheError,
    campaign::{CampaignError, FolderError},
    execution::ExecuteError,
    guest::GuestError,
    kernel::KernelError,
    prepare::PrepareError,
    project::ProjectError,
    target::TargetError,
};

/// Why a command failed.
#[derive(Debug, Error)]
pub enum CommandError {
    /// The input is wrong: exit status 2.
    #[error("{0}")]
    Input(String),
    /// The target is wrong.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// Something cannot be prepared.
    #[error(transparent)]
    Prepare(#[from] PrepareError),
    /// The project's files.
    #[error(transparent)]
    Project(#[from] ProjectError),
    /// The cache.
    #[error(transparent)]
    Cache(#[from] CacheError),
    /// A kernel.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// The campaign's folder.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// The campaign.
    #[error(transparent)]
    Campaign(#[from] CampaignError),
    /// An execution.
    #[error(transparent)]
    Execute(#[from] ExecuteError),
    /// Other hosts cannot join there.
    #[error("cannot listen at {address}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why not.
        source: io::Error,
    },
    /// Something cannot be removed from the cache.
    #[error("cannot remove {path}")]
    Prune {
        /// The file or folder.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Results cannot be written.
    #[error("cannot write the result")]
    Write(#[from] io::Error),
}

impl CommandError {
    /// Whether this only says that the user wanted to stop.
    #[must_use]
    pub fn is_stop(&self) -> bool {
        matches!(
            self,
            Self::Prepare(PrepareError::Guest(GuestError::Stopped) | PrepareError::Kernel(KernelError::Stopped))
                | Self::Kernel(KernelError::Stopped)
                | Self::Execute(ExecuteError::Stopped)
        )
    }

    /// The exit status: 2 for wrong input, 3 for the environment.
    #[must_use]
    pub fn status(&self) -> u8 {
        match self {
            Self::Input(_)
            | Self::Target(_)
            | Self::Prepare(PrepareError::Target(_))
            | Self::Execute(ExecuteError::Refused(_))
            | Self::Kernel(KernelError::Unknown { .. } | KernelError::File(_) | KernelError::Entry { .. })
            | Self::Prepare(PrepareError::Kernel(
                KernelError::Unknown { .. } | KernelError::File(_) | KernelError::Entry { .. },
            ))
            | Self::Folder(
                FolderError::Other { .. }
                | FolderError::NotOurs { .. }
                | FolderError::Version { .. }
                | FolderError::Busy { .. },
            )
            | Self::Campaign(CampaignError::Folder(FolderError::Plan { .. } | FolderError::OtherTarget { .. })) => 2,
            _ => 3,
        }
    }
}

/// What a command that succeeded found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It is done, or it is so: exit status 0.
    Yes,
    /// The thing asked about is not so: exit status 1.
    No,
    /// This machine lacks something: exit status 3.
    Lacking,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text_file::TextFileError;

    #[test]
    fn a_refused_file_is_wrong_input_and_a_request_to_stop_no_failure() {
        let refused = || TextFileError::Invalid { path: "a.toml".into(), line: 1, reason: "odd".to_owned() };
        for error in [CommandError::Target(refused().into()), CommandError::Kernel(refused().into())] {
            assert_eq!((error.status(), error.is_stop()), (2, false));
            assert_eq!(crate::chain(&error), "a.toml:1: odd");
        }
        assert!(CommandError::Kernel(KernelError::Stopped).is_stop());
        assert!(CommandError::Prepare(KernelError::Stopped.into()).is_stop());
    }
}
