//! Values that cannot be in a step.

use crate::Step;

/// The longest that a step sleeps, in milliseconds: far below the time that an execution may take.
pub const MAX_SLEEP_MS: u32 = 5000;
/// Unit of a direct write, in bytes: the disk's sector.
pub const SECTOR_BYTES: u32 = 512;
/// The most bytes of a text that a step writes, or that a link has.
const MAX_TEXT_BYTES: usize = 4095;
/// The most that a file can have (`MAX_LFS_FILESIZE` of `include/linux/fs.h`, 6.12).
const MAX_FILE_BYTES: u64 = i64::MAX as u64;
/// The last number of a disk.
const LAST_DISK: u8 = crate::MAX_DISKS - 1;

impl Step {
    /// Says what cannot be in it.
    #[must_use]
    pub fn defect(&self) -> Option<String> {
        match self {
            Self::Sleep { ms } => most("ms", *ms, MAX_SLEEP_MS),
            Self::Write { offset, length, direct, .. } => {
                let unit = u64::from(SECTOR_BYTES);
                let part = offset % unit != 0 || u64::from(*length) % unit != 0;
                let split = (*direct && part)
                    .then(|| format!("offset and length of a direct write must be multiples of {unit}"));
                split.or_else(|| beyond(*offset, (*length).into()))
            }
            Self::MmapWrite { length: 0, .. } | Self::Fallocate { length: 0, .. } => Some("length is 0".to_owned()),
            Self::MmapWrite { offset, length, .. } => beyond(*offset, (*length).into()),
            Self::Fallocate { offset, length, .. } => beyond(*offset, *length),
            Self::Truncate { length, .. } => beyond(0, *length),
            Self::Reflink { from_offset, to_offset, length, .. } => {
                beyond(*from_offset, *length).or_else(|| beyond(*to_offset, *length))
            }
            Self::Chmod { mode, .. } => {
                (*mode > 0o7777).then(|| format!("mode is {mode:#o}, at most 0o7777 is possible"))
            }
            Self::WriteFile { text, .. } | Self::Symlink { target: text, .. } => text_defect(text),
            Self::Ioctl(ioctl) => ioctl.defect(),
            Self::Balance { usage: Some(usage), .. } => most("usage", *usage, 100),
            Self::Resize { size, .. } => (!is_size(size))
                .then(|| format!("size is {size:?}, possible are such as \"max\", \"100m\", \"-16m\" and \"+8m\"")),
            _ => self.disk().and_then(|disk| most("disk", disk, LAST_DISK)),
        }
    }

    /// The number of the disk that it uses by itself, from 0.
    #[must_use]
    pub fn disk(&self) -> Option<u8> {
        match self {
            Self::Mount { disk, .. } => Some(disk.unwrap_or(0)),
            Self::DeviceRemove { disk } => *disk,
            Self::DeviceAdd { disk } | Self::DeviceReplace { disk, .. } | Self::DeviceForget { disk } => Some(*disk),
            _ => None,
        }
    }
}

fn most<T: PartialOrd + std::fmt::Display>(field: &str, value: T, most: T) -> Option<String> {
    (value > most).then(|| format!("{field} is {value}, at most {most} are possible"))
}

fn beyond(offset: u64, length: u64) -> Option<String> {
    let end = offset.checked_add(length);
    end.is_none_or(|end| end > MAX_FILE_BYTES).then(|| "it ends beyond what a file can have".to_owned())
}

fn text_defect(text: &str) -> Option<String> {
    let bytes = text.len();
    if bytes == 0 || bytes > MAX_TEXT_BYTES {
        return Some(format!("the text has {bytes} bytes, possible are 1 to {MAX_TEXT_BYTES}"));
    }
    text.contains('\0').then(|| "the text holds a zero byte".to_owned())
}

/// Says whether btrfs takes `size` for a device: `btrfs_ioctl_resize()` in `fs/btrfs/ioctl.c`
/// (6.12).
fn is_size(size: &str) -> bool {
    let number = size.strip_prefix(['+', '-']).unwrap_or(size);
    let digits = number.strip_suffix(['k', 'K', 'm', 'M', 'g', 'G']).unwrap_or(number);
    size == "max" || !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::RelativePath;

    #[test]
    fn what_cannot_be_is_said() {
        let path = || "a".parse::<RelativePath>().unwrap();
        let write = |offset, length, direct| Step::Write { path: path(), offset, length, direct, sync: false };
        let resize = |size: &str| Step::Resize { device: None, size: size.to_owned() };
        for step in [
            Step::Sleep { ms: 5000 },
            write(1024, 512, true),
            write(1, 1, false),
            Step::Chmod { path: path(), mode: 0o7777 },
            Step::Balance { groups: Vec::new(), convert: None, usage: Some(100) },
            resize("max"),
            resize("-16m"),
            resize("134217728"),
        ] {
            assert_eq!(step.defect(), None, "{step:?}");
        }
        for (step, expected) in [
            (Step::Sleep { ms: 5001 }, "ms is 5001, at most 5000 are possible"),
            (write(511, 512, true), "offset and length of a direct write must be multiples of 512"),
            (write(512, 513, true), "offset and length of a direct write must be multiples of 512"),
            (write(u64::MAX, 1, false), "it ends beyond what a file can have"),
            (Step::MmapWrite { path: path(), offset: 0, length: 0 }, "length is 0"),
            (Step::Chmod { path: path(), mode: 0o10000 }, "mode is 0o10000, at most 0o7777 is possible"),
            (Step::DeviceAdd { disk: 4 }, "disk is 4, at most 3 are possible"),
            (Step::Symlink { path: path(), target: String::new() }, "the text has 0 bytes, possible are 1 to 4095"),
            (
                Step::Balance { groups: Vec::new(), convert: None, usage: Some(101) },
                "usage is 101, at most 100 are possible",
            ),
            (resize("1:max"), "size is \"1:max\", possible are such as \"max\", \"100m\", \"-16m\" and \"+8m\""),
        ] {
            assert_eq!(step.defect().as_deref(), Some(expected));
        }
        assert!(resize("m").defect().is_some() && resize("").defect().is_some());
    }
}
