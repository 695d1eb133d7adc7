//! Faults that fired: names for the addresses of their callers.

use execution::Fired;
use guest_protocol::FiredFault;
use kcov_parser::{Location, Symbols};

use crate::qemu;

/// Gives a fault as the agent reports it. Its names are those of the sites that the agent
/// describes.
pub(super) fn of_report(fired: &FiredFault, words: String, symbols: &Symbols) -> Fired {
    Fired {
        fault: fired.fault as usize,
        sequence: fired.sequence,
        site: fired.site,
        step: fired.step,
        scope: fired.scope,
        times: fired.times,
        call_path: fired.call_path.clone(),
        frames: frames(&fired.stack, symbols),
        arguments: fired.arguments.clone(),
        words,
        returns: Vec::new(),
    }
}

/// Gives a fault out of the memory of a guest that died.
pub(super) fn of_log(fired: &qemu::Fired, words: String, symbols: &Symbols) -> Fired {
    let name = |address: &u64| call(*address, symbols).map_or_else(|| "?".to_owned(), |call| call.function.to_owned());
    Fired {
        fault: fired.fault as usize,
        sequence: fired.sequence,
        site: fired.site,
        step: fired.step,
        scope: fired.scope,
        times: fired.times,
        call_path: fired.stack.iter().map(name).collect(),
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
    use fault_plan::Scope;

    use super::*;

    #[test]
    fn an_address_without_a_symbol_stays_a_number() {
        let fired = qemu::Fired {
            fault: 1,
            sequence: 2,
            site: 3,
            step: 4,
            scope: Scope::Child,
            times: 5,
            stack: vec![0xffff_ffff_8100_0010],
            arguments: vec![7],
            shown: Vec::new(),
            text: String::new(),
        };
        let fired = of_log(&fired, "size 8".to_owned(), &Symbols::default());
        assert_eq!((fired.call_path, fired.frames), (vec!["?".to_owned()], vec!["0xffffffff81000010".to_owned()]));
        assert_eq!((fired.fault, fired.arguments, fired.words.as_str()), (1, vec![7], "size 8"));
    }
}
