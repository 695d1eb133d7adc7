//! What hubs say to each other, and a hub to the broker of its own campaign: the frames of LibAFL's brokers among
//! themselves. Nothing in them is believed before it was checked.
//!
//! ```text
//! frame    length of the rest (u32, big-endian), postcard of a Message
//! payload  EVENT: postcard of LibAFL's event that brings a plan; CRASH: postcard of CrashNews; PING: nothing
//! ```

use std::{
    io::{self, Read},
    net::TcpStream,
    time::{Duration, Instant},
};

use fault_plan::{FaultPlan, PlanError, Reproducer};
use libafl::{
    events::{Event, EventConfig, EventWithStats},
    executors::ExitKind,
};
use libafl_bolts::{
    ClientId,
    llmp::{Flags, Tag},
};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use thiserror::Error;

use super::super::input::PlanInput;
use execution::Target;
use kernel_report::ReportKind;

/// The tag of LibAFL's events: `LLMP_TAG_EVENT_TO_BOTH` in LibAFL 0.16.1, which keeps it to itself.
pub(super) const EVENT: Tag = Tag(0x002B_0741);
/// The tag of crashes, which LibAFL's brokers do not pass on.
pub(super) const CRASH: Tag = Tag(0x6675_0001);
/// The tag of a sign of life.
pub(super) const PING: Tag = Tag(0x6675_0002);

/// The longest frame: twice what the largest plan needs whose names are as long as the kernel's.
pub(super) const MOST_BYTES: usize = 256 << 10;
/// The longest name of a function in a call path (`KSYM_NAME_LEN`, 6.12).
const MOST_NAME: usize = 512;
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
        /// What the other side announces.
        length: usize,
        /// What there is room for.
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

/// `ll_mp::TcpRemoteNewMessage` (0.16.1), whose fields are private: the same ones in the same order have the same
/// encoding.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Message {
    pub(super) client_id: ClientId,
    pub(super) tag: Tag,
    pub(super) flags: Flags,
    pub(super) payload: Vec<u8>,
}

/// What recognises a piece of news that was there before.
pub(super) type Digest = [u8; 16];

/// What hubs tell each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum News {
    /// A plan of somebody's corpus.
    Plan(PlanInput),
    /// A crash that somebody found.
    Crash(CrashNews),
}

/// A crash that was found on another host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct CrashNews {
    /// The host that found it.
    pub(crate) host: String,
    /// The kind of report.
    pub(crate) kind: ReportKind,
    /// Title, kernel and plan.
    pub(crate) reproducer: Reproducer,
}

impl News {
    /// The frame that tells it. A plan's is LibAFL's event, with nothing in it but the plan: a count of executions that
    /// adds nothing, and no observers, so that a client runs the plan for itself.
    ///
    /// # Errors
    ///
    /// It is too long.
    pub(super) fn frame(&self) -> Result<Vec<u8>, WireError> {
        let (tag, payload) = match self {
            Self::Plan(plan) => {
                let event = Event::NewTestcase {
                    input: plan.clone(),
                    observers_buf: None,
                    exit_kind: ExitKind::Ok,
                    corpus_size: 0,
                    client_config: EventConfig::AlwaysUnique,
                    forward_id: None,
                };
                (EVENT, postcard::to_allocvec(&EventWithStats::with_current_time(event, 0))?)
            }
            Self::Crash(crash) => (CRASH, postcard::to_allocvec(crash)?),
        };
        frame(tag, payload)
    }

    /// What the payload of `message` says; nothing where that is a sign of life. It is not checked.
    ///
    /// # Errors
    ///
    /// It is not encoded as its tag says, or says something that hubs do not tell each other.
    pub(super) fn read(message: &Message) -> Result<Option<Self>, WireError> {
        match message.tag {
            EVENT => {
                let event: EventWithStats<PlanInput> = postcard::from_bytes(&message.payload)?;
                match event.into_parts().0 {
                    Event::NewTestcase { input, .. } => Ok(Some(Self::Plan(input))),
                    _ => Err(WireError::Refused("an event that brings no plan")),
                }
            }
            CRASH => Ok(Some(Self::Crash(postcard::from_bytes(&message.payload)?))),
            PING => Ok(None),
            _ => Err(WireError::Refused("a message of an unknown kind")),
        }
    }

    /// Checks all that can be checked without running it: it is for `target`, fails what that lets fail, and every name
    /// in it can be one.
    ///
    /// # Errors
    ///
    /// What is wrong with it.
    pub(super) fn check(&self, target: &Target) -> Result<(), WireError> {
        match self {
            Self::Plan(plan) => check_plan(&plan.0, target),
            Self::Crash(CrashNews { host, reproducer, .. }) => {
                if reproducer.title.len() > MOST_TITLE || !is_line(&reproducer.title) {
                    return Err(WireError::Refused("a crash with a title that cannot be one"));
                }
                if ![host, &reproducer.kernel, &reproducer.kernel_build_id].into_iter().all(|word| is_word(word)) {
                    return Err(WireError::Refused("a crash of a host or kernel with a name that cannot be one"));
                }
                if reproducer.reproducer_version != fault_plan::REPRODUCER_VERSION {
                    return Err(WireError::Refused("a reproducer of another version"));
                }
                check_plan(&reproducer.plan, target)
            }
        }
    }

    /// What recognises it.
    pub(super) fn digest(&self) -> Digest {
        let mut hash = Sha256::new();
        match self {
            Self::Plan(plan) => hash.update(plan.0.to_json()),
            Self::Crash(CrashNews { reproducer, .. }) => {
                hash.update("crash\n");
                hash.update(&reproducer.title);
                hash.update("\n");
                hash.update(reproducer.plan.to_json());
            }
        }
        let mut digest = Digest::default();
        digest.copy_from_slice(&hash.finalize()[..size_of::<Digest>()]);
        digest
    }
}

fn check_plan(plan: &FaultPlan, target: &Target) -> Result<(), WireError> {
    plan.check()?;
    if plan.target != target.name {
        return Err(WireError::Refused("a plan for another target"));
    }
    for fault in &plan.faults {
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

/// Whether `text` is one line that any terminal shows as it is.
fn is_line(text: &str) -> bool {
    !text.trim().is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ')
}

/// Whether `text` can be the name of a kernel, of a build or of a host.
pub(super) fn is_word(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    (1..=MOST_WORD).contains(&text.len()) && text.bytes().all(plain)
}

/// The frame of a message.
///
/// # Errors
///
/// It is too long.
pub(super) fn frame(tag: Tag, payload: Vec<u8>) -> Result<Vec<u8>, WireError> {
    let message = Message { client_id: ClientId(0), tag, flags: Flags(0), payload };
    framed(&postcard::to_allocvec(&message)?)
}

/// `body` with its length in front.
///
/// # Errors
///
/// It is too long.
pub(super) fn framed(body: &[u8]) -> Result<Vec<u8>, WireError> {
    let too_long = || WireError::TooLong { length: body.len(), most: MOST_BYTES };
    let length = u32::try_from(body.len()).ok().filter(|_| body.len() <= MOST_BYTES).ok_or_else(too_long)?;
    Ok([&length.to_be_bytes(), body].concat())
}

/// Reads a frame of at most `most` bytes, and gives what comes after its length. All of it must be there `within` that
/// time; without it there is none to wait for.
///
/// # Errors
///
/// The connection ends, is silent, or announces more than `most` bytes.
pub(super) fn read_frame(stream: &mut TcpStream, most: usize, within: Option<Duration>) -> Result<Vec<u8>, WireError> {
    let deadline = within.map(|within| Instant::now() + within);
    let mut length = [0; 4];
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
pub(super) fn read_exact(
    stream: &mut TcpStream,
    mut buffer: &mut [u8],
    deadline: Option<Instant>,
) -> Result<(), WireError> {
    while !buffer.is_empty() {
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        if left.is_some_and(|left| left.is_zero()) {
            return Err(WireError::Silent);
        }
        stream.set_read_timeout(left)?;
        match stream.read(buffer) {
            Ok(0) => return Err(WireError::End),
            Ok(count) => buffer = &mut buffer[count..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // What a read that takes too long says is either of the two.
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}
