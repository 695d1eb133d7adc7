//! Names in directories: making, changing and removing them.

use std::{ffi::CString, os::fd::AsRawFd};

use anyhow::Result;
use guest_protocol::RelativePath;
use nix::{
    errno::Errno,
    fcntl::{AT_FDCWD, AtFlags, OFlag, renameat},
    libc,
    sys::stat::Mode,
    unistd::{close, linkat, mkdir, symlinkat, unlink},
};

use super::{PreparedStep, Workspace, below, directory, in_mount, opened};

/// Makes a directory.
pub(super) struct Mkdir(CString);

impl Mkdir {
    pub(super) fn new(path: &RelativePath) -> Result<Self> {
        below(path).map(Self)
    }
}

impl PreparedStep for Mkdir {
    fn call(&mut self, _: &mut Workspace) -> nix::Result<i64> {
        mkdir(&*self.0, Mode::from_bits_truncate(0o755)).map(|()| 0)
    }
}

/// Creates a file, which must not exist.
pub(super) struct Create(CString);

impl Create {
    pub(super) fn new(path: &RelativePath) -> Result<Self> {
        below(path).map(Self)
    }
}

impl PreparedStep for Create {
    fn call(&mut self, _: &mut Workspace) -> nix::Result<i64> {
        close(opened(&self.0, OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL)?).map(|()| 0)
    }
}

/// Renames.
pub(super) struct Rename {
    from: CString,
    to: CString,
}

impl Rename {
    pub(super) fn new(from: &RelativePath, to: &RelativePath) -> Result<Self> {
        Ok(Self { from: below(from)?, to: below(to)? })
    }
}

impl PreparedStep for Rename {
    fn call(&mut self, _: &mut Workspace) -> nix::Result<i64> {
        renameat(AT_FDCWD, &*self.from, AT_FDCWD, &*self.to).map(|()| 0)
    }
}

/// Makes a hard link.
pub(super) struct Link {
    from: CString,
    to: CString,
}

impl Link {
    pub(super) fn new(from: &RelativePath, to: &RelativePath) -> Result<Self> {
        Ok(Self { from: below(from)?, to: below(to)? })
    }
}

impl PreparedStep for Link {
    fn call(&mut self, _: &mut Workspace) -> nix::Result<i64> {
        linkat(AT_FDCWD, &*self.from, AT_FDCWD, &*self.to, AtFlags::empty()).map(|()| 0)
    }
}

/// Removes a name.
pub(super) struct Unlink(CString);

impl Unlink {
    pub(super) fn new(path: &RelativePath) -> Result<Self> {
        below(path).map(Self)
    }
}

impl PreparedStep for Unlink {
    fn call(&mut self, _: &mut Workspace) -> nix::Result<i64> {
        unlink(&*self.0).map(|()| 0)
    }
}

/// Makes a symbolic link.
pub(super) struct Symlink {
    target: CString,
    path: CString,
}

impl Symlink {
    pub(super) fn new(target: &str, path: &RelativePath) -> Result<Self> {
        Ok(Self { target: CString::new(target)?, path: below(path)? })
    }
}

impl PreparedStep for Symlink {
    fn call(&mut self, _: &mut Workspace) -> nix::Result<i64> {
        symlinkat(&*self.target, AT_FDCWD, &*self.path).map(|()| 0)
    }
}

/// Lists a directory.
pub(super) struct Readdir(CString);

impl Readdir {
    pub(super) fn new(path: Option<&RelativePath>) -> Result<Self> {
        in_mount(path.map_or("", RelativePath::as_str)).map(Self)
    }
}

impl PreparedStep for Readdir {
    /// Returns the number of names, `.` and `..` among them.
    fn call(&mut self, workspace: &mut Workspace) -> nix::Result<i64> {
        let folder = directory(&self.0)?;
        let buffer = &mut workspace.buffer;
        let mut names = 0;
        loop {
            // SAFETY: the kernel writes at most as much as the buffer holds.
            let filled =
                unsafe { libc::syscall(libc::SYS_getdents64, folder.as_raw_fd(), buffer.as_mut_ptr(), buffer.len()) };
            match usize::try_from(Errno::result(filled)?).unwrap_or_default() {
                0 => break,
                bytes => names += entries(&buffer[..bytes]),
            }
        }
        close(folder)?;
        Ok(names)
    }
}

/// Counts the entries in `bytes`, each a `struct linux_dirent64` (`include/linux/dirent.h`, 6.12)
/// with its length behind two words.
fn entries(bytes: &[u8]) -> i64 {
    let (mut at, mut count) = (0, 0);
    while let Some([low, high]) = bytes.get(at + 16..at + 18) {
        let length = usize::from(u16::from_le_bytes([*low, *high]));
        if length == 0 {
            break;
        }
        at += length;
        count += 1;
    }
    count
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_names_of_a_folder_are_counted() {
        let folder = std::env::temp_dir().join(format!("agent-names-{}", std::process::id()));
        std::fs::create_dir(&folder).unwrap();
        for number in 0..3000 {
            std::fs::write(folder.join(format!("a rather long name of a file, number {number}")), "").unwrap();
        }
        let mut workspace = Workspace::new(&[]).unwrap();
        let names = Readdir(CString::new(folder.to_str().unwrap()).unwrap()).call(&mut workspace);
        std::fs::remove_dir_all(&folder).unwrap();
        assert_eq!(names, Ok(3002));
        assert_eq!(entries(&[0; 24]), 0, "an entry without a length ends the list");
    }
}
