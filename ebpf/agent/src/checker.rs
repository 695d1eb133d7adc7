//! File systems' own checkers, which read the disk when nothing is mounted any more.
//!
//! The host has put them into the initial file system with the libraries that they need, where the
//! target's disk is to be checked.

use std::{
    fs::File,
    io::{Read as _, Seek as _},
    os::unix::fs::FileExt as _,
    path::Path,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use guest_protocol::{CHECKER_FOLDER, CHECKER_LINKER, Checker, LIMITS, cut};
use nix::sys::memfd::{MFdFlags, memfd_create};

/// Time after which a check is given up: a damaged disk may lead one in circles.
const DEADLINE: Duration = Duration::from_secs(20);
/// Time between two looks whether it has ended.
const PAUSE: Duration = Duration::from_millis(2);
/// Place of `s_state` in the superblock of ext2, ext3 and ext4, and its bit `EXT4_ERROR_FS`:
/// `struct ext4_super_block` of `fs/ext4/ext4.h` (6.12).
const EXT_STATE: (u64, u16) = (1024 + 0x3a, 2);

/// Reads the device file `disk` with the checker of its `file_system`. Gives the words of one that
/// complains, after a line with its command. Nothing where there is none, or where the file system
/// itself asks for a repair: ext4 that met an error does.
///
/// # Errors
///
/// It could not check.
pub(crate) fn complaints(file_system: &str, disk: &str) -> Result<String> {
    let Some(checker) = Checker::of(file_system) else { return Ok(String::new()) };
    let folder = Path::new("/").join(CHECKER_FOLDER);
    let program = folder.join(checker.command);
    if !program.is_file() || checker.command == "e2fsck" && asks_for_repair(disk)? {
        return Ok(String::new());
    }
    let mut said = File::from(memfd_create("checker", MFdFlags::MFD_CLOEXEC).context("no file for its words")?);
    let words = || Ok::<_, std::io::Error>(Stdio::from(said.try_clone()?));
    let mut command = Command::new(folder.join(CHECKER_LINKER));
    command.arg("--library-path").arg(&folder).arg(&program).args(checker.arguments).arg(disk);
    command.env_clear().stdin(Stdio::null()).stdout(words()?).stderr(words()?);
    let mut child = command.spawn().with_context(|| format!("cannot run {}", checker.command))?;
    let until = Instant::now() + DEADLINE;
    let status = loop {
        match child.try_wait()? {
            Some(status) => break Some(status),
            None if Instant::now() >= until => {
                child.kill()?;
                child.wait()?;
                break None;
            }
            None => thread::sleep(PAUSE),
        }
    };
    let mut text = Vec::new();
    said.rewind()?;
    said.by_ref().take(LIMITS.text_bytes as u64).read_to_end(&mut text).context("cannot read its words")?;
    let text = format!("{} {disk}\n{}", checker.words(), String::from_utf8_lossy(&text));
    let text = cut(text, LIMITS.text_bytes);
    match status.and_then(|status| status.code()) {
        Some(0) => Ok(String::new()),
        Some(code) if code & checker.complains != 0 => Ok(text),
        Some(code) => anyhow::bail!("exit status {code}: {text}"),
        None => anyhow::bail!("it was killed: {text}"),
    }
}

fn asks_for_repair(disk: &str) -> Result<bool> {
    let (place, error) = EXT_STATE;
    let mut state = [0; 2];
    let disk = File::open(disk).with_context(|| format!("cannot open {disk}"))?;
    disk.read_exact_at(&mut state, place).context("cannot read the superblock")?;
    Ok(u16::from_le_bytes(state) & error != 0)
}
