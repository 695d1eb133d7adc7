//! One client of a campaign: a guest at a time, and LibAFL's loop around it.

use std::{
    borrow::Cow,
    marker::PhantomData,
    num::NonZeroUsize,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use libafl::{
    Error, HasMetadata, HasNamedMetadata,
    corpus::{Corpus, InMemoryCorpus, InMemoryOnDiskCorpus, Testcase},
    events::{Event, EventFirer, EventWithStats, ProgressReporter, SendExiting},
    executors::HasObservers,
    feedback_or,
    feedbacks::{Feedback, MapFeedbackMetadata, MaxMapFeedback, StateInitializer, TimeFeedback},
    fuzzer::{BloomInputFilter, Evaluator, ExecutesInput, Fuzzer, HasFeedback, StdFuzzerBuilder},
    inputs::Input,
    monitors::stats::{AggregatorOps, UserStats, UserStatsValue},
    mutators::{HavocScheduledMutator, SingleChoiceScheduledMutator},
    observers::{CanTrack, OwnedMapObserver, TimeObserver},
    schedulers::{IndexesLenTimeMinimizerScheduler, QueueScheduler},
    stages::StdMutationalStage,
    state::{HasCorpus, HasExecutions, StdState},
};
use libafl_bolts::{rands::StdRand, tuples::tuple_list};

use super::{
    CampaignError, Counters, Equipment, Role, Worker,
    book::{Books, ClientBook, KernelBook},
    broker::{Ends, Imports, Manager, connect},
    executor::{Observers, PlanExecutor},
    feedback::{FavouredForFeedback, NewCrashFeedback, NewSiteFeedback, WrittenFeedback},
    input::PlanInput,
    monitor::INTERVAL,
    mutators::{Sparing, plan_mutations},
    observers::{COVERAGE, ExecutionObserver},
    peers::Hub,
    stages::{FirstFailureStage, TriageStage},
};
use execution::{Runner, Stop, Target, Usage};

/// Fault-free executions at the start: what differs between them is noise, and must not look like news later.
const FAULT_FREE_RUNS: usize = 8;
/// The most plans with one change that are made of a corpus entry before the next entry has its turn.
const MUTATIONS: NonZeroUsize = NonZeroUsize::new(16).expect("it is not 0");
/// The most plans with several changes.
const STACKED_MUTATIONS: NonZeroUsize = NonZeroUsize::new(8).expect("it is not 0");
/// Such a plan has 2 to 2^this changes.
const STACK_POWER: usize = 2;
/// The most plans that a checker makes by itself before it looks again whether there is something to check.
const IDLE_MUTATIONS: NonZeroUsize = NonZeroUsize::new(4).expect("it is not 0");
/// When a checker runs a crash's plan, and tries its reproducer, while there are other plans to check: what is next to the crash is found
/// before it is known how well this one comes again.
const LATER: Duration = Duration::from_secs(5);
/// Room in the filter that keeps a plan from running twice, and its rate of false alarms: 3.6 MB, and a plan in a thousand is left out when
/// a guest has run twenty in each second of a day.
const FILTER: (usize, f64) = (2_000_000, 1e-3);

type State = StdState<InMemoryOnDiskCorpus<PlanInput>, PlanInput, StdRand, InMemoryCorpus<PlanInput>>;

/// What all clients of a campaign have in common.
pub(super) struct Common {
    pub(super) target: Arc<Target>,
    pub(super) books: Arc<Books>,
    pub(super) stop: Stop,
    pub(super) deadline: Option<Instant>,
    pub(super) seed: u64,
    /// The plans to begin with.
    pub(super) plans: Vec<PathBuf>,
    /// Whether plans wait for checkers.
    pub(super) checking: bool,
    /// Clients that explore.
    pub(super) explorers: usize,
    /// Port of the broker.
    pub(super) port: u16,
    pub(super) ends: Ends,
    /// Set when a client has failed: the others end as well.
    pub(super) failed: AtomicBool,
    /// What connects the campaign to other hosts, if anything does.
    pub(super) hub: Option<Arc<Hub>>,
}

impl Common {
    /// Whether the campaign is to end.
    pub(super) fn must_stop(&self) -> bool {
        self.interrupted() || self.deadline.is_some_and(|deadline| Instant::now() >= deadline)
    }

    /// The plans with which explorer number `client` begins; it gets the others' from them.
    fn share(&self, client: usize) -> Vec<PathBuf> {
        self.plans.iter().skip(client).step_by(self.explorers.max(1)).cloned().collect()
    }

    fn begins_with(&self, plan: &PlanInput) -> bool {
        let name = plan.generate_name(None);
        self.plans.iter().any(|path| path.ends_with(&name))
    }

    /// Whether there is no time for anything more.
    pub(super) fn interrupted(&self) -> bool {
        self.stop.is_requested()
            || self.failed.load(Ordering::Relaxed)
            || self.hub.as_ref().is_some_and(|hub| hub.has_failed())
    }
}

/// Runs client number `client`, from 0, until the campaign ends.
///
/// # Errors
///
/// See [`CampaignError`].
pub(super) fn work<R: Runner>(client: usize, worker: Worker<'_, R>, common: &Common) -> Result<(), CampaignError> {
    let end = common.ends.client();
    let _panic = OnPanic(&common.failed);
    let equipment = (worker.equip)();
    common.ends.ready();
    let result = equipment.map_err(CampaignError::Equip).and_then(|equipment| {
        let mut manager =
            connect(common.port, Imports(worker.role == Role::Explorer)).map_err(CampaignError::Search)?;
        let result = search(client, worker.role, equipment, common, &mut manager);
        manager.send_exiting().map_err(CampaignError::Search)?;
        Ok((result, manager))
    });
    match result {
        Ok((result, manager)) => {
            if result.is_err() {
                common.failed.store(true, Ordering::Relaxed);
            }
            end.wait();
            drop(manager);
            result
        }
        // Whoever is told to stop while getting ready has not failed.
        Err(_) if common.stop.is_requested() => Ok(()),
        Err(error) => {
            common.failed.store(true, Ordering::Relaxed);
            Err(error)
        }
    }
}

/// Sets what it holds when its thread panics: the others would go on without it.
struct OnPanic<'a>(&'a AtomicBool);

impl Drop for OnPanic<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.store(true, Ordering::Relaxed);
        }
    }
}

fn search<R: Runner>(
    client: usize,
    role: Role,
    equipment: Equipment<R>,
    common: &Common,
    manager: &mut Manager<State>,
) -> Result<(), CampaignError> {
    let Common { target, books, .. } = common;
    let book = books.kernel(&equipment.kernel, role)?;
    let checks = (common.checking && role == Role::Explorer).then_some(books);
    let coverage = OwnedMapObserver::new(COVERAGE, vec![0_u8; book.kernel.call_sites.len()]).track_indices();
    let time_observer = TimeObserver::new("time");
    let mut feedback = feedback_or!(
        MaxMapFeedback::new(&coverage),
        FavouredForFeedback::new(Arc::clone(&book)),
        NewSiteFeedback::new(Arc::clone(&book), checks.cloned()),
        TimeFeedback::new(&time_observer),
        WrittenFeedback::new(books.folder.corpus())
    );
    let mut objective = NewCrashFeedback::new(Arc::clone(books), Arc::clone(&book));
    let before = if client == 0 { books.executions_before() } else { 0 };
    let mut state = new_state(common.seed.wrapping_add(client as u64), books, &book, &mut feedback, &mut objective)
        .map_err(CampaignError::Search)?;
    *state.executions_mut() = before;
    let mut fuzzer = StdFuzzerBuilder::new()
        .input_filter(BloomInputFilter::new(FILTER.0, FILTER.1))
        .scheduler(IndexesLenTimeMinimizerScheduler::new(&coverage, QueueScheduler::new()))
        .feedback(feedback)
        .objective(objective.clone())
        .build();
    let observers = tuple_list!(coverage, ExecutionObserver::default(), time_observer);
    let mut executor =
        PlanExecutor::new(equipment.runner, observers, Arc::clone(&book), objective.clone(), common, checks.cloned());
    let triage = TriageStage::new(objective.clone());
    let mutations = |most| {
        let mutator = Sparing::new(SingleChoiceScheduledMutator::new(plan_mutations(target, &book)), &book);
        StdMutationalStage::with_max_iterations(mutator, most)
    };
    let stacked = HavocScheduledMutator::with_max_stack_pow(plan_mutations(target, &book), STACK_POWER);
    let stacked = Sparing::new(stacked, &book);
    let mut exploring = tuple_list!(
        triage.clone(),
        FirstFailureStage::new(Arc::clone(target), Arc::clone(&book)),
        mutations(MUTATIONS),
        StdMutationalStage::with_max_iterations(stacked, STACKED_MUTATIONS)
    );
    let mut idle = tuple_list!(triage.clone(), mutations(IDLE_MUTATIONS));
    let mut desk = Desk { client, before, reported: None, told: Vec::new(), books, book: &book };

    let mut run = || -> Result<(), Error> {
        let fault_free = PlanInput(target.fault_free());
        absorb_noise(&mut fuzzer, &mut executor, &mut state, manager, &fault_free, &objective)?;
        desk.keep(&mut state, manager, executor.runner().usage(), When::Now)?;
        let plans = if role == Role::Explorer { common.share(client) } else { Vec::new() };
        state.load_initial_inputs_by_filenames_forced(&mut fuzzer, &mut executor, manager, &plans)?;
        if state.corpus().count() == 0 || (client == 0 && !common.begins_with(&fault_free)) {
            fuzzer.add_input(&mut state, &mut executor, manager, fault_free)?;
        }
        loop {
            desk.keep(&mut state, manager, executor.runner().usage(), When::Due)?;
            if role == Role::Explorer {
                fuzzer.fuzz_one(&mut exploring, &mut executor, &mut state, manager)?;
                common.hub.iter().for_each(|hub| hub.turn());
            } else if let Some(check) = books.checks.take(LATER) {
                fuzzer.evaluate_input(&mut state, &mut executor, manager, &check.plan)?;
                if let Some(execution) = executor.observers().1.0.execution() {
                    books.compare(&check, execution)?;
                }
                triage.triage(executor.runner(), LATER)?;
                triage.triage_exactly(executor.runner())?;
            } else {
                fuzzer.fuzz_one(&mut idle, &mut executor, &mut state, manager)?;
            }
            // When every plan that the mutations make has run already, nothing reaches the executor.
            if common.must_stop() {
                return Err(Error::shutting_down());
            }
        }
    };
    let ended = match run() {
        Err(Error::ShuttingDown) if !common.interrupted() => triage.triage(executor.runner(), Duration::ZERO),
        other => other,
    };
    desk.keep(&mut state, manager, executor.runner().usage(), When::End).map_err(CampaignError::Search)?;
    match ended {
        Ok(()) | Err(Error::ShuttingDown) => Ok(()),
        Err(error) => Err(CampaignError::Search(error)),
    }
}

/// A state that knows what was covered before.
fn new_state<F: StateInitializer<State>, O: StateInitializer<State>>(
    seed: u64,
    books: &Books,
    book: &KernelBook,
    feedback: &mut F,
    objective: &mut O,
) -> Result<State, Error> {
    let corpus = InMemoryOnDiskCorpus::with_meta_format_and_prefix(books.folder.corpus(), None, None, false)?;
    let mut state = StdState::new(StdRand::with_seed(seed), corpus, InMemoryCorpus::new(), feedback, objective)?;
    state.add_named_metadata(COVERAGE, MapFeedbackMetadata::with_history_map(book.history(), 0));
    Ok(state)
}

/// Runs the fault-free plan a few times and takes all it covers for known.
fn absorb_noise<R, Z>(
    fuzzer: &mut Z,
    executor: &mut PlanExecutor<'_, R>,
    state: &mut State,
    manager: &mut Manager<State>,
    plan: &PlanInput,
    crashes: &NewCrashFeedback,
) -> Result<(), Error>
where
    R: Runner,
    Z: for<'a> ExecutesInput<PlanExecutor<'a, R>, Manager<State>, PlanInput, State> + HasFeedback,
    Z::Feedback: Feedback<Manager<State>, PlanInput, Observers, State>,
{
    for _ in 0..FAULT_FREE_RUNS {
        let exit_kind = fuzzer.execute_input(state, executor, manager, plan)?;
        let observers = executor.observers();
        let feedback = fuzzer.feedback_mut();
        feedback.is_interesting(state, manager, plan, &*observers, &exit_kind)?;
        feedback.append_metadata(state, manager, &*observers, &mut Testcase::from(plan.clone()))?;
        if let Some(execution) = observers.1.0.execution() {
            let book = executor.book();
            let places = execution.coverage.iter().filter_map(|pc| book.kernel.call_sites.index_of(*pc));
            book.note_fault_free(places);
            if crashes.note(plan, execution)? {
                tracing::warn!("the kernel reports something although no fault is injected");
            }
        }
    }
    Ok(())
}

/// When a client reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum When {
    /// When it has not done so for a while.
    Due,
    /// At once.
    Now,
    /// At once, for the last time.
    End,
}

/// Where one client reports to the books and to the monitor.
struct Desk<'a> {
    client: usize,
    /// Executions that the client's state begins with.
    before: u64,
    reported: Option<Instant>,
    /// What the monitor knows.
    told: Vec<(&'static str, u64)>,
    books: &'a Books,
    book: &'a KernelBook,
}

impl Desk<'_> {
    /// Reports.
    fn keep(
        &mut self,
        state: &mut State,
        manager: &mut Manager<State>,
        runner: Usage,
        when: When,
    ) -> Result<(), Error> {
        if when == When::Due && self.reported.is_some_and(|last| last.elapsed() < INTERVAL) {
            return Ok(());
        }
        self.reported = Some(Instant::now());
        let history = state.named_metadata_map().get::<MapFeedbackMetadata<u8>>(COVERAGE);
        if let Some(history) = history {
            self.book.cover(&history.history_map);
        }
        let client = ClientBook {
            executions: state.executions() - self.before,
            corpus: state.corpus().count(),
            counters: state.metadata_map().get::<Counters>().copied().unwrap_or_default(),
            runner,
        };
        let disk = |error| Error::unknown(execution::chain(&error));
        self.books.note(self.client, client, when != When::Due).map_err(disk)?;
        if self.books.is_due() || when != When::Due {
            self.books.write_findings().map_err(disk)?;
        }
        let statistics = self.statistics(&client, when == When::End);
        for &(name, value) in statistics.iter().filter(|statistic| !self.told.contains(statistic)) {
            let value = UserStats::new(UserStatsValue::Number(value), AggregatorOps::Sum);
            let event = Event::UpdateUserStats { name: Cow::Borrowed(name), value, phantom: PhantomData };
            manager.fire(state, EventWithStats::with_current_time(event, *state.executions()))?;
        }
        self.told = statistics;
        manager.report_progress(state)
    }

    /// What the monitor's line is made of: counts of this client, and of the campaign.
    fn statistics(&self, client: &ClientBook, ended: bool) -> Vec<(&'static str, u64)> {
        let ClientBook { counters, runner, .. } = client;
        let checks = self.books.checks.counts();
        let mut statistics = vec![
            ("with_faults", counters.with_faults),
            ("fired", counters.fired),
            ("guests", runner.guests),
            ("harness_errors", runner.harness_errors),
            ("leftovers", runner.leftovers),
            ("drifted", runner.drifted),
            ("guest_kib", runner.guest_kib),
            ("control_off_ppm", runner.control_off_ppm),
            ("crashes", self.books.crashes.len() as u64),
            ("checked", checks.checked),
            ("different", checks.different),
            ("unchecked", checks.waiting),
            ("ended", u64::from(ended)),
        ];
        if self.book.role == Role::Explorer {
            let (sites, failed) = {
                let sites = self.book.sites();
                (sites.len() as u64, sites.failed() as u64)
            };
            let covered = self.book.covered() as u64;
            statistics.extend([
                ("covered", covered),
                ("sites", sites),
                ("sites_failed", failed),
                ("corpus", client.corpus as u64),
            ]);
        }
        statistics
    }
}
