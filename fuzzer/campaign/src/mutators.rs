//! Mutations of plans. A mutation picks among the calls that the parent's execution really made, so
//! that most of its faults fire. Conditions on arguments are the user's: no execution tells which
//! arguments its calls had.

use std::{borrow::Cow, ops::RangeInclusive, sync::Arc};

use fault_plan::{CallPath, FOR_EVER, Fault, FaultPlan, Round, Scope, retain_faults};
use libafl::{
    Error, HasMetadata,
    corpus::{Corpus, CorpusId},
    mutators::{MutationResult, Mutator},
    random_corpus_id,
    state::{HasCorpus, HasCurrentTestcase, HasRand},
};
use libafl_bolts::{
    Named,
    rands::{Rand, StdRand},
    tuples::{tuple_list, tuple_list_type},
};
use rand::{RngExt, seq::IndexedRandom};

use crate::{
    input::PlanInput,
    kernels::KnownKernel,
    matrix::{Calls, Matrix, Point, Reached},
};
use execution::Target;

/// The most faults that a mutation makes; plans of the user may have more.
pub(crate) const MOST_FAULTS: usize = 6;

/// The most rounds before the last one that mutations make. Each costs an execution. With two, the
/// log of a file system that has files already is replayed.
const MOST_EARLIER: usize = 2;

/// The share of its mutations that an entry keeps whose faults mostly cost the guest: a fresh guest
/// takes as long as some ten executions.
const COSTLY_KEPT: f64 = 0.2;
/// Number of calls in a row that a fault which is to fire more than once fails, and the share of
/// such faults that fail all calls.
const TIMES: RangeInclusive<u32> = 2..=8;
const FOR_EVER_SHARE: f64 = 0.3;
/// Weight of a point at which no fault fired yet, where others weigh 1.
const FRESH_WEIGHT: f64 = 4.0;

/// The things that a mutation may look at.
struct Context<'a> {
    target: &'a Target,
    matrix: &'a Matrix,
    /// The calls that the parent made.
    reached: &'a [Calls],
    /// Faults of another corpus entry.
    other: &'a [Fault],
}

impl Context<'_> {
    /// Counts the calls of the parent's execution that match the pattern of `fault`.
    fn calls(&self, fault: &Fault) -> u32 {
        let of = |calls: &Calls| self.matrix.get(calls.point)?.is_matched_by(fault).then_some(calls.count);
        self.reached.iter().filter_map(of).sum()
    }
}

/// One kind of change. Returns whether it changed the plan.
type Change = fn(&mut FaultPlan, &Context<'_>, &mut StdRand) -> Option<()>;

/// A mutation of plans.
pub(crate) struct PlanMutator {
    name: &'static str,
    change: Change,
    target: Arc<Target>,
    known: Arc<KnownKernel>,
    cow: Cow<'static, str>,
}

impl PlanMutator {
    fn new(name: &'static str, change: Change, (target, known): (&Arc<Target>, &Arc<KnownKernel>)) -> Self {
        let (target, known) = (Arc::clone(target), Arc::clone(known));
        Self { name, change, target, known, cow: Cow::Borrowed(name) }
    }
}

impl std::fmt::Debug for PlanMutator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PlanMutator").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Named for PlanMutator {
    fn name(&self) -> &Cow<'static, str> {
        &self.cow
    }
}

impl<S> Mutator<PlanInput, S> for PlanMutator
where
    S: HasCorpus<PlanInput> + HasCurrentTestcase<PlanInput> + HasMetadata + HasRand<Rand = StdRand>,
{
    fn mutate(&mut self, state: &mut S, input: &mut PlanInput) -> Result<MutationResult, Error> {
        let reached = state.current_testcase()?.metadata_map().get::<Reached>().map(Reached::calls).unwrap_or_default();
        let other = faults_of_another(state)?;
        let mut generator = *state.rand_mut();
        let matrix = self.known.matrix();
        let context = Context { target: &self.target, matrix: &matrix, reached: &reached, other: &other };
        let before = input.0.clone();
        let changed = (self.change)(&mut input.0, &context, &mut generator);
        drop(matrix);
        *state.rand_mut() = generator;
        let mutated = changed.is_some() && input.0 != before;
        Ok(if mutated { MutationResult::Mutated } else { MutationResult::Skipped })
    }

    fn post_exec(&mut self, _: &mut S, _: Option<CorpusId>) -> Result<(), Error> {
        Ok(())
    }
}

/// The mutation that gives less energy to an entry whose own faults mostly cost the guest: most of
/// its turns make nothing. Of what it makes, nothing is left out.
pub(crate) struct LessForCostly<M> {
    inner: M,
    known: Arc<KnownKernel>,
}

impl<M> LessForCostly<M> {
    /// Makes a mutation that looks up the points of the kernel `known`.
    pub(crate) fn new(inner: M, known: &Arc<KnownKernel>) -> Self {
        Self { inner, known: Arc::clone(known) }
    }
}

impl<M: Named> Named for LessForCostly<M> {
    fn name(&self) -> &Cow<'static, str> {
        self.inner.name()
    }
}

impl<M: Mutator<PlanInput, S>, S: HasRand<Rand = StdRand>> Mutator<PlanInput, S> for LessForCostly<M> {
    fn mutate(&mut self, state: &mut S, input: &mut PlanInput) -> Result<MutationResult, Error> {
        // Asked before it is mutated: this is the entry's plan.
        let costly = self.known.matrix().is_fatal(&input.0);
        if costly && !state.rand_mut().random_bool(COSTLY_KEPT) {
            return Ok(MutationResult::Skipped);
        }
        self.inner.mutate(state, input)
    }

    fn post_exec(&mut self, state: &mut S, entry: Option<CorpusId>) -> Result<(), Error> {
        self.inner.post_exec(state, entry)
    }
}

fn faults_of_another<S>(state: &mut S) -> Result<Vec<Fault>, Error>
where
    S: HasCorpus<PlanInput> + HasRand<Rand = StdRand>,
{
    if state.corpus().count() == 0 {
        return Ok(Vec::new());
    }
    let mut generator = *state.rand_mut();
    let id = random_corpus_id!(state.corpus(), &mut generator);
    *state.rand_mut() = generator;
    let input = state.corpus().cloned_input_for_id(id)?;
    Ok(input.0.faults)
}

/// The type of [`plan_mutations`].
pub(crate) type PlanMutations = tuple_list_type!(
    PlanMutator,
    PlanMutator,
    PlanMutator,
    PlanMutator,
    PlanMutator,
    PlanMutator,
    PlanMutator,
    PlanMutator,
    PlanMutator,
    PlanMutator,
    PlanMutator
);

/// Makes all mutations of plans for `target` on the kernel `known`.
pub(crate) fn plan_mutations(target: &Arc<Target>, known: &Arc<KnownKernel>) -> PlanMutations {
    let with = (target, known);
    tuple_list!(
        PlanMutator::new("add-fault", add_fault, with),
        PlanMutator::new("drop-fault", drop_fault, with),
        PlanMutator::new("move-occurrence", move_occurrence, with),
        PlanMutator::new("change-error", change_error, with),
        PlanMutator::new("lengthen-path", lengthen_path, with),
        PlanMutator::new("shorten-path", shorten_path, with),
        PlanMutator::new("splice", splice, with),
        PlanMutator::new("change-times", change_times, with),
        PlanMutator::new("change-after", change_after, with),
        PlanMutator::new("go-on", go_on, with),
        PlanMutator::new("go-on-after-another", go_on_after_another, with),
    )
}

/// Fails one more of the calls that the parent made. Points that never failed come first, and those
/// that mostly cost the guest come last.
fn add_fault(plan: &mut FaultPlan, context: &Context<'_>, rng: &mut StdRand) -> Option<()> {
    if plan.faults.len() >= MOST_FAULTS {
        return None;
    }
    let weight = |calls: &Calls| {
        let point = context.matrix.get(calls.point);
        let fresh = point.is_some_and(|point| point.fired() == 0);
        let costly = point.is_some_and(Point::is_fatal);
        (if fresh { FRESH_WEIGHT } else { 1.0 }) * (if costly { COSTLY_KEPT } else { 1.0 })
    };
    let calls = context.reached.choose_weighted(rng, weight).ok()?;
    let point = context.matrix.get(calls.point)?;
    let occurrence = if rng.random_bool(0.5) { 1 } else { rng.random_range(1..=calls.count.max(1)) };
    let error = *context.target.errors(&point.function).choose(rng)?;
    let fault = point.fault(occurrence, error);
    (!plan.faults.contains(&fault)).then(|| plan.faults.push(fault))
}

fn drop_fault(plan: &mut FaultPlan, _: &Context<'_>, rng: &mut StdRand) -> Option<()> {
    // The fault-free plan has run already.
    let index = (plan.faults.len() > 1).then(|| rng.random_range(0..plan.faults.len()))?;
    retain_faults(&mut plan.faults, |at| at != index);
    Some(())
}

fn move_occurrence(plan: &mut FaultPlan, context: &Context<'_>, rng: &mut StdRand) -> Option<()> {
    let fault = pick(plan, rng)?;
    let calls = context.calls(fault).max(fault.occurrence);
    fault.occurrence = (calls > 1).then(|| rng.random_range(1..=calls))?;
    Some(())
}

fn change_error(plan: &mut FaultPlan, context: &Context<'_>, rng: &mut StdRand) -> Option<()> {
    let fault = pick(plan, rng)?;
    fault.error = *context.target.errors(&fault.function).choose(rng)?;
    Some(())
}

/// Narrows a fault to the callers and the step of one of the calls that it matches.
fn lengthen_path(plan: &mut FaultPlan, context: &Context<'_>, rng: &mut StdRand) -> Option<()> {
    let fault = pick(plan, rng)?;
    let matching = |calls: &Calls| {
        let point = context.matrix.get(calls.point)?;
        let longer = point.call_path.len() > fault.call_path.0.len();
        (longer && point.is_matched_by(fault)).then_some((calls.count, point))
    };
    let candidates: Vec<_> = context.reached.iter().filter_map(matching).collect();
    let (count, point) = candidates.choose(rng)?;
    let length = rng.random_range(fault.call_path.0.len() + 1..=point.call_path.len());
    fault.call_path = CallPath(point.call_path[..length].to_vec());
    fault.step = Some(point.step);
    // Only a whole path says by itself whose it is.
    fault.task = if length < point.call_path.len() { Some(point.scope) } else { point.scope.condition() };
    fault.occurrence = rng.random_range(1..=(*count).max(1));
    Some(())
}

/// Widens a fault to more call paths; its occurrence then counts over all of them.
fn shorten_path(plan: &mut FaultPlan, context: &Context<'_>, rng: &mut StdRand) -> Option<()> {
    let fault = pick(plan, rng)?;
    let length = fault.call_path.0.len();
    fault.call_path.0.truncate((length > 0).then(|| rng.random_range(0..length))?);
    while fault.call_path.0.last().is_some_and(|name| name == fault_plan::ELLIPSIS) {
        fault.call_path.0.pop();
    }
    if rng.random_bool(0.5) {
        fault.step = None;
    }
    // Calls of other tasks come in another order in every run.
    fault.task.get_or_insert(Scope::Workload);
    let calls = context.calls(fault);
    fault.occurrence = rng.random_range(1..=calls.max(1));
    Some(())
}

fn splice(plan: &mut FaultPlan, context: &Context<'_>, rng: &mut StdRand) -> Option<()> {
    // The fault that it came after is of another plan.
    let fault = Fault { after: None, ..context.other.choose(rng)?.clone() };
    let room = plan.faults.len() < MOST_FAULTS && !plan.faults.contains(&fault);
    room.then(|| plan.faults.push(fault))
}

/// Has a fault fire in several calls in a row, or for ever, as a device that broke; or only once
/// again.
fn change_times(plan: &mut FaultPlan, _: &Context<'_>, rng: &mut StdRand) -> Option<()> {
    let fault = pick(plan, rng)?;
    fault.times = match fault.times {
        1 if rng.random_bool(FOR_EVER_SHARE) => FOR_EVER,
        1 => rng.random_range(TIMES),
        _ => 1,
    };
    Some(())
}

/// Has a fault wait for another one, at the first call from then on; or no longer.
fn change_after(plan: &mut FaultPlan, _: &Context<'_>, rng: &mut StdRand) -> Option<()> {
    let count = plan.faults.len();
    let index = (count > 1).then(|| rng.random_range(0..count))?;
    let other = (index + rng.random_range(1..count)) % count;
    let later = plan.faults[other].step.zip(plan.faults[index].step).is_some_and(|(other, own)| other > own);
    if later && plan.faults[index].after.is_none() {
        return None;
    }
    let fault = plan.faults.get_mut(index)?;
    let before = fault.clone();
    if fault.after.take().is_none() {
        (fault.after, fault.occurrence) = (u32::try_from(other + 1).ok(), 1);
    }
    // Two that wait for each other never fire.
    if plan.check().is_err() {
        plan.faults[index] = before;
        return None;
    }
    Some(())
}

/// Has all that fails do so in a round before, and nothing in the last one: the workload meets the
/// disk that failures left.
fn go_on(plan: &mut FaultPlan, _: &Context<'_>, _: &mut StdRand) -> Option<()> {
    let faults = plan.faults.clone();
    go_on_after(faults, plan)?;
    plan.faults.clear();
    Some(())
}

/// Has the faults of another corpus entry fire in a round before.
fn go_on_after_another(plan: &mut FaultPlan, context: &Context<'_>, _: &mut StdRand) -> Option<()> {
    go_on_after(context.other.to_vec(), plan)
}

/// Puts a round with these faults before the last one, if there is room. The disk stays.
fn go_on_after(faults: Vec<Fault>, plan: &mut FaultPlan) -> Option<()> {
    (plan.earlier.len() < MOST_EARLIER).then(|| plan.earlier.push(Round { faults, reset: false }))
}

fn pick<'plan>(plan: &'plan mut FaultPlan, rng: &mut StdRand) -> Option<&'plan mut Fault> {
    let count = plan.faults.len();
    (count > 0).then(|| rng.random_range(0..count)).map(|index| &mut plan.faults[index])
}

#[cfg(test)]
mod tests;
