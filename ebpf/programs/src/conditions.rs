//! Conditions on a call's arguments.

use abi::Condition;

use crate::memory::Reader;

/// Says whether `condition` holds for a call whose saved registers are at `registers`; nothing when
/// that cannot be told.
#[inline(always)]
pub(crate) fn holds(reader: Reader, registers: u64, condition: &mut Condition) -> Option<bool> {
    let mut value: u64 = reader.number(registers.wrapping_add(u64::from(condition.argument)))?;
    if condition.field != 0 {
        // A whole word: a pointer to the field's own type could not be loaded from.
        let address = value.wrapping_add(u64::from(condition.offset));
        let word: u64 = reader.number(address & !7)?;
        value = word >> ((address & 7) * 8);
    }
    if !condition.holds(value) {
        return Some(false);
    }
    if condition.pending == 0 { Some(true) } else { bound(reader, condition, value) }
}

/// Puts what stands in the condition's variable in its place, and compares `value` with it.
#[inline(always)]
fn bound(reader: Reader, condition: &mut Condition, value: u64) -> Option<bool> {
    let bound = reader.number(condition.low).filter(|bound| *bound != 0)?;
    *condition = Condition { pending: 0, low: bound, span: 0, ..*condition };
    Some(condition.holds(value))
}
