//! Taints of the kernel.

use std::{fs::File, os::unix::fs::FileExt};

use anyhow::{Context, Result};

use guest_protocol::{Leftover, LeftoverKind};

use super::{Oracle, leftover};

/// Says by a number what has happened to the kernel that makes its word doubtful. Mirrors
/// `proc_taint()` of `kernel/sysctl.c` and `Documentation/admin-guide/tainted-kernels.rst` (6.12).
const TAINTED: &str = "/proc/sys/kernel/tainted";

/// The kernel's taints, and those it had before the first workload.
pub(super) struct Taint {
    file: File,
    first: u64,
}

impl Taint {
    pub(super) fn open() -> Result<Self> {
        let file = File::open(TAINTED).with_context(|| format!("cannot open {TAINTED} (CONFIG_PROC_SYSCTL)"))?;
        let first = read(&file)?;
        Ok(Self { file, first })
    }
}

impl Oracle for Taint {
    fn leftover(&mut self) -> Option<Leftover> {
        let text = match read(&self.file) {
            Ok(now) if now == self.first => return None,
            Ok(now) => format!("the kernel is tainted: {now:#x}, and was {:#x}", self.first),
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
    fn a_taint_is_read_again_and_again() {
        let path = std::env::temp_dir().join(format!("agent-tainted-{}", std::process::id()));
        fs::write(&path, "512\n").unwrap();
        let file = File::open(&path).unwrap();
        assert_eq!([read(&file).unwrap(), read(&file).unwrap()], [512, 512]);
        fs::write(&path, "").unwrap();
        assert!(read(&file).is_err());
        fs::remove_file(&path).unwrap();
    }
}
