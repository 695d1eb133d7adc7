//! Honest guests: no call fails that the kernel would never fail, and a guest that is not fit to
//! judge another plan goes.

use std::fs;

use execution::{Execution, Stop};
use fault_plan::{CallPath, Errno, Fault, FaultPlan, InjectedError};
use guests::{
    prepare::{Wanted, prepare},
    progress::Silent,
};

use tempfile::TempDir;

use crate::common::{Guests, KERNEL, LEAN, SLAB, guests, guests_on, plan, steps_target};

/// The first call of `function` below `caller` fails.
fn below(function: &str, caller: &str, error: InjectedError) -> Fault {
    Fault {
        function: function.to_owned(),
        call_path: CallPath(vec!["...".to_owned(), caller.to_owned()]),
        occurrence: 1,
        error,
        step: None,
    }
}

/// Runs the target's workload with this one fault.
fn run_with(guest: &mut Guests, fault: Fault) -> Execution {
    let plan = FaultPlan { faults: vec![fault], ..guest.prepared.target.fault_free() };
    guest.run(&plan)
}

/// The functions of the sites that have `caller` among their callers.
fn functions_below<'a>(execution: &'a Execution, caller: &str) -> Vec<&'a str> {
    let below = |path: &[String]| path.iter().any(|name| name == caller);
    execution.sites.iter().filter(|site| below(&site.call_path)).map(|site| site.function.as_str()).collect()
}

#[test]
fn what_the_disk_allocates_and_blocks_just_made_are_no_injection_sites() {
    let damaged = InjectedError::Errno(Errno::from_name("EUCLEAN").unwrap());
    for kernel in [KERNEL, LEAN] {
        let mut guest = guests_on(kernel, "btrfs-rw");
        let fault_free = guest.prepared.target.fault_free();
        let whole = guest.run(&fault_free);
        assert!(whole.guarded > 20, "{kernel}: the disk allocates, blocks are written: {}", whole.guarded);
        assert_eq!(functions_below(&whole, "brd_submit_bio"), [""; 0], "{kernel}");
        assert_eq!(functions_below(&whole, "btree_csum_one_bio"), [""; 0], "{kernel}");

        for spared in [
            below("should_fail_alloc_page", "brd_submit_bio", InjectedError::True),
            below("should_failslab", "brd_submit_bio", InjectedError::Errno(Errno::ENOMEM)),
            below("btrfs_check_leaf", "btree_csum_one_bio", damaged),
            below("btrfs_check_node", "btree_csum_one_bio", damaged),
        ] {
            let execution = run_with(&mut guest, spared.clone());
            assert_eq!((execution.fired.len(), &execution.steps), (0, &whole.steps), "{kernel}: {spared:?}");
        }
    }
}

/// Gives a target whose calls below one of `callers` never fail.
fn sparing(callers: &str) -> TempDir {
    let folder = steps_target(&["reachable"], SLAB);
    let file = folder.path().join("target.toml");
    let text = fs::read_to_string(&file).unwrap() + &format!("never = [{{ caller = {callers} }}]\n");
    fs::write(&file, text).unwrap();
    folder
}

#[test]
fn a_call_is_spared_below_one_caller_and_not_below_another() {
    let folder = sparing("[\"no_such_caller\", \"selftest_path_a\"]");
    let mut guest = guests(folder.path());
    let nomem = InjectedError::Errno(Errno::ENOMEM);
    let whole = guest.run(&plan(&[]));
    assert_eq!((whole.guarded, functions_below(&whole, "selftest_path_a").len()), (1, 0));
    let spared = run_with(&mut guest, below("should_failslab", "selftest_path_a", nomem));
    assert_eq!((spared.fired.len(), &spared.steps, spared.guarded), (0, &whole.steps, 1));
    // The call counts in no pattern: the first below the common caller is the other one.
    let other = run_with(&mut guest, below("should_failslab", "selftest_reachable", nomem));
    assert!(other.fired[0].call_path.contains(&"selftest_path_b".to_owned()), "{:?}", other.fired);
}

#[test]
fn a_contract_that_a_kernel_cannot_keep_is_refused() {
    let folder = sparing("[\"no_such_caller\", \"nor_this_one\"]");
    let Err(error) = prepare(&Wanted::new(folder.path().to_str().unwrap()), &Stop::new(), &Silent) else {
        panic!("a guard that cannot hold was dropped")
    };
    let error = execution::chain(&error);
    assert!(error.contains("\"no_such_caller\" or \"nor_this_one\"") && error.contains("should_failslab"), "{error}");
}
