//! Errors of guests and their host, which say nothing about the kernel under test.

use std::{io, os::unix::process::ExitStatusExt, path::PathBuf, process::ExitStatus, time::Duration};

use guest_protocol::{FromAgent, MessageError, WindowError};
use nix::libc::{SIGKILL, SIGTERM};
use thiserror::Error;

/// Guest trouble. Never a finding: the guest that caused it is gone, and the execution may be tried
/// again in a fresh one.
#[derive(Debug, Error)]
pub enum GuestError {
    /// A setting that no guest can have.
    #[error("the guest cannot be configured like this: {reason}")]
    Config {
        /// Defect, and what would be right.
        reason: String,
    },
    /// A file that the guest boots from is missing.
    #[error("{what} {} cannot be read", path.display())]
    File {
        /// Name of the file's part, such as "the kernel".
        what: &'static str,
        /// Path of the file.
        path: PathBuf,
        /// Underlying error.
        source: io::Error,
    },
    /// QEMU could not be executed.
    #[error("{} could not be started; install qemu-system-x86 or name the program to use", qemu.display())]
    Start {
        /// The program.
        qemu: PathBuf,
        /// Underlying error.
        source: io::Error,
    },
    /// The host gives no memory, descriptor or thread for the guest.
    #[error("no {what} for the guest")]
    Host {
        /// Name of the resource that the host did not give.
        what: &'static str,
        /// Underlying error.
        source: io::Error,
    },
    /// The QEMU process ended by itself.
    #[error("qemu ended ({status}){}", told(stderr))]
    QemuDied {
        /// Exit status of the process.
        status: ExitStatus,
        /// Last lines of its standard error.
        stderr: String,
    },
    /// QEMU refused a command, or did not answer it.
    #[error("qemu's monitor: {command}: {reason}")]
    Qmp {
        /// The command.
        command: &'static str,
        /// Error that QEMU returned, or that it returned nothing.
        reason: String,
    },
    /// The kernel died before the guest was ready.
    #[error("the guest's kernel died while {during}; its console ends with:\n{console}")]
    BootPanic {
        /// Step during which it died.
        during: &'static str,
        /// The end of the console.
        console: String,
    },
    /// The guest did not get ready in time.
    #[error("the guest was not done {during} after {} s; its console ends with:\n{console}", after.as_secs())]
    BootTimeout {
        /// Step that did not end.
        during: &'static str,
        /// Time that the step was given.
        after: Duration,
        /// The end of the console.
        console: String,
    },
    /// The agent in the initramfs is of another build.
    #[error("the guest's agent speaks protocol version {found}, this build {expected}: build the initramfs again")]
    Protocol {
        /// The agent's version.
        found: u32,
        /// This build's version.
        expected: u32,
    },
    /// The agent cannot prepare the target.
    #[error("the guest's agent: {0}")]
    Refused(String),
    /// The agent failed.
    #[error("the guest's agent: {0}")]
    Agent(String),
    /// A message could not be sent, or the guest's is none.
    #[error("a message between host and guest")]
    Message(#[from] MessageError),
    /// The window holds no usable message.
    #[error("the window between host and guest")]
    Window(#[from] WindowError),
    /// A message that does not belong here.
    #[error("the guest's agent sent {found} where {expected} was due")]
    Unexpected {
        /// Message that came.
        found: String,
        /// Message that was due.
        expected: &'static str,
    },
    /// The guest is dead since an earlier execution.
    #[error("the guest is dead since an earlier execution")]
    Dead,
    /// The guest died and its kernel did not say of what. For the callers of
    /// [`super::Guest::execute`], who know what a kernel's words are.
    #[error("the guest ended without a word of its kernel")]
    Lost,
    /// The kernel panicked for want of memory, which no fault had taken.
    #[error("the guest ran out of memory, and its kernel panicked")]
    OutOfMemory,
    /// It looks hung, but the host did not let it run.
    #[error(
        "the guest looks hung, but of {} s its threads waited {} s for a processor of this busy host",
        wall.as_secs(), waited.as_secs()
    )]
    Starved {
        /// Time that the execution took.
        wall: Duration,
        /// Time that the guest's threads waited for a processor, all together.
        waited: Duration,
    },
    /// The asked-for acceleration does not work here.
    #[error("KVM cannot be used: {reason}; use the acceleration \"tcg\" or \"auto\"")]
    Accel {
        /// Reason against KVM.
        reason: String,
    },
    /// The user asked to stop.
    #[error("stopped on request")]
    Stopped,
}

impl GuestError {
    /// Makes the error of a message that does not belong where `expected` was due.
    pub(super) fn unexpected(found: &FromAgent, expected: &'static str) -> Self {
        let found = match found {
            FromAgent::Trouble(reason) => return Self::Agent(reason.clone()),
            FromAgent::Hello(_) => "hello",
            FromAgent::Ready(_) => "ready",
            FromAgent::Report(_) => "a report",
            FromAgent::Refused(_) => "a refusal",
            FromAgent::Unclean(_) => "word of something left behind",
            FromAgent::Hung(_) => "word of a step that does not return",
        };
        Self::Unexpected { found: found.to_owned(), expected }
    }

    /// Says whether somebody killed QEMU. It aborts by itself where the acceleration fails.
    pub(super) fn was_killed(&self) -> bool {
        let Self::QemuDied { status, .. } = self else { return false };
        status.signal().is_some_and(|signal| [SIGKILL, SIGTERM].contains(&signal))
    }

    /// Says whether the next attempt may succeed: QEMU died by itself, or the host lacked
    /// something.
    pub(super) fn is_passing(&self) -> bool {
        matches!(self, Self::QemuDied { .. } | Self::Host { .. })
    }
}

fn told(stderr: &str) -> String {
    if stderr.trim().is_empty() { String::new() } else { format!(": {}", stderr.trim()) }
}
