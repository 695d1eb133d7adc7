//! Faults that fired: names for the addresses of their callers.

use execution::Fired;
use guest_protocol::FiredFault;
use kcov_parser::{Location, Symbols};

/// Gives a fault as the agent reports it, or as the memory of a dead guest has it: without names.
/// The agent's names are those of the sites that it describes.
pub(super) fn named(fired: &FiredFault, words: String, symbols: &Symbols) -> Fired {
    let name = |address: &u64| call(*address, symbols).map_or_else(|| "?".to_owned(), |call| call.function.to_owned());
    let told = !fired.call_path.is_empty();
    Fired {
        fault: fired.fault as usize,
        sequence: fired.sequence,
        site: fired.site,
        step: fired.step,
        scope: fired.scope,
        times: fired.times,
        call_path: if told { fired.call_path.clone() } else { fired.stack.iter().map(name).collect() },
        frames: frames(&fired.stack, symbols),
        arguments: fired.arguments.clone(),
        words,
        returns: Vec::new(),
    }
}

fn frames(stack: &[u64], symbols: &Symbols) -> Vec<String> {
    let frame = |address: &u64| match call(*address, symbols) {
        Some(Location { symbol, offset, .. }) => format!("{symbol}+{:#x}", offset + 1),
        None => format!("{address:#x}"),
    };
    stack.iter().map(frame).collect()
}

/// Finds the last byte of the call that returns to `address`: that may be the first one after its
/// function.
fn call(address: u64, symbols: &Symbols) -> Option<Location<'_>> {
    symbols.resolve(address.wrapping_sub(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_without_a_symbol_stays_a_number() {
        let fired =
            FiredFault { fault: 1, stack: vec![0xffff_ffff_8100_0010], arguments: vec![7], ..FiredFault::default() };
        let fired = named(&fired, "size 8".to_owned(), &Symbols::default());
        assert_eq!((fired.call_path, fired.frames), (vec!["?".to_owned()], vec!["0xffffffff81000010".to_owned()]));
        assert_eq!((fired.fault, fired.arguments, fired.words.as_str()), (1, vec![7], "size 8"));
    }
}
