//! Delays before a guest is tried again.

use std::time::Duration;

/// Delay before each retry; after the last one there is no retry. Processes, memory and files that
/// the host lacks for a moment it has again after some seconds.
pub(crate) const PAUSES: [Duration; 4] =
    [Duration::ZERO, Duration::from_millis(200), Duration::from_secs(2), Duration::from_secs(10)];
