//! Reasons for which LibAFL's scheduler may favour an entry.

use std::{borrow::Cow, sync::Arc};

use libafl::{
    Error, HasMetadata,
    corpus::Testcase,
    feedbacks::{Feedback, MapIndexesMetadata, StateInitializer},
};
use libafl_bolts::Named;

use crate::{input::PlanInput, kernels::KnownKernel, observers::Observers};

/// The feedback that leaves of an entry's coverage what LibAFL's scheduler may favour it for. Never
/// interesting.
///
/// All points that the workload covers by itself count as one, which is the fault-free plan's. They
/// are nine tenths of what an entry covers, and entries differ in them by noise. Listed with each
/// entry, they took most of the memory that grows with the corpus.
///
/// Comes after the feedback that lists the points.
pub(crate) struct SchedulingFeedback {
    known: Arc<KnownKernel>,
}

impl SchedulingFeedback {
    /// Makes the feedback for the coverage points of the kernel `known`.
    pub(crate) fn new(known: Arc<KnownKernel>) -> Self {
        Self { known }
    }
}

impl Named for SchedulingFeedback {
    fn name(&self) -> &Cow<'static, str> {
        const { &Cow::Borrowed("scheduling") }
    }
}

impl<S> StateInitializer<S> for SchedulingFeedback {}

impl<EM, S> Feedback<EM, PlanInput, Observers, S> for SchedulingFeedback {
    fn append_metadata(
        &mut self,
        _: &mut S,
        _: &mut EM,
        _: &Observers,
        testcase: &mut Testcase<PlanInput>,
    ) -> Result<(), Error> {
        let fault_free = testcase.input().as_ref().is_some_and(|plan| plan.0.is_fault_free());
        let points = &mut testcase.metadata_mut::<MapIndexesMetadata>()?.list;
        if fault_free {
            points.truncate(1);
        } else {
            self.known.keep_beyond_fault_free(points);
        }
        points.shrink_to_fit();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use fault_plan::{CallPath, Fault, FaultPlan, InjectedError};

    use super::*;
    use crate::{fake, kernels::Role};

    #[test]
    fn an_entry_is_favoured_for_what_the_workload_does_not_cover_by_itself() {
        let folder = tempfile::tempdir().unwrap();
        let kernel = fake::kernel("fake");
        let known = fake::kernels().get(&fake::open(folder.path()), &kernel, Role::Explorer).unwrap();
        let mut execution = fake::quiet();
        [1, 2, 3].iter().for_each(|point| fake::cover(&mut execution, fake::TEXT_START + point));
        known.note_fault_free(&execution);
        let mut feedback = SchedulingFeedback::new(known);
        let mut favoured_for = |plan: FaultPlan| {
            let mut entry = Testcase::from(PlanInput(plan));
            entry.add_metadata(MapIndexesMetadata::new(vec![1, 3, 5, 7, 1001]));
            let observers = fake::observers();
            Feedback::<(), _, _, ()>::append_metadata(&mut feedback, &mut (), &mut (), &observers, &mut entry).unwrap();
            entry.metadata::<MapIndexesMetadata>().unwrap().list.clone()
        };
        let mut plan = FaultPlan::fault_free("fake");
        assert_eq!(favoured_for(plan.clone()), [1]);
        let error = InjectedError::True;
        plan.faults.push(Fault::new("f", CallPath::default(), 1, error));
        assert_eq!(favoured_for(plan), [5, 7, 1001], "a place is another point in another task");
    }
}
