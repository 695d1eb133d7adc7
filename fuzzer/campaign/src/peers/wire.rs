//! Messages between hubs. Nothing in them is believed before it was checked.
//!
//! ```text
//! frame  length of the rest (u32, big-endian), postcard of News
//! ```

use std::{
    io::{self, Read},
    net::TcpStream,
    time::{Duration, Instant},
};

use fault_plan::{FaultPlan, PlanError, REPRODUCER_VERSION};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use thiserror::Error;

use crate::{crashes::CrashNews, input::PlanInput, stages::MOST_EARLIER_ROUNDS};
use execution::Target;

/// Bytes of a frame before its body.
pub(super) const HEAD_BYTES: usize = 4;
/// The longest frame: twice what the largest plan needs whose names are as long as the kernel's.
pub(super) const MOST_BYTES: usize = 256 << 10;
/// The longest name of a function in a call path (`KSYM_NAME_LEN`, 6.12).
const MOST_NAME: usize = 512;
/// The longest key.
const MOST_KEY: usize = 400;
/// The longest title.
const MOST_TITLE: usize = 120;
/// The longest name of a kernel, a build, a host.
pub(super) const MOST_WORD: usize = 64;

/// Why nothing more is taken from a connection.
#[derive(Debug, Error)]
pub(super) enum WireError {
    /// The connection broke.
    #[error("the connection broke")]
    Io(#[from] io::Error),
    /// The other side has said goodbye.
    #[error("the other side has ended the connection")]
    End,
    /// Nothing, or only half of something, came in time.
    #[error("the other side is silent")]
    Silent,
    /// Longer than anything that makes sense.
    #[error("a frame of {length} bytes, at most {most} make sense")]
    TooLong {
        /// Bytes that the other side announces.
        length: usize,
        /// Bytes that there is room for.
        most: usize,
    },
    /// The bytes are no message.
    #[error("a message that makes no sense")]
    Encoding(#[from] postcard::Error),
    /// A plan that cannot be.
    #[error("a plan that is refused")]
    Plan(#[from] PlanError),
    /// Something that is not allowed.
    #[error("{0}")]
    Refused(&'static str),
}

/// The number that recognises a piece of news that was there before.
pub(super) type Digest = [u8; 16];

/// A thing that hubs tell each other.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum News {
    /// A plan of somebody's corpus.
    Plan(PlanInput),
    /// A crash.
    Crash {
        /// The host that found it.
        host: String,
        /// Its kind, key, title, kernel and plan.
        crash: CrashNews,
    },
    /// A sign of life.
    Ping,
}

impl News {
    /// Gives the frame that tells it.
    ///
    /// # Errors
    ///
    /// It is too long.
    pub(super) fn frame(&self) -> Result<Vec<u8>, WireError> {
        framed(&postcard::to_allocvec(self)?)
    }

    /// Reads it from the body of a frame. It is not checked.
    ///
    /// # Errors
    ///
    /// The body is something else, or longer.
    pub(super) fn read(body: &[u8]) -> Result<Self, WireError> {
        match postcard::take_from_bytes(body)? {
            (news, []) => Ok(news),
            _ => Err(WireError::Refused("a message with something behind it")),
        }
    }

    /// Checks all that can be checked without running it: it is for `target`, fails what that lets
    /// fail, and every name in it can be one.
    ///
    /// # Errors
    ///
    /// It cannot be; the error says why.
    pub(super) fn check(&self, target: &Target) -> Result<(), WireError> {
        match self {
            Self::Ping => Ok(()),
            Self::Plan(plan) => check_plan(&plan.0, target),
            Self::Crash { host, crash: CrashNews { reproducer, .. } } => {
                if reproducer.title.len() > MOST_TITLE || !is_line(&reproducer.title) {
                    return Err(WireError::Refused("a crash with a title that cannot be one"));
                }
                if reproducer.key.len() > MOST_KEY || !is_line(&reproducer.key) {
                    return Err(WireError::Refused("a crash with a key that cannot be one"));
                }
                if ![host, &reproducer.kernel, &reproducer.kernel_build_id].into_iter().all(|word| is_word(word)) {
                    return Err(WireError::Refused("a crash of a host or kernel with a name that cannot be one"));
                }
                // It would say which program makes the disk.
                if reproducer.target.is_some() {
                    return Err(WireError::Refused("a crash that brings a target along"));
                }
                if reproducer.reproducer_version != REPRODUCER_VERSION {
                    return Err(WireError::Refused("a reproducer of another version"));
                }
                check_plan(&reproducer.plan, target)
            }
        }
    }

    /// Gives the number that recognises it; nothing for a sign of life, which is no news.
    pub(super) fn digest(&self) -> Option<Digest> {
        let mut hash = Sha256::new();
        match self {
            Self::Ping => return None,
            Self::Plan(plan) => hash.update(plan.0.to_json()),
            Self::Crash { crash: CrashNews { reproducer, .. }, .. } => {
                hash.update("crash\n");
                hash.update(&reproducer.key);
                hash.update("\n");
                hash.update(reproducer.plan.to_json());
            }
        }
        let mut digest = Digest::default();
        digest.copy_from_slice(&hash.finalize()[..size_of::<Digest>()]);
        Some(digest)
    }
}

fn check_plan(plan: &FaultPlan, target: &Target) -> Result<(), WireError> {
    plan.check()?;
    if plan.target != target.name {
        return Err(WireError::Refused("a plan for another target"));
    }
    if plan.earlier.len() > MOST_EARLIER_ROUNDS {
        return Err(WireError::Refused("a plan with more rounds than this host makes"));
    }
    for fault in plan.all_faults() {
        if !target.errors(&fault.function).contains(&fault.error) {
            return Err(WireError::Refused("a plan that fails what the target does not let fail"));
        }
        let is_name = |name: &String| name.len() <= MOST_NAME && name.bytes().all(|byte| byte.is_ascii_graphic());
        if !fault.call_path.0.iter().all(is_name) {
            return Err(WireError::Refused("a plan with a caller that cannot be one"));
        }
    }
    Ok(())
}

/// Says whether `text` is one line that any terminal shows as it is.
fn is_line(text: &str) -> bool {
    !text.trim().is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ')
}

/// Says whether `text` can be the name of a kernel, of a build or of a host.
pub(super) fn is_word(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    (1..=MOST_WORD).contains(&text.len()) && text.bytes().all(plain)
}

/// Puts the length of `body` in front of it.
///
/// # Errors
///
/// It is too long.
pub(super) fn framed(body: &[u8]) -> Result<Vec<u8>, WireError> {
    let too_long = || WireError::TooLong { length: body.len(), most: MOST_BYTES };
    let length = u32::try_from(body.len()).ok().filter(|_| body.len() <= MOST_BYTES).ok_or_else(too_long)?;
    Ok([&length.to_be_bytes(), body].concat())
}

/// Reads a frame of at most `most` bytes, and gives its body. All of it must be there `within` that
/// time.
///
/// # Errors
///
/// The connection ends, is silent, or announces more than `most` bytes.
pub(super) fn read_frame(stream: &mut TcpStream, most: usize, within: Duration) -> Result<Vec<u8>, WireError> {
    let deadline = Instant::now() + within;
    let mut length = [0; HEAD_BYTES];
    read_exact(stream, &mut length, deadline)?;
    let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
    if length > most {
        return Err(WireError::TooLong { length, most });
    }
    let mut body = vec![0; length];
    read_exact(stream, &mut body, deadline)?;
    Ok(body)
}

/// Fills `buffer`.
///
/// # Errors
///
/// The connection ends, or is silent until the `deadline`.
pub(super) fn read_exact(stream: &mut TcpStream, mut buffer: &mut [u8], deadline: Instant) -> Result<(), WireError> {
    while !buffer.is_empty() {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(WireError::Silent);
        }
        stream.set_read_timeout(Some(left))?;
        match stream.read(buffer) {
            Ok(0) => return Err(WireError::End),
            Ok(count) => buffer = &mut buffer[count..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // A read that takes too long says either of the two.
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}
