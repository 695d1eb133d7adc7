//! Bugs of error paths that people met elsewhere, as plans. The calls are there and fail, and this
//! kernel, which has the fixes, bears it. Those that it still has are among the known crashes.

use fault_plan::{Errno, Fault, FaultPlan, InjectedError};
use guest_protocol::StepResult;

use crate::common::{LEAN, fails, guests_on};

const ENOMEM: InjectedError = InjectedError::Errno(Errno::ENOMEM);
const EIO: InjectedError = InjectedError::Errno(Errno::EIO);

/// Runs a fault of this target on the lean kernel. It fires and, if it is `told` of, a step fails;
/// nothing is found.
fn bears(target: &str, fault: Fault, told: bool) {
    let mut guest = guests_on(LEAN, target);
    let what = format!("{target}: {fault:?}");
    let plan = FaultPlan { faults: vec![fault], ..guest.prepared.target.fault_free() };
    let execution = guest.run_fresh(&plan);
    assert_eq!(execution.fired.len(), 1, "{what}: {:?}", execution.steps);
    assert!(execution.findings.is_empty(), "{what}: {:?}", execution.findings);
    let failed = execution.steps.iter().any(|step| matches!(step, StepResult::Failed(_)));
    assert_eq!(failed, told, "{what}: {:?}", execution.steps);
}

/// The path of an extent was freed twice, until 6.12.
#[test]
fn ext4_bears_that_a_block_of_the_extent_tree_is_not_to_be_had() {
    let callers = ["__read_extent_tree_block", "ext4_find_extent", "ext4_ext_insert_extent"];
    bears("ext4-rw", fails("bdev_getblk", &callers, InjectedError::Null), false);
}

/// Log items were used after the shutdown had freed them, until 6.12.80.
#[test]
fn xfs_bears_that_its_log_is_not_written() {
    let callers = ["submit_bio_noacct", "submit_bio", "xlog_write_iclog"];
    bears("xfs-rw", fails("should_fail_bio", &callers, EIO), true);
}

/// An ordered extent was split after the transaction had been aborted, until 6.12.14.
#[test]
fn btrfs_bears_that_a_direct_write_gets_no_new_chunk() {
    let callers = ["...", "btrfs_chunk_alloc_add_chunk_item"];
    bears("btrfs-large", fails("should_failslab", &callers, ENOMEM), true);
}

/// The write is one call, and its memory is scattered. So each request has 256 pages, and there are
/// many requests for one ordered extent.
#[test]
fn a_long_direct_write_makes_many_requests() {
    let fault = r#"{ "function": "should_fail_bio", "call_path": ["...", "iomap_dio_bio_iter"],
        "arg": [{ "argument": 1, "field": "bio.bi_iter.bi_size", "value": 1048576 }],
        "occurrence": 8, "error": "EIO" }"#;
    bears("btrfs-large", serde_json::from_str(fault).unwrap(), true);
}
