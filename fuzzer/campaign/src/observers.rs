//! What an execution shows to the feedbacks.

use std::borrow::Cow;

use kcov_parser::CallSites;
use libafl::observers::{Observer, OwnedMapObserver, map::MapObserver};
use libafl_bolts::Named;
use serde::{Deserialize, Serialize};

use execution::Execution;

/// Name of the coverage map and of its feedback and statistics.
pub(super) const COVERAGE: &str = "coverage";

/// Which basic blocks ran: one byte for each place in the kernel that can report coverage.
pub(super) type CoverageMap = OwnedMapObserver<u8>;

/// Marks the covered call sites in `map`. Returns how many addresses are no known call site.
pub(super) fn mark_coverage(map: &mut CoverageMap, sites: &CallSites, coverage: &[u64]) -> u64 {
    let mut unknown = 0;
    for pc in coverage {
        match sites.index_of(*pc) {
            Some(index) => map.set(index as usize, 1),
            None => unknown += 1,
        }
    }
    unknown
}

/// The last execution as a whole.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct ExecutionObserver {
    #[serde(skip)]
    execution: Option<Execution>,
    /// Whether it reached a site never seen before.
    new_site: bool,
}

impl ExecutionObserver {
    /// The last execution, if the one under way or just ended got that far.
    #[must_use]
    pub(super) fn execution(&self) -> Option<&Execution> {
        self.execution.as_ref()
    }

    /// Whether it reached a site never seen before.
    #[must_use]
    pub(super) fn has_new_site(&self) -> bool {
        self.new_site
    }

    /// Sets the execution, and whether it reached a site never seen before.
    pub(super) fn set(&mut self, execution: Execution, new_site: bool) {
        self.execution = Some(execution);
        self.new_site = new_site;
    }
}

impl Named for ExecutionObserver {
    fn name(&self) -> &Cow<'static, str> {
        const { &Cow::Borrowed("execution") }
    }
}

impl<I, S> Observer<I, S> for ExecutionObserver {
    fn pre_exec(&mut self, _state: &mut S, _input: &I) -> Result<(), libafl::Error> {
        self.execution = None;
        self.new_site = false;
        Ok(())
    }
}
