//! Conditions of a fault: on callers, on arguments, on what fired before. Each decides which call
//! fails.

use std::fs;

use execution::{Execution, How, RunError};
use fault_plan::{ArgumentCondition, Condition, Errno, Fault, FaultPlan, InjectedError, Operator, Round, Scope};
use guest_protocol::StepResult;
use strum::VariantArray;
use tempfile::TempDir;

use crate::common::{Guests, KERNEL, LEAN, SLAB, fails, fault, fired, guests, guests_on, plan, steps_target};

const EIO: i32 = 5;
const ENOMEM: i32 = 12;
const EEXIST: i32 = 17;
const EXDEV: i32 = 18;
const EREMOTE: i32 = 66;
const WRITTEN: StepResult = StepResult::Done(1);

/// A condition on an argument as files have it.
fn argument(text: &str) -> ArgumentCondition {
    let Condition::Argument(condition) = serde_json::from_str(text).unwrap() else { panic!("{text}") };
    condition
}

#[test]
fn conditions_on_arguments_and_other_faults_decide_which_call_fails() {
    let folder = steps_target(&["reachable", "occurrence", "reachable", "unwind_uaf", "null_deref"], SLAB);
    let mut guest = guests(folder.path());
    let inner = || fault(&["...", "selftest_inner_alloc", "selftest_path_a"], 1);
    let second = |n| fault(&["...", "selftest_occurrence_alloc"], n);
    // After another fault: not in the first step.
    let after = guest.run(&plan(&[second(2), Fault { after: Some(1), ..inner() }]));
    assert_eq!(fired(&after), [(0, 2, 1), (1, 3, 1)]);
    assert_eq!(after.steps[2], StepResult::Failed(EREMOTE));
    let turned = guest.run(&plan(&[Fault { after: Some(2), ..inner() }, second(2)]));
    assert_eq!(fired(&turned), [(1, 2, 1), (0, 3, 1)], "the order in the plan does not matter");
    let never = guest.run(&plan(&[second(9), Fault { after: Some(1), ..inner() }]));
    assert_eq!((fired(&never), never.steps), (vec![], vec![WRITTEN; 5]), "what it comes after does not fire");
    // The same call makes one fire and is no occurrence of the other.
    let same = guest.run(&plan(&[inner(), Fault { after: Some(1), ..inner() }]));
    assert_eq!(fired(&same), [(0, 1, 1), (1, 3, 1)]);

    // An argument's field: the allocation of 96 bytes, of four in that step.
    let field =
        |size: u32| argument(&format!(r#"{{ "argument": 1, "field": "kmem_cache.object_size", "value": {size} }}"#));
    let below = |caller: &str, arguments| plan(&[Fault { arguments, ..fault(&["...", caller], 1) }]);
    let log = guest.run(&below("selftest_unwind_uaf", vec![field(96)]));
    assert_eq!(fired(&log), [(0, 4, 1)]);
    assert!(log.fired[0].call_path.contains(&"selftest_session_log".to_owned()), "{:?}", log.fired);
    assert_eq!(log.steps[3], StepResult::Failed(ENOMEM));
    let none = guest.run(&below("selftest_unwind_uaf", vec![field(97)]));
    assert_eq!((fired(&none), none.steps), (vec![], vec![WRITTEN; 5]));

    // The flags: the first allocation of that step is of zeroed memory, the second is not.
    let zeroed = |operator: &str| {
        let mask = r#"{ "bit": "___GFP_ZERO_BIT", "or": 8 }"#;
        argument(&format!(r#"{{ "argument": 2, "mask": {mask}, "operator": "{operator}", "value": 0 }}"#))
    };
    for (operator, is_copy) in [("!=", false), ("==", true)] {
        let execution = guest.run(&below("selftest_null_deref", vec![zeroed(operator)]));
        assert_eq!((fired(&execution), execution.steps[4]), (vec![(0, 5, 1)], StepResult::Failed(ENOMEM)));
        let copies = execution.fired[0].call_path.iter().any(|caller| caller.starts_with("kstrdup"));
        assert_eq!(copies, is_copy, "{:?}", execution.fired);
    }
    let both = guest.run(&below("selftest_null_deref", vec![zeroed("=="), field(8)]));
    assert_eq!(fired(&both), [], "both conditions must hold");
    let unknown =
        below("selftest_null_deref", vec![argument(r#"{ "argument": 1, "field": "kmem_cache.no", "value": 1 }"#)]);
    let Err(RunError::Refused(reason)) = guest.ran(&unknown, How::Warm).execution else { panic!("not refused") };
    assert!(reason.contains("fault 1: ") && reason.contains("has no field \"no\""), "{reason}");
    assert_eq!(guest.usage().guests, 1, "nothing here costs a guest");
}

/// A condition that a field behind the first argument has this value.
fn field(name: &str, value: &str) -> ArgumentCondition {
    argument(&format!(r#"{{ "argument": 1, "field": "{name}", "value": {value} }}"#))
}

/// The trigger of these tests calls `selftest_inner_alloc()` by one of two functions, and then by
/// the other.
const REACHABLE: &str = "selftest_reachable";

#[test]
fn callers_and_arguments_decide_alike_on_both_kernels() {
    let folder = steps_target(&["reachable", "clean"], SLAB);
    for kernel in [KERNEL, LEAN] {
        let mut guest = guests_on(kernel, folder.path().to_str().unwrap());
        a_gap_is_where_the_path_says_so(&mut guest);
        each_operator_compares(&mut guest);
        each_condition_alone_spares_a_call(&mut guest);
        assert_eq!(guest.usage().guests, 1, "{kernel}: nothing here costs a guest");
    }
}

fn a_gap_is_where_the_path_says_so(guest: &mut Guests) {
    let (first, second) = (Some(EREMOTE), Some(EXDEV));
    for (path, error) in [
        (&["...", "selftest_inner_alloc"][..], first),
        (&["...", "selftest_path_b"], second),
        (&["__kmalloc_cache_noprof", "selftest_inner_alloc", "selftest_path_b"], second),
        (&["__kmalloc_cache_noprof", "...", "selftest_path_b"], second),
        (&["__kmalloc_cache_noprof", "...", "selftest_inner_alloc", "...", REACHABLE], first),
        (&["...", "selftest_path_b", "...", REACHABLE, "...", "selftest_write"], second),
        // It begins with the innermost caller, and leaves none out.
        (&["selftest_inner_alloc"], None),
        (&["__kmalloc_cache_noprof", "selftest_path_b"], None),
        (&["...", "selftest_inner_alloc", REACHABLE], None),
        // The order counts, and all are on one path.
        (&["...", "selftest_path_b", "...", "selftest_inner_alloc"], None),
        (&["...", "selftest_path_a", "...", "selftest_path_b"], None),
    ] {
        let execution = guest.run(&plan(&[fault(path, 1)]));
        let expected = error.map_or(WRITTEN, StepResult::Failed);
        assert_eq!((execution.steps[0], execution.fired.len()), (expected, usize::from(error.is_some())), "{path:?}");
    }
}

/// The sizes of the caches that `selftest_clean()` allocates from, and the callers.
const SIZES: [(u64, &str); 4] = [
    (32, "selftest_clean"),
    (8, "selftest_volume_label"),
    (256, "selftest_volume_table"),
    (1024, "selftest_volume_journal"),
];

fn each_operator_compares(guest: &mut Guests) {
    for operator in Operator::VARIANTS {
        let holds: fn(u64, u64) -> bool = match operator {
            Operator::Equal => |size, value| size == value,
            Operator::NotEqual => |size, value| size != value,
            Operator::Less => |size, value| size < value,
            Operator::AtMost => |size, value| size <= value,
            Operator::Greater => |size, value| size > value,
            Operator::AtLeast => |size, value| size >= value,
        };
        let size = ArgumentCondition { operator: *operator, ..field("kmem_cache.object_size", "256") };
        let fault_at = |n| Fault { arguments: vec![size.clone()], ..fault(&["...", "selftest_clean"], n) };
        let expected = SIZES.iter().filter(|(size, _)| holds(*size, 256));
        let mut last = 0;
        for ((_, caller), n) in expected.zip(1..) {
            let execution = guest.run(&plan(&[fault_at(n)]));
            assert_eq!(fired(&execution), [(0, 2, 1)], "{operator} {n}");
            let own = execution.fired[0].call_path.iter().find(|name| name.starts_with("selftest_"));
            assert_eq!(own.map(String::as_str), Some(*caller), "{operator} {n}");
            last = n;
        }
        assert_eq!(fired(&guest.run(&plan(&[fault_at(last + 1)]))), [], "{operator}: there is no other");
    }
}

fn each_condition_alone_spares_a_call(guest: &mut Guests) {
    let whole = Fault {
        step: Some(1),
        task: Some(Scope::Workload),
        arguments: vec![field("kmem_cache.object_size", "512")],
        ..fault(&["...", "selftest_path_b"], 1)
    };
    assert_eq!(guest.run(&plan(std::slice::from_ref(&whole))).steps[0], StepResult::Failed(EXDEV));
    // All that there is: a new condition has to be put below as well.
    let Fault {
        function: _,
        call_path: _,
        occurrence: _,
        error: _,
        step: _,
        task: _,
        arguments: _,
        after: _,
        times: _,
    } = &whole;
    let arguments = vec![field("kmem_cache.object_size", "511")];
    for spared in [
        Fault { call_path: fault(&["...", "selftest_volume_table"], 1).call_path, ..whole.clone() },
        Fault { occurrence: 2, ..whole.clone() },
        Fault { step: Some(2), ..whole.clone() },
        Fault { task: Some(Scope::Worker), ..whole.clone() },
        Fault { arguments, ..whole.clone() },
        Fault { after: Some(2), ..whole.clone() },
    ] {
        let execution = guest.run(&plan(&[spared.clone(), fault(&["...", "selftest_volume_table"], 2)]));
        assert_eq!((execution.steps.as_slice(), execution.fired.len()), (&[WRITTEN; 2][..], 0), "{spared:?}");
    }
}

/// A target with two files on an ext4, in which blocks, inodes and allocations of its own can fail.
fn files() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let text = format!(
        "description = \"a test\"\nkernel = \"{KERNEL}\"\nfunctions = [\"memory\", \"block\", \
         {{ name = \"ext4_truncate\", type = \"ERRNO\", errors = [\"ENOMEM\"] }}]\nsteps = [\n\
         {{ mount = {{ fstype = \"ext4\" }} }},\n{{ create = {{ path = \"first\" }} }},\n\
         {{ create = {{ path = \"second\" }} }},\n{{ write = {{ path = \"first\", length = 9000, sync = true }} }},\n\
         {{ truncate = {{ path = \"first\", length = 100 }} }},\n{{ truncate = {{ path = \"second\", length = 0 }} }},\n\
         {{ umount = {{}} }},\n]\n[image]\nmkfs = [\"mkfs.ext4\", \"-q\"]\nsize_mib = 16\n"
    );
    fs::write(folder.path().join("target.toml"), text).unwrap();
    folder
}

#[test]
fn conditions_on_blocks_inodes_and_caches_hold_for_those_alone() {
    let folder = files();
    for kernel in [KERNEL, LEAN] {
        let mut guest = guests_on(kernel, folder.path().to_str().unwrap());
        of_blocks(&mut guest);
        of_inodes(&mut guest);
        of_caches(&mut guest);
        of_rounds(&mut guest);
        assert_eq!(guest.usage().harness_errors, 0, "{kernel}: {:?}", guest.usage());
    }
}

/// Runs with the first call of this function failing for which all of these hold. Gives what fired.
fn where_all(guest: &mut Guests, function: &str, error: i32, conditions: &[ArgumentCondition]) -> Execution {
    let error = InjectedError::Errno(Errno::from_number(i64::from(error)).unwrap());
    let execution = guest.run(&plan(&[Fault { arguments: conditions.to_vec(), ..fails(function, &[], error) }]));
    assert!(execution.findings.is_empty(), "{conditions:?}: {:?}", execution.findings);
    execution
}

fn of_blocks(guest: &mut Guests) {
    let operation = |name: &str| {
        let text = r#"{ "argument": 1, "field": "bio.bi_opf", "mask": 255, "value": { "constant": "REQ_OP_"#;
        argument(&format!("{text}{name}\" }} }}"))
    };
    let metadata = |operator: &str| {
        let text =
            r#"{ "argument": 1, "field": "bio.bi_opf", "mask": { "bit": "__REQ_META" }, "value": 0, "operator": "#;
        argument(&format!("{text}\"{operator}\" }}"))
    };
    let mut words = |conditions: &[ArgumentCondition]| {
        let execution = where_all(guest, "should_fail_bio", EIO, conditions);
        execution.fired.first().map(|fired| fired.words.clone())
    };
    for name in ["READ", "WRITE"] {
        for (operator, is_metadata) in [("!=", true), ("==", false)] {
            let fired = words(&[operation(name), metadata(operator)]).unwrap();
            assert!(fired.starts_with(&format!("operation {name}")), "{name}: {fired}");
            assert_eq!(fired.contains("META"), is_metadata, "{fired}");
        }
    }
    let written = words(&[operation("WRITE")]).unwrap();
    let sector = written.split_once("sector ").unwrap().1.split(',').next().unwrap().to_owned();
    let same = words(&[field("bio.bi_iter.bi_sector", &sector)]).unwrap();
    assert!(same.contains(&format!("sector {sector},")), "{same}");
    // Blocks begin at even sectors.
    assert_eq!(words(&[field("bio.bi_iter.bi_sector", &format!("{sector}1"))]), None);
}

/// The first inode that mkfs leaves free, and the next one, are the two files.
fn of_inodes(guest: &mut Guests) {
    for (inode, step) in [("12", Some(5)), ("13", Some(6)), ("14", None)] {
        let execution = where_all(guest, "ext4_truncate", ENOMEM, &[field("inode.i_ino", inode)]);
        let steps: Vec<_> = execution.fired.iter().map(|fired| fired.step).collect();
        assert_eq!(steps, step.into_iter().collect::<Vec<u32>>(), "{inode}");
        let failed = (1..).zip(&execution.steps).filter(|(_, result)| **result == StepResult::Failed(ENOMEM));
        assert_eq!(failed.map(|(number, _)| number).next(), step, "{inode}");
    }
}

fn of_caches(guest: &mut Guests) {
    let cache = argument(r#"{ "argument": 1, "value": { "symbol": "ext4_inode_cachep" } }"#);
    let execution = where_all(guest, "should_failslab", ENOMEM, &[cache]);
    assert!(execution.fired[0].words.contains("cache ext4_inode_cache,"), "{}", execution.fired[0].words);
    let flags = argument(r#"{ "argument": 2, "mask": { "bit": "___GFP_FS_BIT" }, "operator": "==", "value": 0 }"#);
    let execution = where_all(guest, "should_failslab", ENOMEM, &[flags]);
    assert!(execution.fired[0].words.contains("GFP_NOFS"), "{}", execution.fired[0].words);
}

/// The disk is put back between two rounds, or not, and a fault is of its own round alone.
fn of_rounds(guest: &mut Guests) {
    let guests = guest.usage().guests;
    let mut rounds = |faults: Vec<Fault>, reset: bool| {
        let whole = guest.run(&FaultPlan { earlier: vec![Round { faults, reset }], ..plan(&[]) });
        assert!(whole.findings.is_empty(), "{:?}", whole.findings);
        (whole.rounds[0].steps[1], whole.steps[1], fired(&whole))
    };
    let worked = StepResult::Done(0);
    assert_eq!(rounds(vec![], true), (worked, worked, vec![]));
    assert_eq!(rounds(vec![], false), (worked, StepResult::Failed(EEXIST), vec![]));
    let failing = Fault { step: Some(2), ..fault(&[], 1) };
    assert_eq!(rounds(vec![failing], false), (StepResult::Failed(ENOMEM), worked, vec![(0, 2, 1)]));
    assert_eq!(guest.run(&plan(&[])).steps[1], worked, "the disk is put back after the last round");
    assert_eq!(guest.usage().guests, guests, "a warm guest runs all of them");
}
