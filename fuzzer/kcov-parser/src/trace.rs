//! Distinct PCs of one trace.

/// A set of numbers below a bound that is emptied by naming what it holds, not by clearing all of
/// it.
#[derive(Debug)]
struct BitSet {
    words: Vec<u64>,
}

impl BitSet {
    /// An empty set of numbers below `bound`.
    fn new(bound: u64) -> Self {
        let words = usize::try_from(bound.div_ceil(64)).unwrap_or(usize::MAX);
        Self { words: vec![0; words] }
    }

    /// Adds `number`; whether it was new. A number far beyond the bound is never new.
    #[inline]
    fn insert(&mut self, number: u32) -> bool {
        let Some(word) = self.words.get_mut((number >> 6) as usize) else { return false };
        let bit = 1u64 << (number & 63);
        let new = *word & bit == 0;
        *word |= bit;
        new
    }

    /// Removes `numbers`, and with each of them whatever shares its word.
    fn remove_all(&mut self, numbers: &[u32]) {
        for number in numbers {
            if let Some(word) = self.words.get_mut((number >> 6) as usize) {
                *word = 0;
            }
        }
    }
}

/// Turns traces into distinct PCs.
///
/// It holds one bit for each byte of the kernel's text (a PC is the address after a call, and may
/// be odd), so it is made once and used for every execution.
#[derive(Debug)]
pub struct Deduplicator {
    text_start: u64,
    text_bytes: u64,
    seen: BitSet,
}

impl Deduplicator {
    /// For a kernel whose text has `text_bytes` bytes from address `text_start` on. Text beyond 4
    /// GiB counts as outside.
    #[must_use]
    pub fn new(text_start: u64, text_bytes: u64) -> Self {
        let text_bytes = text_bytes.min(1 << 32);
        Self { text_start, text_bytes, seen: BitSet::new(text_bytes) }
    }

    /// Replaces what `out` held by the distinct PCs of `trace`, as offsets in bytes from the text's
    /// start, in the order in which they first ran. `trace` is what KCOV stored, without the count
    /// in word 0.
    ///
    /// Returns how many words of `trace` lay outside the text; they are left out.
    pub fn distinct(&mut self, trace: impl IntoIterator<Item = u64>, out: &mut Vec<u32>) -> usize {
        out.clear();
        let (text_start, text_bytes) = (self.text_start, self.text_bytes);
        let mut outside = 0;
        for pc in trace {
            let offset = pc.wrapping_sub(text_start);
            if offset >= text_bytes {
                outside += 1;
                continue;
            }
            #[expect(clippy::cast_possible_truncation, reason = "an offset in the text is below 4 GiB")]
            let offset = offset as u32;
            if self.seen.insert(offset) {
                out.push(offset);
            }
        }
        self.seen.remove_all(out);
        outside
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    const START: u64 = 0xffff_ffff_8100_0000;
    const BYTES: u64 = 1000;

    fn naive(trace: &[u64]) -> (Vec<u32>, usize) {
        let mut seen = HashSet::new();
        let inside = |pc: &&u64| (START..START + BYTES).contains(*pc);
        let distinct =
            trace.iter().filter(inside).filter(|pc| seen.insert(**pc)).map(|pc| u32::try_from(pc - START).unwrap());
        (distinct.collect(), trace.iter().filter(|pc| !inside(pc)).count())
    }

    fn a_pc() -> impl Strategy<Value = u64> {
        prop_oneof![
            8 => START..START + BYTES,
            1 => START - 4..START + 4,
            1 => START + BYTES - 70..START + BYTES + 70,
            1 => any::<u64>(),
        ]
    }

    proptest! {
        #[test]
        fn distinct_is_what_naive_counting_finds(
            traces in prop::collection::vec(prop::collection::vec(a_pc(), 0..300), 1..4),
        ) {
            let mut deduplicator = Deduplicator::new(START, BYTES);
            let mut out = vec![7; 3];
            for trace in &traces {
                let outside = deduplicator.distinct(trace.iter().copied(), &mut out);
                prop_assert_eq!((out.clone(), outside), naive(trace));
            }
            prop_assert!(deduplicator.seen.words.iter().all(|word| *word == 0));
        }
    }

    #[test]
    fn a_text_of_any_size_is_accepted() {
        let mut out = Vec::new();
        assert_eq!(Deduplicator::new(0, 0).distinct([0, 1], &mut out), 2);
        assert_eq!(Deduplicator::new(u64::MAX - 8, 64).distinct([u64::MAX], &mut out), 0);
        assert_eq!(out, [8]);
    }
}
