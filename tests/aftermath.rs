//! What an execution leaves in use, and what comes of it: on the kernel that checks.

use execution::{Fate, How, RunError};
use fault_plan::{FaultPlan, InjectedError, Round};
use guest_protocol::StepResult;

use crate::common::{Guests, fails, fault, fault_of, guests_of};

const ENOMEM: i32 = 12;

/// A failure after which btrfs keeps its device open: `btrfs_fill_super()` in `fs/btrfs/super.c`
/// (6.12) does not close it when `super_setup_bdi()` fails.
fn holding(guest: &Guests) -> FaultPlan {
    let faults = vec![fault(&["...", "super_setup_bdi_name"], 1)];
    FaultPlan { faults, ..guest.prepared.target.fault_free() }
}

#[test]
fn a_device_left_open_is_a_finding_and_the_guest_goes_on_in_that_state_alone() {
    let mut guest = guests_of("btrfs-mount");
    let (fault_free, holding) = (guest.prepared.target.fault_free(), holding(&guest));
    let next = guest.ran(&fault_free, How::Next);
    assert!(matches!(next.execution, Err(RunError::NoNext)), "nothing ran before");
    guest.run(&fault_free);
    let left = guest.run(&holding);
    assert_eq!((left.fired.len(), left.steps[0], left.guest), (1, StepResult::Failed(ENOMEM), Fate::Unclean));
    let [finding] = &left.findings[..] else { panic!("{:?}", left.findings) };
    assert_eq!(finding.key, "device left open: super_setup_bdi");
    assert!(finding.text.contains("bdi_alloc") && finding.text.contains("step 1 failed"), "{}", finding.text);
    assert_eq!(left.history, [Round { faults: Vec::new(), reset: true }]);

    let next = guest.ran(&fault_free, How::Next).execution.unwrap();
    assert_eq!((next.findings.len(), next.guest), (0, Fate::Unclean), "it was left before: {:?}", next.findings);
    assert_eq!(guest.usage().guests, 1);
    let fresh = guest.run(&fault_free);
    assert!(fresh.steps.iter().all(|step| matches!(step, StepResult::Done(_))), "{:?}", fresh.steps);
    let usage = guest.usage();
    assert_eq!((usage.guests, usage.leftovers, usage.harness_errors), (2, 1, 0));
}

#[test]
fn rounds_run_one_after_the_other_in_one_guest_and_it_goes() {
    let mut guest = guests_of("btrfs-mount");
    let holding = holding(&guest);
    let failing = fault_of("should_failslab", &["...", "open_ctree"], 1);
    let clean = Round { faults: vec![failing.clone()], reset: true };
    let kept = Round { faults: holding.faults.clone(), reset: false };
    let plan = FaultPlan { earlier: vec![clean, kept], faults: vec![failing], ..holding };
    let whole = guest.run(&plan);
    assert_eq!(whole.rounds.len(), 2);
    assert_eq!(whole.fired.iter().map(|fired| fired.fault).collect::<Vec<_>>(), [0, 1, 2]);
    let fates: Vec<_> = whole.rounds.iter().chain([&whole]).map(|round| round.guest).collect();
    assert_eq!(fates, [Fate::Alive, Fate::Unclean, Fate::Unclean]);
    assert!(whole.has_key("device left open: super_setup_bdi"), "{:?}", whole.findings);
    assert_eq!(whole.findings.len(), 1, "the state that is kept has it still: {:?}", whole.findings);
    let fault_free = guest.prepared.target.fault_free();
    assert!(guest.run(&fault_free).findings.is_empty());
    assert_eq!((guest.usage().guests, guest.usage().harness_errors), (2, 0));
}

#[test]
fn a_guest_that_warns_of_an_aborted_transaction_is_as_good_as_before() {
    let mut guest = guests_of("btrfs-rw");
    let fault_free = guest.prepared.target.fault_free();
    let whole = guest.run(&fault_free).steps;
    let enospc = InjectedError::from_name("ENOSPC").unwrap();
    let faults = vec![fails("btrfs_cow_block", &["...", "__btrfs_run_delayed_items"], enospc)];
    let aborting = FaultPlan { faults, ..fault_free.clone() };
    for _ in 0..2 {
        let aborted = guest.run(&aborting);
        assert!(aborted.console.contains("BTRFS: Transaction aborted (error -28)"), "{}", aborted.console);
        assert!(aborted.findings.is_empty(), "{:?}", aborted.findings);
        assert_eq!(guest.run(&fault_free).steps, whole);
    }
    assert_eq!(guest.usage().guests, 1);
}
