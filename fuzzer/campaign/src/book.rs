//! Keeps the campaign's books: what its clients know together, and totals, sites and coverage on disk.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use libafl::Error;

use super::{
    CampaignFile, CampaignFolder, CampaignKernel, Counters, Role, Summary,
    catalogue::Catalogue,
    checks::{Check, Checks},
    crashes::Crashes,
    folder::{FOLDER_VERSION, FolderError},
};
use execution::{Execution, Usage};

/// How often sites and coverage are written, besides at the end.
const WRITE_INTERVAL: Duration = Duration::from_secs(30);
/// How often the totals are written, besides at the start and at the end of a client. Each write waits for the disk, and there may be
/// hundreds of clients.
const TOTALS_INTERVAL: Duration = Duration::from_secs(4);

/// The books of one start of a campaign.
pub(super) struct Books {
    pub(super) folder: Arc<CampaignFolder>,
    pub(super) crashes: Crashes,
    pub(super) checks: Checks,
    target: String,
    seed: u64,
    earlier: Option<CampaignFile>,
    start: Instant,
    kernels: Mutex<BTreeMap<String, Arc<KernelBook>>>,
    clients: Mutex<Clients>,
    written: Mutex<Instant>,
}

/// What the clients have done in this start.
#[derive(Debug, Default)]
struct Clients {
    books: BTreeMap<usize, ClientBook>,
    /// When the totals were written.
    written: Option<Instant>,
}

/// What is known of one of the campaign's kernels.
pub(super) struct KernelBook {
    pub(super) kernel: CampaignKernel,
    pub(super) role: Role,
    sites: Mutex<Catalogue>,
    covered: Mutex<Covered>,
}

struct Covered {
    /// One byte for each place that can report coverage.
    history: Vec<u8>,
    /// The places that the fault-free executions covered.
    fault_free: BTreeSet<u32>,
}

/// What one client has done in this start.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct ClientBook {
    pub(super) executions: u64,
    pub(super) corpus: usize,
    pub(super) counters: Counters,
    pub(super) runner: Usage,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl KernelBook {
    /// The injection sites.
    pub(super) fn sites(&self) -> MutexGuard<'_, Catalogue> {
        locked(&self.sites)
    }

    /// Coverage so far, that of earlier starts included: one byte for each place.
    pub(super) fn history(&self) -> Vec<u8> {
        locked(&self.covered).history.clone()
    }

    /// Takes in the coverage of a client.
    pub(super) fn cover(&self, history: &[u8]) {
        for (seen, now) in locked(&self.covered).history.iter_mut().zip(history) {
            *seen |= *now;
        }
    }

    /// Takes in the places that a fault-free execution covered.
    pub(super) fn note_fault_free(&self, places: impl Iterator<Item = u32>) {
        locked(&self.covered).fault_free.extend(places);
    }

    /// Leaves those of `places` that no fault-free execution covered.
    pub(super) fn keep_beyond_fault_free(&self, places: &mut Vec<usize>) {
        let covered = locked(&self.covered);
        places.retain(|place| u32::try_from(*place).is_ok_and(|place| !covered.fault_free.contains(&place)));
    }

    /// How many places were covered.
    pub(super) fn covered(&self) -> usize {
        locked(&self.covered).history.iter().filter(|seen| **seen != 0).count()
    }
}

impl Books {
    /// The books of the campaign on `target` in `folder`, with what `earlier` starts left.
    ///
    /// # Errors
    ///
    /// The folder is damaged.
    pub(super) fn open(
        target: String,
        folder: Arc<CampaignFolder>,
        seed: u64,
        earlier: Option<CampaignFile>,
    ) -> Result<Self, FolderError> {
        let before = Duration::from_secs(earlier.as_ref().map_or(0, |earlier| earlier.seconds));
        Ok(Self {
            crashes: Crashes::restore(Arc::clone(&folder), before)?,
            checks: Checks::default(),
            folder,
            target,
            seed,
            earlier,
            start: Instant::now(),
            kernels: Mutex::default(),
            clients: Mutex::default(),
            written: Mutex::new(Instant::now()),
        })
    }

    /// The book of `kernel`, opened if this is the first client that runs it. The sites that the campaign keeps are
    /// those of the explorers' kernel.
    ///
    /// # Errors
    ///
    /// A file of an earlier start is damaged.
    pub(super) fn kernel(&self, kernel: &CampaignKernel, role: Role) -> Result<Arc<KernelBook>, FolderError> {
        let mut kernels = locked(&self.kernels);
        if let Some(book) = kernels.get(&kernel.build_id) {
            return Ok(Arc::clone(book));
        }
        let mut history = vec![0_u8; kernel.call_sites.len()];
        for pc in self.folder.read_coverage(&kernel.build_id)? {
            if let Some(index) = kernel.call_sites.index_of(pc) {
                history[index as usize] = 1;
            }
        }
        let sites = match role {
            Role::Explorer => Catalogue::remembering(self.folder.read_sites()?),
            Role::Checker => Catalogue::default(),
        };
        let covered = Mutex::new(Covered { history, fault_free: BTreeSet::new() });
        let book = Arc::new(KernelBook { kernel: kernel.clone(), role, sites: Mutex::new(sites), covered });
        kernels.insert(kernel.build_id.clone(), Arc::clone(&book));
        Ok(book)
    }

    /// Takes in what the checkers' kernel made of a plan.
    ///
    /// # Errors
    ///
    /// The folder cannot be written.
    pub(super) fn compare(&self, check: &Check, execution: &Execution) -> Result<(), Error> {
        self.checks.compare(check, execution);
        check.same_crash(execution).map_or(Ok(()), |(explored, judged)| self.crashes.same(explored, judged))
    }

    /// How long this start has been going on.
    pub(super) fn age(&self) -> Duration {
        self.start.elapsed()
    }

    /// Executions of earlier starts.
    pub(super) fn executions_before(&self) -> u64 {
        self.earlier.as_ref().map_or(0, |earlier| earlier.executions)
    }

    /// Takes in what a client has done so far in this start, and writes the totals if that was not done just before, or if it must
    /// be done `now`.
    ///
    /// # Errors
    ///
    /// The folder cannot be written.
    pub(super) fn note(&self, client: usize, book: ClientBook, now: bool) -> Result<(), FolderError> {
        // Held while the totals are written: they must not fall.
        let mut clients = locked(&self.clients);
        clients.books.insert(client, book);
        if !now && clients.written.is_some_and(|written| written.elapsed() < TOTALS_INTERVAL) {
            return Ok(());
        }
        clients.written = Some(Instant::now());
        let executions = clients.books.values().map(|client| client.executions).sum::<u64>();
        let kernel_build_id = {
            let kernels = locked(&self.kernels);
            let ran = |name: &str| kernels.values().find(|book| book.kernel.name == name);
            let book = ran(self.folder.kernel()).or_else(|| kernels.values().next());
            book.map_or_else(String::new, |book| book.kernel.build_id.clone())
        };
        self.folder.write_campaign(&CampaignFile {
            version: FOLDER_VERSION,
            target: self.target.clone(),
            kernel: self.folder.kernel().to_owned(),
            kernel_build_id,
            fuzz_version: env!("CARGO_PKG_VERSION").to_owned(),
            seed: self.earlier.as_ref().map_or(self.seed, |earlier| earlier.seed),
            executions: self.executions_before() + executions,
            seconds: self.earlier.as_ref().map_or(0, |earlier| earlier.seconds) + self.start.elapsed().as_secs(),
        })
    }

    /// Whether sites and coverage are due to be written. The one who is told so writes them.
    pub(super) fn is_due(&self) -> bool {
        let mut written = locked(&self.written);
        let due = written.elapsed() >= WRITE_INTERVAL;
        if due {
            *written = Instant::now();
        }
        due
    }

    /// Writes sites and coverage.
    ///
    /// # Errors
    ///
    /// The folder cannot be written.
    pub(super) fn write_findings(&self) -> Result<(), FolderError> {
        let kernels = locked(&self.kernels);
        for book in kernels.values() {
            if book.role == Role::Explorer {
                self.folder.write_sites(book.sites())?;
            }
            let history = book.history();
            let covered = book.kernel.call_sites.iter().zip(&history).filter(|(_, seen)| **seen != 0);
            self.folder.write_coverage(&book.kernel.build_id, covered.map(|(pc, _)| pc))?;
        }
        Ok(())
    }

    /// What to tell the user at the end.
    ///
    /// # Errors
    ///
    /// A crash in the folder is damaged.
    pub(super) fn summary(&self) -> Result<Summary, FolderError> {
        let clients = locked(&self.clients);
        let kernels = locked(&self.kernels);
        let explored = kernels.values().find(|book| book.role == Role::Explorer);
        let checks = self.checks.counts();
        let mut summary = Summary {
            seconds: self.start.elapsed().as_secs(),
            corpus: self.folder.plans()?,
            fault_free_coverage: explored.map_or(0, |book| locked(&book.covered).fault_free.len()),
            coverage: explored.map_or(0, |book| book.covered()),
            sites: explored.map_or(0, |book| book.sites().len()),
            sites_failed: explored.map_or(0, |book| book.sites().failed()),
            checked: checks.checked,
            different: checks.different,
            unchecked: checks.waiting,
            ..Summary::default()
        };
        for client in clients.books.values() {
            summary.executions += client.executions;
            summary.counters += client.counters;
            summary.guests += client.runner.guests;
            summary.harness_errors += client.runner.harness_errors;
            summary.leftovers += client.runner.leftovers;
            summary.controls += client.runner.controls;
            summary.drifted += client.runner.drifted;
            summary.longest_life = summary.longest_life.max(client.runner.longest_life);
        }
        let crashes = self.folder.crashes()?;
        summary.same = crashes.iter().filter(|(meta, _)| meta.same_as.is_some()).count();
        let once = crashes.into_iter().filter(|(meta, _)| meta.same_as.is_none());
        summary.crashes = once.map(|(meta, _)| (meta.title, meta.reproduced, meta.tried)).collect();
        Ok(summary)
    }
}
