//! Parts of a call's arguments that are noted when it fails.

use std::collections::HashMap;

use abi::{ARGUMENTS, MAX_SHOWN, Shown};
use guest_protocol::Contract;

use super::types::Types;

const _: () = assert!(MAX_SHOWN == guest_protocol::MAX_SHOWN);

/// What is noted of each function's calls.
#[derive(Default)]
pub(super) struct AllShown(HashMap<String, [Shown; MAX_SHOWN]>);

impl AllShown {
    /// Lowers what the contracts of `functions` want noted. What this kernel lacks is not noted.
    pub(super) fn of(functions: &[Contract], types: &mut Types) -> Self {
        let lower = |contract: &Contract| {
            let mut all = [Shown::default(); MAX_SHOWN];
            for (shown, into) in contract.shown.iter().zip(&mut all) {
                *into = lower(shown, types).unwrap_or_default();
            }
            (contract.function.clone(), all)
        };
        Self(functions.iter().filter(|contract| !contract.shown.is_empty()).map(lower).collect())
    }

    /// Gives what is noted of calls of `function`.
    pub(super) fn of_function(&self, function: &str) -> [Shown; MAX_SHOWN] {
        self.0.get(function).copied().unwrap_or_default()
    }
}

fn lower(shown: &guest_protocol::Shown, types: &mut Types) -> Option<Shown> {
    let argument = *ARGUMENTS.get(usize::from(shown.argument).checked_sub(1)?)?;
    let whole = Shown { argument, text: shown.text.into(), mask: u64::MAX, ..Shown::default() };
    let Some(path) = &shown.field else { return Some(whole) };
    let field = types.field(path).ok()?;
    Some(Shown { field: 1, offset: field.offset, mask: field.mask(), ..whole })
}

#[cfg(test)]
mod tests {
    use super::{super::types::Field, *};

    #[test]
    fn what_the_kernel_lacks_is_not_noted() {
        let mut types = Types::of(&[], &[("s.f", Field { offset: 12, bytes: 2 })]);
        let part = |argument, field: Option<&str>| guest_protocol::Shown {
            argument,
            field: field.map(str::to_owned),
            text: false,
        };
        let shown = vec![part(1, Some("s.f")), part(2, None), part(7, None)];
        let contract = Contract { function: "f".to_owned(), error_type: None, never: Vec::new(), shown };
        let all = AllShown::of(&[contract], &mut types).of_function("f");
        let field = Shown { argument: 112, field: 1, offset: 12, mask: 0xffff, ..Shown::default() };
        assert_eq!(all[0], field);
        assert_eq!(all[1], Shown { argument: 104, mask: u64::MAX, ..Shown::default() });
        assert_eq!(all[2..], [Shown::default(); 2]);
        assert_eq!(AllShown::default().of_function("f"), [Shown::default(); MAX_SHOWN]);
    }
}
