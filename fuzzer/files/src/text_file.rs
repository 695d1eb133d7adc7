//! Text files that people write, and what is wrong with one.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use serde::de::DeserializeOwned;
use thiserror::Error;

/// Why a text file is refused.
#[derive(Debug, Error)]
pub enum TextFileError {
    /// It cannot be read.
    #[error("cannot read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Underlying error.
        source: io::Error,
    },
    /// It cannot be understood, or says what cannot be.
    #[error("{path}:{line}: {reason}")]
    Invalid {
        /// The file.
        path: PathBuf,
        /// Line in it, from 1.
        line: usize,
        /// Defect in that line.
        reason: String,
    },
}

/// A text file that was read.
#[derive(Debug)]
pub struct TextFile {
    /// Path of the file.
    pub path: PathBuf,
    /// Its content.
    pub text: String,
}

impl TextFile {
    /// Reads the file `path`.
    ///
    /// # Errors
    ///
    /// It cannot be read, or is no UTF-8.
    pub fn read(path: &Path) -> Result<Self, TextFileError> {
        let path = path.to_owned();
        match fs::read_to_string(&path) {
            Ok(text) => Ok(Self { path, text }),
            Err(source) => Err(TextFileError::Read { path, source }),
        }
    }

    /// Parses the text as TOML.
    ///
    /// # Errors
    ///
    /// It is no TOML, or not of this form.
    pub fn toml<T: DeserializeOwned>(&self) -> Result<T, TextFileError> {
        toml::from_str(&self.text)
            .map_err(|error| self.invalid(error.span().map_or(0, |span| span.start), error.message()))
    }

    /// The error that says what is wrong at the byte `offset`.
    pub fn invalid(&self, offset: usize, reason: impl Into<String>) -> TextFileError {
        let line = 1 + self.text.bytes().take(offset).filter(|byte| *byte == b'\n').count();
        self.invalid_line(line, reason)
    }

    /// The error that says what is wrong in the line `line`, from 1.
    pub fn invalid_line(&self, line: usize, reason: impl Into<String>) -> TextFileError {
        TextFileError::Invalid { path: self.path.clone(), line, reason: reason.into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_is_one_line_with_the_place() {
        let file = TextFile { path: "a.toml".into(), text: "x = 1\ny = \n".to_owned() };
        let error = file.toml::<toml::Table>().unwrap_err().to_string();
        assert!(error.starts_with("a.toml:2: ") && !error.contains('\n'), "{error}");
        assert_eq!(file.invalid(5, "odd").to_string(), "a.toml:1: odd");
        assert_eq!(file.invalid(99, "odd").to_string(), "a.toml:3: odd", "an offset behind its end is harmless");
    }
}
