//! A journal: a file of records, a line of JSON each, to which a record is added by one write.
//!
//! ```text
//! open ─▶ records of earlier starts ─▶ append, append, … ─▶ rewrite (all at once) ─▶ append, …
//! ```
//!
//! A process that is killed leaves every record that it had appended. Power loss may take the last
//! ones; the file before them is as it was. A line without its line feed is one that was not
//! written whole: it is cut off when the journal is opened.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read, Write},
    path::{Path, PathBuf},
};

use serde::{Serialize, de::DeserializeOwned};
use thiserror::Error;

use crate::write_file;

/// Why a journal cannot be used.
#[derive(Debug, Error)]
pub enum JournalError {
    /// The file system says no.
    #[error("cannot {verb} {path}")]
    Io {
        /// The attempt.
        verb: &'static str,
        /// The journal.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// A line makes no sense.
    #[error("{path}:{line} is damaged")]
    Damaged {
        /// The journal.
        path: PathBuf,
        /// Number of the line, from 1.
        line: usize,
        /// The defect.
        source: serde_json::Error,
    },
}

/// An open journal.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    file: File,
    /// Bytes of whole records.
    bytes: u64,
}

impl Journal {
    /// Opens the journal `path`, made if need be. Returns it with its records, oldest first.
    ///
    /// # Errors
    ///
    /// The file system says no, or a line is no record.
    pub fn open<T: DeserializeOwned>(path: &Path) -> Result<(Self, Vec<T>), JournalError> {
        let failed = |verb| move |source| JournalError::Io { verb, path: path.to_owned(), source };
        let mut file = open(path).map_err(failed("open"))?;
        let mut text = Vec::new();
        file.read_to_end(&mut text).map_err(failed("read"))?;
        text.truncate(text.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1));
        let bytes = text.len() as u64;
        file.set_len(bytes).map_err(failed("mend"))?;
        let record = |(line, text): (usize, &[u8])| {
            let damaged = |source| JournalError::Damaged { path: path.to_owned(), line: line + 1, source };
            serde_json::from_slice(text).map_err(damaged)
        };
        let lines = text.split_inclusive(|byte| *byte == b'\n').enumerate();
        let records = lines.map(record).collect::<Result<_, _>>()?;
        Ok((Self { path: path.to_owned(), file, bytes }, records))
    }

    /// Adds `record`.
    ///
    /// # Errors
    ///
    /// The file system says no; the journal is then as before.
    pub fn append<T: Serialize>(&mut self, record: &T) -> Result<(), JournalError> {
        let line = self.line(record)?;
        let written = self.file.write_all(&line);
        if written.is_err() {
            // The first error is the one to tell. A rest that stays is cut off by the next start.
            let _ = self.file.set_len(self.bytes);
        }
        written.map_err(|source| JournalError::Io { verb: "write", path: self.path.clone(), source })?;
        self.bytes += line.len() as u64;
        Ok(())
    }

    /// Puts `records` in the place of all that is there, whole or not at all.
    ///
    /// # Errors
    ///
    /// The file system says no.
    pub fn rewrite<T: Serialize>(&mut self, records: impl IntoIterator<Item = T>) -> Result<(), JournalError> {
        let mut text = Vec::new();
        for record in records {
            text.extend(self.line(&record)?);
        }
        let failed = |verb, source| JournalError::Io { verb, path: self.path.clone(), source };
        write_file(&self.path, &text).map_err(|source| failed("write", source))?;
        self.file = open(&self.path).map_err(|source| failed("open", source))?;
        self.bytes = text.len() as u64;
        Ok(())
    }

    fn line<T: Serialize>(&self, record: &T) -> Result<Vec<u8>, JournalError> {
        let mut line = serde_json::to_vec(record).map_err(|source| JournalError::Io {
            verb: "write",
            path: self.path.clone(),
            source: source.into(),
        })?;
        line.push(b'\n');
        Ok(line)
    }
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).append(true).create(true).open(path)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn records_come_back_in_order_and_a_torn_one_is_cut_off() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal.jsonl");
        let (mut journal, records) = Journal::open::<u32>(&path).unwrap();
        assert!(records.is_empty());
        [1, 2].iter().for_each(|record| journal.append(record).unwrap());
        fs::write(&path, [fs::read(&path).unwrap(), b"34".to_vec()].concat()).unwrap();
        let (mut journal, records) = Journal::open::<u32>(&path).unwrap();
        assert_eq!(records, [1, 2]);
        journal.append(&5).unwrap();
        assert_eq!(Journal::open::<u32>(&path).unwrap().1, [1, 2, 5]);
        journal.rewrite([7, 8]).unwrap();
        journal.append(&9).unwrap();
        assert_eq!(Journal::open::<u32>(&path).unwrap().1, [7, 8, 9]);
    }

    #[test]
    fn a_line_that_is_no_record_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal.jsonl");
        fs::write(&path, "1\nx\n").unwrap();
        let error = Journal::open::<u32>(&path).unwrap_err().to_string();
        assert!(error.ends_with("journal.jsonl:2 is damaged"), "{error}");
        let missing = Journal::open::<u32>(&folder.path().join("gone/journal")).unwrap_err().to_string();
        assert!(missing.starts_with("cannot open"), "{missing}");
    }
}
