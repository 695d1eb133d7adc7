//! What makes an execution worth keeping, and what makes it a finding.

use std::{borrow::Cow, path::PathBuf, sync::Arc, time::Duration};

use libafl::{
    Error, HasMetadata,
    corpus::Testcase,
    executors::ExitKind,
    feedbacks::{Feedback, MapIndexesMetadata, StateInitializer},
    inputs::Input,
    schedulers::minimizer::IsFavoredMetadata,
};
use libafl_bolts::Named;

use super::{
    CampaignKernel,
    book::{Books, KernelBook},
    crashes::{Cause, Crashes},
    executor::Observers,
    input::PlanInput,
};
use execution::{Attributed, Execution, Fate, How};

/// Interesting is an execution that reached an injection site never seen before. Notes for each corpus entry which
/// sites it reached, and has LibAFL's scheduler favour it when one was new: it is the plan under which that one is to fail first.
pub(super) struct NewSiteFeedback {
    book: Arc<KernelBook>,
    checks: Option<Arc<Books>>,
}

impl NewSiteFeedback {
    /// For the sites of the kernel of `book`. Hands the corpus entries on to `checks`, where somebody checks.
    #[must_use]
    pub(super) fn new(book: Arc<KernelBook>, checks: Option<Arc<Books>>) -> Self {
        Self { book, checks }
    }
}

impl Named for NewSiteFeedback {
    fn name(&self) -> &Cow<'static, str> {
        const { &Cow::Borrowed("sites") }
    }
}

impl<S> StateInitializer<S> for NewSiteFeedback {}

impl<EM, S> Feedback<EM, PlanInput, Observers, S> for NewSiteFeedback {
    fn is_interesting(
        &mut self,
        _: &mut S,
        _: &mut EM,
        _: &PlanInput,
        observers: &Observers,
        _: &ExitKind,
    ) -> Result<bool, Error> {
        Ok(observers.1.0.has_new_site())
    }

    fn append_metadata(
        &mut self,
        _: &mut S,
        _: &mut EM,
        observers: &Observers,
        testcase: &mut Testcase<PlanInput>,
    ) -> Result<(), Error> {
        let execution = observers.1.0.execution();
        testcase.add_metadata(self.book.sites().reached(execution.map_or(&[][..], |execution| &execution.hits)));
        if observers.1.0.has_new_site() {
            testcase.add_metadata(IsFavoredMetadata {});
        }
        if let (Some(books), Some(plan), Some(execution)) = (&self.checks, testcase.input(), execution) {
            books.checks.offer(plan, execution, true);
        }
        Ok(())
    }
}

/// Never interesting. Tells LibAFL's scheduler which places a corpus entry can be favoured for: those that the workload covers
/// by itself count as one, and that is the fault-free plan's. Of what an entry covers they are nine tenths, in which
/// entries differ by noise; listed with each, they took most of the memory that grows with the corpus.
///
/// Comes after the feedback that lists the places.
pub(super) struct FavouredForFeedback {
    book: Arc<KernelBook>,
}

impl FavouredForFeedback {
    /// For the places of the kernel of `book`.
    #[must_use]
    pub(super) fn new(book: Arc<KernelBook>) -> Self {
        Self { book }
    }
}

impl Named for FavouredForFeedback {
    fn name(&self) -> &Cow<'static, str> {
        const { &Cow::Borrowed("favoured for") }
    }
}

impl<S> StateInitializer<S> for FavouredForFeedback {}

impl<EM, S> Feedback<EM, PlanInput, Observers, S> for FavouredForFeedback {
    fn append_metadata(
        &mut self,
        _: &mut S,
        _: &mut EM,
        _: &Observers,
        testcase: &mut Testcase<PlanInput>,
    ) -> Result<(), Error> {
        let fault_free = testcase.input().as_ref().is_some_and(|plan| plan.0.faults.is_empty());
        let places = &mut testcase.metadata_mut::<MapIndexesMetadata>()?.list;
        if fault_free {
            places.truncate(1);
        } else {
            self.book.keep_beyond_fault_free(places);
        }
        places.shrink_to_fit();
        Ok(())
    }
}

/// Never interesting. Writes each corpus entry to disk before LibAFL's corpus does: that one only logs that it cannot, and has forgotten
/// the plan by then.
pub(super) struct WrittenFeedback {
    corpus: PathBuf,
}

impl WrittenFeedback {
    /// For the corpus in the folder `corpus`.
    #[must_use]
    pub(super) fn new(corpus: PathBuf) -> Self {
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
        _: &Observers,
        testcase: &mut Testcase<PlanInput>,
    ) -> Result<(), Error> {
        testcase.input().as_ref().map_or(Ok(()), |plan| plan.to_file(self.corpus.join(plan.generate_name(None))))
    }
}

/// A solution is a kernel report or hang with a title that the campaign does not have, or has without a plan that makes it
/// again. It is on disk before it counts.
#[derive(Clone)]
pub(super) struct NewCrashFeedback {
    books: Arc<Books>,
    book: Arc<KernelBook>,
}

impl NewCrashFeedback {
    /// Findings on the kernel of `book` are written to `books`.
    #[must_use]
    pub(super) fn new(books: Arc<Books>, book: Arc<KernelBook>) -> Self {
        Self { books, book }
    }

    /// Where the findings are.
    pub(super) fn crashes(&self) -> &Crashes {
        &self.books.crashes
    }

    /// The kernel on which they are found.
    pub(super) fn kernel(&self) -> &CampaignKernel {
        &self.book.kernel
    }

    /// Whether this start of the campaign is older than `age`.
    pub(super) fn is_older_than(&self, age: Duration) -> bool {
        self.books.age() > age
    }

    /// Writes the crashes that `execution` ended in. Returns whether one was worth it.
    ///
    /// # Errors
    ///
    /// The folder cannot be written.
    pub(super) fn note(&self, plan: &PlanInput, execution: &Execution) -> Result<bool, Error> {
        self.crashes().note(self.kernel(), &Cause::of(&plan.0, execution))
    }

    /// Writes the crashes among the late effects of an earlier execution, and takes in that it cost its guest.
    ///
    /// # Errors
    ///
    /// The folder cannot be written.
    pub(super) fn note_late(&self, late: &Attributed) -> Result<(), Error> {
        if late.how == How::Warm {
            late.fired.last().into_iter().for_each(|fired| self.book.sites().was_fatal(fired.site));
        }
        self.crashes().note(self.kernel(), &Cause::of_late(late)).map(drop)
    }
}

impl Named for NewCrashFeedback {
    fn name(&self) -> &Cow<'static, str> {
        const { &Cow::Borrowed("crashes") }
    }
}

impl<S> StateInitializer<S> for NewCrashFeedback {}

impl<EM, S> Feedback<EM, PlanInput, Observers, S> for NewCrashFeedback {
    fn is_interesting(
        &mut self,
        _: &mut S,
        _: &mut EM,
        input: &PlanInput,
        observers: &Observers,
        _: &ExitKind,
    ) -> Result<bool, Error> {
        let Some(execution) = observers.1.0.execution() else { return Ok(false) };
        // What LibAFL takes for a solution does not get into its corpus: a plan that left the guest alive may have reached what none
        // did before.
        Ok(self.note(input, execution)? && execution.guest == Fate::Dead)
    }
}

#[cfg(test)]
mod tests {
    use fault_plan::{CallPath, Fault, FaultPlan, InjectedError};
    use kcov_parser::CallSites;
    use libafl::observers::{CanTrack, OwnedMapObserver, TimeObserver};
    use libafl_bolts::tuples::tuple_list;

    use super::*;
    use crate::{CampaignFolder, Role, observers::ExecutionObserver};

    #[test]
    fn an_entry_is_on_disk_or_there_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let observers = tuple_list!(
            OwnedMapObserver::new("map", vec![0; 8]).track_indices(),
            ExecutionObserver::default(),
            TimeObserver::new("time")
        );
        let plan = PlanInput(FaultPlan::fault_free("fake"));
        let add = |corpus: PathBuf| {
            let mut entry = Testcase::from(plan.clone());
            let mut feedback = WrittenFeedback::new(corpus);
            Feedback::<(), _, _, ()>::append_metadata(&mut feedback, &mut (), &mut (), &observers, &mut entry)
        };
        add(folder.path().to_owned()).unwrap();
        assert_eq!(PlanInput::from_file(folder.path().join(plan.generate_name(None))).unwrap(), plan);
        let error = add(folder.path().join("gone")).unwrap_err().to_string();
        assert!(error.contains("cannot write") && error.contains("gone"), "{error}");
    }

    #[test]
    fn an_entry_is_favoured_for_what_the_workload_does_not_cover_by_itself() {
        let folder = tempfile::tempdir().unwrap();
        let (opened, _) = CampaignFolder::open(folder.path(), "fake", "fake").unwrap();
        let books = Books::open("fake".to_owned(), Arc::new(opened), 1, None).unwrap();
        let call_sites = Arc::new(CallSites::from_offsets(0x1000, (0..8).collect()));
        let kernel = CampaignKernel { name: "fake".to_owned(), build_id: "fake".to_owned(), call_sites };
        let book = books.kernel(&kernel, Role::Explorer).unwrap();
        book.note_fault_free([1, 2, 3].into_iter());
        let map = OwnedMapObserver::new("map", vec![0; 8]).track_indices();
        let observers = tuple_list!(map, ExecutionObserver::default(), TimeObserver::new("time"));
        let mut feedback = FavouredForFeedback::new(book);
        let mut favoured_for = |plan: FaultPlan| {
            let mut entry = Testcase::from(PlanInput(plan));
            entry.add_metadata(MapIndexesMetadata::new(vec![1, 3, 5, 7]));
            Feedback::<(), _, _, ()>::append_metadata(&mut feedback, &mut (), &mut (), &observers, &mut entry).unwrap();
            entry.metadata::<MapIndexesMetadata>().unwrap().list.clone()
        };
        let mut plan = FaultPlan::fault_free("fake");
        assert_eq!(favoured_for(plan.clone()), [1]);
        let error = InjectedError::True;
        plan.faults.push(Fault { function: "f".to_owned(), call_path: CallPath::default(), occurrence: 1, error });
        assert_eq!(favoured_for(plan), [5, 7]);
    }
}
