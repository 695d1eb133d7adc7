//! The end of a stream of text that may be endless: a guest's console, QEMU's standard error.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Number of bytes of a stream that are kept, its last ones.
pub(super) const KEPT_BYTES: usize = 4 << 20;

/// A position in the stream, counted in bytes from its start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Mark(u64);

/// The last [`KEPT_BYTES`] of a stream.
#[derive(Debug)]
pub(super) struct Console {
    kept_bytes: usize,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    /// The stream's end; up to twice what is kept, so that it moves rarely.
    bytes: Vec<u8>,
    /// Bytes of the stream before `bytes`.
    dropped: u64,
}

impl Console {
    pub(super) fn new() -> Self {
        Self::with_capacity(KEPT_BYTES)
    }

    fn with_capacity(kept_bytes: usize) -> Self {
        Self { kept_bytes, inner: Mutex::default() }
    }

    pub(super) fn append(&self, bytes: &[u8]) {
        let mut inner = self.lock();
        inner.bytes.extend_from_slice(bytes);
        if inner.bytes.len() > 2 * self.kept_bytes {
            let excess = inner.bytes.len() - self.kept_bytes;
            inner.bytes.drain(..excess);
            inner.dropped += excess as u64;
        }
    }

    /// The present end of the stream.
    pub(super) fn mark(&self) -> Mark {
        let inner = self.lock();
        Mark(inner.dropped + inner.bytes.len() as u64)
    }

    /// The text between two marks, as far as it is kept, made fit to print: line feeds and tabs are
    /// the only control characters, and bytes that are no UTF-8 are replaced.
    pub(super) fn between(&self, from: Mark, to: Mark) -> String {
        let inner = self.lock();
        let index = |mark: Mark| {
            let offset = usize::try_from(mark.0.saturating_sub(inner.dropped)).unwrap_or(usize::MAX);
            offset.min(inner.bytes.len())
        };
        let oldest = inner.bytes.len().saturating_sub(self.kept_bytes);
        let range = index(from).max(oldest)..index(to);
        printable(inner.bytes.get(range).unwrap_or_default())
    }

    /// The text since a mark, as [`Console::between`].
    pub(super) fn since(&self, from: Mark) -> String {
        self.between(from, Mark(u64::MAX))
    }

    /// All text that is kept, as [`Console::between`].
    pub(super) fn all(&self) -> String {
        self.since(Mark(0))
    }

    /// The last lines, at most `count`.
    pub(super) fn last_lines(&self, count: usize) -> String {
        let text = self.all();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(count)..].join("\n")
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Gives bytes as text without control characters.
pub(crate) fn printable(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    text.chars().filter(|character| !character.is_control() || matches!(character, '\n' | '\t')).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn text_since_a_mark() {
        let console = Console::new();
        console.append(b"boot\r\n");
        let mark = console.mark();
        assert_eq!(console.since(mark), "");
        console.append(b"\x1b[2Joops\r\n\xff\tend");
        assert_eq!(console.since(mark), "[2Joops\n\u{fffd}\tend");
        assert_eq!(console.between(Mark(0), mark), "boot\n");
        assert_eq!(console.last_lines(1), "\u{fffd}\tend");
    }

    proptest! {
        #[test]
        fn it_keeps_the_end_and_no_more(
            pieces in prop::collection::vec(prop::collection::vec(b'a'..=b'z', 0..30), 0..40), marked in 0usize..40,
        ) {
            let console = Console::with_capacity(64);
            let mut all = Vec::new();
            let mut mark = (console.mark(), 0);
            for (index, piece) in pieces.iter().enumerate() {
                if index == marked {
                    mark = (console.mark(), all.len());
                }
                console.append(piece);
                all.extend_from_slice(piece);
                prop_assert!(console.lock().bytes.len() <= 2 * 64 + 30);
            }
            let expected = &all[mark.1.max(all.len().saturating_sub(64))..];
            prop_assert_eq!(console.since(mark.0).into_bytes(), expected);
        }
    }
}
