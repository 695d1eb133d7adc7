//! A campaign: LibAFL's loop over fault plans.
//!
//! Its clients are threads, each with a guest of its own; LibAFL's broker passes on what they find. Explorers search.
//! Checkers run, on a kernel that sees more, what the explorers came across.
//!
//! ```text
//! seeds, corpus ─▶ scheduler ─▶ stages: triage, first failures, mutations
//!                                  │ plan
//!                                  ▼
//!                              PlanExecutor ─▶ Runner (guests)
//!                                  │ execution
//!                                  ▼
//!                observers ─▶ feedback (coverage, new sites) ─▶ corpus
//!                         └─▶ objective (new crash title)    ─▶ crashes
//! ```

mod book;
mod broker;
mod catalogue;
mod checks;
mod crash;
mod crashes;
mod executor;
mod feedback;
mod folder;
mod input;
mod monitor;
mod mutators;
mod observers;
mod peers;
mod shared_memory;
mod stages;
mod worker;

use std::{
    collections::HashSet,
    error, fs,
    io::{self, Write},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use fault_plan::{FaultPlan, PlanError};
use kcov_parser::CallSites;
use libafl::{Error, inputs::Input};
use thiserror::Error as ThisError;

use self::{
    book::Books,
    broker::{Broker, Ends},
    folder::failed,
    monitor::CampaignMonitor,
    peers::Hub,
    worker::{Common, work},
};
pub use self::{
    catalogue::{Catalogue, Site},
    crash::{CrashFault, CrashMeta},
    executor::Counters,
    folder::{CampaignFile, CampaignFolder, FolderError},
    input::PlanInput,
    monitor::StatsLine,
    peers::{PeerOptions, join_address, listen_address},
};
use execution::{Runner, Stop, Target};

/// What a campaign needs to know.
pub struct CampaignOptions {
    /// What is fuzzed.
    pub target: Arc<Target>,
    /// Its folder, opened and locked.
    pub folder: Arc<CampaignFolder>,
    /// What an earlier start left.
    pub earlier: Option<CampaignFile>,
    /// Ends the campaign when set; the campaign sets it itself when a worker gets ready for so long that the others
    /// have ended.
    pub stop: Stop,
    /// How long to fuzz; without it until stopped.
    pub time: Option<Duration>,
    /// Seed of the random generators.
    pub seed: u64,
    /// Where progress lines go.
    pub progress: Box<dyn Write + Send>,
    /// Other hosts.
    pub peers: PeerOptions,
}

/// What a worker does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It searches.
    Explorer,
    /// It runs on another kernel what the explorers came across, and searches when that is nothing.
    Checker,
}

/// A client of a campaign.
pub struct Worker<'a, R> {
    /// What it does.
    pub role: Role,
    /// Gets it ready; called in the worker's thread.
    pub equip: Equip<'a, R>,
}

/// Gets a worker ready, which may take as long as building a kernel does.
pub type Equip<'a, R> = Box<dyn FnOnce() -> Result<Equipment<R>, EquipError> + Send + 'a>;
/// Why a worker does not get ready.
pub type EquipError = Box<dyn error::Error + Send + Sync>;

/// What a worker works with.
pub struct Equipment<R> {
    /// What its guests run.
    pub kernel: CampaignKernel,
    /// Its guests.
    pub runner: R,
}

/// A kernel that plans run on.
#[derive(Clone, Debug)]
pub struct CampaignKernel {
    /// Its name.
    pub name: String,
    /// Its build id.
    pub build_id: String,
    /// Where it can report coverage.
    pub call_sites: Arc<CallSites>,
}

/// How a start of a campaign ended.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Summary {
    /// Executions.
    pub executions: u64,
    /// Seconds of fuzzing.
    pub seconds: u64,
    /// Corpus entries.
    pub corpus: usize,
    /// Places in the kernel that the fault-free executions covered.
    pub fault_free_coverage: usize,
    /// Places covered in all, earlier starts included.
    pub coverage: usize,
    /// Injection sites discovered.
    pub sites: usize,
    /// Those at which a fault fired.
    pub sites_failed: usize,
    /// Counts of executions by what happened in them.
    pub counters: Counters,
    /// Guests started.
    pub guests: u64,
    /// Executions lost to trouble of guest or host, and tried again.
    pub harness_errors: u64,
    /// Guests replaced because something was left in use.
    pub leftovers: u64,
    /// Fault-free executions that were compared with the first ones.
    pub controls: u64,
    /// Guests replaced because such an execution was another one than at first.
    pub drifted: u64,
    /// The most executions of one guest.
    pub longest_life: u64,
    /// Plans that ran on the checkers' kernel after the explorers'.
    pub checked: u64,
    /// Of those, plans that did something else there.
    pub different: u64,
    /// Plans that still wait for that.
    pub unchecked: u64,
    /// Crashes that have another title on the kernel that judges, and are among the others by that.
    pub same: usize,
    /// The others: title, how often the reproducer made it again, of how many tries.
    pub crashes: Vec<(String, u32, u32)>,
}

/// Why a campaign ended before its time.
#[derive(Debug, ThisError)]
pub enum CampaignError {
    /// Its folder.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// Statistics cannot be written.
    #[error("cannot write statistics")]
    Statistics(#[source] io::Error),
    /// A worker does not get ready.
    #[error("a worker does not get ready")]
    Equip(#[source] EquipError),
    /// A thread cannot be started.
    #[error("no thread for a worker")]
    Thread(#[source] io::Error),
    /// A worker's code is wrong.
    #[error("a worker panicked: this is a defect of fuzz")]
    Panic,
    /// The search cannot go on.
    #[error("the campaign stopped")]
    Search(#[source] Error),
}

/// Runs a campaign until its time is up, it is stopped, or something breaks. The first of the `workers` explores.
///
/// # Errors
///
/// See [`CampaignError`]. Everything reported until then is on disk.
pub fn run<R: Runner>(options: CampaignOptions, workers: Vec<Worker<'_, R>>) -> Result<Summary, CampaignError> {
    let CampaignOptions { target, folder, earlier, stop, time, seed, progress, peers } = options;
    let plans = plan_files(&target, &folder)?;
    let statistics = folder.path().join("stats.jsonl");
    let books = Arc::new(Books::open(target.name.clone(), folder, seed, earlier)?);
    let hub = peers.is_some().then(|| Hub::open(Arc::clone(&target), Arc::clone(&books), &plans)).transpose()?;
    let monitor = CampaignMonitor::new(&statistics, progress, books.executions_before(), hub.clone());
    let mut broker = Broker::new(monitor.map_err(CampaignError::Statistics)?).map_err(CampaignError::Search)?;
    // No client may come before this one.
    let attached = hub.as_ref().map(|_| peers::attach(broker.port())).transpose().map_err(CampaignError::Search)?;
    let count = |role| workers.iter().filter(|worker| worker.role == role).count();
    let common = Common {
        target,
        books: Arc::clone(&books),
        stop,
        // A time that no clock shows never comes.
        deadline: time.and_then(|time| Instant::now().checked_add(time)),
        seed,
        plans,
        checking: count(Role::Checker) > 0,
        explorers: count(Role::Explorer),
        port: broker.port(),
        ends: Ends::default(),
        failed: AtomicBool::new(false),
        hub,
    };
    let results = thread::scope(|scope| {
        let hub = common.hub.as_ref();
        let close = || hub.map_or(Ok(()), |hub| hub.close()).map_err(CampaignError::Search);
        let started = hub.zip(attached).map(|(hub, to)| peers::start(hub, scope, to, common.explorers, peers));
        if let Some(Err(error)) = started {
            return vec![Err(CampaignError::Search(error)), close()];
        }
        let (mut threads, mut all) = (Vec::new(), Ok(()));
        for (number, worker) in workers.into_iter().enumerate() {
            let common = &common;
            match thread::Builder::new().spawn_scoped(scope, move || work(number, worker, common)) {
                Ok(thread) => threads.push(thread),
                Err(source) => {
                    // Those that are there have to be ended.
                    common.failed.store(true, Ordering::Relaxed);
                    all = Err(CampaignError::Thread(source));
                    break;
                }
            }
        }
        let brokered = broker.run(threads.len(), &common).map_err(CampaignError::Search);
        let closed = close();
        let ends = threads.into_iter().map(|thread| thread.join().unwrap_or(Err(CampaignError::Panic)));
        [all].into_iter().chain(ends).chain([brokered, closed]).collect::<Vec<_>>()
    });
    results.into_iter().collect::<Result<(), _>>()?;
    Ok(books.summary()?)
}

/// The plans to begin with: those of the campaign's corpus, and the target's seeds that are not among them.
fn plan_files(target: &Target, folder: &CampaignFolder) -> Result<Vec<PathBuf>, CampaignError> {
    let mut files = Vec::new();
    let mut names = HashSet::new();
    for (directory, ours) in [(folder.corpus(), true), (target.seeds(), false)] {
        if !directory.is_dir() {
            continue;
        }
        for entry in fs::read_dir(&directory).map_err(failed("read", &directory))? {
            let path = entry.map_err(failed("read", &directory))?.path();
            if path.extension().is_none_or(|extension| extension != "json") {
                continue;
            }
            match (read_plan(&path, target), ours) {
                (Ok(plan), _) if names.insert(plan.generate_name(None)) => files.push(path),
                (Ok(_), _) => {}
                // The target may have changed since the campaign kept it.
                (Err(error), true) => tracing::warn!("left out: {}", execution::chain(&error)),
                (Err(error), false) => return Err(error.into()),
            }
        }
    }
    files.sort();
    Ok(files)
}

/// The plan in the file `path`, which must be one for `target`.
fn read_plan(path: &Path, target: &Target) -> Result<PlanInput, FolderError> {
    let text = fs::read_to_string(path).map_err(failed("read", path))?;
    let refused = |source| FolderError::Plan { path: path.to_owned(), source };
    let plan = FaultPlan::from_json(&text).map_err(refused)?;
    if plan.target != target.name {
        let (path, found, wanted) = (path.to_owned(), plan.target, target.name.clone());
        return Err(FolderError::OtherTarget { path, found, wanted });
    }
    if let Some(at) = plan.faults.iter().position(|fault| target.errors(&fault.function).is_empty()) {
        let reason = format!("{} is none of the target's functions", plan.faults[at].function);
        return Err(refused(PlanError::Fault { index: at + 1, reason }));
    }
    Ok(PlanInput(plan))
}

#[cfg(test)]
mod tests;
