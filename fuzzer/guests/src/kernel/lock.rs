//! Lock files of builds and fetches.

use std::{fs::File, path::Path, thread, time::Duration};

use execution::Stop;
use files::cache;

use super::{KernelError, Progress, make::failed};

/// Pause between two attempts to take a lock that another process has.
const LOCK_POLL: Duration = Duration::from_millis(100);

/// Takes the lock file `path`, waiting for whoever has it.
pub(super) fn lock(path: &Path, stop: &Stop, progress: &mut dyn FnMut(Progress)) -> Result<File, KernelError> {
    let mut told = false;
    loop {
        if let Some(lock) = cache::try_lock(path).map_err(|source| failed("take the lock", path, source))? {
            return Ok(lock);
        }
        if stop.is_requested() {
            return Err(KernelError::Stopped);
        }
        if !told {
            progress(Progress::Waiting);
            told = true;
        }
        thread::sleep(LOCK_POLL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_waits_for_another_build_can_be_stopped() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        let held = cache::try_lock(&path).unwrap();
        let stop = Stop::new();
        let mut told = Vec::new();
        let waited = lock(&path, &stop, &mut |progress| {
            told.push(progress);
            stop.request();
        });
        assert!(matches!(waited, Err(KernelError::Stopped)));
        assert_eq!(told, [Progress::Waiting]);
        drop(held);
        // A process that another test starts may have it for a moment more.
        assert!(lock(&path, &Stop::new(), &mut |_| ()).is_ok());
    }
}
