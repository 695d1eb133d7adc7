//! The reports of one client: to what the clients share, and to the broker's monitors.

use std::{marker::PhantomData, time::Instant};

use execution::Usage;
use libafl::{
    Error, HasMetadata, HasNamedMetadata,
    corpus::Corpus,
    events::{Event, EventFirer, EventWithStats, ProgressReporter},
    feedbacks::MapFeedbackMetadata,
    state::{HasCorpus, HasExecutions},
};

use super::{broker::Manager, shared::Shared, state::State};
use crate::{
    error::ends_search,
    kernels::{KnownKernel, Role},
    observers::COVERAGE_MAP,
    statistics::{INTERVAL, STATISTICS, StatisticRow, Statistics},
};

/// The moment of a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum When {
    /// When the client has not reported for a while.
    Due,
    /// At once.
    Now,
    /// At once, for the last time.
    End,
}

/// A client that reports.
pub(super) struct Reporter<'a> {
    client: usize,
    /// Executions that the client's state begins with.
    before: u64,
    reported: Option<Instant>,
    /// The values that the monitors know.
    told: Option<Statistics>,
    shared: &'a Shared,
    known: &'a KnownKernel,
}

impl<'a> Reporter<'a> {
    /// Makes the reporter of client number `client` on the kernel `known`, whose state begins with
    /// `before` executions.
    pub(super) fn new(client: usize, before: u64, shared: &'a Shared, known: &'a KnownKernel) -> Self {
        Self { client, before, reported: None, told: None, shared, known }
    }

    /// Sends a report, if one is due.
    ///
    /// # Errors
    ///
    /// The folder cannot be written, or there is no memory for the message.
    pub(super) fn report(
        &mut self,
        state: &mut State,
        manager: &mut Manager<State>,
        usage: Usage,
        when: When,
    ) -> Result<(), Error> {
        if when == When::Due && self.reported.is_some_and(|last| last.elapsed() < INTERVAL) {
            return Ok(());
        }
        self.reported = Some(Instant::now());
        if let Some(history) = state.named_metadata_map().get::<MapFeedbackMetadata<u8>>(COVERAGE_MAP) {
            self.known.cover(&history.history_map);
        }
        let mut statistics = self.statistics(state, usage, when == When::End);
        self.shared.report(self.client, statistics, when != When::Due).map_err(ends_search)?;
        statistics.set_campaign(&self.shared.statistics());
        self.tell(state, manager, &statistics)?;
        manager.report_progress(state)
    }

    /// Gives what the client has counted.
    fn statistics(&self, state: &State, usage: Usage, ended: bool) -> Statistics {
        let counted = state.metadata_map().get::<Statistics>().copied().unwrap_or_default();
        let explores = self.known.role == Role::Explorer;
        Statistics {
            executions: state.executions() - self.before,
            corpus: if explores { state.corpus().count() as u64 } else { 0 },
            guests: usage.guests,
            harness_errors: usage.harness_errors,
            leftovers: usage.leftovers,
            controls: usage.controls,
            control_off_ppm: usage.control_off_ppm,
            drifted: usage.drifted,
            worn: usage.worn,
            aftermath_executions: usage.aftermath_executions,
            aftermath_ms: usage.aftermath_ms,
            longest_life: usage.longest_life,
            guest_kib: usage.guest_kib,
            ended: u64::from(ended),
            ..counted
        }
    }

    /// Tells the monitors the values that have changed: LibAFL adds up over all clients for each.
    fn tell(&mut self, state: &mut State, manager: &mut Manager<State>, statistics: &Statistics) -> Result<(), Error> {
        let is_new = |row: &&StatisticRow| self.told.is_none_or(|told| row.value(&told) != row.value(statistics));
        let changed = STATISTICS.iter().filter(is_new);
        let stats = changed.map(|row| (row.name.into(), row.user_stats(statistics))).collect();
        let event = Event::UpdateUserStatsMap { stats, phantom: PhantomData };
        manager.fire(state, EventWithStats::with_current_time(event, *state.executions()))?;
        self.told = Some(*statistics);
        Ok(())
    }
}
