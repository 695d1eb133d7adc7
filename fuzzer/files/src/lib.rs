//! Files that are there whole or not at all, the locks that guard them, journals, the cache folder,
//! and text files that people write.

pub mod cache;
mod journal;
mod text_file;

pub use self::{
    cache::{lock, publish_directory, publish_file, replace_directory, try_lock, write_file},
    journal::{Journal, JournalError},
    text_file::{TextFile, TextFileError},
};
