//! A path of a file in which the kernel tells something, or is told something.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::RelativePath;

/// The folders that it may be below.
const FOLDERS: [&str; 2] = ["/sys/", "/proc/"];

/// An absolute path below `/sys` or `/proc`, of plain names.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SystemPath(String);

/// A text that is no [`SystemPath`].
#[derive(Debug, Error, PartialEq, Eq)]
#[error("{0:?} is not a plain path below /sys or /proc")]
pub struct SystemPathError(String);

impl SystemPath {
    /// The path as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for SystemPath {
    type Error = SystemPathError;

    fn try_from(path: String) -> Result<Self, SystemPathError> {
        let below = FOLDERS.iter().find_map(|folder| path.strip_prefix(folder));
        if below.is_some_and(|below| below.parse::<RelativePath>().is_ok()) {
            Ok(Self(path))
        } else {
            Err(SystemPathError(path))
        }
    }
}

impl FromStr for SystemPath {
    type Err = SystemPathError;

    fn from_str(path: &str) -> Result<Self, SystemPathError> {
        Self::try_from(path.to_owned())
    }
}

impl From<SystemPath> for String {
    fn from(path: SystemPath) -> Self {
        path.0
    }
}

impl fmt::Display for SystemPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_the_kernels() {
        assert_eq!("/sys/kernel/debug/a".parse::<SystemPath>().unwrap().as_str(), "/sys/kernel/debug/a");
        assert!("/proc/sys/vm/drop_caches".parse::<SystemPath>().is_ok());
        for bad in ["", "/sys", "/sys/", "/etc/passwd", "sys/a", "/sys/../dev/vda", "/sysa/b", "/proc//a", "/sys/a\0b"]
        {
            assert!(bad.parse::<SystemPath>().is_err(), "{bad:?}");
        }
    }
}
