//! Call paths, and what it means that one matches.

use serde::{Deserialize, Serialize};

/// The pattern element that stands for any callers, none included.
pub const ELLIPSIS: &str = "...";

/// The longest pattern, in elements. It is also the number of callers that are read at each call.
pub const MAX_CALL_PATH: usize = 24;

/// The callers' symbol names at the moment of a call, innermost first; in a fault also a pattern of
/// them.
///
/// As a pattern it matches every path that starts with it; the empty one matches all. [`ELLIPSIS`]
/// between two names stands for any callers.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct CallPath(pub Vec<String>);

impl CallPath {
    /// Says whether this pattern matches the callers `path` (innermost first). Names are compared
    /// by [`base_name`].
    ///
    /// This is the definition; the BPF program does the same on numbers.
    #[must_use]
    pub fn matches<S: AsRef<str>>(&self, path: &[S]) -> bool {
        matches_from(&self.0, path)
    }

    /// Why this is no usable pattern, if so.
    #[must_use]
    pub fn defect(&self) -> Option<&'static str> {
        if self.0.len() > MAX_CALL_PATH {
            return Some("it is longer than 24 elements");
        }
        if self.0.iter().any(String::is_empty) {
            return Some("an element is empty");
        }
        if self.0.last().is_some_and(|name| name == ELLIPSIS) {
            return Some("it ends in \"...\", which every path matches anyway");
        }
        if self.0.windows(2).any(|pair| pair[0] == ELLIPSIS && pair[1] == ELLIPSIS) {
            return Some("\"...\" follows \"...\"");
        }
        None
    }
}

fn matches_from<S: AsRef<str>>(pattern: &[String], path: &[S]) -> bool {
    let Some((first, rest)) = pattern.split_first() else { return true };
    if first == ELLIPSIS {
        return (0..=path.len()).any(|skipped| matches_from(rest, &path[skipped..]));
    }
    path.split_first()
        .is_some_and(|(caller, callers)| base_name(first) == base_name(caller.as_ref()) && matches_from(rest, callers))
}

/// The name without what the compiler appends to clones and parts: `.isra.0`, `.constprop.0`,
/// `.part.0`, `.cold`.
#[must_use]
pub fn base_name(symbol: &str) -> &str {
    // A leading dot is part of the name, not a suffix.
    match symbol.char_indices().skip(1).find(|(_, character)| *character == '.') {
        Some((end, _)) if symbol != ELLIPSIS => &symbol[..end],
        _ => symbol,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn path(names: &[&str]) -> CallPath {
        CallPath(names.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn a_pattern_is_a_prefix() {
        let callers = ["kmalloc", "alloc_root", "open_ctree"];
        assert!(path(&[]).matches(&callers));
        assert!(path(&["kmalloc"]).matches(&callers));
        assert!(path(&["kmalloc", "alloc_root"]).matches(&callers));
        assert!(!path(&["alloc_root"]).matches(&callers));
        assert!(!path(&["kmalloc", "alloc_root", "open_ctree", "mount"]).matches(&callers));
    }

    #[test]
    fn an_ellipsis_stands_for_any_callers() {
        let callers = ["a", "b", "a", "c", "d"];
        assert!(path(&["...", "c"]).matches(&callers));
        assert!(path(&["a", "...", "d"]).matches(&callers));
        assert!(path(&["a", "...", "a", "c"]).matches(&callers));
        assert!(path(&["a", "...", "b"]).matches(&callers));
        assert!(!path(&["b", "...", "d"]).matches(&callers));
        assert!(!path(&["...", "c", "a"]).matches(&callers));
    }

    #[test]
    fn compiler_suffixes_do_not_count() {
        assert_eq!(base_name("open_ctree.isra.0"), "open_ctree");
        assert_eq!(base_name("read_one.part.0.cold"), "read_one");
        assert_eq!(base_name("plain"), "plain");
        assert_eq!(base_name(ELLIPSIS), ELLIPSIS);
        assert!(path(&["foo.constprop.0"]).matches(&["foo.isra.1"]));
    }

    #[test]
    fn useless_patterns_are_named() {
        assert!(path(&["a", "..."]).defect().is_some());
        assert!(path(&["...", "...", "a"]).defect().is_some());
        assert!(path(&[""]).defect().is_some());
        assert!(CallPath(vec!["a".to_owned(); MAX_CALL_PATH + 1]).defect().is_some());
        assert!(path(&["...", "a"]).defect().is_none());
    }

    proptest! {
        #[test]
        fn every_prefix_matches(names in prop::collection::vec("[a-d]", 0..10), cut in 0usize..10) {
            let pattern = CallPath(names[..cut.min(names.len())].to_vec());
            prop_assert!(pattern.matches(&names));
        }

        #[test]
        fn dropping_a_middle_for_an_ellipsis_still_matches(
            names in prop::collection::vec("[a-d]", 3..10), from in 0usize..5, len in 0usize..5,
        ) {
            let from = from.min(names.len() - 1);
            let to = (from + len).min(names.len() - 1);
            let mut pattern = names[..from].to_vec();
            pattern.push(ELLIPSIS.to_owned());
            pattern.extend_from_slice(&names[to..]);
            prop_assert!(CallPath(pattern).matches(&names));
        }
    }
}
