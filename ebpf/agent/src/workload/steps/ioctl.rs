//! Requests that a target states as data.

use std::{ffi::CString, os::fd::AsRawFd, ptr};

use anyhow::Result;
use guest_protocol::{Ioctl as Request, RelativePath};
use nix::{errno::Errno, fcntl::OFlag, libc, unistd::close};

use super::{PreparedStep, Workspace, below, in_mount, opened};

/// Makes a request of a file.
pub(super) struct Ioctl {
    path: CString,
    request: u32,
    /// The argument as the target states it, and memory for what the kernel makes of it.
    stated: Vec<u8>,
    argument: Vec<u8>,
    /// Another file, and where in the argument its number stands.
    file: Option<(CString, usize)>,
    /// Memory, and where in the argument its address stands.
    memory: Option<(Vec<u8>, usize)>,
}

impl Ioctl {
    pub(super) fn new(request: &Request) -> Result<Self> {
        let stated = request.argument();
        let path = request.path.as_ref().map_or("", RelativePath::as_str);
        let file = request.file.as_ref();
        Ok(Self {
            path: in_mount(path)?,
            request: request.request,
            argument: stated.clone(),
            stated,
            file: file.map(|file| Ok::<_, anyhow::Error>((below(&file.path)?, file.at as usize))).transpose()?,
            memory: request.memory.as_ref().map(|memory| (vec![0; memory.bytes as usize], memory.at as usize)),
        })
    }
}

impl PreparedStep for Ioctl {
    fn call(&mut self, _: &mut Workspace) -> nix::Result<i64> {
        self.argument.copy_from_slice(&self.stated);
        let other = self.file.as_ref().map(|(path, at)| Ok((opened(path, OFlag::O_RDONLY)?, *at))).transpose()?;
        if let Some((other, at)) = &other {
            put(&mut self.argument, *at, i64::from(other.as_raw_fd()).to_ne_bytes());
        }
        if let Some((memory, at)) = &mut self.memory {
            memory.fill(0);
            put(&mut self.argument, *at, memory.as_mut_ptr().expose_provenance().to_ne_bytes());
        }
        let file = opened(&self.path, OFlag::O_RDONLY)?;
        let argument = if self.argument.is_empty() { ptr::null_mut() } else { self.argument.as_mut_ptr() };
        // SAFETY: the argument has the size that the request's number says, or what the target's
        // author gave it. It may hold the address of memory that lives as long. A target that lies
        // about either breaks its own guest's agent only.
        let result = unsafe { libc::ioctl(file.as_raw_fd(), libc::Ioctl::from(self.request), argument) };
        let result = Errno::result(result)?;
        close(file)?;
        Ok(result.into())
    }
}

fn put(argument: &mut [u8], at: usize, word: [u8; 8]) {
    if let Some(place) = argument.get_mut(at..at + word.len()) {
        place.copy_from_slice(&word);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_made_anew_each_time() {
        let path = std::env::temp_dir().join(format!("agent-ioctl-{}", std::process::id()));
        std::fs::write(&path, "12345").unwrap();
        // FIONREAD of include/uapi/asm-generic/ioctls.h, 6.12, whose number tells no size.
        let mut request = Ioctl {
            path: CString::new(path.to_str().unwrap()).unwrap(),
            request: 0x541b,
            stated: vec![0; 4],
            argument: vec![9; 4],
            file: None,
            memory: None,
        };
        let mut workspace = Workspace::new(&[]).unwrap();
        for _ in 0..2 {
            assert_eq!((request.call(&mut workspace), request.argument.as_slice()), (Ok(0), &[5, 0, 0, 0][..]));
        }
        std::fs::remove_file(path).unwrap();
        assert_eq!(request.call(&mut workspace), Err(Errno::ENOENT));
    }

    #[test]
    fn numbers_of_files_and_addresses_stand_in_the_argument() {
        let mut argument = [0; 12];
        put(&mut argument, 4, 258_i64.to_ne_bytes());
        assert_eq!(argument, [0, 0, 0, 0, 2, 1, 0, 0, 0, 0, 0, 0]);
    }
}
