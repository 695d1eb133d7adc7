//! Whose calls fail, and how often.

use std::{collections::BTreeSet, fs};

use execution::{Execution, FindingKind, How, RunError};
use fault_plan::{FOR_EVER, Fault, FaultPlan, Scope};
use guest_protocol::StepResult;
use tempfile::TempDir;

use crate::common::{KERNEL, LEAN, SLAB, fault, fired, guests, guests_on, plan, steps_target};

const EREMOTE: i32 = 66;
const ENOMEM: i32 = 12;
const WRITTEN: StepResult = StepResult::Done(1);
/// Times that a fault fires in an execution, at most: `MOST_FIRES` of the programs.
const MOST_FIRES: u32 = 8192;
/// The function that a child of the kernel's begins with: `kernel/umh.c` (6.12).
const CHILD: &str = "call_usermodehelper_exec_async";

/// A target with a call of each scope: of the workload, of a child that executes a program, of a
/// work item, of another thread.
fn all_scopes() -> TempDir {
    let folder = steps_target(&["reachable", "work_item", "thread"], SLAB);
    let file = folder.path().join("target.toml");
    let text = fs::read_to_string(&file).unwrap();
    fs::write(&file, text.replacen("]\n", ", { fork = { exec = true } }]\n", 1)).unwrap();
    folder
}

/// A function below which there are calls of this scope alone, and the step that they are in.
fn call_of(scope: Scope) -> (&'static str, u32) {
    match scope {
        Scope::Workload => ("selftest_path_a", 1),
        Scope::Child => ("__x64_sys_execve", 4),
        Scope::Worker => ("selftest_job_alloc", 2),
        Scope::Thread => ("selftest_batch_fill", 3),
    }
}

#[test]
fn a_fault_is_of_the_task_that_it_names() {
    let folder = all_scopes();
    let steps = [WRITTEN, WRITTEN, WRITTEN, StepResult::Done(0)];
    let of = |scope, task| Fault { task, ..fault(&["...", call_of(scope).0], 1) };
    for kernel in [KERNEL, LEAN] {
        let mut guest = guests_on(kernel, folder.path().to_str().unwrap());
        let free = guest.run_fresh(&plan(&[]));
        for scope in Scope::ALL {
            let (caller, step) = call_of(scope);
            let sites = free.sites.iter().filter(|site| site.call_path.iter().any(|name| name == caller));
            let of: BTreeSet<_> = sites.map(|site| (site.scope, site.step)).collect();
            assert_eq!(of, [(scope, step)].into(), "{kernel}: {caller}");
        }
        for task in Scope::ALL {
            let others = Scope::ALL.into_iter().filter(|scope| *scope != task);
            let execution = guest.run(&plan(&others.map(|scope| of(scope, Some(task))).collect::<Vec<_>>()));
            assert_eq!((execution.steps.as_slice(), fired(&execution)), (&steps[..], vec![]), "{kernel}: {task}");
            assert!(execution.findings.is_empty(), "{kernel}: {task}: {:?}", execution.findings);
        }
        assert_eq!(guest.usage().guests, 1, "{kernel}: nothing until here costs a guest");
        for scope in Scope::ALL {
            for task in [Some(scope), None] {
                let execution = guest.run(&plan(&[of(scope, task)]));
                assert_eq!(fired(&execution), [(0, call_of(scope).1, 1)], "{kernel}: {scope} {task:?}");
                assert_eq!(execution.fired[0].scope, scope, "{kernel}: {task:?}");
                has_its_effect(&execution, scope, kernel);
            }
        }
    }
}

/// Asserts that the call of this scope failed, and not another one.
fn has_its_effect(execution: &Execution, scope: Scope, kernel: &str) {
    let bug = match scope {
        Scope::Workload => return assert_eq!(execution.steps[0], StepResult::Failed(EREMOTE)),
        Scope::Child => return assert_eq!(execution.steps[3], StepResult::Failed(ENOMEM)),
        Scope::Worker => "selftest_job_run",
        // Memory that was freed is written to: only the kernel that checks says so.
        Scope::Thread if kernel == LEAN => return,
        Scope::Thread => "selftest_batch_work",
    };
    let finding = execution.findings.first().expect("the bug is seen");
    assert!(finding.title.contains(bug), "{}", finding.title);
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
