//! Parts of a call's arguments, and conditions on them.

use abi::{Condition, Part};

use crate::memory::Reader;

/// Gives the number that `part` is in a call whose saved registers are at `registers`; nothing when
/// that cannot be told.
#[inline(always)]
pub(crate) fn number(reader: Reader, registers: u64, part: &Part) -> Option<u64> {
    let mut value: u64 = reader.number(registers.wrapping_add(u64::from(part.argument)))?;
    if part.field != 0 {
        // A whole word: a pointer to the field's own type could not be loaded from.
        let address = value.wrapping_add(u64::from(part.offset));
        let word: u64 = reader.number(address & !7)?;
        value = word >> ((address & 7) * 8);
    }
    Some(value & part.mask)
}

/// Says whether `condition` holds for that call; nothing when that cannot be told.
#[inline(always)]
pub(crate) fn holds(reader: Reader, registers: u64, condition: &mut Condition) -> Option<bool> {
    let number = number(reader, registers, &condition.part)?;
    if condition.is_pending() {
        // What stands in the variable comes in the place of its address.
        let bound = reader.number(condition.low).filter(|bound| *bound != 0)?;
        *condition = Condition { low: bound, span: 0, ..*condition };
    }
    Some(condition.holds(number))
}
