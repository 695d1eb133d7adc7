//! Retries of guests, and the delays between them.

use std::time::Duration;

use crossbeam::channel::RecvTimeoutError;
use execution::Stop;

use super::GuestError;

/// Delay before each retry; after the last one there is no retry. Processes, memory and files that
/// the host lacks for a moment it has again after some seconds.
pub(crate) const PAUSES: [Duration; 4] =
    [Duration::ZERO, Duration::from_millis(200), Duration::from_secs(2), Duration::from_secs(10)];

/// Makes a guest by `attempt`, and tries again when QEMU dies meanwhile: somebody may have killed
/// it, or the host may lack something for a moment.
pub(super) fn again<T>(stop: &Stop, mut attempt: impl FnMut() -> Result<T, GuestError>) -> Result<T, GuestError> {
    let mut pauses = PAUSES.iter();
    loop {
        let trouble = match attempt() {
            Err(error) if error.is_passing() => error,
            other => return other,
        };
        let Some(pause) = pauses.next() else { return Err(trouble) };
        tracing::warn!("a guest cannot be made, trying again: {}", execution::chain(&trouble));
        if stop.receiver().recv_timeout(*pause) == Err(RecvTimeoutError::Disconnected) {
            return Err(GuestError::Stopped);
        }
    }
}
