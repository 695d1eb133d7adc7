//! Trouble of guests and host, which is never a finding.

use super::*;
use crate::fake::fails_at;
use execution::RunError;

/// A runner that does to some plans what the function says, instead of running them.
struct Troubled(FakeRunner, fn(&FaultPlan) -> Option<RunError>);

impl Runner for Troubled {
    fn run(&mut self, plan: &FaultPlan, how: How) -> Ran {
        self.1(plan).map_or_else(|| self.0.run(plan, how), |error| Err(error).into())
    }

    fn finish(&mut self) -> Vec<Attributed> {
        Vec::new()
    }

    fn usage(&self) -> Usage {
        self.0.usage()
    }
}

fn guests_fail() -> RunError {
    RunError::Guests { attempts: 5, source: "lost".into() }
}

#[test]
fn a_plan_that_no_guest_survives_does_not_end_the_campaign() {
    let folder = tempfile::tempdir().unwrap();
    let stop = Stop::new();
    let fake = FakeRunner::new(&stop, 300);
    let trouble = |plan: &FaultPlan| match plan {
        plan if fails_at(plan, 4) => Some(guests_fail()),
        plan if fails_at(plan, 5) => Some(RunError::Starved),
        plan if fails_at(plan, 6) => Some(RunError::Refused("no".to_owned())),
        _ => None,
    };
    let summary = run(options(folder.path(), &stop, None), explorer(Troubled(fake, trouble))).unwrap();
    assert!(summary.statistics.given_up >= 2 && summary.statistics.refused >= 1, "{summary:?}");
    assert!(summary.crashes.iter().any(|(title, ..)| title == "BUG in step_7"), "{summary:?}");
}

#[test]
fn guests_that_fail_without_a_fault_end_the_campaign() {
    let folder = tempfile::tempdir().unwrap();
    let stop = Stop::new();
    let fake = FakeRunner::new(&stop, 300);
    let error =
        run(options(folder.path(), &stop, None), explorer(Troubled(fake, |_| Some(guests_fail())))).unwrap_err();
    assert!(execution::chain(&error).contains("5 guests in a row failed"), "{error}");
}

/// A runner that has no fresh guest for a plan with faults.
struct NoneFresh(FakeRunner);

impl Runner for NoneFresh {
    fn run(&mut self, plan: &FaultPlan, how: How) -> Ran {
        if how == How::Fresh && plan.all_faults().next().is_some() {
            Err(RunError::Starved).into()
        } else {
            self.0.run(plan, how)
        }
    }

    fn finish(&mut self) -> Vec<Attributed> {
        Vec::new()
    }

    fn usage(&self) -> Usage {
        self.0.usage()
    }
}

#[test]
fn a_reproducer_for_which_there_was_no_guest_was_not_tried() {
    let folder = tempfile::tempdir().unwrap();
    let start = |executions_left| {
        let stop = Stop::new();
        FakeRunner::new(&stop, executions_left)
    };
    let fake = start(600);
    let stop = fake.stop.clone();
    let summary = run(options(folder.path(), &stop, None), explorer(NoneFresh(fake))).unwrap();
    let tries: Vec<_> = summary.crashes.iter().map(|(_, reproduced, tried)| (*reproduced, *tried)).collect();
    assert!(!tries.is_empty() && tries.iter().all(|tries| *tries == (0, 0)), "{summary:?}");
    let fake = start(600);
    let stop = fake.stop.clone();
    let summary = run(options(folder.path(), &stop, None), explorer(fake)).unwrap();
    assert!(summary.crashes.iter().all(|(_, reproduced, tried)| (*reproduced, *tried) == (3, 3)), "{summary:?}");
}
