//! The functions that are probed, as the BPF program knows them: which of its calls are left alone.
//!
//! ```text
//!   instruction pointer ── × multiplier, upper bits ──▶ slots ──▶ function ──▶ its conditions
//! ```
//!
//! The program sees where it is, a few bytes behind a function's entry. The agent chooses the
//! multiplier so that no two functions share a slot.

use crate::{ARGUMENTS, FUNCTION_SLOT_BITS, MAX_CALLERS, MAX_CONDITIONS, MAX_FUNCTIONS, NO_NAME, Part, name_set};

/// Bytes of text that lead to one slot, as a power of two: functions are aligned to as many, so
/// that mostly no probe leads beyond.
const UNIT_BITS: u32 = 4;
const SLOTS: usize = 1 << FUNCTION_SLOT_BITS;

/// The index of the function that is none: all calls of it are left alone.
pub const NO_FUNCTION: u16 = 0;

/// The functions that are probed, and how the one is found whose probe was hit.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Functions {
    /// Turns where a probe stands into a slot.
    pub multiplier: u64,
    /// For each slot the index of its function, or [`NO_FUNCTION`].
    pub slots: [u16; SLOTS],
    /// The functions, from 1.
    pub functions: [Function; MAX_FUNCTIONS + 1],
}

/// One function that is probed.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Function {
    /// A call for which any of them holds is left alone. Behind the last one stands
    /// [`Condition::NONE`], unless there is no room.
    pub never: [Condition; MAX_CONDITIONS],
    /// Name ids: a call with one of them among its callers is left alone. Unused entries are
    /// [`NO_NAME`].
    pub never_below: [u32; MAX_CALLERS],
    /// [`name_set`] of them: a call whose callers' set shares no bit has none of them.
    pub never_below_set: u64,
}

impl Function {
    /// Adds a caller below which no call fails; false when there is no room.
    #[must_use]
    pub fn never_below(&mut self, caller: u32) -> bool {
        let Some(free) = self.never_below.iter_mut().find(|known| **known == NO_NAME || **known == caller) else {
            return false;
        };
        *free = caller;
        self.never_below_set |= name_set(caller);
        true
    }
}

/// A condition on a call: a part of its arguments lies between `low` and `low + span`, which may
/// wrap around. So each comparison is one subtraction and one comparison.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Condition {
    /// The part; [`Part::NONE`] when this is no condition.
    pub part: Part,
    /// The least number for which it holds, or the address of the one: see
    /// [`Condition::is_pending`].
    pub low: u64,
    /// Number of further numbers for which it holds.
    pub span: u64,
}

impl Condition {
    /// No condition.
    pub const NONE: Self = Self { part: Part::NONE, low: 0, span: 0 };
    /// A condition that always holds.
    pub const ALWAYS: Self = Self { part: Part::argument(ARGUMENTS[0]), low: 0, span: u64::MAX };

    /// A condition that holds when `part` is what the variable at `address`, not 0, has.
    #[must_use]
    pub const fn equals_variable(part: Part, address: u64) -> Self {
        Self { part, low: address, span: u64::MAX }
    }

    /// Says whether `low` is the address of the number that is compared with, which is yet to be
    /// read. Of the conditions that hold for all numbers just these have a `low`.
    #[inline(always)]
    #[must_use]
    pub const fn is_pending(&self) -> bool {
        self.span == u64::MAX && self.low != 0
    }

    /// Says whether it holds for a call in which its part is `number`.
    #[inline(always)]
    #[must_use]
    pub const fn holds(&self, number: u64) -> bool {
        number.wrapping_sub(self.low) <= self.span
    }
}

impl Functions {
    /// No functions: all calls are left alone.
    #[must_use]
    pub const fn none() -> Self {
        let mut functions = [Function {
            never: [Condition::NONE; MAX_CONDITIONS],
            never_below: [NO_NAME; MAX_CALLERS],
            never_below_set: 0,
        }; MAX_FUNCTIONS + 1];
        functions[NO_FUNCTION as usize].never[0] = Condition::ALWAYS;
        Self { multiplier: 0, slots: [NO_FUNCTION; SLOTS], functions }
    }

    /// The unit of text that the byte at `address` is in.
    #[inline(always)]
    #[must_use]
    pub const fn unit(address: u64) -> u64 {
        address >> UNIT_BITS
    }

    /// The slot of this `unit`.
    #[inline(always)]
    #[must_use]
    pub const fn slot(multiplier: u64, unit: u64) -> usize {
        (unit.wrapping_mul(multiplier) >> (64 - FUNCTION_SLOT_BITS)) as usize
    }

    /// The function with a probe after which the instruction pointer is `instruction`.
    #[inline(always)]
    pub fn at(&mut self, instruction: u64) -> Option<&mut Function> {
        let slot = Self::slot(self.multiplier, Self::unit(instruction));
        self.functions.get_mut(self.slots[slot] as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_condition_holds_between_its_bounds() {
        let holds = |low, span, number| Condition { low, span, ..Condition::NONE }.holds(number);
        assert!(holds(5, 0, 5) && !holds(5, 0, 6) && !holds(5, 0, 4));
        // Not 0: from 1 on, all but one.
        assert!(holds(1, u64::MAX - 1, 0x8000) && !holds(1, u64::MAX - 1, 0));
        // Not 5: from 6 on and around.
        assert!(holds(6, u64::MAX - 1, 4) && !holds(6, u64::MAX - 1, 5));
        assert!(!Condition::NONE.is_pending() && !Condition::ALWAYS.is_pending());
        let pending = Condition::equals_variable(Part::argument(ARGUMENTS[0]), 0x1000);
        assert!(pending.is_pending() && !Condition { span: 0, ..pending }.is_pending());
    }

    #[test]
    fn callers_are_added_once_and_up_to_a_bound() {
        let mut function = Function::default();
        assert!((1..=MAX_CALLERS as u32).all(|caller| function.never_below(caller * 64 + 3)));
        assert!(function.never_below(67) && !function.never_below(1), "one that is known needs no room");
        assert_eq!((function.never_below[0], function.never_below_set), (67, 1 << 3));
    }

    #[test]
    fn an_unknown_place_has_no_function() {
        let mut functions = Functions::none();
        functions.multiplier = 0x9e37_79b9_7f4a_7c15;
        let slot = Functions::slot(functions.multiplier, Functions::unit(0xffff_ffff_8100_0010));
        functions.slots[slot] = 3;
        functions.functions[3].never[1] = Condition::ALWAYS;
        let second = |functions: &mut Functions, at| functions.at(at).map(|function| function.never[1]);
        assert_eq!(second(&mut functions, 0xffff_ffff_8100_0011), Some(Condition::ALWAYS));
        assert_eq!(second(&mut functions, 0xffff_ffff_8100_0015), Some(Condition::ALWAYS));
        let before = functions.at(0xffff_ffff_8100_000f).unwrap();
        assert!(
            before.never[0] == Condition::ALWAYS && before.never[0].holds(7),
            "of no function a call is left alone"
        );
        functions.slots[slot] = u16::MAX;
        assert!(functions.at(0xffff_ffff_8100_0011).is_none());
    }
}
