//! Sets that remember what was added lately, in bounded memory.

use std::{
    collections::HashSet,
    hash::{BuildHasherDefault, DefaultHasher, Hash, Hasher},
};

/// A set of digests that knows at least the last `room` of them, and at most twice as many.
///
/// It never says that it knows one that was not added, but by a collision of 64 bits. So whoever
/// skips what the set knows skips nothing for good that was never there.
#[derive(Debug)]
pub(crate) struct RecentSet {
    room: usize,
    now: Digests,
    before: Digests,
}

type Digests = HashSet<u64, BuildHasherDefault<Unhashed>>;

/// Gives a number that is the same for equal values in this build of the program.
pub(crate) fn digest(of: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    of.hash(&mut hasher);
    hasher.finish()
}

impl RecentSet {
    /// Makes an empty set that knows the last `room` digests.
    pub(crate) fn new(room: usize) -> Self {
        Self { room, now: Digests::default(), before: Digests::default() }
    }

    /// Says whether the set knows `digest`.
    pub(crate) fn contains(&self, digest: u64) -> bool {
        self.now.contains(&digest) || self.before.contains(&digest)
    }

    /// Adds `digest`. Returns whether the set did not know it.
    pub(crate) fn insert(&mut self, digest: u64) -> bool {
        let known = self.contains(digest);
        if self.now.len() >= self.room && !self.now.contains(&digest) {
            self.before = std::mem::take(&mut self.now);
        }
        self.now.insert(digest);
        !known
    }

    /// Forgets `digest`.
    pub(crate) fn remove(&mut self, digest: u64) {
        self.now.remove(&digest);
        self.before.remove(&digest);
    }
}

/// The hasher of numbers that are hashes already.
#[derive(Debug, Default)]
struct Unhashed(u64);

impl Hasher for Unhashed {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.0 = self.0.rotate_left(8) ^ u64::from(*byte));
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = number;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_are_known_and_memory_is_bounded() {
        let mut set = RecentSet::new(100);
        for number in 0..10_000_u64 {
            assert!(set.insert(digest(number)), "{number} was never there");
            let last = number.saturating_sub(99)..=number;
            assert!(last.into_iter().all(|number| set.contains(digest(number))));
            assert!(set.now.len() + set.before.len() <= 200);
        }
        assert!(!set.contains(digest(0_u64)), "it is long ago");
        assert!(!set.insert(digest(9_999_u64)));
        set.remove(digest(9_999_u64));
        assert!(set.insert(digest(9_999_u64)));
    }
}
