//! Parts of a call's arguments, lowered to what the BPF program reads, and those that it notes when
//! the call fails.

use std::collections::HashMap;

use abi::{ARGUMENTS, MAX_SHOWN, Part, Rule};
use anyhow::{Context, Result};
use guest_protocol::Contract;

use super::types::Types;

const _: () = assert!(MAX_SHOWN == guest_protocol::MAX_SHOWN);
const _: () = assert!(ARGUMENTS.len() == fault_plan::MAX_ARGUMENTS as usize);

/// Lowers the argument of this `number`, or the `field` of what it points to.
///
/// # Errors
///
/// There is no such argument, or this kernel has no such field.
pub(super) fn lower(number: u8, field: Option<&str>, types: &mut Types) -> Result<Part> {
    let index = usize::from(number).checked_sub(1);
    let argument = index.and_then(|index| ARGUMENTS.get(index)).context("there is no such argument")?;
    let whole = Part::argument(*argument);
    let Some(path) = field else { return Ok(whole) };
    let field = types.field(path)?;
    Ok(Part { field: 1, offset: field.offset, mask: field.mask(), ..whole })
}

/// Parts that are noted of a function's calls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Shown {
    parts: [Part; MAX_SHOWN],
    /// The one that points to a text, from 1; 0 for none.
    text: u32,
}

/// What is noted of each function's calls.
#[derive(Default)]
pub(super) struct AllShown(HashMap<String, Shown>);

impl AllShown {
    /// Lowers what the contracts of `functions` want noted. What this kernel lacks is not noted.
    pub(super) fn of(functions: &[Contract], types: &mut Types) -> Self {
        let lower = |contract: &Contract| {
            let mut all = Shown::default();
            for (number, (shown, into)) in (1..).zip(contract.shown.iter().zip(&mut all.parts)) {
                *into = lower(shown.argument, shown.field.as_deref(), types).unwrap_or_default();
                if shown.text {
                    all.text = number;
                }
            }
            (contract.function.clone(), all)
        };
        Self(functions.iter().filter(|contract| !contract.shown.is_empty()).map(lower).collect())
    }

    /// Gives the `rule` with what is noted of calls of `function`.
    pub(super) fn add(&self, function: &str, rule: Rule) -> Rule {
        let Shown { parts, text } = self.0.get(function).copied().unwrap_or_default();
        Rule { shown: parts, text, ..rule }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::types::Field, *};

    #[test]
    fn what_the_kernel_lacks_is_not_noted() {
        let mut types = Types::of(&[], &[("s.f", Field { offset: 12, bytes: 2 })]);
        let part = |argument, field: Option<&str>, text| guest_protocol::Shown {
            argument,
            field: field.map(str::to_owned),
            text,
        };
        let shown = vec![part(1, Some("s.f"), false), part(2, None, true), part(7, None, false)];
        let contract = Contract { function: "f".to_owned(), error_type: None, never: Vec::new(), shown };
        let all = AllShown::of(&[contract], &mut types);
        let field = Part { argument: 112, field: 1, offset: 12, mask: 0xffff, ..Part::NONE };
        let parts = [field, Part::argument(104), Part::NONE, Part::NONE];
        assert_eq!(all.0["f"], Shown { parts, text: 2 });
    }
}
