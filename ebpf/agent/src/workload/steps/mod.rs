//! The steps of a workload, made ready: a file for each family.
//!
//! Every string, buffer and descriptor that a step needs exists before anything may fail. So
//! running it is nothing but its system calls.
//!
//! A new step is a variant of [`guest_protocol::Step`], a type here that is a [`PreparedStep`], and
//! its line in [`prepare`].

mod attribute;
mod content;
mod copy;
mod flush;
mod ioctl;
mod mapped;
mod mount;
mod name;
mod process;
mod range;
mod send;
mod state;
mod subvolume;
mod system_file;
mod trigger;
mod upkeep;
mod wait;
mod workspace;

use std::{
    ffi::{CStr, CString},
    os::fd::OwnedFd,
};

use anyhow::{Context, Result};
use guest_protocol::{RelativePath, Step, StepResult, pattern::shift_of};
use nix::{
    errno::Errno,
    fcntl::{OFlag, open},
    sys::stat::Mode,
};

use self::upkeep::Upkeep;
pub(super) use self::workspace::Workspace;
use super::fs::MOUNT_POINT;

/// Most bytes of one read or write.
const CHUNK_BYTES: usize = 64 << 10;

/// A step made ready.
pub(super) trait PreparedStep: Send {
    /// Says whether the step is skipped while the disk is not mounted.
    fn needs_mount(&self) -> bool {
        true
    }

    /// Makes the step's system calls and nothing else. Returns the value of the last one, or 0.
    fn call(&mut self, workspace: &mut Workspace) -> nix::Result<i64>;
}

/// Makes `step` ready, the `number`-th of its sequence, from 1. The disks have these device files.
#[allow(clippy::too_many_lines, reason = "a table, with a line for each step")]
pub(super) fn prepare(step: &Step, number: u32, disks: &[String]) -> Result<Box<dyn PreparedStep>> {
    let path = |disk: u8| disks.get(usize::from(disk)).with_context(|| format!("there is no disk {disk}"));
    match step {
        Step::Mount { fstype, options, disk } => boxed(mount::Mount::new(fstype, options, path(disk.unwrap_or(0))?)),
        Step::Umount {} => boxed(Ok(mount::Umount)),
        Step::Remount { options } => boxed(state::Remount::new(options)),
        Step::Freeze {} => boxed(Ok(state::Freeze)),
        Step::Thaw {} => boxed(Ok(state::Thaw)),
        Step::Fstrim {} => boxed(Ok(state::Fstrim)),
        Step::Shutdown { how } => boxed(Ok(state::Shutdown::new(*how))),
        Step::Sync {} => boxed(Ok(flush::Sync)),
        Step::Mkdir { path } => boxed(name::Mkdir::new(path)),
        Step::Create { path } => boxed(name::Create::new(path)),
        Step::Rename { from, to } => boxed(name::Rename::new(from, to)),
        Step::Link { from, to } => boxed(name::Link::new(from, to)),
        Step::Symlink { target, path } => boxed(name::Symlink::new(target, path)),
        Step::Unlink { path } => boxed(name::Unlink::new(path)),
        Step::Readdir { path } => boxed(name::Readdir::new(path.as_ref())),
        Step::Write { path, offset, length, direct, sync } => {
            boxed(content::Write::new(path, *offset, *length, [*direct, *sync], shift_of(number)))
        }
        Step::MmapWrite { path, offset, length } => {
            boxed(mapped::MmapWrite::new(path, *offset, *length, shift_of(number)))
        }
        Step::Read { path } => boxed(content::Read::new(path)),
        Step::Fsync { path } => boxed(flush::Fsync::new(path)),
        Step::Truncate { path, length } => boxed(content::Truncate::new(path, *length)),
        Step::Fallocate { path, mode, offset, length } => boxed(range::Fallocate::new(path, *mode, *offset, *length)),
        Step::Reflink { from, to, from_offset, to_offset, length } => {
            boxed(range::Reflink::new(from, to, [*from_offset, *to_offset, *length]))
        }
        Step::SetXattr { path, name, value } => boxed(attribute::SetXattr::new(path, name, value)),
        Step::Chmod { path, mode } => boxed(attribute::Chmod::new(path, *mode)),
        Step::Chown { path, uid, gid } => boxed(attribute::Chown::new(path, *uid, *gid)),
        Step::SubvolumeCreate { path } => boxed(subvolume::Create::new(path)),
        Step::SubvolumeSnapshot { from, to, read_only } => boxed(subvolume::Snapshot::new(from, to, *read_only)),
        Step::SubvolumeDelete { path } => boxed(subvolume::Delete::new(path)),
        Step::Balance { groups, convert, usage } => boxed(Ok(Upkeep::balance(groups, *convert, *usage))),
        Step::Scrub { device, read_only } => boxed(Ok(Upkeep::scrub(*device, *read_only))),
        Step::Defragment { path } => boxed(upkeep::Defragment::new(path)),
        Step::Resize { device, size } => boxed(Upkeep::resize(*device, size)),
        Step::DeviceAdd { disk } => boxed(Upkeep::add(path(*disk)?)),
        Step::DeviceRemove { disk } => boxed(Upkeep::remove(disk.map(path).transpose()?.map(String::as_str))),
        Step::DeviceReplace { device, disk } => boxed(Ok(Upkeep::replace(*device, path(*disk)?))),
        Step::DeviceForget { disk } => boxed(upkeep::Forget::new(path(*disk)?)),
        Step::QuotaEnable { simple } => boxed(Ok(Upkeep::quota_enable(*simple))),
        Step::QuotaDisable {} => boxed(Ok(Upkeep::quota_disable())),
        Step::QuotaRescan {} => boxed(Ok(Upkeep::Rescan)),
        Step::QuotaLimit { path, bytes } => boxed(upkeep::QuotaLimit::new(path, *bytes)),
        Step::Send { path, parent } => boxed(send::Send::new(path, parent.as_ref())),
        Step::Ioctl(request) => boxed(ioctl::Ioctl::new(request)),
        Step::CrashCopy {} => boxed(Ok(copy::CrashCopy)),
        Step::Trigger { name } => boxed(trigger::Trigger::new(name)),
        Step::Sleep { ms } => boxed(Ok(wait::Sleep::new(*ms))),
        Step::WriteFile { path, text } => boxed(system_file::WriteFile::new(path, text)),
        Step::ReadFile { path } => boxed(system_file::ReadFile::new(path)),
        Step::Fork { exec } => boxed(Ok(process::Fork::new(*exec))),
    }
    .with_context(|| format!("step {}", step.kind()))
}

fn boxed<S: PreparedStep + 'static>(step: Result<S>) -> Result<Box<dyn PreparedStep>> {
    Ok(Box::new(step?))
}

/// Runs `step`: its system calls and nothing else.
pub(super) fn run(step: &mut dyn PreparedStep, workspace: &mut Workspace) -> StepResult {
    if workspace.stuck || step.needs_mount() && !workspace.mounted {
        return StepResult::Skipped;
    }
    match step.call(workspace) {
        Ok(value) => StepResult::Done(value),
        // One that the kernel has for itself has no name here.
        Err(Errno::UnknownErrno) => StepResult::Failed(Errno::last_raw()),
        Err(error) => StepResult::Failed(error as i32),
    }
}

/// The path `relative` below the mount point.
fn below(relative: &RelativePath) -> Result<CString> {
    in_mount(relative.as_str())
}

/// The directory that holds `relative`, below the mount point, and its last name.
fn parent_and_name(relative: &RelativePath) -> Result<(CString, CString)> {
    let (parent, name) = relative.parent_and_name();
    Ok((in_mount(parent)?, CString::new(name)?))
}

fn in_mount(relative: &str) -> Result<CString> {
    CString::new(format!("{MOUNT_POINT}/{relative}")).context("a path holds a zero byte")
}

/// `bytes` as the offset type of system calls.
fn offset(bytes: u64) -> Result<i64> {
    i64::try_from(bytes).context("more bytes than a file can have")
}

fn opened(path: &CStr, flags: OFlag) -> nix::Result<OwnedFd> {
    open(path, flags | OFlag::O_CLOEXEC, Mode::from_bits_truncate(0o644))
}

fn directory(path: &CStr) -> nix::Result<OwnedFd> {
    opened(path, OFlag::O_RDONLY | OFlag::O_DIRECTORY)
}

fn signed(bytes: usize) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use nix::libc;

    use super::*;

    /// A plain path.
    pub(super) fn path(text: &str) -> RelativePath {
        text.parse().unwrap()
    }

    #[test]
    fn paths_lie_below_the_mount_point() {
        assert_eq!(below(&path("a/b")).unwrap().as_c_str(), c"/mnt/t/a/b");
        let (parent, name) = parent_and_name(&path("a/b")).unwrap();
        assert_eq!((parent.as_c_str(), name.as_c_str()), (c"/mnt/t/a", c"b"));
        let (parent, name) = parent_and_name(&path("b")).unwrap();
        assert_eq!((parent.as_c_str(), name.as_c_str()), (c"/mnt/t/", c"b"));
    }

    #[test]
    fn bad_steps_are_refused_with_their_kind() {
        let refusal = |step: &Step| prepare(step, 1, &[]).err().map(|error| format!("{error:#}")).unwrap_or_default();
        let beyond = Step::Write { path: path("a"), offset: u64::MAX, length: 1, direct: false, sync: false };
        assert_eq!(
            refusal(&beyond),
            "step write: more bytes than a file can have: out of range integral type conversion attempted"
        );
        let zero = Step::SetXattr { path: path("a"), name: "a\0b".to_owned(), value: String::new() };
        assert!(refusal(&zero).starts_with("step set-xattr: "));
        assert!(refusal(&Step::Trigger { name: path("none") }).contains("/fuzz_selftest/none"));
    }

    #[test]
    fn what_needs_a_mount_is_skipped_without_one() {
        let mut workspace = Workspace::new(&[]).unwrap();
        for step in [Step::Umount {}, Step::Sync {}, Step::Create { path: path("a") }] {
            assert_eq!(run(prepare(&step, 1, &[]).unwrap().as_mut(), &mut workspace), StepResult::Skipped);
        }
    }

    #[test]
    fn nothing_runs_on_what_could_not_be_thawed() {
        let mut workspace = Workspace::new(&[]).unwrap();
        let mut sleep = prepare(&Step::Sleep { ms: 1 }, 1, &[]).unwrap();
        workspace.stuck = true;
        assert_eq!(run(sleep.as_mut(), &mut workspace), StepResult::Skipped);
        workspace.undo();
        assert_eq!(run(sleep.as_mut(), &mut workspace), StepResult::Done(0));
    }

    #[test]
    fn a_failed_call_is_an_error_number() {
        let mut workspace = Workspace::new(&[]).unwrap();
        workspace.mounted = true;
        let mut step = prepare(&Step::Read { path: path("missing") }, 1, &[]).unwrap();
        assert_eq!(run(step.as_mut(), &mut workspace), StepResult::Failed(libc::ENOENT));
    }
}
