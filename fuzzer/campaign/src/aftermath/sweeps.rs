//! The sweeps on one kernel: which faults there are to try in a state, and which were.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Mutex, MutexGuard},
};

use execution::{Execution, Target};
use fault_plan::{Errno, Fault, InjectedError};

use crate::{matrix::exact_fault, mutex::locked};

/// The most occurrences of one point of I/O that are failed. Of other points the first one is.
const MOST_OCCURRENCES: u32 = 3;

/// The sweeps on one kernel, which its clients share.
#[derive(Debug, Default)]
pub(crate) struct Sweeps(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    /// The single faults of the workload, in the order in which they are tried.
    faults: Vec<Fault>,
    /// Number of them that were tried, by the leftover's key.
    tried: BTreeMap<String, usize>,
}

impl Sweeps {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        locked(&self.0)
    }

    /// Takes in a fault-free execution, whose points are those to fail.
    pub(super) fn learn(&self, target: &Target, execution: &Execution) {
        let known = self.inner().faults.len();
        if known >= execution.hits.len() {
            return;
        }
        let faults = single_faults(target, execution);
        let mut inner = self.inner();
        // Positions in a list count what was tried, so it only changes before the first sweep.
        if inner.tried.is_empty() && inner.faults.len() < faults.len() {
            inner.faults = faults;
        }
    }

    /// Says whether nothing was tried yet in the state of this key.
    pub(super) fn is_new(&self, key: &str) -> bool {
        !self.inner().tried.contains_key(key)
    }

    /// Says whether something is left to try in the state of this key.
    pub(super) fn has_next(&self, key: &str) -> bool {
        let inner = self.inner();
        inner.tried.get(key).copied().unwrap_or(0) < inner.faults.len()
    }

    /// Gives the next fault to try in the state of this key. Nobody else gets it.
    pub(super) fn next(&self, key: &str) -> Option<Fault> {
        let mut inner = self.inner();
        let tried = inner.tried.entry(key.to_owned()).or_default();
        let at = *tried;
        *tried += 1;
        let fault = inner.faults.get(at).cloned();
        if fault.is_none() {
            inner.tried.insert(key.to_owned(), at);
        }
        fault
    }
}

/// Gives the single faults of a fault-free execution, each with the first error that its function
/// has. Functions that return nothing but EIO are I/O, and come first.
fn single_faults(target: &Target, execution: &Execution) -> Vec<Fault> {
    let counts: HashMap<u64, u32> = execution.hits.iter().map(|hit| (hit.site, hit.count)).collect();
    let (mut input_output, mut others) = (Vec::new(), Vec::new());
    for site in &execution.sites {
        let errors = target.errors(&site.function);
        let (Some(error), Some(count)) = (errors.first(), counts.get(&site.site)) else { continue };
        let fault = exact_fault((&site.function, &site.call_path), (site.step, site.scope), 1, *error);
        if errors == [InjectedError::Errno(Errno::EIO)] {
            let occurrences = 1..=(*count).min(MOST_OCCURRENCES);
            input_output.extend(occurrences.map(|occurrence| Fault { occurrence, ..fault.clone() }));
        } else {
            others.push(fault);
        }
    }
    // The first occurrences of all points come before the second of any.
    input_output.sort_by_key(|fault| fault.occurrence);
    input_output.append(&mut others);
    input_output
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use fault_plan::Scope;
    use guest_protocol::{Hit, SiteDescription};

    use super::*;
    use crate::fake;

    #[test]
    fn points_of_io_come_first_and_each_fault_once() {
        let target =
            fake::target(&format!("{}\n[[functions]]\nname = \"should_fail_bio\"\nerrors = [\"EIO\"]\n", fake::TARGET));
        let (hits, sites) =
            [("should_failslab", 1, 9), ("should_fail_bio", 2, 2), ("should_fail_bio", 3, 7), ("unknown", 4, 1)]
                .map(|(function, site, count)| {
                    let (function, call_path) = (function.to_owned(), vec![format!("caller_{site}")]);
                    let scope = Scope::Workload;
                    let site_of = SiteDescription { site, function, call_path, truncated: false, step: 1, scope };
                    (Hit { site, count, first_sequence: 1 }, Arc::new(site_of))
                })
                .into_iter()
                .unzip();
        let sweeps = Sweeps::default();
        sweeps.learn(&target, &Execution { hits, sites, ..fake::quiet() });
        assert!(sweeps.is_new("a") && sweeps.has_next("a"));
        let order: Vec<_> = std::iter::from_fn(|| sweeps.next("a"))
            .map(|fault| format!("{} {}", fault.call_path.0[0], fault.occurrence))
            .collect();
        assert_eq!(order, ["caller_2 1", "caller_3 1", "caller_2 2", "caller_3 2", "caller_3 3", "caller_1 1"]);
        assert!(!sweeps.is_new("a") && !sweeps.has_next("a") && sweeps.next("a").is_none());
        assert!(sweeps.is_new("b") && sweeps.next("b").is_some(), "another leftover has a sweep of its own");
    }
}
