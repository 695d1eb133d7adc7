//! Values that the calls on faults' call paths return, read out of a guest's memory.

use std::mem::offset_of;

use abi::{MAX_FRAMES, MAX_RULES, Returned};

use super::fired::{long, word};

/// Values that calls returned in an execution that traced them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Returns {
    /// Number that the agent gave the execution.
    pub generation: u32,
    /// One for each fault of the plan.
    pub of: Vec<Returned>,
}

/// Size of [`abi::Returns`].
pub(super) const RETURNS_BYTES: usize = size_of::<abi::Returns>();

const ENTRY_BYTES: usize = size_of::<Returned>();

impl Returns {
    /// The values in `bytes`, an [`abi::Returns`] in little-endian order; nothing when they are too
    /// few.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let entries = bytes.get(offset_of!(abi::Returns, of)..RETURNS_BYTES)?;
        let of = entries.chunks_exact(ENTRY_BYTES).take(MAX_RULES).map(entry).collect::<Option<_>>()?;
        Some(Self { generation: word(bytes, 0)?, of })
    }
}

fn entry(bytes: &[u8]) -> Option<Returned> {
    let mut returned = Returned { probed: word(bytes, 0)?, returned: word(bytes, 1)?, ..Returned::default() };
    returned.types.copy_from_slice(bytes.get(offset_of!(Returned, types)..)?.get(..MAX_FRAMES)?);
    for (frame, value) in returned.values.iter_mut().enumerate() {
        *value = long(bytes, offset_of!(Returned, values) / 8 + frame)?;
    }
    Some(returned)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_the_guest_wrote_is_read() {
        let mut bytes = vec![0; RETURNS_BYTES];
        let mut set = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
        set(offset_of!(abi::Returns, generation), &7_u32.to_le_bytes());
        let second = offset_of!(abi::Returns, of) + ENTRY_BYTES;
        set(second + offset_of!(Returned, probed), &0b110_u32.to_le_bytes());
        set(second + offset_of!(Returned, returned), &0b010_u32.to_le_bytes());
        set(second + offset_of!(Returned, types) + 1, &[0x14]);
        set(second + offset_of!(Returned, values) + 8, &12_u64.to_le_bytes());
        let returns = Returns::parse(&bytes).unwrap();
        assert_eq!((returns.generation, returns.of.len()), (7, MAX_RULES));
        let Returned { probed, returned, types, values } = &returns.of[1];
        assert_eq!((*probed, *returned, types[1], values[1]), (6, 2, 0x14, 12));
        assert_eq!(returns.of[0], Returned::default());
        assert_eq!(Returns::parse(&bytes[1..]), None);
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..4097)) {
            prop_assert_eq!(Returns::parse(&bytes).is_some(), bytes.len() >= RETURNS_BYTES);
        }
    }
}
