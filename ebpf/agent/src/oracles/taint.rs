//! Taints of the kernel.

use std::{fs::File, mem, os::unix::fs::FileExt};

use anyhow::{Context, Result};

use guest_protocol::{Leftover, LeftoverKind};

use super::{Oracle, leftover};

/// Says by a number what has happened to the kernel that makes its word doubtful. Mirrors
/// `proc_taint()` of `kernel/sysctl.c` and `Documentation/admin-guide/tainted-kernels.rst` (6.12).
const TAINTED: &str = "/proc/sys/kernel/tainted";

/// The kernel's taints. None goes away again, so that each is told once.
pub(super) struct Taint {
    file: File,
    /// Those that were there, or were told.
    known: u64,
}

impl Taint {
    pub(super) fn open() -> Result<Self> {
        let file = File::open(TAINTED).with_context(|| format!("cannot open {TAINTED} (CONFIG_PROC_SYSCTL)"))?;
        let known = read(&file)?;
        Ok(Self { file, known })
    }
}

impl Oracle for Taint {
    fn leftover(&mut self) -> Option<Leftover> {
        let text = match read(&self.file) {
            Ok(now) if now == self.known => return None,
            Ok(now) => {
                let known = mem::replace(&mut self.known, now);
                format!("the kernel is tainted: {now:#x}, and was {known:#x}")
            }
            Err(error) => format!("whether the kernel is tainted cannot be told: {error:#}"),
        };
        Some(leftover(LeftoverKind::Taint, text))
    }
}

/// The number in the open file [`TAINTED`].
fn read(file: &File) -> Result<u64> {
    let mut text = [0; 32];
    let bytes = file.read_at(&mut text, 0).with_context(|| format!("cannot read {TAINTED}"))?;
    let text = String::from_utf8_lossy(&text[..bytes]);
    text.trim().parse().with_context(|| format!("{TAINTED} says \"{}\"", text.trim()))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_taint_is_told_once() {
        let path = std::env::temp_dir().join(format!("agent-tainted-{}", std::process::id()));
        fs::write(&path, "0\n").unwrap();
        let mut taint = Taint { file: File::open(&path).unwrap(), known: 0 };
        let mut told = |now: &str| {
            fs::write(&path, now).unwrap();
            [taint.leftover(), taint.leftover()].map(|leftover| leftover.map(|leftover| leftover.text))
        };
        assert_eq!(told("0\n"), [None, None]);
        assert_eq!(told("512\n"), [Some("the kernel is tainted: 0x200, and was 0x0".to_owned()), None]);
        assert_eq!(told("640\n"), [Some("the kernel is tainted: 0x280, and was 0x200".to_owned()), None]);
        let unreadable = told("");
        assert!(unreadable.iter().flatten().all(|text| text.contains("cannot be told")), "{unreadable:?}");
        assert_eq!(unreadable.iter().flatten().count(), 2, "what cannot be read is told each time");
        fs::remove_file(&path).unwrap();
    }
}
