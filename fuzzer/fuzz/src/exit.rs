//! Exit statuses, and which error has which.

use std::{
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::ExitCode,
};

use campaign::{CampaignError, FolderError};
use execution::{RunError, TargetError};
use files::cache::{CacheError, write_file};
use guests::{bare::BareError, kernel::KernelError, prepare::PrepareError, project::ProjectError};
use thiserror::Error;

/// The answer of a command that did what it was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It is done, or it is so: exit status 0.
    Yes,
    /// The answer is no: exit status 1. So says a replay whose reproducer is fixed, was not fired,
    /// or found something else, in all its runs.
    No,
    /// This machine lacks something: exit status 3.
    Lacking,
}

/// Exit status of wrong usage or input.
pub(crate) const INPUT: u8 = 2;
/// Exit status of an environment that lacks something.
const ENVIRONMENT: u8 = 3;
/// Exit status of a command that a signal stopped, as a shell says it of one that Ctrl-C ends.
const STOPPED: u8 = 130;

/// Why a command failed.
#[derive(Debug, Error)]
pub enum CommandError {
    /// The input is wrong.
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
    /// A run of a plan.
    #[error(transparent)]
    Run(#[from] RunError),
    /// A guest without agent.
    #[error(transparent)]
    Bare(#[from] BareError),
    /// Other hosts cannot join there.
    #[error("cannot listen at {address}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Underlying error.
        source: io::Error,
    },
    /// Something cannot be removed from the cache.
    #[error("cannot remove {path}{}", and_more(*.more))]
    Prune {
        /// The first such file or folder.
        path: PathBuf,
        /// Number of further ones.
        more: usize,
        /// Underlying error of the first one.
        source: io::Error,
    },
    /// Results cannot be written.
    #[error("cannot write the result")]
    Write(#[from] io::Error),
}

fn and_more(count: usize) -> String {
    if count == 0 { String::new() } else { format!(" and {count} more in the cache") }
}

impl CommandError {
    /// Says whether this is only that the user wanted to stop.
    #[must_use]
    pub fn is_stop(&self) -> bool {
        match self {
            Self::Prepare(error) => error.is_stop(),
            Self::Kernel(KernelError::Stopped) | Self::Run(RunError::Stopped) | Self::Bare(BareError::Stopped) => true,
            _ => false,
        }
    }

    /// Says whether nobody reads the result any more, as in `fuzz … | head`: no error.
    #[must_use]
    pub fn is_closed_pipe(&self) -> bool {
        matches!(self, Self::Write(error) if error.kind() == io::ErrorKind::BrokenPipe)
    }

    fn is_input(&self) -> bool {
        match self {
            Self::Input(_) | Self::Target(_) | Self::Run(RunError::Refused(_)) => true,
            Self::Prepare(error) => error.is_input(),
            Self::Kernel(error) => error.is_input(),
            Self::Folder(error) | Self::Campaign(CampaignError::Folder(error)) => error.is_input(),
            _ => false,
        }
    }

    /// Gives the exit status.
    #[must_use]
    pub fn status(&self) -> u8 {
        match self {
            error if error.is_stop() => STOPPED,
            error if error.is_input() => INPUT,
            _ => ENVIRONMENT,
        }
    }
}

/// Writes the result `text` of a command into the file that the user named.
pub(crate) fn write_result(path: &Path, text: &str) -> Result<(), CommandError> {
    write_file(path, text.as_bytes())
        .map_err(|error| CommandError::Write(io::Error::new(error.kind(), format!("{}: {error}", path.display()))))
}

/// Gives the exit code of a command, and tells its error on standard error by `say`.
pub fn code(result: Result<Answer, CommandError>, say: impl Fn(&str)) -> ExitCode {
    match result {
        Ok(Answer::Yes) => ExitCode::SUCCESS,
        Ok(Answer::No) => ExitCode::from(1),
        Ok(Answer::Lacking) => ExitCode::from(ENVIRONMENT),
        Err(error) if error.is_closed_pipe() => ExitCode::SUCCESS,
        Err(error) => {
            if error.is_stop() {
                say("stopped before it was done");
            } else {
                say(&format!("error: {}", execution::chain(&error)));
            }
            ExitCode::from(error.status())
        }
    }
}

#[cfg(test)]
mod tests {
    use files::TextFileError;

    use super::*;

    #[test]
    fn a_refused_file_is_wrong_input_and_a_request_to_stop_no_failure() {
        let refused = || TextFileError::Invalid { path: "a.toml".into(), line: 1, reason: "odd".to_owned() };
        for error in [CommandError::Target(refused().into()), CommandError::Kernel(refused().into())] {
            assert_eq!((error.status(), error.is_stop()), (INPUT, false));
            assert_eq!(execution::chain(&error), "a.toml:1: odd");
        }
        for error in [CommandError::Kernel(KernelError::Stopped), CommandError::Prepare(KernelError::Stopped.into())] {
            assert!(error.is_stop() && error.status() == STOPPED, "{error}");
        }
        let closed = CommandError::Write(io::ErrorKind::BrokenPipe.into());
        assert_eq!(code(Err(closed), |text| panic!("{text}")), ExitCode::SUCCESS);
    }

    #[test]
    fn a_result_that_cannot_be_written_is_no_wrong_input() {
        let folder = tempfile::tempdir().unwrap();
        write_result(&folder.path().join("file"), "text").unwrap();
        let path = folder.path().join("file/below");
        let error = write_result(&path, "text").unwrap_err();
        assert_eq!(error.status(), ENVIRONMENT);
        assert!(execution::chain(&error).contains(&path.display().to_string()), "{error}");
    }
}
