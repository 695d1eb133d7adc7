//! A request that a step makes of a file, as data.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::RelativePath;

/// The most bytes of an argument, and of memory that it points to.
const MAX_BYTES: u32 = 64 << 10;
/// Bytes of a number of a file, and of a pointer, in a request.
const WORD_BYTES: usize = 8;
/// Requests that have a step of their own, by which others know that the file system is frozen or
/// stopped: `FIFREEZE` and `FITHAW` of `include/uapi/linux/fs.h`, and what ext4 and xfs share:
/// `EXT4_IOC_SHUTDOWN` of `include/uapi/linux/ext4.h` (6.12).
const STEPS: [(u32, &str); 3] = [(0xc004_5877, "freeze"), (0xc004_5878, "thaw"), (0x8004_587d, "shutdown")];

/// A request as `ioctl(2)` makes it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ioctl {
    /// The file or directory that it is made of, which is opened for reading; the mount point
    /// without.
    #[serde(default)]
    pub path: Option<RelativePath>,
    /// Its number, as `include/uapi/asm-generic/ioctl.h` (6.12) makes one.
    pub request: u32,
    /// What its argument begins with; the rest is zero.
    #[serde(default)]
    pub data: Option<HexBytes>,
    /// Bytes of the argument, where the request's number tells too few.
    #[serde(default)]
    pub bytes: Option<u32>,
    /// An open file whose number is in the argument.
    #[serde(default)]
    pub file: Option<IoctlFile>,
    /// Memory that the argument points to.
    #[serde(default)]
    pub memory: Option<IoctlMemory>,
}

/// A file whose number stands in a request, in eight bytes.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IoctlFile {
    /// Byte of the argument, from 0.
    pub at: u32,
    /// The file, which is opened for reading.
    pub path: RelativePath,
}

/// Memory of zeroes whose address stands in a request, in eight bytes.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IoctlMemory {
    /// Byte of the argument, from 0.
    pub at: u32,
    /// Its bytes.
    pub bytes: u32,
}

impl Ioctl {
    /// Gives the argument without file and memory. It has as many bytes as the request's number or
    /// `bytes` say, or as there are in `data`, whatever is most; none when the request takes none.
    #[must_use]
    pub fn argument(&self) -> Vec<u8> {
        // _IOC_SIZE of include/uapi/asm-generic/ioctl.h, 6.12.
        let told = self.request >> 16 & 0x3fff;
        let bytes = told.max(self.bytes.unwrap_or_default()) as usize;
        let mut argument = self.data.clone().unwrap_or_default().0;
        argument.resize(argument.len().max(bytes), 0);
        argument
    }

    /// Says what cannot be in it.
    pub(crate) fn defect(&self) -> Option<String> {
        if let Some((_, step)) = STEPS.iter().find(|(request, _)| *request == self.request) {
            return Some(format!("request is {:#x}, for which there is the step {step}", self.request));
        }
        let size = |field, bytes: u32| {
            let possible = 1..=MAX_BYTES;
            (!possible.contains(&bytes)).then(|| format!("{field} has {bytes} bytes, possible are 1 to {MAX_BYTES}"))
        };
        if let Some(defect) = self.bytes.and_then(|bytes| size("the argument", bytes)) {
            return Some(defect);
        }
        let most = self.argument().len();
        let outside = |field, at: u32| {
            (at as usize + WORD_BYTES > most)
                .then(|| format!("{field} is at byte {at}, but the request has {most} bytes"))
        };
        let file = self.file.as_ref().and_then(|file| outside("file", file.at));
        let memory = self.memory.as_ref();
        let memory = memory.and_then(|memory| size("memory", memory.bytes).or_else(|| outside("memory", memory.at)));
        file.or(memory)
    }
}

/// Bytes that files hold as hex digits, with spaces anywhere between two bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct HexBytes(Vec<u8>);

/// A text that is no [`HexBytes`].
#[derive(Debug, Error, PartialEq, Eq)]
#[error("{0:?} is not bytes of two hex digits each")]
pub struct HexBytesError(String);

impl TryFrom<String> for HexBytes {
    type Error = HexBytesError;

    fn try_from(text: String) -> Result<Self, HexBytesError> {
        let byte = |pair: &[u8]| {
            let digits = std::str::from_utf8(pair).ok()?;
            let is_pair = pair.len() == 2 && pair.iter().all(u8::is_ascii_hexdigit);
            is_pair.then(|| u8::from_str_radix(digits, 16).ok())?
        };
        let mut words = text.split_ascii_whitespace().flat_map(|word| word.as_bytes().chunks(2));
        let bytes = words.try_fold(Vec::new(), |mut bytes, pair| {
            bytes.push(byte(pair)?);
            Some(bytes)
        });
        bytes.map(Self).ok_or(HexBytesError(text))
    }
}

impl From<HexBytes> for String {
    fn from(bytes: HexBytes) -> Self {
        bytes.0.iter().fold(Self::new(), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(text: &str) -> Result<HexBytes, HexBytesError> {
        HexBytes::try_from(text.to_owned())
    }

    fn ioctl(request: u32, data: &str) -> Ioctl {
        Ioctl { path: None, request, data: Some(hex(data).unwrap()), bytes: None, file: None, memory: None }
    }

    #[test]
    fn bytes_are_pairs_of_digits() {
        assert_eq!(hex("00 ff1 0").unwrap_or_default(), HexBytes::default(), "a pair is not split");
        let bytes = hex("00 fF10\n").unwrap();
        assert_eq!((bytes.0.as_slice(), String::from(bytes.clone())), (&[0, 0xff, 0x10][..], "00ff10".to_owned()));
        for wrong in ["0", "0g", "+1", "ä"] {
            assert_eq!(hex(wrong), Err(HexBytesError(wrong.to_owned())));
        }
    }

    #[test]
    fn an_argument_has_the_size_that_the_number_says() {
        assert_eq!(ioctl(0xc004_9400, "01").argument(), [1, 0, 0, 0]);
        assert_eq!(ioctl(0xc004_9400, "01 02 03 04 05").argument().len(), 5);
        assert!(ioctl(0x9408, "").argument().is_empty());
        let longer = Ioctl { bytes: Some(9), ..ioctl(0xc004_9400, "01") };
        assert_eq!((longer.argument().len(), longer.defect()), (9, None));
        let long = Ioctl { bytes: Some(65537), ..longer };
        assert_eq!(long.defect().unwrap(), "the argument has 65537 bytes, possible are 1 to 65536");
    }

    #[test]
    fn what_cannot_be_in_a_request_is_said() {
        let at = |file: u32, at: u32, bytes| Ioctl {
            file: Some(IoctlFile { at: file, path: "a".parse().unwrap() }),
            memory: Some(IoctlMemory { at, bytes }),
            ..ioctl(0xc010_9400, "")
        };
        assert_eq!(at(0, 8, 4096).defect(), None);
        assert_eq!(at(9, 8, 1).defect().unwrap(), "file is at byte 9, but the request has 16 bytes");
        assert_eq!(at(0, 16, 1).defect().unwrap(), "memory is at byte 16, but the request has 16 bytes");
        assert_eq!(at(0, 8, 65537).defect().unwrap(), "memory has 65537 bytes, possible are 1 to 65536");
        let freeze = ioctl(0xc004_5877, "");
        assert_eq!(freeze.defect().unwrap(), "request is 0xc0045877, for which there is the step freeze");
    }
}
