//! The log of fired faults, read out of the memory of a guest that died.

use std::mem::offset_of;

use abi::{ARGUMENTS, MAX_FRAMES, MAX_RULES, MAX_SHOWN, NOT_SHOWN, SHOWN_TEXT, TEXT_HALF};
use fault_plan::Scope;
use guest_protocol::{FiredFault, LIMITS};

/// Faults that fired in the execution that killed a guest.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FiredLog {
    /// Number that the agent gave the execution; tells a log that is left over from an earlier one.
    pub generation: u32,
    /// Time of the last message in the kernel's log before the plan was in place, in microseconds;
    /// 0 where there was none.
    pub seen_us: u64,
    /// Step of the workload that ran, from 1; 0 when none did.
    pub step: u32,
    /// The faults, in the order in which they fired. The log has no names: their call paths are
    /// empty.
    pub fired: Vec<FiredFault>,
}

/// Size of [`abi::FiredLog`].
pub(super) const LOG_BYTES: usize = size_of::<abi::FiredLog>();

const ENTRY_BYTES: usize = size_of::<abi::Fired>();
const HEADER_BYTES: usize = LOG_BYTES - MAX_RULES * ENTRY_BYTES;

impl FiredLog {
    /// The log in `bytes`, an [`abi::FiredLog`] in little-endian order. They come from a guest with
    /// corrupted memory: nothing when they are too few, or when an entry cannot be one.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let (header, entries) = bytes.get(..LOG_BYTES)?.split_at(HEADER_BYTES);
        let count = usize::try_from(word(header, 1)?).ok().filter(|count| *count <= MAX_RULES)?;
        let fired = entries.chunks_exact(ENTRY_BYTES).take(count).map(entry).collect::<Option<_>>()?;
        let step = word(header, 4).filter(|step| *step as usize <= LIMITS.steps)?;
        Some(Self { generation: word(header, 0)?, seen_us: long(header, 1)?, step, fired })
    }
}

/// The first 32-bit word of an entry's stack, and the first 64-bit word of its arguments.
const STACK: usize = offset_of!(abi::Fired, stack) / 4;
const REGISTERS: usize = offset_of!(abi::Fired, arguments) / 8;
const SHOWN: usize = offset_of!(abi::Fired, shown) / 8;
const TEXT: usize = offset_of!(abi::Fired, text);

fn entry(bytes: &[u8]) -> Option<FiredFault> {
    let fault = word(bytes, 0).filter(|rule| (*rule as usize) < MAX_RULES)?;
    let depth = usize::try_from(word(bytes, 2)?).ok().filter(|depth| *depth <= MAX_FRAMES)?;
    let step = word(bytes, 3).filter(|step| *step as usize <= LIMITS.steps)?;
    let scope = u8::try_from(word(bytes, 6)?).ok().and_then(Scope::from_number)?;
    let (sequence, times, site) = (word(bytes, 1)?, word(bytes, 7)?, long(bytes, 2)?);
    let frames = (0..depth).map(|frame| word(bytes, STACK + frame));
    let stack = frames.map(|low| Some(TEXT_HALF | u64::from(low?))).collect::<Option<_>>()?;
    let arguments = (0..ARGUMENTS.len()).map(|index| long(bytes, REGISTERS + index)).collect::<Option<_>>()?;
    let shown = (0..MAX_SHOWN).map(|index| Some(Some(long(bytes, SHOWN + index)?).filter(|value| *value != NOT_SHOWN)));
    let shown = shown.collect::<Option<_>>()?;
    let text = bytes.get(TEXT..)?.get(..SHOWN_TEXT)?.iter().take_while(|byte| byte.is_ascii_graphic());
    let text = text.map(|byte| char::from(*byte)).collect();
    let call_path = Vec::new();
    Some(FiredFault { fault, sequence, site, step, scope, times, call_path, stack, arguments, shown, text })
}

/// The 32-bit word number `index`.
pub(super) fn word(bytes: &[u8], index: usize) -> Option<u32> {
    bytes.get(index * 4..)?.first_chunk().map(|bytes| u32::from_le_bytes(*bytes))
}

/// The 64-bit word number `index`.
pub(super) fn long(bytes: &[u8], index: usize) -> Option<u64> {
    bytes.get(index * 8..)?.first_chunk().map(|bytes| u64::from_le_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn set(bytes: &mut [u8], offset: usize, value: &[u8]) {
        bytes[offset..offset + value.len()].copy_from_slice(value);
    }

    /// Written by the layout of `abi`, so that the parser cannot drift from it.
    fn encode(log: &FiredLog) -> Vec<u8> {
        let mut bytes = vec![0xee; LOG_BYTES];
        set(&mut bytes, offset_of!(abi::FiredLog, generation), &log.generation.to_le_bytes());
        set(&mut bytes, offset_of!(abi::FiredLog, seen_us), &log.seen_us.to_le_bytes());
        set(&mut bytes, offset_of!(abi::FiredLog, step), &log.step.to_le_bytes());
        let count = u32::try_from(log.fired.len()).unwrap();
        set(&mut bytes, offset_of!(abi::FiredLog, count), &count.to_le_bytes());
        for (index, fired) in log.fired.iter().enumerate() {
            let at = offset_of!(abi::FiredLog, fired) + index * ENTRY_BYTES;
            set(&mut bytes, at + offset_of!(abi::Fired, rule), &fired.fault.to_le_bytes());
            set(&mut bytes, at + offset_of!(abi::Fired, sequence), &fired.sequence.to_le_bytes());
            let depth = u32::try_from(fired.stack.len()).unwrap();
            set(&mut bytes, at + offset_of!(abi::Fired, depth), &depth.to_le_bytes());
            set(&mut bytes, at + offset_of!(abi::Fired, step), &fired.step.to_le_bytes());
            set(&mut bytes, at + offset_of!(abi::Fired, site), &fired.site.to_le_bytes());
            set(&mut bytes, at + offset_of!(abi::Fired, scope), &u32::from(fired.scope.number()).to_le_bytes());
            set(&mut bytes, at + offset_of!(abi::Fired, times), &fired.times.to_le_bytes());
            for (frame, address) in fired.stack.iter().enumerate() {
                let low = u32::try_from(address & 0xffff_ffff).unwrap();
                set(&mut bytes, at + offset_of!(abi::Fired, stack) + frame * 4, &low.to_le_bytes());
            }
            for (index, argument) in fired.arguments.iter().enumerate() {
                let offset = offset_of!(abi::Fired, arguments) + index * 8;
                set(&mut bytes, at + offset, &argument.to_le_bytes());
            }
            for (index, shown) in fired.shown.iter().enumerate() {
                let offset = offset_of!(abi::Fired, shown) + index * 8;
                set(&mut bytes, at + offset, &shown.unwrap_or(NOT_SHOWN).to_le_bytes());
            }
            let mut text = [0; SHOWN_TEXT];
            set(&mut text, 0, fired.text.as_bytes());
            set(&mut bytes, at + offset_of!(abi::Fired, text), &text);
        }
        bytes
    }

    fn log() -> FiredLog {
        let (scope, stack) = (Scope::Thread, vec![0xffff_ffff_8100_0010, 0xffff_ffff_0000_0007]);
        let fired = FiredFault {
            fault: 1,
            sequence: 40,
            site: 0x1234,
            step: 2,
            scope,
            times: 5,
            call_path: Vec::new(),
            stack,
            arguments: (1..7).collect(),
            shown: vec![Some(1), None, Some(2), None],
            text: "kmalloc-8k".to_owned(),
        };
        FiredLog {
            generation: 9,
            seen_us: 12,
            step: 2,
            fired: vec![fired.clone(), FiredFault { fault: 0, stack: Vec::new(), ..fired }],
        }
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let good = encode(&log());
        assert_eq!(FiredLog::parse(&good), Some(log()));
        assert_eq!(FiredLog::parse(&good[..LOG_BYTES - 1]), None);
        let damaged = |offset: usize, value: u32| {
            let mut bytes = good.clone();
            set(&mut bytes, offset, &value.to_le_bytes());
            FiredLog::parse(&bytes)
        };
        let first = offset_of!(abi::FiredLog, fired);
        assert_eq!(damaged(offset_of!(abi::FiredLog, step), 4097), None);
        assert_eq!(damaged(offset_of!(abi::FiredLog, count), 17), None);
        assert_eq!(damaged(offset_of!(abi::FiredLog, count), u32::MAX), None);
        assert_eq!(damaged(first + offset_of!(abi::Fired, rule), 16), None);
        assert_eq!(damaged(first + offset_of!(abi::Fired, depth), 25), None);
        assert_eq!(damaged(first + offset_of!(abi::Fired, step), 4097), None);
        assert_eq!(damaged(first + offset_of!(abi::Fired, scope), 4), None);
    }

    proptest! {
        #[test]
        fn hostile_bytes_are_refused_or_within_bounds(
            mut bytes in prop::collection::vec(any::<u8>(), 0..4097), count in 0u32..20, depth in 0u32..30, rule in 0u32..20,
        ) {
            if bytes.len() >= LOG_BYTES {
                set(&mut bytes, offset_of!(abi::FiredLog, count), &count.to_le_bytes());
                set(&mut bytes, offset_of!(abi::FiredLog, step), &[0; 4]);
                let first = offset_of!(abi::FiredLog, fired);
                set(&mut bytes, first + offset_of!(abi::Fired, depth), &depth.to_le_bytes());
                set(&mut bytes, first + offset_of!(abi::Fired, rule), &rule.to_le_bytes());
                set(&mut bytes, first + offset_of!(abi::Fired, scope), &(rule / 4).to_le_bytes());
            }
            if let Some(log) = FiredLog::parse(&bytes) {
                prop_assert!(log.fired.len() <= MAX_RULES);
                for fired in &log.fired {
                    prop_assert!((fired.fault as usize) < MAX_RULES && fired.stack.len() <= MAX_FRAMES);
                }
            }
        }

        #[test]
        fn what_the_guest_wrote_is_read(
            generation in any::<u32>(), seen_us in any::<u64>(), step in 0u32..9,
            fired in prop::collection::vec(
                (0u32..16, any::<u32>(), any::<u64>(), 0u32..9, 0u8..4, any::<u32>(),
                 prop::collection::vec(any::<u32>(), 0..=MAX_FRAMES), prop::collection::vec(any::<u64>(), 6)),
                0..=MAX_RULES),
        ) {
            let fired = fired.into_iter().map(|(fault, sequence, site, step, scope, times, stack, arguments)| {
                let scope = Scope::from_number(scope).unwrap();
                let stack = stack.into_iter().map(|low| TEXT_HALF | u64::from(low)).collect();
                let (shown, text) = (vec![None, Some(site), None, None], "".to_owned());
                let call_path = Vec::new();
                FiredFault { fault, sequence, site, step, scope, times, call_path, stack, arguments, shown, text }
            });
            let log = FiredLog { generation, seen_us, step, fired: fired.collect() };
            prop_assert_eq!(FiredLog::parse(&encode(&log)), Some(log));
        }
    }
}
