//! Places where a kernel hangs.

use std::fmt;

use super::{skip, stacks};

/// The place where a kernel hangs.
pub(super) enum Standstill<'log> {
    /// A task waits in this function, or for a lock.
    In(&'log str),
    /// A task runs in circles below this function.
    Below(&'log str),
}

impl fmt::Display for Standstill<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::In(function) => f.write_str(function),
            Self::Below(function) => write!(f, "below {function}"),
        }
    }
}

impl<'log> Standstill<'log> {
    /// The place in the call trace of a task that waits, and so stands still: the first function
    /// that neither runs in an interrupt nor waits, reports or helps anybody.
    pub(super) fn of_waiting(stack: &[&'log str]) -> Option<Self> {
        outside(stack).into_iter().find(|function| !skip::is_skipped(function, true)).map(Self::In)
    }

    /// The place in the call trace of a processor that ran when it was interrupted. Where a loop
    /// was then is chance: its place is what the task does at all, the last function that is not
    /// everybody's. One that spins for a lock stands still. A processor that is idle, or on its way
    /// from one task to another, tells nothing.
    pub(super) fn of_loop(stack: &[&'log str]) -> Option<Self> {
        let outside = outside(stack);
        let first = outside.iter().position(|function| !skip::is_skipped(function, true))?;
        let spins = outside[..first].iter().any(|function| skip::spins(function));
        let last = outside[first..].iter().rfind(|function| !skip::is_entry(function));
        if outside.iter().any(|function| skip::idles(function)) || last.is_some_and(|last| skip::is_skipped(last, true))
        {
            return None;
        }
        Some(match last {
            Some(last) if !spins => Self::Below(last),
            _ => Self::In(outside[first]),
        })
    }
}

/// Gives the functions of a call trace that ran in no interrupt, innermost first.
fn outside<'log>(stack: &[&'log str]) -> Vec<&'log str> {
    let frames = stacks::call_trace(stack);
    frames.iter().filter(|frame| !frame.interrupt).map(|frame| frame.function).collect()
}
