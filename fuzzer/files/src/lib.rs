//! Files that are there whole or not at all, the locks that guard them, the cache folder, and text
//! files that people write.

pub mod cache;
mod text_file;

pub use self::{
    cache::{lock, publish_directory, publish_file, replace_directory, try_lock, write_file},
    text_file::{TextFile, TextFileError},
};
