//! The table of probed functions, in which the BPF program finds the one whose probe was hit.

use abi::{Function, Functions, PROBE_BYTES};
use anyhow::{Context, Result, bail};
use fault_plan::{Condition, Operand};
use guest_protocol::Contract;

use super::{constants::Constants, guards};
use crate::symbols::Symbols;

const _: () = assert!(abi::MAX_FUNCTIONS == guest_protocol::MAX_FUNCTIONS);

/// Number of multipliers that are tried. For 64 functions, one multiplier in 50 gives each function
/// a slot of its own.
const TRIES: u32 = 10_000;
/// 2^64 divided by the golden ratio, odd.
const FIRST_MULTIPLIER: u64 = 0x9e37_79b9_7f4a_7c15;

/// The table of the functions of `contracts`.
///
/// # Errors
///
/// A function or something that its guards speak of is missing in this kernel.
pub(super) fn table(contracts: &[Contract], symbols: &Symbols) -> Result<Functions> {
    let mut functions = Functions::none();
    if contracts.len() > abi::MAX_FUNCTIONS {
        bail!("{} functions to probe, possible are {}", contracts.len(), abi::MAX_FUNCTIONS);
    }
    let constants = Constants::read(&names_in(contracts))?;
    let mut units = Vec::new();
    for ((contract, into), index) in contracts.iter().zip(&mut functions.functions[1..]).zip(1_u8..) {
        let name = &contract.function;
        let entry = symbols.address(name);
        let entry = entry.with_context(|| format!("cannot probe \"{name}\": the kernel has no such symbol"))?;
        units.extend((1..=PROBE_BYTES).map(|bytes| (Functions::unit(entry + bytes), index)));
        *into = lower(contract, symbols, &constants)?;
    }
    units.dedup();
    (functions.multiplier, functions.slots) = slots(&units)?;
    Ok(functions)
}

fn lower(contract: &Contract, symbols: &Symbols, constants: &Constants) -> Result<Function> {
    guards::lower(contract, symbols, constants).with_context(|| format!("cannot probe \"{}\"", contract.function))
}

/// The names of all constants in the guards.
fn names_in(contracts: &[Contract]) -> Vec<&str> {
    let conditions = contracts.iter().flat_map(|contract| &contract.never);
    let operands = conditions.flat_map(|condition| match condition {
        Condition::Argument(condition) => vec![&condition.mask, &condition.value],
        Condition::Caller(_) => Vec::new(),
    });
    operands.filter_map(constant_name).collect()
}

fn constant_name(operand: &Operand) -> Option<&str> {
    match operand {
        Operand::Constant { constant: name, .. } | Operand::Bit { bit: name, .. } => Some(name),
        Operand::Number(_) | Operand::Symbol { .. } => None,
    }
}

type Slots = [u8; 1 << abi::FUNCTION_SLOT_BITS];

/// A multiplier that leads `units` of text to slots, no two of different functions to the same, and
/// the slots.
fn slots(units: &[(u64, u8)]) -> Result<(u64, Slots)> {
    let mut multiplier = FIRST_MULTIPLIER;
    for _ in 0..TRIES {
        if let Some(slots) = slots_by(multiplier, units) {
            return Ok((multiplier, slots));
        }
        multiplier = multiplier.wrapping_mul(FIRST_MULTIPLIER).wrapping_add(2);
    }
    bail!("two of the functions to probe stand too close to each other to tell their calls apart")
}

fn slots_by(multiplier: u64, units: &[(u64, u8)]) -> Option<Slots> {
    let mut slots = [abi::NO_FUNCTION; 1 << abi::FUNCTION_SLOT_BITS];
    for (unit, index) in units {
        let slot = &mut slots[Functions::slot(multiplier, *unit)];
        if *slot != abi::NO_FUNCTION && slot != index {
            return None;
        }
        *slot = *index;
    }
    Some(slots)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contracts(count: u64, step: u64) -> (Vec<Contract>, Symbols) {
        let mut list = "ffffffff81000000 T _stext\nffffffff82000000 T _etext\n".to_owned();
        let mut contracts = Vec::new();
        for number in 0..count {
            list.push_str(&format!("{:x} T f{number}\n", 0xffff_ffff_8100_1000 + number * step));
            contracts.push(Contract { function: format!("f{number}"), error_type: None, never: Vec::new() });
        }
        (contracts, Symbols::parse(list).unwrap())
    }

    #[test]
    fn every_probe_leads_to_its_function() {
        for step in [16, 24, 0x3_1230] {
            let (contracts, symbols) = contracts(64, step);
            let mut table = table(&contracts, &symbols).unwrap();
            for index in 1..=64_u8 {
                table.functions[usize::from(index)].never[3].mask = u64::from(index);
            }
            for index in 1..=64_u64 {
                for bytes in 1..=PROBE_BYTES {
                    let instruction = 0xffff_ffff_8100_1000 + (index - 1) * step + bytes;
                    let found = table.at(instruction).unwrap().never[3].mask;
                    assert_eq!(found, index, "{step}, {bytes} bytes behind the entry");
                }
            }
        }
    }

    #[test]
    fn what_cannot_be_probed_is_named() {
        let (mut list, symbols) = contracts(2, 16);
        list[1].function = "gone".to_owned();
        assert!(table(&list, &symbols).err().unwrap().to_string().contains("\"gone\""));
        let (close, symbols) = contracts(2, 8);
        assert!(table(&close, &symbols).err().unwrap().to_string().contains("too close"));
        let (many, symbols) = contracts(65, 16);
        assert!(table(&many, &symbols).err().unwrap().to_string().contains("possible are 64"));
    }
}
