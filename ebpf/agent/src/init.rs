//! The duties of process 1: mounted file systems, an end that powers off, and a voice.

use std::{
    fs,
    io::{ErrorKind, Write},
    panic::{self, AssertUnwindSafe},
    path::Path,
    sync::{Mutex, PoisonError},
    thread,
    time::Duration,
};

use anyhow::{Context, Result};
use nix::{
    mount::{MsFlags, mount},
    sys::reboot::{RebootMode, reboot},
};

/// The message of the last panic, whichever thread it was.
static LAST_PANIC: Mutex<String> = Mutex::new(String::new());

/// File systems that the agent uses: type, where, and whether it cannot do without.
const FILE_SYSTEMS: &[(&str, &str, bool)] = &[
    ("proc", "/proc", true),
    ("sysfs", "/sys", true),
    ("devtmpfs", "/dev", true),
    ("debugfs", "/sys/kernel/debug", true),
    ("tracefs", "/sys/kernel/tracing", false),
    ("tmpfs", "/tmp", false),
];

/// Mounts everything the agent reads its kernel through. What is mounted already is left alone.
pub(crate) fn mount_file_systems() -> Result<()> {
    for (kind, path, required) in FILE_SYSTEMS {
        let outcome = mount_one(kind, path);
        match outcome {
            Err(error) if *required => return Err(error),
            Err(error) => say(&format!("{error:#}")),
            Ok(()) => {}
        }
    }
    Ok(())
}

fn mount_one(kind: &str, path: &str) -> Result<()> {
    if let Err(error) = fs::create_dir(path)
        && !Path::new(path).is_dir()
        && error.kind() != ErrorKind::AlreadyExists
    {
        return Err(error).with_context(|| format!("cannot make {path}"));
    }
    match mount(Some(kind), path, Some(kind), MsFlags::empty(), None::<&str>) {
        Ok(()) | Err(nix::Error::EBUSY) => Ok(()),
        Err(error) => Err(error).with_context(|| format!("cannot mount {kind} on {path}: does the kernel have it?")),
    }
}

/// Writes one line on the console; the prefix tells it from the kernel's lines.
pub(crate) fn say(text: &str) {
    // There is nobody left to tell when the console itself fails.
    let _ = writeln!(std::io::stderr(), "agent: {text}");
}

/// Makes every later panic known to [`guarded`] and [`last_panic`].
pub(crate) fn remember_panics() {
    panic::set_hook(Box::new(|info| {
        *LAST_PANIC.lock().unwrap_or_else(PoisonError::into_inner) = format!("panicked: {info}").replace('\n', " ");
    }));
}

/// Returns the message of the last panic; empty when there was none.
pub(crate) fn last_panic() -> String {
    LAST_PANIC.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

/// Runs `action` and turns both its error and its panic into one line of text.
pub(crate) fn guarded<T>(action: impl FnOnce() -> Result<T>) -> Result<T, String> {
    match panic::catch_unwind(AssertUnwindSafe(action)) {
        Ok(outcome) => outcome.map_err(|error| format!("{error:#}")),
        Err(_) => Err(last_panic()),
    }
}

/// Ends the guest.
pub(crate) fn power_off() -> ! {
    // The console and the channel are written by the time the call returns; this lets the host read
    // them first.
    thread::sleep(Duration::from_millis(50));
    let Err(error) = reboot(RebootMode::RB_POWER_OFF);
    say(&format!("cannot power off: {error}"));
    loop {
        thread::park();
    }
}

#[cfg(test)]
mod tests {
    use anyhow::anyhow;

    use super::*;

    #[test]
    fn errors_and_panics_become_one_line() {
        assert_eq!(guarded(|| Ok(3)), Ok(3));
        let failed = guarded(|| Err::<(), _>(anyhow!("inner")).context("outer"));
        assert_eq!(failed, Err("outer: inner".to_owned()));
        remember_panics();
        let message = guarded(|| -> Result<()> { panic!("on purpose") }).unwrap_err();
        let _ = panic::take_hook();
        assert!(message.contains("on purpose") && !message.contains('\n'), "{message}");
    }
}
