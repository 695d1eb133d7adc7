//! Facts about a template.

use std::time::Duration;

use guest_protocol::{Hello, Ready};
use serde::{Deserialize, Serialize};

use super::machine::Sequence;

/// Facts about a template.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct About {
    /// First message of the agent, with the facts about its kernel.
    pub hello: Hello,
    /// Answer of the agent once it had prepared the target.
    pub ready: Ready,
    /// From the start of QEMU to [`About::hello`].
    pub boot_time: Duration,
    /// From then to [`About::ready`].
    pub setup_time: Duration,
    /// Text that the guest printed until it was saved.
    pub console: String,
    pub(super) sequence: Sequence,
    /// The rate of its time stamp counter, where it was told.
    pub(super) counter_khz: Option<u64>,
}
