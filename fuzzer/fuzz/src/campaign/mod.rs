//! A campaign: LibAFL's loop over fault plans.
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
mod catalogue;
mod crash;
mod executor;
mod feedback;
mod folder;
mod input;
mod monitor;
mod mutators;
mod observers;
mod stages;

use std::{
    collections::{BTreeSet, HashSet},
    fs,
    io::{self, Write},
    num::NonZeroUsize,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use fault_plan::{FaultPlan, PlanError};
use kcov_parser::CallSites;
use libafl::{
    Error,
    corpus::{InMemoryCorpus, InMemoryOnDiskCorpus, Testcase},
    events::SimpleEventManager,
    executors::HasObservers,
    feedback_or,
    feedbacks::{Feedback, MaxMapFeedback, TimeFeedback},
    fuzzer::{BloomInputFilter, Evaluator, ExecutesInput, Fuzzer, HasFeedback, StdFuzzerBuilder},
    inputs::Input,
    mutators::{HavocScheduledMutator, SingleChoiceScheduledMutator},
    observers::{CanTrack, OwnedMapObserver, TimeObserver},
    schedulers::{IndexesLenTimeMinimizerScheduler, QueueScheduler},
    stages::StdMutationalStage,
    state::StdState,
};
use libafl_bolts::{rands::StdRand, tuples::tuple_list};
use thiserror::Error as ThisError;

use self::{
    book::Book,
    executor::{Observers, PlanExecutor},
    feedback::{NewCrashFeedback, NewSiteFeedback},
    folder::failed,
    monitor::CampaignMonitor,
    mutators::plan_mutations,
    observers::{COVERAGE, ExecutionObserver},
    stages::{FirstFailureStage, TriageStage},
};
pub use self::{
    catalogue::{Catalogue, Site},
    crash::{CrashFault, CrashMeta},
    executor::Counters,
    folder::{CampaignFile, CampaignFolder, FolderError},
    input::PlanInput,
    monitor::StatsLine,
};
use crate::{execution::Runner, guest::Stop, target::Target};

/// Fault-free executions at the start: what differs between them is noise, and must not look like news later.
const FAULT_FREE_RUNS: usize = 8;
/// The most plans with one change that are made of a corpus entry before the next entry has its turn.
const MUTATIONS: NonZeroUsize = NonZeroUsize::new(16).expect("it is not 0");
/// The most plans with several changes.
const STACKED_MUTATIONS: NonZeroUsize = NonZeroUsize::new(8).expect("it is not 0");
/// Such a plan has 2 to 2^this changes.
const STACK_POWER: usize = 2;
/// Room in the filter that keeps a plan from running twice, and its rate of false alarms.
const FILTER: (usize, f64) = (4_000_000, 1e-4);

/// What a campaign needs to know.
pub struct CampaignOptions {
    /// What is fuzzed.
    pub target: Arc<Target>,
    /// Its folder, opened and locked.
    pub folder: Arc<CampaignFolder>,
    /// What an earlier start left.
    pub earlier: Option<CampaignFile>,
    /// Where the kernel can report coverage.
    pub call_sites: Arc<CallSites>,
    /// Ends the campaign when set.
    pub stop: Stop,
    /// How long to fuzz; without it until stopped.
    pub time: Option<Duration>,
    /// Seed of the random generator.
    pub seed: u64,
    /// Where progress lines go.
    pub progress: Box<dyn Write>,
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
    /// All crashes: title, how often the reproducer made it again, of how many tries.
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
    /// The search cannot go on.
    #[error("the campaign stopped")]
    Search(#[source] Error),
}

type State = StdState<InMemoryOnDiskCorpus<PlanInput>, PlanInput, StdRand, InMemoryCorpus<PlanInput>>;
type Manager = SimpleEventManager<PlanInput, CampaignMonitor, State>;

/// Runs a campaign until its time is up, it is stopped, or something breaks.
///
/// # Errors
///
/// See [`CampaignError`]. Everything reported until then is on disk.
pub fn run<R: Runner>(options: CampaignOptions, runner: R) -> Result<Summary, CampaignError> {
    let CampaignOptions { target, folder, earlier, call_sites, stop, time, seed, progress } = options;
    let coverage = OwnedMapObserver::new(COVERAGE, vec![0_u8; call_sites.len()]).track_indices();
    let time_observer = TimeObserver::new("time");
    let mut feedback = feedback_or!(MaxMapFeedback::new(&coverage), NewSiteFeedback, TimeFeedback::new(&time_observer));
    let mut objective = NewCrashFeedback::new(Arc::clone(&folder));
    let corpus = InMemoryOnDiskCorpus::with_meta_format_and_prefix(folder.corpus(), None, None, false)
        .map_err(CampaignError::Search)?;
    let rand = StdRand::with_seed(seed);
    let mut state = StdState::new(rand, corpus, InMemoryCorpus::new(), &mut feedback, &mut objective)
        .map_err(CampaignError::Search)?;
    let plans = plan_files(&target, &folder)?;
    let before = earlier.as_ref().map_or(0, |earlier| earlier.executions);
    let mut book = Book::new(target.name.clone(), Arc::clone(&folder), Arc::clone(&call_sites), seed, earlier);
    book.restore(&mut state)?;
    let monitor = CampaignMonitor::new(&folder.path().join("stats.jsonl"), progress, before)
        .map_err(CampaignError::Statistics)?;
    let mut manager: Manager = SimpleEventManager::new(monitor);
    let mut fuzzer = StdFuzzerBuilder::new()
        .input_filter(BloomInputFilter::new(FILTER.0, FILTER.1))
        .scheduler(IndexesLenTimeMinimizerScheduler::new(&coverage, QueueScheduler::new()))
        .feedback(feedback)
        .objective(objective)
        .build();
    let observers = tuple_list!(coverage, ExecutionObserver::default(), time_observer);
    let deadline = time.map(|time| Instant::now() + time);
    let crashes = NewCrashFeedback::new(Arc::clone(&folder));
    let mut executor = PlanExecutor::new(runner, observers, call_sites, crashes.clone(), &target, (stop, deadline));
    let triage = TriageStage::new(Arc::clone(&folder), crashes.clone());
    let one = SingleChoiceScheduledMutator::new(plan_mutations(&target));
    let stacked = HavocScheduledMutator::with_max_stack_pow(plan_mutations(&target), STACK_POWER);
    let mut stages = tuple_list!(
        triage.clone(),
        FirstFailureStage::new(Arc::clone(&target)),
        StdMutationalStage::with_max_iterations(one, MUTATIONS),
        StdMutationalStage::with_max_iterations(stacked, STACKED_MUTATIONS)
    );

    let mut search = || -> Result<(), Error> {
        let fault_free = PlanInput(target.fault_free());
        let covered = absorb_noise(&mut fuzzer, &mut executor, &mut state, &mut manager, &fault_free, &crashes)?;
        book.note_fault_free(covered);
        book.keep(&mut state, &mut manager, executor.runner().counters(), true)?;
        state.load_initial_inputs_by_filenames_forced(&mut fuzzer, &mut executor, &mut manager, &plans)?;
        if !plans.iter().any(|path| path.ends_with(fault_free.generate_name(None))) {
            fuzzer.add_input(&mut state, &mut executor, &mut manager, fault_free)?;
        }
        loop {
            book.keep(&mut state, &mut manager, executor.runner().counters(), false)?;
            fuzzer.fuzz_one(&mut stages, &mut executor, &mut state, &mut manager)?;
            // When every plan that the mutations make has run already, nothing reaches the executor.
            if executor.must_stop() {
                return Err(Error::shutting_down());
            }
        }
    };
    let ended = match search() {
        Err(Error::ShuttingDown) if !executor.interrupted() => triage.triage(executor.runner(), &mut state),
        other => other,
    };
    let counters = executor.runner().counters();
    book.keep(&mut state, &mut manager, counters, true).map_err(CampaignError::Search)?;
    match ended {
        Ok(()) | Err(Error::ShuttingDown) => book.summary(&state, counters),
        Err(error) => Err(CampaignError::Search(error)),
    }
}

/// Runs the fault-free plan a few times and takes all it covers for known. Returns how many places that are.
fn absorb_noise<R, Z>(
    fuzzer: &mut Z,
    executor: &mut PlanExecutor<R>,
    state: &mut State,
    manager: &mut Manager,
    plan: &PlanInput,
    crashes: &NewCrashFeedback,
) -> Result<usize, Error>
where
    R: Runner,
    Z: ExecutesInput<PlanExecutor<R>, Manager, PlanInput, State> + HasFeedback,
    Z::Feedback: Feedback<Manager, PlanInput, Observers, State>,
{
    let mut covered = BTreeSet::new();
    for _ in 0..FAULT_FREE_RUNS {
        let exit_kind = fuzzer.execute_input(state, executor, manager, plan)?;
        let observers = executor.observers();
        let feedback = fuzzer.feedback_mut();
        feedback.is_interesting(state, manager, plan, &*observers, &exit_kind)?;
        feedback.append_metadata(state, manager, &*observers, &mut Testcase::from(plan.clone()))?;
        if let Some(execution) = observers.1.0.execution() {
            covered.extend(execution.coverage.iter().filter_map(|pc| executor.call_sites().index_of(*pc)));
            if crashes.note(state, plan, execution)? {
                tracing::warn!("the kernel reports something although no fault is injected");
            }
        }
    }
    Ok(covered.len())
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
                (Err(error), true) => tracing::warn!("left out: {}", crate::chain(&error)),
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
