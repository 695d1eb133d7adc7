//! How long to wait before a guest is tried again.

use std::time::Duration;

/// Pause before each further attempt; after the last one there is none. Processes, memory and files
/// that the host lacks for a moment it has again after some seconds.
pub(crate) const PAUSES: [Duration; 4] =
    [Duration::ZERO, Duration::from_millis(200), Duration::from_secs(2), Duration::from_secs(10)];
