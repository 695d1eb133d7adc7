//! A path that stays below a folder.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Plain names with slashes between them: neither empty nor absolute, without `.` and `..`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RelativePath(String);

/// A text that is no [`RelativePath`].
#[derive(Debug, Error, PartialEq, Eq)]
#[error("{0:?} is not a plain path below the mount point")]
pub struct RelativePathError(String);

impl RelativePath {
    /// The path as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The path of the directory, empty for the folder itself, and the last name.
    #[must_use]
    pub fn parent_and_name(&self) -> (&str, &str) {
        self.0.rsplit_once('/').unwrap_or(("", &self.0))
    }
}

impl TryFrom<String> for RelativePath {
    type Error = RelativePathError;

    fn try_from(path: String) -> Result<Self, RelativePathError> {
        let is_plain = |name: &str| !matches!(name, "" | "." | "..") && !name.contains('\0');
        if path.split('/').all(is_plain) { Ok(Self(path)) } else { Err(RelativePathError(path)) }
    }
}

impl FromStr for RelativePath {
    type Err = RelativePathError;

    fn from_str(path: &str) -> Result<Self, RelativePathError> {
        Self::try_from(path.to_owned())
    }
}

impl From<RelativePath> for String {
    fn from(path: RelativePath) -> Self {
        path.0
    }
}

impl fmt::Display for RelativePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_stays_below_its_folder() {
        assert_eq!("a/b".parse::<RelativePath>().unwrap().parent_and_name(), ("a", "b"));
        assert_eq!("b".parse::<RelativePath>().unwrap().parent_and_name(), ("", "b"));
        for bad in ["", "/etc", "../x", "a/../../x", "a//b", ".", "a/", "a\0b"] {
            assert!(bad.parse::<RelativePath>().is_err(), "{bad:?}");
        }
        let sent = postcard::to_stdvec("../x").unwrap();
        assert!(postcard::from_bytes::<RelativePath>(&sent).is_err(), "a message is no way around it");
    }
}
