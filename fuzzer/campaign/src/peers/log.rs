//! The news that a campaign has, in the order in which it came, each piece once.
//!
//! Whoever reads the log has a position in it, and leaves out what it brought itself.

use std::{collections::HashSet, sync::Arc};

use super::wire::Digest;

/// The most bytes of news that are kept from this host, and as many from all others.
const MOST_KEPT: usize = 256 << 20;
/// The cost of a piece of news beside its bytes.
const ENTRY_BYTES: usize = 200;

/// Origin of a piece of news.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// This campaign.
    Here,
    /// Another host, by its node number.
    Peer(u64),
}

/// Whoever reads the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reader {
    /// This campaign's clients: they want the plans of others.
    Clients,
    /// The hub with this node number: it wants all that it did not say itself.
    Peer(u64),
}

/// A piece of news in the log.
#[derive(Debug)]
struct Entry {
    from: Origin,
    is_plan: bool,
    frame: Arc<[u8]>,
}

/// The log.
#[derive(Debug, Default)]
pub(super) struct Log {
    seen: HashSet<Digest>,
    entries: Vec<Entry>,
    /// Bytes in the log, from here and from others.
    kept: [usize; 2],
    full: [bool; 2],
}

impl Log {
    /// Says whether news of `bytes` bytes is to be added: it was never seen before, and there is
    /// room. It counts as seen from now on.
    pub(super) fn admits(&mut self, from: Origin, digest: Digest, bytes: usize) -> bool {
        self.has_room(from, bytes) && self.seen.insert(digest)
    }

    /// Adds news that was admitted.
    pub(super) fn push(&mut self, from: Origin, is_plan: bool, frame: Arc<[u8]>) {
        self.kept[side(from)] += ENTRY_BYTES + frame.len();
        self.entries.push(Entry { from, is_plan, frame });
    }

    /// Gives the frames that `reader` has not read yet and wants, at most `most`. Moves its
    /// `position` behind them.
    pub(super) fn unread(&self, reader: Reader, position: &mut usize, most: usize) -> Vec<Arc<[u8]>> {
        let mut frames = Vec::new();
        while let Some(entry) = self.entries.get(*position).filter(|_| frames.len() < most) {
            *position += 1;
            let wanted = match reader {
                Reader::Clients => entry.is_plan && entry.from != Origin::Here,
                Reader::Peer(node) => entry.from != Origin::Peer(node),
            };
            if wanted {
                frames.push(Arc::clone(&entry.frame));
            }
        }
        frames
    }

    /// Says whether `bytes` more from there can be kept. That none can is told once.
    fn has_room(&mut self, from: Origin, bytes: usize) -> bool {
        let side = side(from);
        let fits = self.kept[side] + ENTRY_BYTES + bytes <= MOST_KEPT;
        if !fits && !std::mem::replace(&mut self.full[side], true) {
            let whose = if side == 0 { "this host's" } else { "other hosts'" };
            tracing::warn!("{whose} news fills {MOST_KEPT} bytes: what more there is stays where it is");
        }
        fits
    }
}

/// Gives the share of the log that a piece of news takes.
fn side(from: Origin) -> usize {
    usize::from(from != Origin::Here)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn others_cannot_take_this_hosts_share() {
        let mut log = Log::default();
        let large: Arc<[u8]> = vec![0; MOST_KEPT / 2].into();
        assert!(log.admits(Origin::Peer(7), [1; 16], large.len()));
        log.push(Origin::Peer(7), true, Arc::clone(&large));
        assert!(!log.admits(Origin::Peer(8), [2; 16], large.len()), "other hosts share theirs");
        assert!(log.admits(Origin::Here, [2; 16], large.len()), "it was not taken for seen");
        assert!(!log.admits(Origin::Here, [2; 16], large.len()));
        let read = |reader| log.unread(reader, &mut 0, usize::MAX).len();
        assert_eq!([Reader::Clients, Reader::Peer(7), Reader::Peer(8)].map(read), [1, 0, 1]);
    }
}
