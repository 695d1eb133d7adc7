//! Facts about a template.

use std::time::Duration;

use guest_protocol::{Hello, Ready};
use serde::{Deserialize, Serialize};

use super::machine::Sequence;

/// Facts about a template.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct About {
    /// What the agent said about its kernel.
    pub hello: Hello,
    /// What the agent prepared.
    pub ready: Ready,
    /// From the start of QEMU to [`About::hello`].
    pub boot_time: Duration,
    /// From then to [`About::ready`].
    pub setup_time: Duration,
    /// What the guest printed until it was saved.
    pub console: String,
    pub(super) sequence: Sequence,
    /// The rate of its time stamp counter, where it was told.
    pub(super) counter_khz: Option<u64>,
}
