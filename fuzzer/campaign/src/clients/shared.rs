//! The knowledge that the clients of one start of a campaign share, and its totals on disk.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use execution::Target;

use super::lifecycle::Lifecycle;
use crate::{
    crashes::{CrashMeta, Crashes},
    folder::{CampaignFile, CampaignFolder, FOLDER_VERSION, FolderError},
    kernels::{Kernels, Role},
    mutex::locked,
    plans::FirstPlan,
    second_kernel::SecondKernelQueue,
    statistics::{Statistics, Summary},
};

/// Interval at which sites and coverage are written, besides at the end.
const WRITE_INTERVAL: Duration = Duration::from_secs(30);
/// Interval at which the totals are written, besides at the start and at the end of a client. Each
/// write waits for the disk, and there may be hundreds of clients.
const TOTALS_INTERVAL: Duration = Duration::from_secs(4);

/// The knowledge that the clients share.
pub(crate) struct Shared {
    pub(crate) target: Arc<Target>,
    pub(crate) folder: Arc<CampaignFolder>,
    pub(crate) crashes: Arc<Crashes>,
    pub(crate) kernels: Kernels,
    /// The plans that wait for the checkers, where there are some.
    pub(crate) second_kernel: Option<SecondKernelQueue>,
    pub(crate) lifecycle: Arc<Lifecycle>,
    /// Number of times that an explorer has run all the broker had for it, and plans of its own.
    pub(crate) turns: Arc<AtomicU64>,
    /// The plans to begin with.
    pub(crate) plans: Vec<FirstPlan>,
    /// The number of clients that explore.
    pub(crate) explorers: usize,
    pub(crate) seed: u64,
    pub(crate) earlier: Option<CampaignFile>,
    pub(crate) start: Instant,
    pub(crate) reports: Mutex<Reports>,
}

/// The reports of the clients in this start.
#[derive(Debug)]
pub(crate) struct Reports {
    clients: BTreeMap<usize, Statistics>,
    /// The moment when the totals were written.
    totals: Option<Instant>,
    /// The moment when sites and coverage were written.
    findings: Instant,
}

impl Default for Reports {
    fn default() -> Self {
        Self { clients: BTreeMap::new(), totals: None, findings: Instant::now() }
    }
}

/// Gives the time that earlier starts have fuzzed.
pub(crate) fn time_before(earlier: Option<&CampaignFile>) -> Duration {
    Duration::from_secs(earlier.map_or(0, |earlier| earlier.seconds))
}

impl Shared {
    fn reports(&self) -> MutexGuard<'_, Reports> {
        locked(&self.reports)
    }

    /// Gives the plans with which explorer number `client` begins; it gets the others' from them.
    pub(crate) fn first_plans(&self, client: usize) -> Vec<FirstPlan> {
        self.plans.iter().skip(client).step_by(self.explorers.max(1)).cloned().collect()
    }

    /// Counts the executions of earlier starts.
    pub(crate) fn executions_before(&self) -> u64 {
        self.earlier.as_ref().map_or(0, |earlier| earlier.executions)
    }

    /// Takes in that an explorer has run what the broker had for it, and plans of its own.
    pub(crate) fn turn(&self) {
        self.turns.fetch_add(1, Ordering::Relaxed);
    }

    /// Gives the statistics that are known of the campaign as a whole.
    pub(crate) fn statistics(&self) -> Statistics {
        let count = |number: usize| number as u64;
        let mut statistics = Statistics { crashes: count(self.crashes.len()), ..Statistics::default() };
        if let Some(explored) = self.kernels.of(Role::Explorer) {
            statistics.fault_free_coverage = count(explored.covered_fault_free());
            let covered = explored.covered();
            statistics.coverage = count(covered.all);
            [statistics.coverage_workload, statistics.coverage_tasks, statistics.coverage_threads] =
                covered.by_role.map(count);
            let matrix = explored.matrix().counts();
            (statistics.points, statistics.points_failed) = (matrix.points, matrix.points_failed);
            (statistics.cells, statistics.cells_failed) = (matrix.cells, matrix.cells_failed);
            (statistics.cells_unreached, statistics.alone_left) = (matrix.cells_unreached, matrix.alone_left);
        }
        if let Some(judging) = self.kernels.of(Role::Checker) {
            let matrix = judging.matrix().counts();
            (statistics.judged_cells, statistics.judged_failed) = (matrix.cells, matrix.cells_failed);
            statistics.judged_unreached = matrix.cells_unreached;
        }
        if let Some(queue) = &self.second_kernel {
            let counts = queue.counts();
            (statistics.checked, statistics.different) = (counts.checked, counts.different);
            (statistics.unfired, statistics.unchecked) = (counts.unfired, counts.waiting);
        }
        statistics
    }

    /// Takes in what a client has done so far in this start. Writes the totals, and sites and
    /// coverage, each if that was not done just before, or if it must be done `now`.
    ///
    /// # Errors
    ///
    /// The folder cannot be written.
    pub(crate) fn report(&self, client: usize, statistics: Statistics, now: bool) -> Result<(), FolderError> {
        let due = |written: Option<Instant>, interval| now || written.is_none_or(|at| at.elapsed() >= interval);
        // Held while the totals are written: they must not fall.
        let mut reports = self.reports();
        reports.clients.insert(client, statistics);
        if due(reports.totals, TOTALS_INTERVAL) {
            reports.totals = Some(Instant::now());
            self.write_totals(reports.clients.values().map(|client| client.executions).sum())?;
        }
        let findings = due(Some(reports.findings), WRITE_INTERVAL);
        if findings {
            reports.findings = Instant::now();
        }
        drop(reports);
        if findings { self.kernels.write(&self.folder) } else { Ok(()) }
    }

    fn write_totals(&self, executions: u64) -> Result<(), FolderError> {
        self.folder.write_campaign(&CampaignFile {
            version: FOLDER_VERSION,
            target: self.target.name.clone(),
            target_digest: Some(self.target.digest()),
            kernel: self.folder.kernel().to_owned(),
            kernel_build_id: self.kernels.build_id(self.folder.kernel()).unwrap_or_default(),
            fuzz_version: env!("CARGO_PKG_VERSION").to_owned(),
            seed: self.earlier.as_ref().map_or(self.seed, |earlier| earlier.seed),
            executions: self.executions_before() + executions,
            seconds: (time_before(self.earlier.as_ref()) + self.start.elapsed()).as_secs(),
        })
    }

    /// Makes the summary that the user is told at the end.
    ///
    /// # Errors
    ///
    /// A crash in the folder is damaged.
    pub(crate) fn summary(&self) -> Result<Summary, FolderError> {
        let clients: Vec<_> = self.reports().clients.values().copied().collect();
        let corpus = self.folder.plans()? as u64;
        let statistics = Statistics { corpus, ..Statistics::over(&clients, &self.statistics()) };
        let crashes = self.folder.crashes()?;
        let same = crashes.iter().filter(|(meta, _)| meta.same_as.is_some()).count();
        let mut titles: HashMap<String, u32> = HashMap::new();
        crashes.iter().for_each(|(meta, _)| *titles.entry(meta.title.clone()).or_default() += 1);
        let once = crashes.into_iter().filter(|(meta, _)| meta.same_as.is_none());
        // Two crashes can have one title.
        let title = |meta: &CrashMeta| match titles.get(&meta.title) {
            Some(2..) => format!("{} ({})", meta.title, meta.key),
            _ => meta.title.clone(),
        };
        let crashes = once.map(|(meta, _)| (title(&meta), meta.reproduced, meta.tried)).collect();
        Ok(Summary { seconds: self.start.elapsed().as_secs(), statistics, same, crashes })
    }
}
