//! Observers: the sides of an execution that feedbacks and objective see.

use std::borrow::Cow;

use execution::{Attributed, Execution, RunError};
use libafl::observers::{ExplicitTracking, Observer, OwnedMapObserver, TimeObserver};
use libafl_bolts::Named;
use serde::{Deserialize, Serialize};

/// Name of the coverage map, its feedback and LibAFL's statistic of it.
pub(crate) const COVERAGE_MAP: &str = "coverage map";

/// The basic blocks that ran: one byte for each coverage point, with the indices that the scheduler
/// wants.
pub(crate) type CoverageMap = ExplicitTracking<OwnedMapObserver<u8>, true, false>;
/// The observers of a campaign.
pub(crate) type Observers = (CoverageMap, (ExecutionObserver, (TimeObserver, ())));

/// The way to one of the observers.
pub(crate) trait Observed {
    /// Gives the observer of the execution.
    fn observed(&self) -> &ExecutionObserver;

    /// Gives the observer of the execution, to be changed.
    fn observed_mut(&mut self) -> &mut ExecutionObserver;
}

impl Observed for Observers {
    fn observed(&self) -> &ExecutionObserver {
        &self.1.0
    }

    fn observed_mut(&mut self) -> &mut ExecutionObserver {
        &mut self.1.0
    }
}

/// The reason why there is no execution.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) error: RunError,
    /// True when no other plan would do better.
    pub(crate) ends_campaign: bool,
}

/// The last execution as a whole.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct ExecutionObserver {
    #[serde(skip)]
    execution: Option<Execution>,
    /// Covered addresses that are no known coverage point.
    unknown_pcs: u64,
    #[serde(skip)]
    late: Vec<Attributed>,
    #[serde(skip)]
    failure: Option<Failure>,
}

impl ExecutionObserver {
    /// Gives the last execution, if the plan got that far.
    pub(crate) fn execution(&self) -> Option<&Execution> {
        self.execution.as_ref()
    }

    /// Counts its addresses that are no known coverage point.
    pub(crate) fn unknown_pcs(&self) -> u64 {
        self.unknown_pcs
    }

    /// Gives what came to light meanwhile of earlier executions.
    pub(crate) fn late(&self) -> &[Attributed] {
        &self.late
    }

    /// Says why there is no execution.
    pub(crate) fn failure(&self) -> Option<&Failure> {
        self.failure.as_ref()
    }

    /// Sets the execution, with so many addresses that are no known coverage point.
    pub(crate) fn set(&mut self, execution: Execution, unknown_pcs: u64) {
        (self.execution, self.unknown_pcs) = (Some(execution), unknown_pcs);
    }

    /// Adds what came to light of earlier executions.
    pub(crate) fn add_late(&mut self, late: Vec<Attributed>) {
        self.late.extend(late);
    }

    /// Sets the reason why there is no execution.
    pub(crate) fn fail(&mut self, error: RunError, ends_campaign: bool) {
        self.failure = Some(Failure { error, ends_campaign });
    }
}

impl Named for ExecutionObserver {
    fn name(&self) -> &Cow<'static, str> {
        const { &Cow::Borrowed("execution") }
    }
}

impl<I, S> Observer<I, S> for ExecutionObserver {
    fn pre_exec(&mut self, _state: &mut S, _input: &I) -> Result<(), libafl::Error> {
        *self = Self::default();
        Ok(())
    }
}
