//! Faults with conditions: whose call it is, its arguments, what fired before, and how often.

use std::fs;

use execution::{Execution, FindingKind, How, RunError};
use fault_plan::{ArgumentCondition, Condition, FOR_EVER, Fault, FaultPlan, Scope};
use guest_protocol::StepResult;

use crate::common::{KERNEL, LEAN, SLAB, fault, guests, guests_on, plan, steps_target};

const EREMOTE: i32 = 66;
const ENOMEM: i32 = 12;
const WRITTEN: StepResult = StepResult::Done(1);
/// Times that a fault fires in an execution, at most: `MOST_FIRES` of the programs.
const MOST_FIRES: u32 = 8192;
/// The function that a child of the kernel's begins with: `kernel/umh.c` (6.12).
const CHILD: &str = "call_usermodehelper_exec_async";

/// A condition on an argument as files have it.
fn argument(text: &str) -> ArgumentCondition {
    let Condition::Argument(condition) = serde_json::from_str(text).unwrap() else { panic!("{text}") };
    condition
}

/// The steps at which the faults fired, by the faults' indices.
fn fired(execution: &Execution) -> Vec<(usize, u32, u32)> {
    execution.fired.iter().map(|fired| (fired.fault, fired.step, fired.times)).collect()
}

#[test]
fn a_fault_is_of_the_task_that_it_names() {
    let folder = steps_target(&["work_item", "thread", "reachable"], SLAB);
    let mut guest = guests(folder.path());
    let free = guest.run_fresh(&plan(&[]));
    let scope_of = |caller: &str| {
        let site = free.sites.iter().find(|site| site.call_path.iter().any(|name| name == caller));
        site.map(|site| (site.scope, site.step))
    };
    assert_eq!(scope_of("selftest_job_alloc"), Some((Scope::Worker, 1)));
    assert_eq!(scope_of("selftest_batch_fill"), Some((Scope::Thread, 2)));
    assert_eq!(scope_of("selftest_inner_alloc"), Some((Scope::Workload, 3)));
    let of = |caller: &str, task| plan(&[Fault { task, ..fault(&["...", caller], 1) }]);
    for task in Scope::ALL {
        for (caller, own) in [("selftest_job_alloc", Scope::Worker), ("selftest_batch_fill", Scope::Thread)] {
            if task != own {
                let execution = guest.run(&of(caller, Some(task)));
                assert_eq!((&execution.steps, fired(&execution)), (&vec![WRITTEN; 3], vec![]), "{caller} {task}");
                assert!(execution.findings.is_empty(), "{:?}", execution.findings);
            }
        }
    }
    for (caller, task, step, function) in [
        ("selftest_job_alloc", Some(Scope::Worker), 1, "selftest_job_run"),
        ("selftest_job_alloc", None, 1, "selftest_job_run"),
        ("selftest_batch_fill", Some(Scope::Thread), 2, "selftest_batch_work"),
    ] {
        let execution = guest.run(&of(caller, task));
        assert_eq!(fired(&execution), [(0, step, 1)], "{caller} {task:?}");
        assert!(!execution.fired[0].scope.is_workload());
        let finding = execution.findings.first().expect("the bug is seen");
        assert!(finding.title.contains(function), "{}", finding.title);
    }
}

#[test]
fn a_scope_that_the_target_leaves_out_is_left_alone() {
    let folder = steps_target(&["work_item", "thread", "occurrence"], SLAB);
    let file = folder.path().join("target.toml");
    let text = fs::read_to_string(&file).unwrap();
    fs::write(&file, text.replacen("steps =", "scope = [\"workload\", \"thread\"]\nsteps =", 1)).unwrap();
    let mut guest = guests(folder.path());
    let any = guest.run_fresh(&plan(&[fault(&["...", "selftest_job_alloc"], 1)]));
    assert_eq!((&any.steps, fired(&any)), (&vec![WRITTEN; 3], vec![]));
    assert!(any.sites.iter().any(|site| site.scope == Scope::Thread));
    assert!(any.sites.iter().all(|site| matches!(site.scope, Scope::Workload | Scope::Thread)), "{:?}", any.sites);
    let worker = plan(&[Fault { task: Some(Scope::Worker), ..fault(&["...", "selftest_job_alloc"], 1) }]);
    let Err(RunError::Refused(reason)) = guest.ran(&worker, How::Warm).execution else { panic!("not refused") };
    assert!(reason.contains("fault 1: task \"worker\": the target's `scope` lacks it"), "{reason}");
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

#[test]
fn a_fault_fires_as_often_as_it_says() {
    let folder = steps_target(&["retries", "reachable"], SLAB);
    let mut guest = guests(folder.path());
    let retries = |times| plan(&[Fault { times, ..fault(&["...", "selftest_retry_alloc"], 1) }]);
    let twice = guest.run(&retries(2));
    assert_eq!((fired(&twice), &twice.steps), (vec![(0, 1, 2)], &vec![WRITTEN; 2]), "the third attempt works");
    assert_eq!(guest.usage().guests, 1);
    for times in [3, FOR_EVER] {
        let execution = guest.run(&retries(times));
        assert_eq!(fired(&execution), [(0, 1, 3)]);
        let [finding] = &execution.findings[..] else { panic!("{:?}", execution.findings) };
        assert!(finding.title.contains("selftest_retries"), "{}", finding.title);
        assert_ne!(finding.kind, FindingKind::Warning);
    }
}

/// `__clear_extent_bit()` of btrfs has no error to return: it asks until it gets memory.
#[test]
fn a_loop_that_asks_whenever_it_fails_ends_and_is_a_finding() {
    let mut guest = guests_on(LEAN, "btrfs-mount");
    let plan = FaultPlan {
        faults: vec![Fault { times: FOR_EVER, ..fault(&["kmem_cache_alloc_noprof", "...", "open_ctree"], 32) }],
        ..guest.prepared.target.fault_free()
    };
    let execution = guest.run(&plan);
    let [finding] = &execution.findings[..] else { panic!("{:?}", execution.findings) };
    assert_eq!((finding.kind, finding.key.as_str()), (FindingKind::Loop, "endless loop: __clear_extent_bit"));
    assert_eq!(fired(&execution), [(0, 1, MOST_FIRES)]);
    assert!(finding.stack.iter().any(|function| function == "alloc_extent_state"), "the last call: {finding:?}");
    assert_eq!(execution.steps[0], StepResult::Failed(ENOMEM), "the mount goes on, and fails");
    assert!(guest.run(&guest.prepared.target.fault_free()).findings.is_empty());
    assert_eq!(guest.usage().guests, 1, "it does not cost the guest");
}

#[test]
fn a_system_call_fails_in_the_workload_s_task() {
    let folder = steps_target(&["reachable", "occurrence"], &[]);
    let file = folder.path().join("target.toml");
    let text = fs::read_to_string(&file).unwrap();
    fs::write(&file, text.replacen("steps =", "functions = [\"syscalls\"]\nsteps =", 1)).unwrap();
    let mut guest = guests(folder.path());
    let eio = fault_plan::InjectedError::Errno(fault_plan::Errno::EIO);
    let write = Fault { step: Some(2), ..Fault::new("__x64_sys_write", fault_plan::CallPath::default(), 1, eio) };
    let execution = guest.run(&plan(&[write]));
    assert_eq!(execution.steps, [WRITTEN, StepResult::Failed(5)]);
    assert_eq!((fired(&execution), execution.fired[0].scope), (vec![(0, 2, 1)], Scope::Workload));
    assert!(execution.findings.is_empty(), "{:?}", execution.findings);
}

/// A mount of an unknown file system has the kernel look for a module, by a program that a child
/// begins to execute.
#[test]
fn a_fault_of_a_child_is_of_a_user_task_that_the_workload_caused() {
    let folder = tempfile::tempdir().unwrap();
    let text = format!(
        "description = \"a test\"\nkernel = \"{KERNEL}\"\nfunctions = [\"memory\"]\n\
         steps = [{{ mount = {{ fstype = \"nothing\" }}, expect = \"ENODEV\" }}]\n\
         [image]\nmkfs = [\"mkfs.btrfs\", \"-q\", \"-U\", \"f0220000-0000-4000-8000-000000000001\"]\nsize_mib = 128\n"
    );
    fs::write(folder.path().join("target.toml"), text).unwrap();
    let mut guest = guests(folder.path());
    let free = guest.run_fresh(&plan(&[]));
    let of_child = free.sites.iter().filter(|site| site.scope == Scope::Child);
    let paths: Vec<_> = of_child.map(|site| &site.call_path).collect();
    assert!(!paths.is_empty() && paths.iter().all(|path| path.contains(&CHILD.to_owned())), "{paths:?}");
    let with = |task| plan(&[Fault { task, ..fault(&["...", CHILD], 1) }]);
    let failed = guest.run(&with(Some(Scope::Child)));
    assert_eq!((fired(&failed), failed.fired[0].scope), (vec![(0, 1, 1)], Scope::Child));
    assert!(failed.findings.is_empty(), "{:?}", failed.findings);
    assert_eq!(fired(&guest.run(&with(Some(Scope::Worker)))), []);
}
