//! Errors that end a campaign before its time.

use std::{error, io};

use libafl::Error;
use thiserror::Error as ThisError;

use crate::folder::FolderError;

/// Why a client cannot start.
pub type StartError = Box<dyn error::Error + Send + Sync>;

/// Why a campaign ended before its time.
#[derive(Debug, ThisError)]
pub enum CampaignError {
    /// Its folder.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// Statistics cannot be written.
    #[error("cannot write statistics")]
    Statistics(#[source] io::Error),
    /// A client cannot start.
    #[error("a client cannot start")]
    Start(#[source] StartError),
    /// A thread cannot be started.
    #[error("no thread for a client or a connection")]
    Thread(#[source] io::Error),
    /// A thread panicked.
    #[error("a thread of the campaign panicked: this is a defect of fuzz")]
    Panic,
    /// The search cannot go on.
    #[error("the campaign stopped")]
    Search(#[from] Error),
}

/// Makes the error that ends a search, with all causes of `error` in its words.
pub(crate) fn ends_search(error: impl error::Error) -> Error {
    Error::unknown(execution::chain(&error))
}
