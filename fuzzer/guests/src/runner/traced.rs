//! Traced runs: what the callers of a fault return after it has fired.
//!
//! ```text
//!   a run ── return addresses of its faults ──▶ a traced run of the same plan: probes stand there
//! ```

use std::collections::BTreeMap;

use abi::{Returned, return_type};
use execution::{CallEnd, FrameReturn, ReturnType, where_it_went};
use fault_plan::{FaultPlan, InjectedError};

use super::reported::Own;
use crate::qemu::{FiredLog, Returns};

/// Return addresses of the faults that fired in a run: by its rounds, and by their indices.
#[derive(Debug, Default)]
pub(super) struct Stacks(BTreeMap<usize, Vec<Vec<u64>>>);

impl Stacks {
    /// Forgets all, as a run begins that is not traced.
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// Takes in what fired in a round.
    pub(super) fn note(&mut self, round: usize, log: Option<&FiredLog>) {
        let Some(log) = log.filter(|log| !log.fired.is_empty()) else { return };
        let mut stacks = Vec::new();
        for fired in &log.fired {
            let index = fired.fault as usize;
            stacks.resize(stacks.len().max(index + 1), Vec::new());
            stacks[index].clone_from(&fired.stack);
        }
        self.0.insert(round, stacks);
    }

    /// Gives those of a round.
    pub(super) fn of(&self, round: usize) -> Vec<Vec<u64>> {
        self.0.get(&round).cloned().unwrap_or_default()
    }
}

/// Adds to the faults that fired in `own`, a run of `plan`, what their callers returned, as the
/// guest's memory tells. Probes stood at the addresses `asked` for: where a fault fired on another
/// way there is nothing to tell.
pub(super) fn add(own: &mut Own, plan: &FaultPlan, asked: &[Vec<u64>], log: &FiredLog, returns: &Returns) {
    if returns.generation != log.generation {
        return;
    }
    for fired in &mut own.fired {
        let stack = log.fired.iter().find(|logged| logged.fault as usize == fired.fault).map(|logged| &logged.stack);
        let (Some(returned), Some(fault)) = (returns.of.get(fired.fault), plan.faults.get(fired.fault)) else {
            continue;
        };
        if stack == asked.get(fired.fault) {
            fired.returns = frame_returns(fault.error, &fired.call_path, returned);
        }
    }
}

fn frame_returns(error: InjectedError, call_path: &[String], returned: &Returned) -> Vec<FrameReturn> {
    let end = |frame: usize| {
        // A function's value comes to the frame of its caller.
        let bit = 1_u32.checked_shl(u32::try_from(frame + 1).unwrap_or(u32::MAX)).unwrap_or(0);
        match (returned.values.get(frame + 1), returned.types.get(frame)) {
            (Some(value), Some(of)) if returned.returned & bit != 0 => CallEnd::Returned(*value, return_type_of(*of)),
            _ if returned.probed & bit != 0 => CallEnd::Open,
            _ => CallEnd::NotProbed,
        }
    };
    where_it_went(error, call_path.iter().enumerate().map(|(frame, function)| (function.clone(), end(frame))))
}

fn return_type_of(number: u8) -> ReturnType {
    let bytes = number & 0xf;
    match number {
        return_type::VOID => ReturnType::Void,
        return_type::POINTER => ReturnType::Pointer,
        return_type::BOOL => ReturnType::Bool,
        _ if number & 0xf0 == return_type::SIGNED => ReturnType::Integer { bytes, signed: true },
        _ if number & 0xf0 == return_type::UNSIGNED => ReturnType::Integer { bytes, signed: false },
        _ => ReturnType::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use execution::Mark;
    use fault_plan::Errno;

    use super::*;

    #[test]
    fn a_functions_value_comes_to_its_caller() {
        let mut returned = Returned { probed: 0b1_1110, returned: 0b110, ..Returned::default() };
        returned.types[..3].copy_from_slice(&[return_type::POINTER, return_type::SIGNED | 4, return_type::VOID]);
        returned.values[..3].copy_from_slice(&[0xfff4, 0, 0]);
        let path = ["alloc", "open", "mount", "sys", "entry"].map(str::to_owned);
        let returns = frame_returns(InjectedError::Errno(Errno::ENOMEM), &path, &returned);
        let words: Vec<_> = returns.iter().map(|frame| frame.returned.as_str()).collect();
        assert_eq!(words, ["NULL", "0", "did not return", "did not return", "?"]);
        assert_eq!((returns[1].mark, &returns[1].function), (Some(Mark::Swallowed), &path[1]));
    }
}
