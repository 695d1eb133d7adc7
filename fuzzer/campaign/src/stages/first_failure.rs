//! First failures: the deterministic part of the search.

use std::sync::Arc;

use execution::Target;
use libafl::{
    Error, HasMetadata,
    corpus::HasCurrentCorpusId,
    fuzzer::Evaluator,
    stages::{Restartable, Stage},
    state::{HasCorpus, HasCurrentTestcase, HasRand},
};
use libafl_bolts::rands::StdRand;
use rand::seq::SliceRandom;

use crate::{
    input::PlanInput,
    kernels::KnownKernel,
    mutators::MOST_FAULTS,
    sites::{Reached, SiteIndex},
};

/// First failures made for one corpus entry at a time.
const FIRST_FAILURES: usize = 16;

/// The stage that fails each discovered site once, at its first call, before chance has its turn:
/// the deterministic part of the search. A corpus entry is the plan under which the site was
/// reached.
pub(crate) struct FirstFailureStage {
    target: Arc<Target>,
    known: Arc<KnownKernel>,
}

impl FirstFailureStage {
    /// Makes a stage for `target` on the kernel `known`.
    pub(crate) fn new(target: Arc<Target>, known: Arc<KnownKernel>) -> Self {
        Self { target, known }
    }

    /// Gives the sites to fail next, each with its plan.
    fn next_plans<S>(&self, state: &mut S) -> Result<Vec<(SiteIndex, PlanInput)>, Error>
    where
        S: HasCorpus<PlanInput> + HasCurrentTestcase<PlanInput> + HasMetadata + HasRand<Rand = StdRand>,
    {
        let reached = state.current_testcase()?.metadata_map().get::<Reached>().map(Reached::calls).unwrap_or_default();
        let parent = state.current_input_cloned()?;
        if parent.0.faults.len() >= MOST_FAULTS {
            return Ok(Vec::new());
        }
        let mut generator = *state.rand_mut();
        let known = self.known.sites();
        let mut sites: Vec<_> = reached.iter().map(|calls| calls.site).filter(|site| !known.attempted(*site)).collect();
        sites.shuffle(&mut generator);
        sites.truncate(FIRST_FAILURES);
        let mut plans = Vec::new();
        for index in sites {
            let Some(site) = known.get(index) else { continue };
            let Some(error) = self.target.errors(&site.function).first() else { continue };
            let mut plan = parent.0.clone();
            plan.faults.push(site.fault(1, *error));
            plans.push((index, PlanInput(plan)));
        }
        *state.rand_mut() = generator;
        Ok(plans)
    }
}

impl<E, EM, S, Z> Stage<E, EM, S, Z> for FirstFailureStage
where
    S: HasCorpus<PlanInput> + HasCurrentTestcase<PlanInput> + HasMetadata + HasRand<Rand = StdRand>,
    Z: Evaluator<E, EM, PlanInput, S>,
{
    fn perform(&mut self, fuzzer: &mut Z, executor: &mut E, state: &mut S, manager: &mut EM) -> Result<(), Error> {
        for (site, plan) in self.next_plans(state)? {
            fuzzer.evaluate_filtered(state, executor, manager, &plan)?;
            self.known.sites().attempt(site);
        }
        Ok(())
    }
}

impl<S: HasCurrentCorpusId> Restartable<S> for FirstFailureStage {
    fn should_restart(&mut self, _: &mut S) -> Result<bool, Error> {
        Ok(true)
    }

    fn clear_progress(&mut self, _: &mut S) -> Result<(), Error> {
        Ok(())
    }
}
