//! Mutations of plans. A mutation picks among the calls that the parent's execution really made, so
//! that most of its faults fire.

use std::{borrow::Cow, sync::Arc};

use fault_plan::{CallPath, Fault, FaultPlan};
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
    sites::{Calls, Reached, Sites},
};
use execution::Target;

/// The most faults that a mutation makes; plans of the user may have more.
pub(crate) const MOST_FAULTS: usize = 6;

/// The share of mutated plans that run although one of their faults is at a site where most are
/// known to cost the guest. Such a plan mostly finds again a thing that is known, and a fresh guest
/// is slow at first; but a second fault may change how the first one ends.
const FATAL_KEPT: f64 = 0.1;

/// The things that a mutation may look at.
struct Context<'a> {
    target: &'a Target,
    sites: &'a Sites,
    /// The calls that the parent made.
    reached: &'a [Calls],
    /// Faults of another corpus entry.
    other: &'a [Fault],
}

impl Context<'_> {
    /// Counts the calls of the parent's execution that match `fault`.
    fn calls(&self, fault: &Fault) -> u32 {
        let of = |calls: &Calls| self.sites.get(calls.site)?.is_matched_by(fault).then_some(calls.count);
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
        let sites = self.known.sites();
        let context = Context { target: &self.target, sites: &sites, reached: &reached, other: &other };
        let before = input.0.faults.clone();
        let changed = (self.change)(&mut input.0, &context, &mut generator);
        drop(sites);
        *state.rand_mut() = generator;
        let mutated = changed.is_some() && input.0.faults != before;
        Ok(if mutated { MutationResult::Mutated } else { MutationResult::Skipped })
    }

    fn post_exec(&mut self, _: &mut S, _: Option<CorpusId>) -> Result<(), Error> {
        Ok(())
    }
}

/// The mutation that mostly makes nothing where a plan that `inner` makes is known to cost the
/// guest.
pub(crate) struct AvoidFatal<M> {
    inner: M,
    known: Arc<KnownKernel>,
}

impl<M> AvoidFatal<M> {
    /// Makes a mutation that looks up the sites of the kernel `known`.
    pub(crate) fn new(inner: M, known: &Arc<KnownKernel>) -> Self {
        Self { inner, known: Arc::clone(known) }
    }
}

impl<M: Named> Named for AvoidFatal<M> {
    fn name(&self) -> &Cow<'static, str> {
        self.inner.name()
    }
}

impl<M: Mutator<PlanInput, S>, S: HasRand<Rand = StdRand>> Mutator<PlanInput, S> for AvoidFatal<M> {
    fn mutate(&mut self, state: &mut S, input: &mut PlanInput) -> Result<MutationResult, Error> {
        let result = self.inner.mutate(state, input)?;
        let is_avoided = is_fatal(&input.0, &self.known.sites()) && !state.rand_mut().random_bool(FATAL_KEPT);
        Ok(if is_avoided { MutationResult::Skipped } else { result })
    }

    fn post_exec(&mut self, state: &mut S, entry: Option<CorpusId>) -> Result<(), Error> {
        self.inner.post_exec(state, entry)
    }
}

fn is_fatal(plan: &FaultPlan, sites: &Sites) -> bool {
    plan.faults.iter().any(|fault| sites.is_fatal(fault))
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
pub(crate) type PlanMutations =
    tuple_list_type!(PlanMutator, PlanMutator, PlanMutator, PlanMutator, PlanMutator, PlanMutator, PlanMutator);

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
    )
}

/// Fails one more of the calls that the parent made; calls at sites that never failed come first.
fn add_fault(plan: &mut FaultPlan, context: &Context<'_>, rng: &mut StdRand) -> Option<()> {
    if plan.faults.len() >= MOST_FAULTS {
        return None;
    }
    let fresh: Vec<_> = context.reached.iter().filter(|calls| !context.sites.attempted(calls.site)).collect();
    let calls = match fresh.choose(rng) {
        Some(calls) if rng.random_bool(0.75) => *calls,
        _ => context.reached.choose(rng)?,
    };
    let site = context.sites.get(calls.site)?;
    let occurrence = if rng.random_bool(0.5) { 1 } else { rng.random_range(1..=calls.count.max(1)) };
    let error = *context.target.errors(&site.function).choose(rng)?;
    let fault = site.fault(occurrence, error);
    (!plan.faults.contains(&fault)).then(|| plan.faults.push(fault))
}

fn drop_fault(plan: &mut FaultPlan, _: &Context<'_>, rng: &mut StdRand) -> Option<()> {
    // The fault-free plan has run already.
    let index = (plan.faults.len() > 1).then(|| rng.random_range(0..plan.faults.len()))?;
    plan.faults.remove(index);
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
        let site = context.sites.get(calls.site)?;
        let longer = site.call_path.len() > fault.call_path.0.len();
        (longer && site.is_matched_by(fault)).then_some((calls.count, site))
    };
    let candidates: Vec<_> = context.reached.iter().filter_map(matching).collect();
    let (count, site) = candidates.choose(rng)?;
    let length = rng.random_range(fault.call_path.0.len() + 1..=site.call_path.len());
    fault.call_path = CallPath(site.call_path[..length].to_vec());
    fault.step = Some(site.step);
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
    let calls = context.calls(fault);
    fault.occurrence = rng.random_range(1..=calls.max(1));
    Some(())
}

fn splice(plan: &mut FaultPlan, context: &Context<'_>, rng: &mut StdRand) -> Option<()> {
    let fault = context.other.choose(rng)?;
    let room = plan.faults.len() < MOST_FAULTS && !plan.faults.contains(fault);
    room.then(|| plan.faults.push(fault.clone()))
}

fn pick<'plan>(plan: &'plan mut FaultPlan, rng: &mut StdRand) -> Option<&'plan mut Fault> {
    let count = plan.faults.len();
    (count > 0).then(|| rng.random_range(0..count)).map(|index| &mut plan.faults[index])
}

#[cfg(test)]
mod tests;
