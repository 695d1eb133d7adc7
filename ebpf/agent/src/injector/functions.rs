//! The table of probed functions, in which the BPF program finds the one whose probe was hit.

use abi::{Functions, PROBE_BYTES};
use anyhow::{Result, bail};

use super::chosen::Probed;

const _: () = assert!(abi::MAX_FUNCTIONS == guest_protocol::MAX_FUNCTIONS);

/// Number of multipliers that are tried. For 512 functions, one multiplier in 50 gives each
/// function a slot of its own.
const TRIES: u32 = 10_000;
/// 2^64 divided by the golden ratio, odd.
const FIRST_MULTIPLIER: u64 = 0x9e37_79b9_7f4a_7c15;

/// The table of the functions that are `probed`.
///
/// # Errors
///
/// They are too many, or two stand too close to each other.
pub(super) fn table(probed: &[Probed]) -> Result<Functions> {
    let mut functions = Functions::none();
    if probed.len() > abi::MAX_FUNCTIONS {
        bail!("{} functions to probe, possible are {}", probed.len(), abi::MAX_FUNCTIONS);
    }
    let mut units = Vec::new();
    for ((probed, into), index) in probed.iter().zip(&mut functions.functions[1..]).zip(1_u16..) {
        for entry in &probed.entries {
            units.extend((1..=PROBE_BYTES).map(|bytes| (Functions::unit(entry + bytes), index)));
        }
        *into = probed.guards;
    }
    units.dedup();
    (functions.multiplier, functions.slots) = slots(&units)?;
    Ok(functions)
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

    fn functions(count: u64, step: u64) -> Vec<Probed> {
        let entry = |number| 0xffff_ffff_8100_1000 + number * step;
        (0..count).map(|number| Probed::of(&format!("f{number}"), vec![entry(number)])).collect()
    }

    #[test]
    fn every_probe_leads_to_its_function() {
        for step in [16, 24, 0x3_1230] {
            let mut table = table(&functions(512, step)).unwrap();
            for index in 1..=512_u16 {
                table.functions[usize::from(index)].never[3].part.mask = u64::from(index);
            }
            for index in 1..=512_u64 {
                for bytes in 1..=PROBE_BYTES {
                    let instruction = 0xffff_ffff_8100_1000 + (index - 1) * step + bytes;
                    let found = table.at(instruction).unwrap().never[3].part.mask;
                    assert_eq!(found, index, "{step}, {bytes} bytes behind the entry");
                }
            }
        }
    }

    #[test]
    fn clones_are_one_function() {
        let entries = vec![0xffff_ffff_8100_1000, 0xffff_ffff_8100_2340];
        let mut table =
            table(&[Probed::of("f", vec![0xffff_ffff_8100_3000]), Probed::of("g", entries.clone())]).unwrap();
        table.functions[2].never[3].part.mask = 7;
        assert!(entries.iter().all(|entry| table.at(entry + 1).unwrap().never[3].part.mask == 7));
    }

    #[test]
    fn what_cannot_be_told_apart_is_refused() {
        assert!(table(&functions(2, 8)).err().unwrap().to_string().contains("too close"));
        let many = table(&functions(abi::MAX_FUNCTIONS as u64 + 1, 16)).err().unwrap();
        assert!(many.to_string().contains(&format!("possible are {}", abi::MAX_FUNCTIONS)));
    }
}
