//! Matching of a call's path with a rule's. It is written in steps, so that the kernel's verifier
//! follows each one alone.

use crate::{ELLIPSIS, MAX_FRAMES, Rule, Site};

/// More steps than any match takes: an attempt from each of the callers walks at most the whole
/// path.
pub const MAX_MATCH_STEPS: u32 = ((MAX_FRAMES + 1) * (MAX_FRAMES + 2)) as u32;

/// The finding of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// More steps are needed.
    Open,
    /// The path matches.
    Matches,
    /// It does not.
    Differs,
}

/// A match in progress.
///
/// The path's segments between ellipses are placed at the first callers where they fit, leftmost
/// first. That finds a match when there is one, as an ellipsis stands for any number of callers.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Match {
    /// Next element of the rule's path.
    element: u32,
    /// Next caller.
    caller: u32,
    /// Element after the last ellipsis passed; 0 before the first.
    segment: u32,
    /// Caller at which that segment is tried.
    start: u32,
}

impl Match {
    /// A match at its beginning.
    #[inline(always)]
    #[must_use]
    pub const fn new() -> Self {
        Self { element: 0, caller: 0, segment: 0, start: 0 }
    }

    /// Does one step. Every index is checked, whatever the memory holds.
    #[inline(always)]
    pub fn step(&mut self, rule: &Rule, site: &Site) -> Verdict {
        if self.element >= rule.elements {
            return Verdict::Matches;
        }
        let Some(&element) = rule.path.get(self.element as usize) else { return Verdict::Matches };
        if element == ELLIPSIS {
            self.element += 1;
            self.segment = self.element;
            self.start = self.caller;
            return Verdict::Open;
        }
        if self.caller < site.depth && site.stack.get(self.caller as usize) == Some(&element) {
            self.element += 1;
            self.caller += 1;
            return Verdict::Open;
        }
        if self.segment == 0 || self.start >= site.depth {
            return Verdict::Differs;
        }
        self.start += 1;
        self.caller = self.start;
        self.element = self.segment;
        Verdict::Open
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Rule {
        /// Does what the BPF program does with its loop.
        fn matches(&self, site: &Site) -> bool {
            let mut state = Match::new();
            (0..MAX_MATCH_STEPS).map(|_| state.step(self, site)).find(|verdict| *verdict != Verdict::Open)
                == Some(Verdict::Matches)
        }
    }

    fn rule(path: &[u32]) -> Rule {
        let mut rule = Rule {
            function: 1,
            occurrence: 1,
            more: 0,
            seen: 0,
            fired: 0,
            after: 0,
            scopes: u32::MAX,
            elements: 0,
            step: 0,
            text: 0,
            return_value: -12,
            conditions: [crate::Condition::NONE; crate::MAX_RULE_CONDITIONS],
            name_set: 0,
            shown: [crate::Part::NONE; crate::MAX_SHOWN],
            path: [0; MAX_FRAMES],
        };
        rule.elements = path.len() as u32;
        rule.path[..path.len()].copy_from_slice(path);
        rule
    }

    fn site(names: &[u32]) -> Site {
        let mut site = Site {
            key: 1,
            generation: 0,
            count: 0,
            first_sequence: 0,
            function: 1,
            depth: 0,
            truncated: 0,
            scope: crate::WORKLOAD,
            step: 1,
            name_set: 0,
            stack: [0; MAX_FRAMES],
        };
        site.depth = names.len() as u32;
        site.stack[..names.len()].copy_from_slice(names);
        site
    }

    #[test]
    fn a_path_is_a_prefix() {
        assert!(rule(&[]).matches(&site(&[])));
        assert!(rule(&[]).matches(&site(&[1, 2])));
        assert!(rule(&[1]).matches(&site(&[1, 2])));
        assert!(!rule(&[2]).matches(&site(&[1, 2])));
        assert!(!rule(&[1, 2, 3]).matches(&site(&[1, 2])));
    }

    #[test]
    fn an_ellipsis_stands_for_any_callers() {
        let callers = site(&[1, 2, 1, 3, 4]);
        for path in [&[ELLIPSIS, 3][..], &[1, ELLIPSIS, 4], &[1, ELLIPSIS, 1, 3], &[1, ELLIPSIS, 2], &[ELLIPSIS, 1, 3]]
        {
            assert!(rule(path).matches(&callers), "{path:?}");
        }
        for path in [&[2, ELLIPSIS, 4][..], &[ELLIPSIS, 3, 1], &[ELLIPSIS, 5], &[1, ELLIPSIS, 4, ELLIPSIS, 3]] {
            assert!(!rule(path).matches(&callers), "{path:?}");
        }
    }

    #[test]
    fn names_beyond_the_depth_do_not_count() {
        let mut callers = site(&[1, 2, 3]);
        callers.depth = 2;
        assert!(!rule(&[ELLIPSIS, 3]).matches(&callers));
    }

    #[test]
    fn the_worst_case_ends_within_its_bound() {
        let callers = site(&[1; MAX_FRAMES]);
        for ones in 0..MAX_FRAMES - 1 {
            let mut path = [1; MAX_FRAMES];
            path[0] = ELLIPSIS;
            path[ones + 1] = 2;
            let path = rule(&path[..ones + 2]);
            let mut state = Match::new();
            let last =
                (0..MAX_MATCH_STEPS).map(|_| state.step(&path, &callers)).find(|verdict| *verdict != Verdict::Open);
            assert_eq!(last, Some(Verdict::Differs), "{ones}");
        }
    }
}
