//! Memory that nothing points to, as the kernel's own detector finds it.

use std::{
    fs::{File, OpenOptions},
    io::{Read as _, Write as _},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};

use crate::kernel::KMEMLEAK;

/// The age below which an object is not told of, `MSECS_MIN_AGE` of `mm/kmemleak.c` (6.12), and a
/// little, as the kernel counts in jiffies.
const LEAST_AGE: Duration = Duration::from_millis(5100);

/// Has the detector look twice, and gives its text of all objects that nothing points to.
///
/// In the first scan each object is new to it: it notes a checksum and takes it for one in use
/// (`update_checksum()` in `kmemleak_scan()` of `mm/kmemleak.c`, 6.12). The second one begins when
/// all that is there now is old enough. Stacks are not looked at: what a call has left there points
/// to nothing that is still meant.
///
/// # Errors
///
/// The kernel has no such detector, or it is off.
pub(crate) fn unreferenced() -> Result<String> {
    let started = Instant::now();
    tell("stack=off")?;
    tell("scan")?;
    thread::sleep(LEAST_AGE.saturating_sub(started.elapsed()));
    tell("scan")?;
    let mut text = Vec::new();
    let mut file = File::open(KMEMLEAK).with_context(|| format!("cannot open {KMEMLEAK}"))?;
    file.read_to_end(&mut text).with_context(|| format!("cannot read {KMEMLEAK}"))?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

fn tell(command: &str) -> Result<()> {
    let written = OpenOptions::new().write(true).open(KMEMLEAK).and_then(|mut file| file.write_all(command.as_bytes()));
    written.with_context(|| format!("cannot write \"{command}\" to {KMEMLEAK}: boot the kernel with kmemleak=on"))
}
