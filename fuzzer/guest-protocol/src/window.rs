//! The window: a file on the host that is memory in the guest, at [`WINDOW_GUEST_ADDRESS`].
//!
//! ```text
//! offset      size        what
//! 0           4 KiB       header: for each direction a sequence number and a length, 32-bit little-endian
//! 4 KiB       1 MiB-4 KiB request, host to agent
//! 1 MiB       7 MiB       reply, agent to host
//! ```

use std::sync::atomic::{Ordering, fence};

use thiserror::Error;

/// Size of the window.
pub const WINDOW_BYTES: usize = 8 << 20;
/// Address of the window in the guest: the first above 4 GiB, as the guest has less memory than
/// that.
pub const WINDOW_GUEST_ADDRESS: u64 = 4 << 30;
/// The largest message to the agent.
pub const REQUEST_MAX_BYTES: usize = REPLY_OFFSET - REQUEST_OFFSET;
/// The largest message from the agent.
pub const REPLY_MAX_BYTES: usize = WINDOW_BYTES - REPLY_OFFSET;
/// The byte that rings the other side: a message is in the window.
pub const DOORBELL: u8 = b'!';

/// The name of the virtio-serial port that the bell rings through.
pub const PORT_NAME: &str = "org.fuzz.channel";

const REQUEST_OFFSET: usize = 4 << 10;
const REPLY_OFFSET: usize = 1 << 20;

/// Which way a message goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Host to agent.
    Request,
    /// Agent to host.
    Reply,
}

impl Direction {
    fn header(self) -> usize {
        match self {
            Self::Request => 0,
            Self::Reply => 8,
        }
    }

    fn area(self) -> (usize, usize) {
        match self {
            Self::Request => (REQUEST_OFFSET, REQUEST_MAX_BYTES),
            Self::Reply => (REPLY_OFFSET, REPLY_MAX_BYTES),
        }
    }
}

/// Why the window has no usable message.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum WindowError {
    /// The length does not fit the area.
    #[error("a message of {bytes} bytes does not fit into its area of {max} bytes")]
    Length {
        /// The length in the header.
        bytes: usize,
        /// The area's size.
        max: usize,
    },
    /// The doorbell rang but the message is not the next one.
    #[error("message number {found} where number {expected} was due")]
    Sequence {
        /// The number in the header.
        found: u32,
        /// The next number.
        expected: u32,
    },
}

/// The mapped window. The other side may write to it at any moment: everything is copied out before
/// it is looked at.
#[derive(Debug)]
pub struct Window {
    base: *mut u8,
}

// SAFETY: the memory behind `base` stays mapped for the window's life (see `new`) and belongs to no
// thread.
unsafe impl Send for Window {}

impl Window {
    /// A window over memory mapped at `base`.
    ///
    /// # Safety
    ///
    /// [`WINDOW_BYTES`] bytes from `base` on are mapped readable and writable for as long as the
    /// window lives, and no reference points into them.
    #[must_use]
    pub unsafe fn new(base: *mut u8) -> Self {
        Self { base }
    }

    /// Writes message number `sequence`.
    ///
    /// # Errors
    ///
    /// It is larger than its area.
    pub fn put(&mut self, direction: Direction, sequence: u32, message: &[u8]) -> Result<(), WindowError> {
        let (offset, max) = direction.area();
        let length = u32::try_from(message.len()).ok().filter(|_| message.len() <= max);
        let length = length.ok_or(WindowError::Length { bytes: message.len(), max })?;
        self.write(offset, message);
        self.write(direction.header() + 4, &length.to_le_bytes());
        fence(Ordering::SeqCst);
        self.write(direction.header(), &sequence.to_le_bytes());
        Ok(())
    }

    /// Says whether message number `sequence` is there.
    #[must_use]
    pub fn has(&self, direction: Direction, sequence: u32) -> bool {
        // SAFETY: the header lies inside the window, and bytes need no alignment. Volatile, as
        // callers look repeatedly.
        let bytes = unsafe { self.base.add(direction.header()).cast::<[u8; 4]>().read_volatile() };
        u32::from_le_bytes(bytes) == sequence
    }

    /// Copies message number `sequence` out.
    ///
    /// # Errors
    ///
    /// Another message is there, or its length is out of bounds.
    pub fn take(&self, direction: Direction, sequence: u32) -> Result<Vec<u8>, WindowError> {
        let found = self.word(direction.header());
        if found != sequence {
            return Err(WindowError::Sequence { found, expected: sequence });
        }
        fence(Ordering::SeqCst);
        let (offset, max) = direction.area();
        let bytes = self.word(direction.header() + 4) as usize;
        if bytes > max {
            return Err(WindowError::Length { bytes, max });
        }
        Ok(self.read(offset, bytes))
    }

    fn word(&self, offset: usize) -> u32 {
        let bytes = self.read(offset, 4);
        u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
    }

    fn read(&self, offset: usize, bytes: usize) -> Vec<u8> {
        assert!(offset <= WINDOW_BYTES && bytes <= WINDOW_BYTES - offset, "inside the window");
        let mut copy = vec![0; bytes];
        // SAFETY: the range was checked against the window; `copy` is fresh memory of that size.
        unsafe { std::ptr::copy_nonoverlapping(self.base.add(offset), copy.as_mut_ptr(), bytes) };
        copy
    }

    fn write(&mut self, offset: usize, bytes: &[u8]) {
        assert!(offset <= WINDOW_BYTES && bytes.len() <= WINDOW_BYTES - offset, "inside the window");
        // SAFETY: the range was checked against the window, and no reference points into it (see
        // `new`).
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), self.base.add(offset), bytes.len()) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_window(test: impl FnOnce(&mut Window)) {
        let mut memory = vec![0_u8; WINDOW_BYTES];
        // SAFETY: `memory` outlives the window and is not used otherwise meanwhile.
        test(&mut unsafe { Window::new(memory.as_mut_ptr()) });
    }

    #[test]
    fn a_message_goes_through() {
        with_window(|window| {
            window.put(Direction::Reply, 1, b"hello").unwrap();
            assert!(!window.has(Direction::Request, 1));
            window.put(Direction::Request, 1, b"run").unwrap();
            assert!(window.has(Direction::Request, 1) && !window.has(Direction::Request, 2));
            assert_eq!(window.take(Direction::Reply, 1).unwrap(), b"hello");
            assert_eq!(window.take(Direction::Request, 1).unwrap(), b"run");
            assert_eq!(window.take(Direction::Reply, 2), Err(WindowError::Sequence { found: 1, expected: 2 }));
        });
    }

    #[test]
    fn lengths_are_bounded() {
        with_window(|window| {
            let large = vec![0; REQUEST_MAX_BYTES + 1];
            assert!(matches!(window.put(Direction::Request, 1, &large), Err(WindowError::Length { .. })));
            window.write(Direction::Reply.header(), &1_u32.to_le_bytes());
            window.write(Direction::Reply.header() + 4, &u32::MAX.to_le_bytes());
            assert!(matches!(window.take(Direction::Reply, 1), Err(WindowError::Length { .. })));
        });
    }
}
