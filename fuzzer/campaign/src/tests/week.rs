//! A campaign that goes on for long: the search is real, the runner is a fake, and no time passes.

use std::{collections::HashSet, hash::Hash, io::Write as _, time::Instant};

use super::*;
use crate::{fake::caller, observers::Observed, recent::digest, statistics::resident_kib};
use fault_plan::{CallPath, Errno, Fault, InjectedError};

/// Executions of the short run. A week at 200 in a second has 120,960,000:
/// `FUZZ_WEEK=120960000 cargo test --release -p campaign week -- --nocapture`.
const EXECUTIONS: u32 = 40_000;

/// Executions after which memory is what the rest of the run is compared with.
const WARM: u32 = 20_000;

/// Memory that may be added whatever the corpus does: allocators keep some, and sets that remember
/// the last plans are filling up.
const SLACK_KIB: u64 = 96 << 10;
/// Memory of a corpus entry, as docs/scaling.md has it for a large target.
const ENTRY_KIB: u64 = 64;

/// A workload whose calls can be failed at any of many occurrences, so that plans never run out.
struct Endless {
    fake: FakeRunner,
    executed: u32,
    last: u32,
    warm: Option<u64>,
}

impl Runner for Endless {
    fn run(&mut self, plan: &FaultPlan, how: How) -> Ran {
        self.executed += 1;
        if self.executed == WARM {
            self.warm = resident_kib();
        }
        let mut ran = self.fake.run(plan, how);
        if let Ok(execution) = &mut ran.execution {
            for hit in &mut execution.hits {
                hit.count = 1_000_000;
            }
            // Coverage that is new now and then for as long as there is some.
            let rare = digest(&plan.faults);
            if rare.is_multiple_of(997) {
                fake::cover(execution, fake::TEXT_START + 700 + rare % 300);
            }
        }
        if self.executed >= self.last {
            self.fake.stop.request();
        }
        ran
    }

    fn finish(&mut self) -> Vec<Attributed> {
        Vec::new()
    }

    fn usage(&self) -> Usage {
        self.fake.usage()
    }
}

#[test]
fn a_week_of_plans_takes_memory_only_as_the_corpus_grows() {
    let last = std::env::var("FUZZ_WEEK").map_or(EXECUTIONS, |text| text.parse().unwrap());
    let folder = tempfile::tempdir().unwrap();
    let stop = Stop::new();
    let (warm, started) = (Arc::new(Mutex::new(None)), Instant::now());
    let endless = Endless { fake: FakeRunner::new(&stop, u32::MAX), executed: 0, last, warm: None };
    let runner = Measured(endless, Arc::clone(&warm));
    let summary = run(options(folder.path(), &stop, None), explorer(runner)).unwrap();
    let (warm, now) = (warm.lock().unwrap().unwrap(), resident_kib().unwrap());
    let Statistics { executions, corpus, .. } = summary.statistics;
    let told = format!(
        "{executions} executions in {:?}: {warm} KiB after {WARM}, {now} KiB at the end, {corpus} entries",
        started.elapsed()
    );
    writeln!(io::stderr(), "{told}").unwrap();
    assert!(executions + 100 >= u64::from(last), "{summary:?}");
    assert!(now <= warm + SLACK_KIB + corpus * ENTRY_KIB, "{told}");
}

/// The runner above, whose measurement outlives it.
struct Measured(Endless, Arc<Mutex<Option<u64>>>);

impl Runner for Measured {
    fn run(&mut self, plan: &FaultPlan, how: How) -> Ran {
        let ran = self.0.run(plan, how);
        if let Some(warm) = self.0.warm.take() {
            *self.1.lock().unwrap() = Some(warm);
        }
        ran
    }

    fn finish(&mut self) -> Vec<Attributed> {
        self.0.finish()
    }

    fn usage(&self) -> Usage {
        self.0.usage()
    }
}

/// The filter of a search that has run for long: of plans that never ran it leaves out none.
#[test]
fn no_plan_that_never_ran_is_left_out_however_many_ran() {
    use crate::feedbacks::ran;
    use libafl::{executors::ExitKind, feedbacks::Feedback, fuzzer::InputFilter};

    let (mut feedback, mut filter) = ran();
    let plan = |number: u32| {
        let call_path = || CallPath(caller(u64::from(number % 40)));
        let error = InjectedError::Errno(Errno::ENOMEM);
        let fault =
            |occurrence| Fault { step: Some(1), ..Fault::new("should_failslab", call_path(), occurrence, error) };
        PlanInput(FaultPlan { faults: vec![fault(number + 1)], ..FaultPlan::fault_free("fake") })
    };
    let mut observers = fake::observers();
    observers.observed_mut().set(fake::quiet(), 0);
    let mut ran = HashSet::new();
    for number in 0..800_000 {
        let plan = plan(number);
        let runs = filter.should_execute(&plan, &mut (), &mut ()).unwrap();
        assert!(runs || ran.contains(&hash(&plan)), "plan {number} never ran");
        let kind = ExitKind::Ok;
        Feedback::<(), _, _, ()>::is_interesting(&mut feedback, &mut (), &mut (), &plan, &observers, &kind).unwrap();
        ran.insert(hash(&plan));
    }
    assert!(!filter.should_execute(&plan(799_999), &mut (), &mut ()).unwrap(), "the last one is known");
}

fn hash(plan: &impl Hash) -> u64 {
    digest(plan)
}
