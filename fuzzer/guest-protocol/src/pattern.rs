//! The content that steps write to files: a pattern that tells offset and step.
//!
//! Whatever runs a step writes the same bytes, so that the file system sees the same.

/// Period of the pattern: a prime, so that neighbouring blocks differ.
pub const PERIOD: usize = 251;
/// Distance between the patterns of two steps that follow each other.
const SHIFT: usize = 37;

/// Shift of the pattern that step `number` writes, from 1. Another step's bytes at the same offset
/// are others, unless their numbers are a multiple of [`PERIOD`] apart.
#[must_use]
pub fn shift_of(number: u32) -> usize {
    SHIFT * (number as usize % PERIOD) % PERIOD
}

/// Place in the pattern's period of the offset `at`, with this `shift`.
#[must_use]
pub fn phase_of(at: usize, shift: usize) -> usize {
    (at + shift) % PERIOD
}

/// The byte at the offset `at` of a pattern of this `shift`.
#[must_use]
pub fn byte_at(at: usize, shift: usize) -> u8 {
    // The period is below 256.
    u8::try_from(phase_of(at, shift)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_steps_write_other_bytes_at_one_offset() {
        let shifts: std::collections::BTreeSet<_> = (1..=250).map(shift_of).collect();
        assert_eq!(shifts.len(), 250);
        assert_ne!(byte_at(4096, shift_of(3)), byte_at(4096, shift_of(4)));
        assert_eq!(byte_at(250, shift_of(251)), 250);
    }
}
