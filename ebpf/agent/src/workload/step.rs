//! A step made ready: every string, buffer and descriptor it needs exists before anything may fail, so that running
//! it is nothing but its system calls.

use std::{
    ffi::{CStr, CString},
    fs::{File, OpenOptions},
    os::fd::{AsFd, OwnedFd},
    path::Path,
};

use anyhow::{Context, Result, anyhow};
use guest_protocol::{Step, StepResult};
use nix::{
    fcntl::{AT_FDCWD, AtFlags, OFlag, open, renameat},
    libc,
    mount::{MntFlags, MsFlags, mount, umount2},
    sys::{stat::Mode, uio::pwrite},
    unistd::{close, fsync, linkat, mkdir, read, syncfs, truncate, unlink, write},
};

use super::{
    btrfs::{self, VolumeArguments, VolumeArgumentsV2},
    options,
};
use crate::disk::DISK;

/// Where the disk is mounted.
pub(crate) const MOUNT_POINT: &str = "/mnt/t";
/// The self-test module's folder.
const TRIGGERS: &str = "/sys/kernel/debug/fuzz_selftest";
/// Most bytes of one read or write.
const CHUNK_BYTES: usize = 64 << 10;
/// Byte `n` of a written file is `n % PATTERN_PERIOD`: a prime, so that neighbouring blocks differ.
const PATTERN_PERIOD: usize = 251;

/// What the steps of a workload share.
pub(super) struct Scene {
    /// Whether the disk is mounted.
    pub(super) mounted: bool,
    disk: CString,
    root: CString,
    pattern: Vec<u8>,
    buffer: Vec<u8>,
}

impl Scene {
    pub(super) fn new() -> Result<Self> {
        Ok(Self {
            mounted: false,
            disk: CString::new(DISK)?,
            root: CString::new(MOUNT_POINT)?,
            pattern: (0..=u8::MAX).take(PATTERN_PERIOD).cycle().take(CHUNK_BYTES + PATTERN_PERIOD).collect(),
            buffer: vec![0; CHUNK_BYTES],
        })
    }
}

/// A step made ready.
pub(crate) enum ReadyStep {
    Mount { fstype: CString, flags: MsFlags, data: CString },
    Umount,
    Mkdir { path: CString },
    Create { path: CString },
    Write { path: CString, offset: i64, length: u32 },
    Read { path: CString },
    Fsync { path: CString },
    Truncate { path: CString, length: i64 },
    Rename { from: CString, to: CString },
    Link { from: CString, to: CString },
    Unlink { path: CString },
    SetXattr { path: CString, name: CString, value: CString },
    SubvolumeCreate { parent: CString, arguments: Box<VolumeArguments> },
    SubvolumeSnapshot { from: CString, parent: CString, arguments: Box<VolumeArgumentsV2> },
    SubvolumeDelete { parent: CString, arguments: Box<VolumeArguments> },
    Sync,
    Trigger { file: File },
}

impl ReadyStep {
    /// Prepares `step`.
    pub(crate) fn new(step: &Step) -> Result<Self> {
        Self::prepare(step).with_context(|| format!("step {}", step.kind()))
    }

    fn prepare(step: &Step) -> Result<Self> {
        if let Some(defect) = step.defect() {
            return Err(anyhow!(defect));
        }
        let offset = |bytes: u64| i64::try_from(bytes).context("more bytes than a file can have");
        Ok(match step {
            Step::Mount { fstype, options } => {
                let (flags, data) = options::split(options);
                Self::Mount { fstype: CString::new(fstype.as_str())?, flags, data: CString::new(data)? }
            }
            Step::Umount {} => Self::Umount,
            Step::Mkdir { path } => Self::Mkdir { path: below(path)? },
            Step::Create { path } => Self::Create { path: below(path)? },
            Step::Write { path, offset: at, length } => {
                offset(at.saturating_add(u64::from(*length)))?;
                Self::Write { path: below(path)?, offset: offset(*at)?, length: *length }
            }
            Step::Read { path } => Self::Read { path: below(path)? },
            Step::Fsync { path } => Self::Fsync { path: below(path)? },
            Step::Truncate { path, length } => Self::Truncate { path: below(path)?, length: offset(*length)? },
            Step::Rename { from, to } => Self::Rename { from: below(from)?, to: below(to)? },
            Step::Link { from, to } => Self::Link { from: below(from)?, to: below(to)? },
            Step::Unlink { path } => Self::Unlink { path: below(path)? },
            Step::SetXattr { path, name, value } => Self::SetXattr {
                path: below(path)?,
                name: CString::new(name.as_str())?,
                value: CString::new(value.as_str())?,
            },
            Step::SubvolumeCreate { path } => {
                let (parent, name) = parent_and_name(path)?;
                Self::SubvolumeCreate { parent, arguments: VolumeArguments::new(&name) }
            }
            Step::SubvolumeSnapshot { from, to } => {
                let (parent, name) = parent_and_name(to)?;
                Self::SubvolumeSnapshot { from: below(from)?, parent, arguments: VolumeArgumentsV2::new(&name) }
            }
            Step::SubvolumeDelete { path } => {
                let (parent, name) = parent_and_name(path)?;
                Self::SubvolumeDelete { parent, arguments: VolumeArguments::new(&name) }
            }
            Step::Sync {} => Self::Sync,
            Step::Trigger { name } => {
                let path = Path::new(TRIGGERS).join(name);
                let file = OpenOptions::new().write(true).open(&path);
                Self::Trigger { file: file.with_context(|| format!("cannot open {}", path.display()))? }
            }
        })
    }

    /// Runs the step: its system calls and nothing else.
    pub(super) fn run(&mut self, scene: &mut Scene) -> StepResult {
        let needs_mount = !matches!(self, Self::Mount { .. } | Self::Trigger { .. });
        if needs_mount && !scene.mounted {
            return StepResult::Skipped;
        }
        match self.call(scene) {
            Ok(value) => StepResult::Done(value),
            Err(error) => StepResult::Failed(error as i32),
        }
    }

    fn call(&mut self, scene: &mut Scene) -> nix::Result<i64> {
        match self {
            Self::Mount { fstype, flags, data } => {
                mount(Some(scene.disk.as_c_str()), &*scene.root, Some(&**fstype), *flags, Some(data.as_c_str()))?;
                scene.mounted = true;
            }
            Self::Umount => {
                umount2(&*scene.root, MntFlags::empty())?;
                scene.mounted = false;
            }
            Self::Mkdir { path } => mkdir(&**path, Mode::from_bits_truncate(0o755))?,
            Self::Create { path } => close(opened(path, OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL)?)?,
            Self::Write { path, offset, length } => return written(path, *offset, *length, &scene.pattern),
            Self::Read { path } => return read_whole(path, &mut scene.buffer),
            Self::Fsync { path } => {
                let file = opened(path, OFlag::O_RDONLY)?;
                fsync(file.as_fd())?;
                close(file)?;
            }
            Self::Truncate { path, length } => truncate(&**path, *length)?,
            Self::Rename { from, to } => renameat(AT_FDCWD, &**from, AT_FDCWD, &**to)?,
            Self::Link { from, to } => linkat(AT_FDCWD, &**from, AT_FDCWD, &**to, AtFlags::empty())?,
            Self::Unlink { path } => unlink(&**path)?,
            Self::SetXattr { path, name, value } => set_xattr(path, name, value)?,
            Self::SubvolumeCreate { parent, arguments } => {
                let parent = opened(parent, OFlag::O_RDONLY | OFlag::O_DIRECTORY)?;
                btrfs::create(parent.as_fd(), arguments)?;
                close(parent)?;
            }
            Self::SubvolumeSnapshot { from, parent, arguments } => {
                let subvolume = opened(from, OFlag::O_RDONLY | OFlag::O_DIRECTORY)?;
                let parent = opened(parent, OFlag::O_RDONLY | OFlag::O_DIRECTORY)?;
                btrfs::snapshot(parent.as_fd(), subvolume.as_fd(), arguments)?;
                close(parent)?;
                close(subvolume)?;
            }
            Self::SubvolumeDelete { parent, arguments } => {
                let parent = opened(parent, OFlag::O_RDONLY | OFlag::O_DIRECTORY)?;
                btrfs::delete(parent.as_fd(), arguments)?;
                close(parent)?;
            }
            Self::Sync => {
                let root = opened(&scene.root, OFlag::O_RDONLY | OFlag::O_DIRECTORY)?;
                syncfs(root.as_fd())?;
                close(root)?;
            }
            Self::Trigger { file } => return write(file.as_fd(), b"1").map(signed),
        }
        Ok(0)
    }
}

/// The path `relative` below the mount point.
fn below(relative: &str) -> Result<CString> {
    CString::new(format!("{MOUNT_POINT}/{relative}")).context("a path holds a zero byte")
}

/// The directory that holds `relative`, below the mount point, and its last part.
fn parent_and_name(relative: &str) -> Result<(CString, CString)> {
    let (parent, name) = relative.rsplit_once('/').unwrap_or(("", relative));
    Ok((below(parent)?, CString::new(name)?))
}

fn opened(path: &CStr, flags: OFlag) -> nix::Result<OwnedFd> {
    open(path, flags | OFlag::O_CLOEXEC, Mode::from_bits_truncate(0o644))
}

fn written(path: &CStr, offset: i64, length: u32, pattern: &[u8]) -> nix::Result<i64> {
    let file = opened(path, OFlag::O_WRONLY)?;
    let end = offset + i64::from(length);
    let mut at = offset;
    while at < end {
        let phase = usize::try_from(at).unwrap_or_default() % PATTERN_PERIOD;
        let bytes = usize::try_from(end - at).unwrap_or(CHUNK_BYTES).min(CHUNK_BYTES);
        match pwrite(file.as_fd(), &pattern[phase..phase + bytes], at)? {
            0 => break,
            some => at += signed(some),
        }
    }
    close(file)?;
    Ok(at - offset)
}

fn read_whole(path: &CStr, buffer: &mut [u8]) -> nix::Result<i64> {
    let file = opened(path, OFlag::O_RDONLY)?;
    let mut total = 0;
    loop {
        match read(file.as_fd(), buffer)? {
            0 => break,
            some => total += signed(some),
        }
    }
    close(file)?;
    Ok(total)
}

fn set_xattr(path: &CStr, name: &CStr, value: &CStr) -> nix::Result<()> {
    let value = value.to_bytes();
    // SAFETY: path and name end in zero, and `value` is as long as said.
    let result = unsafe { libc::lsetxattr(path.as_ptr(), name.as_ptr(), value.as_ptr().cast(), value.len(), 0) };
    nix::errno::Errno::result(result).map(drop)
}

fn signed(bytes: usize) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_lie_below_the_mount_point() {
        assert_eq!(below("a/b").unwrap().as_c_str(), c"/mnt/t/a/b");
        let (parent, name) = parent_and_name("a/b").unwrap();
        assert_eq!((parent.as_c_str(), name.as_c_str()), (c"/mnt/t/a", c"b"));
        let (parent, name) = parent_and_name("b").unwrap();
        assert_eq!((parent.as_c_str(), name.as_c_str()), (c"/mnt/t/", c"b"));
    }

    #[test]
    fn bad_steps_are_refused_with_their_kind() {
        let refusal = |step: &Step| ReadyStep::new(step).err().map(|error| format!("{error:#}")).unwrap_or_default();
        assert!(refusal(&Step::Mkdir { path: "../x".to_owned() }).starts_with("step mkdir: "));
        assert!(refusal(&Step::Unlink { path: "a\0b".to_owned() }).contains("zero byte"));
        let beyond = Step::Write { path: "a".to_owned(), offset: u64::MAX, length: 1 };
        assert!(refusal(&beyond).contains("more bytes than a file can have"));
    }

    #[test]
    fn without_a_mount_only_mount_and_trigger_run() {
        let mut scene = Scene::new().unwrap();
        for step in [Step::Umount {}, Step::Sync {}, Step::Create { path: "a".to_owned() }] {
            assert_eq!(ReadyStep::new(&step).unwrap().run(&mut scene), StepResult::Skipped);
        }
    }

    #[test]
    fn a_file_holds_the_pattern_of_its_offsets() {
        let scene = Scene::new().unwrap();
        let path = std::env::temp_dir().join(format!("agent-pattern-{}", std::process::id()));
        File::create(&path).unwrap();
        let name = CString::new(path.to_str().unwrap()).unwrap();
        let length = u32::try_from(CHUNK_BYTES * 2 + 7).unwrap();
        let result = written(&name, 100, length, &scene.pattern);
        let mut buffer = vec![0; 1000];
        let read_back = read_whole(&name, &mut buffer);
        let content = std::fs::read(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert_eq!(result, Ok(i64::from(length)));
        assert_eq!(read_back, Ok(i64::from(length) + 100));
        assert!(content[..100].iter().all(|byte| *byte == 0));
        assert!((100..content.len()).all(|at| usize::from(content[at]) == at % PATTERN_PERIOD));
    }

    #[test]
    fn a_failed_call_is_an_error_number() {
        let mut scene = Scene { mounted: true, ..Scene::new().unwrap() };
        let mut step = ReadyStep::new(&Step::Read { path: "missing".to_owned() }).unwrap();
        assert_eq!(step.run(&mut scene), StepResult::Failed(libc::ENOENT));
    }
}
