//! Aftermaths over a fake runner: one kind of leftover, and one fault that shows a bug in it.

use execution::{Finding, FindingKind};
use fault_plan::Scope;
use guest_protocol::{Hit, SiteDescription};

use super::*;
use crate::fake;

const POINTS: u64 = 30;
/// The point whose failure leaves something, and the one whose failure then uses freed memory.
const LEAVES: u64 = 3;
const USES: u64 = 20;

/// A workload of 30 points.
#[derive(Default)]
struct Guests {
    /// Rounds of the guest at hand, which is not clean.
    left: Option<Vec<Round>>,
    fresh: u32,
    next: u32,
    /// True when the state does not come again.
    once: bool,
    /// True when every round in the state reports something late.
    late: bool,
}

fn fails(plan: &FaultPlan, point: u64) -> bool {
    fake::fails_at(plan, point)
}

fn leftover() -> Finding {
    Finding::leftover("device left open: step_3", "device left open", "")
}

fn report() -> Finding {
    Finding { kind: FindingKind::Kasan, key: "uaf".to_owned(), ..leftover() }
}

impl Guests {
    fn workload(&mut self, plan: &FaultPlan, keep: bool) -> Execution {
        let hits = (0..POINTS).map(|site| Hit { site, count: 1, first_sequence: 1 }).collect();
        let describe = |site| {
            let function = "should_failslab".to_owned();
            let (call_path, scope) = (fake::caller(site), Scope::Workload);
            SiteDescription { site, function, call_path, truncated: false, step: 1, scope }.into()
        };
        let fired = (0..plan.faults.len()).map(|fault| fake::fired(fault, 0));
        let execution =
            Execution { hits, sites: (0..POINTS).map(describe).collect(), fired: fired.collect(), ..fake::quiet() };
        let history = self.left.take().filter(|_| keep);
        if let Some(mut history) = history {
            if fails(plan, USES) {
                return Execution { findings: vec![report()], guest: Fate::Dead, history, ..execution };
            }
            history.push(Round { faults: plan.faults.clone(), reset: false });
            self.left = Some(history);
            return Execution { guest: Fate::Unclean, ..execution };
        }
        if fails(plan, LEAVES) {
            self.left = Some(vec![Round { faults: plan.faults.clone(), reset: false }]);
            return Execution { findings: vec![leftover()], guest: Fate::Unclean, ..execution };
        }
        execution
    }
}

impl Runner for Guests {
    fn run(&mut self, plan: &FaultPlan, how: How) -> Ran {
        match how {
            How::Next if self.left.is_none() => return Err(RunError::NoNext).into(),
            How::Next => self.next += 1,
            How::Fresh => self.fresh += 1,
            _ => {}
        }
        if how == How::Fresh && self.once {
            return Ok(fake::quiet()).into();
        }
        let execution = Ok(self.workload(plan, how == How::Next));
        let late = Attributed {
            plan: plan.clone(),
            how,
            fired: Vec::new(),
            findings: vec![report()],
            console: String::new(),
            history: Vec::new(),
        };
        Ran { execution, late: if how == How::Next && self.late { vec![late] } else { Vec::new() } }
    }

    fn finish(&mut self) -> Vec<Attributed> {
        Vec::new()
    }

    fn usage(&self) -> Usage {
        Usage::default()
    }
}

fn plan(point: u64) -> FaultPlan {
    fake::plan(fake::caller(point), 1)
}

fn with_aftermath<T>(guests: Guests, test: impl FnOnce(&mut Aftermath<'_, Guests>) -> T) -> T {
    let (target, sweeps) = (fake::target(fake::TARGET), Sweeps::default());
    let mut aftermath =
        Aftermath::new(guests, &target, &sweeps, When { must_end: &|| false, is_busy: &|| false, judges: false });
    aftermath.run(&FaultPlan::fault_free("fake"), How::Warm);
    test(&mut aftermath)
}

#[test]
fn a_leftover_has_fault_free_rounds_and_a_sweep_whose_finds_are_sequences() {
    with_aftermath(Guests::default(), |aftermath| {
        let ran = aftermath.run(&plan(LEAVES), How::Warm);
        assert_eq!(ran.execution.unwrap().findings, [leftover()], "it is a finding of its own");
        let [found] = &ran.late[..] else { panic!("{:?}", ran.late) };
        let first = Round { faults: plan(LEAVES).faults, reset: false };
        let mut swept = FaultPlan { earlier: vec![first.clone(), Round::default()], ..plan(USES) };
        swept.faults[0].step = Some(1);
        assert_eq!(found.plan, swept);
        assert_eq!(found.fired.iter().map(|fired| fired.fault).collect::<Vec<_>>(), [0, 1]);
        assert_eq!((found.how, &found.findings), (How::Next, &vec![report()]));
        assert_eq!(
            (found.history.len(), &found.history[0]),
            (1 + FAULT_FREE_ROUNDS + usize::try_from(USES).unwrap(), &first)
        );
        let expected = u32::try_from(FAULT_FREE_ROUNDS).unwrap() + u32::try_from(POINTS).unwrap() + 1;
        assert_eq!((aftermath.runner.next, aftermath.runner.fresh), (expected, 1), "it goes on in a fresh guest");
        assert_eq!(aftermath.usage().aftermath_executions, u64::from(expected) + 1);
        let again = aftermath.run(&plan(LEAVES), How::Warm);
        assert!(again.late.is_empty());
        assert_eq!(
            aftermath.runner.next,
            expected + u32::try_from(FAULT_FREE_ROUNDS).unwrap(),
            "the sweep is made once"
        );
    });
}

#[test]
fn a_state_that_does_not_come_again_is_given_up() {
    with_aftermath(Guests { once: true, ..Guests::default() }, |aftermath| {
        assert_eq!(aftermath.run(&plan(LEAVES), How::Warm).late.len(), 1);
        assert_eq!(aftermath.runner.fresh, 1);
        aftermath.run(&plan(LEAVES), How::Warm);
        assert!(!aftermath.sweeps.has_next(&leftover().key), "the next guest goes on where this one ended");
    });
}

#[test]
fn what_is_late_in_the_state_is_a_sequence_too() {
    with_aftermath(Guests { late: true, ..Guests::default() }, |aftermath| {
        let late = aftermath.run(&plan(LEAVES), How::Warm).late;
        assert!(late.len() > FAULT_FREE_ROUNDS);
        assert!(late.iter().all(|late| late.plan.earlier.len() == 2 - usize::from(late.plan.faults.is_empty())));
        assert_eq!(late[0].plan.faults, [], "a fault-free round");
    });
}

#[test]
fn other_runs_and_clean_guests_have_no_aftermath() {
    with_aftermath(Guests::default(), |aftermath| {
        aftermath.run(&plan(LEAVES), How::Fresh);
        aftermath.run(&plan(5), How::Warm);
        let sequence = FaultPlan { earlier: vec![Round::default()], ..plan(LEAVES) };
        aftermath.run(&sequence, How::Warm);
        assert_eq!(aftermath.runner.next, 0);
    });
}

#[test]
fn a_campaign_that_must_end_has_no_time_for_it() {
    let (target, sweeps) = (fake::target(fake::TARGET), Sweeps::default());
    let mut aftermath = Aftermath::new(
        Guests::default(),
        &target,
        &sweeps,
        When { must_end: &|| true, is_busy: &|| false, judges: false },
    );
    aftermath.run(&FaultPlan::fault_free("fake"), How::Warm);
    assert!(aftermath.run(&plan(LEAVES), How::Warm).late.is_empty());
    assert_eq!((aftermath.runner.next, aftermath.runner.fresh), (0, 0));
}

#[test]
fn the_search_does_not_starve() {
    with_aftermath(Guests::default(), |aftermath| {
        assert!(aftermath.may_spend(false));
        aftermath.spent = ADVANCE + Duration::from_secs(3600);
        assert!(!aftermath.may_spend(true));
        aftermath.start -= Duration::from_secs(3600 * u64::from(SHARE_OF_NEW));
        assert!(aftermath.may_spend(true) && !aftermath.may_spend(false), "a new leftover has a larger share");
    });
}

/// While the search cannot wait, a state is noted once. Later it is established and swept.
#[test]
fn a_state_that_is_found_too_early_is_swept_later() {
    let (target, sweeps, early) = (fake::target(fake::TARGET), Sweeps::default(), std::cell::Cell::new(true));
    let is_busy = || early.get();
    let mut aftermath = Aftermath::new(
        Guests::default(),
        &target,
        &sweeps,
        When { must_end: &|| false, is_busy: &is_busy, judges: false },
    );
    aftermath.run(&FaultPlan::fault_free("fake"), How::Warm);
    for _ in 0..2 {
        assert!(aftermath.run(&plan(LEAVES), How::Warm).late.is_empty());
    }
    assert_eq!((aftermath.runner.next, aftermath.postponed.len()), (0, 1));
    early.set(false);
    let late = aftermath.run(&FaultPlan::fault_free("fake"), How::Warm).late;
    assert!(late.iter().any(|late| late.findings == [report()]), "{late:?}");
    assert!(aftermath.postponed.is_empty() && aftermath.runner.fresh >= 1);
}
