//! The table of probed functions, in which the BPF program finds the one whose probe was hit.

use abi::{Function, Functions, PROBE_BYTES};
use anyhow::{Context, Result, bail};
use guest_protocol::Contract;

use super::{guards, types::Types};
use crate::symbols::Symbols;

const _: () = assert!(abi::MAX_FUNCTIONS == guest_protocol::MAX_FUNCTIONS);

/// Number of multipliers that are tried. For 512 functions, one multiplier in 50 gives each
/// function a slot of its own.
const TRIES: u32 = 10_000;
/// 2^64 divided by the golden ratio, odd.
const FIRST_MULTIPLIER: u64 = 0x9e37_79b9_7f4a_7c15;

/// The table of the functions of `contracts`.
///
/// # Errors
///
/// A function or something that its guards speak of is missing in this kernel.
pub(super) fn table(contracts: &[Contract], symbols: &Symbols, types: &mut Types) -> Result<Functions> {
    let mut functions = Functions::none();
    if contracts.len() > abi::MAX_FUNCTIONS {
        bail!("{} functions to probe, possible are {}", contracts.len(), abi::MAX_FUNCTIONS);
    }
    let mut units = Vec::new();
    for ((contract, into), index) in contracts.iter().zip(&mut functions.functions[1..]).zip(1_u16..) {
        let name = &contract.function;
        let entry = symbols.address(name);
        let entry = entry.with_context(|| format!("cannot probe \"{name}\": the kernel has no such symbol"))?;
        units.extend((1..=PROBE_BYTES).map(|bytes| (Functions::unit(entry + bytes), index)));
        *into = lower(contract, symbols, types)?;
    }
    units.dedup();
    (functions.multiplier, functions.slots) = slots(&units)?;
    Ok(functions)
}

fn lower(contract: &Contract, symbols: &Symbols, types: &mut Types) -> Result<Function> {
    guards::lower(contract, symbols, types).with_context(|| format!("cannot probe \"{}\"", contract.function))
}

type Slots = [u16; 1 << abi::FUNCTION_SLOT_BITS];

/// A multiplier that leads `units` of text to slots, no two of different functions to the same, and
/// the slots.
fn slots(units: &[(u64, u16)]) -> Result<(u64, Slots)> {
    let mut multiplier = FIRST_MULTIPLIER;
    for _ in 0..TRIES {
        if let Some(slots) = slots_by(multiplier, units) {
            return Ok((multiplier, slots));
        }
        multiplier = multiplier.wrapping_mul(FIRST_MULTIPLIER).wrapping_add(2);
    }
    bail!("two of the functions to probe stand too close to each other to tell their calls apart")
}

fn slots_by(multiplier: u64, units: &[(u64, u16)]) -> Option<Slots> {
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
            let (contracts, symbols) = contracts(512, step);
            let mut table = table(&contracts, &symbols, &mut Types::default()).unwrap();
            for index in 1..=512_u16 {
                table.functions[usize::from(index)].never[3].mask = u64::from(index);
            }
            for index in 1..=512_u64 {
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
        assert!(table(&list, &symbols, &mut Types::default()).err().unwrap().to_string().contains("\"gone\""));
        let (close, symbols) = contracts(2, 8);
        assert!(table(&close, &symbols, &mut Types::default()).err().unwrap().to_string().contains("too close"));
        let (many, symbols) = contracts(513, 16);
        assert!(table(&many, &symbols, &mut Types::default()).err().unwrap().to_string().contains("possible are 512"));
    }
}
