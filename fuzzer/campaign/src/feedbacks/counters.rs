//! Counts of executions by what happened in them.

use std::borrow::Cow;

use execution::{Coverage, Fate, RunError};
use libafl::{
    Error, HasMetadata,
    executors::ExitKind,
    feedbacks::{Feedback, StateInitializer},
};
use libafl_bolts::Named;

use crate::{
    input::PlanInput,
    observers::{Observed, Observers},
    statistics::Statistics,
};

/// The feedback that counts, in the state's [`Statistics`]. Never interesting.
pub(crate) struct CountersFeedback;

impl Named for CountersFeedback {
    fn name(&self) -> &Cow<'static, str> {
        const { &Cow::Borrowed("counters") }
    }
}

impl<S> StateInitializer<S> for CountersFeedback {}

impl<EM, S: HasMetadata> Feedback<EM, PlanInput, Observers, S> for CountersFeedback {
    fn is_interesting(
        &mut self,
        state: &mut S,
        _: &mut EM,
        input: &PlanInput,
        observers: &Observers,
        exit_kind: &ExitKind,
    ) -> Result<bool, Error> {
        let observer = observers.observed();
        let counters = state.metadata_or_insert_with(Statistics::default);
        if let Some(failure) = observer.failure().filter(|failure| !failure.ends_campaign) {
            let reason = execution::chain(&failure.error);
            match failure.error {
                RunError::Refused(_) => {
                    tracing::debug!(reason, "plan refused");
                    counters.refused += 1;
                }
                RunError::Starved => {
                    tracing::warn!("{reason}");
                    counters.given_up += 1;
                }
                _ => {
                    tracing::warn!("no guest gets through a plan, leaving it out: {reason}");
                    counters.given_up += 1;
                }
            }
        }
        let Some(execution) = observer.execution() else { return Ok(false) };
        counters.with_faults += u64::from(!input.0.is_fault_free());
        counters.fired += u64::from(!execution.fired.is_empty());
        counters.crashed += u64::from(*exit_kind == ExitKind::Crash);
        counters.hung += u64::from(*exit_kind == ExitKind::Timeout);
        counters.guarded += u64::from(execution.guarded);
        counters.unknown_pcs += observer.unknown_pcs();
        // One that spins until it is killed fills any trace.
        let full = execution.coverage.iter().filter(|coverage| coverage.overflowed && execution.guest != Fate::Dead);
        for Coverage { role, .. } in full {
            let count = counters.overflowed(*role);
            if *count == 0 {
                tracing::warn!("an execution filled the coverage trace \"{role}\": its end is missing");
            }
            *count += 1;
        }
        if execution.incomplete {
            if counters.incomplete == 0 {
                tracing::warn!("the workload is longer than a guest has room to record: its last part does not count");
            }
            counters.incomplete += 1;
        }
        Ok(false)
    }
}
