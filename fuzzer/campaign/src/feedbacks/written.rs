//! Corpus entries on disk.

use std::{borrow::Cow, path::PathBuf};

use libafl::{
    Error,
    corpus::Testcase,
    feedbacks::{Feedback, StateInitializer},
    inputs::Input,
};
use libafl_bolts::Named;

use crate::{
    input::PlanInput,
    observers::{Observed, Observers},
};

/// The feedback that takes from each corpus entry the faults that did not fire, and writes it to
/// disk before LibAFL's corpus does: that one only logs that it cannot, and has forgotten the plan
/// by then. Never interesting.
pub(crate) struct WrittenFeedback {
    corpus: PathBuf,
}

impl WrittenFeedback {
    /// Makes the feedback for the corpus in the folder `corpus`.
    pub(crate) fn new(corpus: PathBuf) -> Self {
        Self { corpus }
    }
}

impl Named for WrittenFeedback {
    fn name(&self) -> &Cow<'static, str> {
        const { &Cow::Borrowed("written") }
    }
}

impl<S> StateInitializer<S> for WrittenFeedback {}

impl<EM, S> Feedback<EM, PlanInput, Observers, S> for WrittenFeedback {
    fn append_metadata(
        &mut self,
        _: &mut S,
        _: &mut EM,
        observers: &Observers,
        testcase: &mut Testcase<PlanInput>,
    ) -> Result<(), Error> {
        if let (Some(plan), Some(execution)) = (testcase.input(), observers.observed().execution()) {
            let fired = plan.fired_only(execution);
            testcase.set_input(fired);
        }
        testcase.input().as_ref().map_or(Ok(()), |plan| plan.to_file(self.corpus.join(plan.generate_name(None))))
    }
}

#[cfg(test)]
mod tests {
    use fault_plan::FaultPlan;

    use super::*;
    use crate::fake;

    #[test]
    fn an_entry_is_on_disk_or_there_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let plan = PlanInput(FaultPlan::fault_free("fake"));
        let add = |corpus: PathBuf| {
            let mut entry = Testcase::from(plan.clone());
            let mut feedback = WrittenFeedback::new(corpus);
            let observers = fake::observers();
            Feedback::<(), _, _, ()>::append_metadata(&mut feedback, &mut (), &mut (), &observers, &mut entry)
        };
        add(folder.path().to_owned()).unwrap();
        assert_eq!(PlanInput::from_file(folder.path().join(plan.generate_name(None))).unwrap(), plan);
        let error = add(folder.path().join("gone")).unwrap_err().to_string();
        assert!(error.contains("cannot write") && error.contains("gone"), "{error}");
    }
}
