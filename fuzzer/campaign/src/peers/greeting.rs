//! The greeting: two hubs get to know each other before anything else is said.
//!
//! ```text
//! greeting  MAGIC, protocol version (u32, big-endian), a frame with the postcard of a Hello
//! ```

use std::{
    io::{self, Write},
    net::TcpStream,
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::wire::{MOST_WORD, WireError, framed, is_word, read_exact, read_frame};
use execution::Target;

/// The first bytes that a hub says.
const MAGIC: [u8; 8] = *b"fuzzpeer";
/// Version of all that hubs say.
pub(super) const PROTOCOL: u32 = 5;
/// The longest hello.
const MOST_BYTES: usize = 4 << 10;
/// Number of characters of another side's words that are shown.
const SHOWN: usize = 64;
/// Time that a greeting may take.
pub(super) const TIME: Duration = Duration::from_secs(3);

/// Why two hubs do not talk to each other.
#[derive(Debug, Error)]
pub(super) enum GreetingError {
    /// There is no connection.
    #[error("it cannot be reached")]
    Unreachable(#[source] io::Error),
    /// The connection.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// Something else listens there.
    #[error("what answers there is no fuzz")]
    Stranger,
    /// Another version of this program.
    #[error("the other side speaks version {found} of the protocol, this build version {PROTOCOL}")]
    Version {
        /// Its.
        found: u32,
    },
    /// Another target.
    #[error("the other side fuzzes the target \"{theirs}\", this one \"{ours}\"")]
    Target {
        /// The other side's.
        theirs: String,
        /// This side's.
        ours: String,
    },
    /// Another target of the same name.
    #[error(
        "the other side has another definition of the target \"{target}\" (its digest is {theirs}, this side's {ours}): \
         steps, image, memory and functions must be the same"
    )]
    Definition {
        /// Name of the target.
        target: String,
        /// Digest on the other side.
        theirs: String,
        /// Digest on this side.
        ours: String,
    },
    /// It is this campaign itself.
    #[error("that is this campaign itself")]
    Ourselves,
}

impl GreetingError {
    /// Says whether it will be the same the next time.
    pub(super) fn is_final(&self) -> bool {
        !matches!(self, Self::Unreachable(_) | Self::Wire(_))
    }
}

/// The introduction of a hub.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Hello {
    /// Name of the target.
    target: String,
    /// Digest of the target's definition.
    digest: String,
    /// A number by chance, of this start of the campaign.
    pub(super) node: u64,
    /// Name of the host.
    pub(super) host: String,
}

impl Hello {
    /// Makes the introduction of the hub of a campaign on `target`.
    #[must_use]
    pub(super) fn new(target: &Target, node: u64, host: String) -> Self {
        Self { target: target.name.clone(), digest: target.digest(), node, host }
    }

    /// Says it to the other side, and hears what that says.
    ///
    /// # Errors
    ///
    /// The other side is too slow, no hub, or one that does something else.
    pub(super) fn exchange(&self, stream: &mut TcpStream) -> Result<Self, GreetingError> {
        let deadline = Instant::now() + TIME;
        let hello = framed(&postcard::to_allocvec(self).map_err(WireError::from)?)?;
        stream.set_write_timeout(Some(TIME)).map_err(WireError::from)?;
        stream.write_all(&[&MAGIC[..], &PROTOCOL.to_be_bytes(), &hello].concat()).map_err(WireError::from)?;
        let mut magic = [0; MAGIC.len()];
        read_exact(stream, &mut magic, deadline)?;
        if magic != MAGIC {
            return Err(GreetingError::Stranger);
        }
        let mut version = [0; 4];
        read_exact(stream, &mut version, deadline)?;
        match u32::from_be_bytes(version) {
            PROTOCOL => {}
            found => return Err(GreetingError::Version { found }),
        }
        let left = deadline.saturating_duration_since(Instant::now());
        let theirs: Self = postcard::from_bytes(&read_frame(stream, MOST_BYTES, left)?).map_err(WireError::from)?;
        self.accept(theirs)
    }

    fn accept(&self, theirs: Self) -> Result<Self, GreetingError> {
        let shown = |text: &str| {
            let plain = |character: &char| character.is_ascii_graphic();
            text.chars().filter(plain).take(SHOWN).collect::<String>()
        };
        if theirs.target != self.target {
            return Err(GreetingError::Target { theirs: shown(&theirs.target), ours: self.target.clone() });
        }
        if theirs.digest != self.digest {
            let (theirs, ours) = (shown(&theirs.digest), shown(&self.digest));
            return Err(GreetingError::Definition { target: self.target.clone(), theirs, ours });
        }
        if theirs.node == self.node {
            return Err(GreetingError::Ourselves);
        }
        if !is_word(&theirs.host) {
            return Err(WireError::Refused("a host with a name that cannot be one").into());
        }
        Ok(theirs)
    }
}

/// Gives this host's name, as far as it can be a name in a file.
pub(super) fn host_name() -> String {
    let name = nix::sys::utsname::uname()
        .map_or_else(|_| String::new(), |uname| uname.nodename().to_string_lossy().into_owned());
    let plain = |character: &char| character.is_ascii_alphanumeric() || "._-".contains(*character);
    let name: String = name.chars().filter(plain).take(MOST_WORD).collect();
    if name.is_empty() { "host".to_owned() } else { name }
}
