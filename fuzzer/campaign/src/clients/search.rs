//! The search of one client: LibAFL's parts, put together.

use std::{cell::Cell, num::NonZeroUsize, rc::Rc, sync::Arc};

use libafl::{
    feedback_or,
    feedbacks::{Feedback, MaxMapFeedback, TimeFeedback},
    fuzzer::StdFuzzerBuilder,
    mutators::{HavocScheduledMutator, SingleChoiceScheduledMutator},
    observers::{CanTrack, OwnedMapObserver, TimeObserver},
    schedulers::{IndexesLenTimeMinimizerScheduler, QueueScheduler},
    stages::StdMutationalStage,
    state::HasExecutions,
};
use libafl_bolts::tuples::tuple_list;

use super::{
    broker::Manager,
    report::Reporter,
    search_loop::SearchLoop,
    setup::ClientSetup,
    shared::Shared,
    state::{State, new_state},
};
use crate::{
    aftermath::{Aftermath, When},
    error::CampaignError,
    executor::PlanExecutor,
    feedbacks::{
        CountersFeedback, LoadingFeedback, NewPointFeedback, OfferFeedback, SchedulingFeedback, WrittenFeedback,
        points_feedbacks, ran,
    },
    input::PlanInput,
    kernels::{KnownKernel, Role},
    matrix::Reach,
    mutators::{LessForCostly, plan_mutations},
    objective::CrashObjective,
    observers::{COVERAGE_MAP, CoverageMap, ExecutionObserver, Observers},
    stages::{FirstFailureStage, MinimiseStage, TriageStage},
};
use execution::Runner;

/// The most plans with one change that are made of a corpus entry before the next entry has its
/// turn.
const MUTATIONS: NonZeroUsize = NonZeroUsize::new(16).expect("it is not 0");
/// First failures made at a time.
const FIRST_FAILURES: usize = 16;
/// Points of chance that a checker fails before it looks again whether there is something to check:
/// each guest has others.
const CHANCES: usize = 2;
/// The most plans with several changes.
const STACKED_MUTATIONS: NonZeroUsize = NonZeroUsize::new(8).expect("it is not 0");
/// Such a plan has 2 to 2^this changes.
const STACK_POWER: usize = 2;
/// The most plans that a checker makes by itself before it looks again whether there is something
/// to check.
const IDLE_MUTATIONS: NonZeroUsize = NonZeroUsize::new(4).expect("it is not 0");

/// Searches until the campaign ends, as client number `client`, from 0.
///
/// # Errors
///
/// The folder is damaged or cannot be written, or guests fail.
pub(super) fn search<R: Runner>(
    client: usize,
    role: Role,
    setup: ClientSetup<R>,
    shared: &Shared,
    manager: &mut Manager<State>,
) -> Result<(), CampaignError> {
    let Shared { target, folder, lifecycle, .. } = shared;
    let known = shared.kernels.get(folder, &setup.kernel, role)?;
    let offers = shared.second_kernel.as_ref().filter(|_| role == Role::Explorer);
    let coverage = OwnedMapObserver::new(COVERAGE_MAP, vec![0_u8; known.kernel.map_len()]).track_indices();
    let time = TimeObserver::new("time");
    let loading = Rc::new(Cell::new(false));
    let crashes = CrashObjective::new(Arc::clone(&shared.crashes), Arc::clone(&known));
    let (must_end, is_interrupted) = (|| lifecycle.must_end(), || lifecycle.is_interrupted());
    let triage = TriageStage::new(crashes.clone(), Arc::clone(&shared.crashes), offers, shared.start, &is_interrupted);
    let minimise = MinimiseStage::new(triage.clone());
    let (learnt_points, new_point) = points_feedbacks(&known);
    let (ran, filter) = ran();
    // LibAFL asks the objective about each execution, and the feedback only about no solution.
    let objective = feedback_or!(CountersFeedback, learnt_points, ran, crashes);
    let mut objective = OfferFeedback::solutions(objective, offers);
    let feedback = feedback(shared, &known, (&coverage, &time), new_point, Rc::clone(&loading));
    let mut feedback = OfferFeedback::others(feedback, offers);
    let before = if client == 0 { shared.executions_before() } else { 0 };
    let mut state = new_state(shared.seed.wrapping_add(client as u64), folder, &known, &mut feedback, &mut objective)?;
    *state.executions_mut() = before;
    let fuzzer = StdFuzzerBuilder::new()
        .input_filter(filter)
        .scheduler(IndexesLenTimeMinimizerScheduler::new(&coverage, QueueScheduler::new()))
        .feedback(feedback)
        .objective(objective)
        .build();
    let is_busy = || known.matrix().is_failing_alone();
    let when = When { must_end: &must_end, is_busy: &is_busy, judges: role == Role::Checker };
    let runner = Aftermath::new(setup.runner, target, &known.sweeps, when);
    let observers = tuple_list!(coverage, ExecutionObserver::default(), time);
    let mutations = |most| {
        let mutator = LessForCostly::new(SingleChoiceScheduledMutator::new(plan_mutations(target, &known)), &known);
        StdMutationalStage::with_max_iterations(mutator, most)
    };
    let stacked = HavocScheduledMutator::with_max_stack_pow(plan_mutations(target, &known), STACK_POWER);
    SearchLoop {
        client,
        role,
        shared,
        known: &known,
        fuzzer,
        executor: PlanExecutor::new(runner, observers, known.kernel.clone(), &must_end),
        state,
        manager,
        loading: &loading,
        first: tuple_list!(FirstFailureStage::new(Arc::clone(&known), Reach::Alone, FIRST_FAILURES)),
        exploring: tuple_list!(
            triage.clone(),
            minimise.clone(),
            FirstFailureStage::new(Arc::clone(&known), Reach::Any, FIRST_FAILURES),
            mutations(MUTATIONS),
            StdMutationalStage::with_max_iterations(LessForCostly::new(stacked, &known), STACKED_MUTATIONS)
        ),
        behind: tuple_list!(FirstFailureStage::new(Arc::clone(&known), Reach::Behind, FIRST_FAILURES)),
        chance: tuple_list!(FirstFailureStage::new(Arc::clone(&known), Reach::Any, CHANCES)),
        idle: tuple_list!(triage.clone(), minimise.clone(), mutations(IDLE_MUTATIONS)),
        triage,
        minimise,
        reporter: Reporter::new(client, before, shared, &known),
    }
    .run()
}

/// Makes the feedback that decides what is kept.
fn feedback(
    shared: &Shared,
    known: &Arc<KnownKernel>,
    (coverage, time): (&CoverageMap, &TimeObserver),
    new_point: NewPointFeedback,
    loading: Rc<Cell<bool>>,
) -> impl Feedback<Manager<State>, PlanInput, Observers, State> + use<> {
    feedback_or!(
        MaxMapFeedback::new(coverage),
        SchedulingFeedback::new(Arc::clone(known)),
        new_point,
        LoadingFeedback::new(loading),
        TimeFeedback::new(time),
        WrittenFeedback::new(shared.folder.corpus())
    )
}
