//! Keeps the campaign's books: totals, sites and coverage on disk, statistics for the monitor.

use std::{
    borrow::Cow,
    marker::PhantomData,
    sync::Arc,
    time::{Duration, Instant},
};

use kcov_parser::CallSites;
use libafl::{
    Error, HasMetadata, HasNamedMetadata,
    corpus::Corpus,
    events::{Event, EventFirer, EventWithStats, ProgressReporter},
    feedbacks::MapFeedbackMetadata,
    monitors::stats::{AggregatorOps, UserStats, UserStatsValue},
    state::{HasCorpus, HasExecutions},
};

use super::{
    CampaignError, CampaignFile, CampaignFolder, Counters, Manager, State, Summary,
    catalogue::Catalogue,
    feedback::{CrashTitles, Standing, Untried},
    input::PlanInput,
    monitor::INTERVAL,
    observers::COVERAGE,
    stages::TRIES,
};
use crate::execution::RunnerCounters;

/// How often sites and coverage are written, besides at the end.
const WRITE_INTERVAL: Duration = Duration::from_secs(30);

/// The books of one start of a campaign.
pub(super) struct Book {
    target: String,
    folder: Arc<CampaignFolder>,
    call_sites: Arc<CallSites>,
    seed: u64,
    earlier: Option<CampaignFile>,
    start: Instant,
    reported: Option<Instant>,
    written: Option<Instant>,
    fault_free_coverage: usize,
}

impl Book {
    pub(super) fn new(
        target: String,
        folder: Arc<CampaignFolder>,
        call_sites: Arc<CallSites>,
        seed: u64,
        earlier: Option<CampaignFile>,
    ) -> Self {
        let start = Instant::now();
        Self { target, folder, call_sites, seed, earlier, start, reported: None, written: None, fault_free_coverage: 0 }
    }

    /// Puts what earlier starts left into a new state.
    pub(super) fn restore(&self, state: &mut State) -> Result<(), CampaignError> {
        *state.executions_mut() = self.executions_before();
        let (mut titles, mut untried) = (CrashTitles::default(), Untried::default());
        for (meta, plan) in self.folder.crashes()? {
            let standing = match (meta.tried, meta.reproduced) {
                (0, _) => Standing::Untried(0),
                (_, 0) => Standing::Doubtful(1),
                _ => Standing::Reproduced,
            };
            if meta.tried == 0 {
                untried.0.push((meta.title.clone(), PlanInput(plan)));
            }
            titles.0.insert(meta.title, standing);
        }
        state.add_metadata(titles);
        state.add_metadata(untried);
        state.add_metadata(Catalogue::remembering(self.folder.read_sites()?));
        let mut history = vec![0_u8; self.call_sites.len()];
        for pc in self.folder.read_coverage()? {
            if let Some(index) = self.call_sites.index_of(pc) {
                history[index as usize] = 1;
            }
        }
        state.add_named_metadata(COVERAGE, MapFeedbackMetadata::with_history_map(history, 0));
        Ok(())
    }

    fn executions_before(&self) -> u64 {
        self.earlier.as_ref().map_or(0, |earlier| earlier.executions)
    }

    /// Notes what the fault-free executions covered.
    pub(super) fn note_fault_free(&mut self, covered: usize) {
        self.fault_free_coverage = covered;
    }

    /// Reports progress and writes the books when it is time to, or `now`.
    pub(super) fn keep(
        &mut self,
        state: &mut State,
        manager: &mut Manager,
        runner: RunnerCounters,
        now: bool,
    ) -> Result<(), Error> {
        if now || self.reported.is_none_or(|last| last.elapsed() >= INTERVAL) {
            self.reported = Some(Instant::now());
            for (name, value) in statistics(state, runner) {
                let value = UserStats::new(UserStatsValue::Number(value), AggregatorOps::Sum);
                let event = Event::UpdateUserStats { name: Cow::Borrowed(name), value, phantom: PhantomData };
                manager.fire(state, EventWithStats::with_current_time(event, *state.executions()))?;
            }
            manager.report_progress(state)?;
            self.write_totals(state).map_err(disk)?;
        }
        if now || self.written.is_none_or(|last| last.elapsed() >= WRITE_INTERVAL) {
            self.written = Some(Instant::now());
            self.write_findings(state).map_err(disk)?;
        }
        Ok(())
    }

    fn write_totals(&self, state: &State) -> Result<(), super::FolderError> {
        let seconds = self.earlier.as_ref().map_or(0, |earlier| earlier.seconds) + self.start.elapsed().as_secs();
        let seed = self.earlier.as_ref().map_or(self.seed, |earlier| earlier.seed);
        self.folder.write_campaign(&self.target, seed, *state.executions(), seconds)
    }

    fn write_findings(&self, state: &State) -> Result<(), super::FolderError> {
        if let Some(catalogue) = state.metadata_map().get::<Catalogue>() {
            self.folder.write_sites(&catalogue.to_file())?;
        }
        let history = state.named_metadata_map().get::<MapFeedbackMetadata<u8>>(COVERAGE);
        let history = history.map_or(&[][..], |map| &map.history_map);
        let covered = self.call_sites.iter().zip(history).filter(|(_, seen)| **seen != 0).map(|(pc, _)| pc);
        self.folder.write_coverage(covered)
    }

    /// What to tell the user at the end.
    pub(super) fn summary(&self, state: &State, runner: RunnerCounters) -> Result<Summary, CampaignError> {
        let empty = Catalogue::default();
        let catalogue = state.metadata_map().get::<Catalogue>().unwrap_or(&empty);
        let crashes = self.folder.crashes()?;
        Ok(Summary {
            executions: state.executions().saturating_sub(self.executions_before()),
            seconds: self.start.elapsed().as_secs(),
            corpus: state.corpus().count(),
            fault_free_coverage: self.fault_free_coverage,
            coverage: covered(state),
            sites: catalogue.len(),
            sites_failed: catalogue.failed(),
            counters: state.metadata_map().get::<Counters>().copied().unwrap_or_default(),
            guests: runner.guests,
            harness_errors: runner.harness_errors,
            leftovers: runner.leftovers,
            crashes: crashes.into_iter().map(|(meta, _)| (meta.title, meta.reproduced, meta.tried)).collect(),
        })
    }
}

/// Places in the kernel that ran in any execution so far.
pub(super) fn covered(state: &State) -> usize {
    state.named_metadata_map().get::<MapFeedbackMetadata<u8>>(COVERAGE).map_or(0, |map| map.num_covered_map_indexes)
}

fn statistics(state: &State, runner: RunnerCounters) -> [(&'static str, u64); 9] {
    let empty = Catalogue::default();
    let catalogue = state.metadata_map().get::<Catalogue>().unwrap_or(&empty);
    let counters = state.metadata_map().get::<Counters>().copied().unwrap_or_default();
    let crashes = state.metadata_map().get::<CrashTitles>().map_or(0, |titles| titles.0.len());
    [
        ("covered", covered(state) as u64),
        ("sites", catalogue.len() as u64),
        ("sites_failed", catalogue.failed() as u64),
        ("crashes", crashes as u64),
        ("with_faults", counters.with_faults),
        ("fired", counters.fired),
        ("guests", runner.guests),
        ("harness_errors", runner.harness_errors),
        ("leftovers", runner.leftovers),
    ]
}

fn disk(error: super::FolderError) -> Error {
    Error::unknown(crate::chain(&error))
}

const _: () = assert!(TRIES > 0, "a reproducer that was not tried is told by its number of tries");
