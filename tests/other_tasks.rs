//! Code and work of tasks other than the workload's: work items, kernel threads.

use std::{collections::BTreeSet, fs, sync::Arc};

use execution::Execution;
use guest_protocol::TraceRole;
use kcov_parser::Symbols;
use tempfile::TempDir;

use crate::common::{LEAN, SLAB, fault, guests_on, plan, steps_target};

/// Functions that the tasks of this role ran.
pub(crate) fn functions(symbols: &Symbols, execution: &Execution, role: TraceRole) -> BTreeSet<String> {
    let name = |(_, pc): (TraceRole, u64)| symbols.resolve(pc - 1).map(|location| location.function.to_owned());
    execution.covered().filter(|(other, _)| *other == role).filter_map(name).collect()
}

#[test]
fn code_of_work_items_and_threads_is_theirs_and_not_the_workloads() {
    let folder = steps_target(&["work_item", "thread", "clean"], SLAB);
    let mut guest = guests_on(LEAN, folder.path().to_str().unwrap());
    let symbols = Arc::clone(&guest.prepared.symbols);
    for _ in 0..3 {
        let execution = guest.run(&plan(&[]));
        let of = |role| functions(&symbols, &execution, role);
        let (workload, threads) = (of(TraceRole::Workload), of(TraceRole::Threads));
        for (theirs, its) in [("selftest_job_run", "selftest_work_item"), ("selftest_batch_work", "selftest_thread")] {
            assert!(threads.contains(theirs) && !threads.contains(its), "{threads:?}");
            assert!(workload.contains(its) && !workload.contains(theirs), "{workload:?}");
        }
        assert!(of(TraceRole::Tasks).is_empty(), "there is no child");
        assert!(!execution.incomplete);
    }
}

/// A target that queues a work item, and ends when it has surely run.
fn late_work() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let text = format!(
        "description = \"a test\"\nkernel = \"{LEAN}\"\n\
         steps = [{{ trigger = {{ name = \"late_work\" }} }}, {{ sleep = {{ ms = 60 }} }}]\n\
         [[functions]]\nname = \"should_failslab\"\nerrors = [\"ENOMEM\"]\n"
    );
    fs::write(folder.path().join("target.toml"), text).unwrap();
    folder
}

#[test]
fn work_that_never_ends_is_a_finding_with_its_function() {
    let folder = late_work();
    let mut guest = guests_on(LEAN, folder.path().to_str().unwrap());
    assert!(guest.run(&plan(&[])).findings.is_empty(), "it ends by itself");
    let execution = guest.run(&plan(&[fault(&["...", "selftest_late_alloc"], 1)]));
    assert_eq!(execution.fired.len(), 1, "{:?}", execution.sites);
    let keys: Vec<_> = execution.findings.iter().map(|finding| finding.key.as_str()).collect();
    assert_eq!(keys, ["work does not end: selftest_late_run"]);
    let overflowed: Vec<_> =
        execution.coverage.iter().filter(|covered| covered.overflowed).map(|covered| covered.role).collect();
    assert_eq!((overflowed.as_slice(), execution.incomplete), (&[TraceRole::Threads][..], true));
}

#[test]
fn code_of_children_is_theirs() {
    let folder = tempfile::tempdir().unwrap();
    let text = format!(
        "description = \"a test\"\nkernel = \"{LEAN}\"\nsteps = [{{ fork = {{ exec = true }} }}]\n\
         [[functions]]\nname = \"should_failslab\"\nerrors = [\"ENOMEM\"]\n"
    );
    fs::write(folder.path().join("target.toml"), text).unwrap();
    let mut guest = guests_on(LEAN, folder.path().to_str().unwrap());
    let symbols = Arc::clone(&guest.prepared.symbols);
    let execution = guest.run(&plan(&[]));
    let of = |role| functions(&symbols, &execution, role);
    let (workload, tasks) = (of(TraceRole::Workload), of(TraceRole::Tasks));
    assert!(tasks.contains("load_elf_binary") && !workload.contains("load_elf_binary"), "{tasks:?}");
    assert!(workload.contains("kernel_clone"), "{workload:?}");
}

/// An emergency sync queues a work item, and waits for nothing: `emergency_sync()` of `fs/sync.c`
/// (6.12).
#[test]
fn code_of_work_that_no_step_waits_for_is_seen() {
    let folder = tempfile::tempdir().unwrap();
    let text = format!(
        "description = \"a test\"\nkernel = \"{LEAN}\"\n\
         steps = [{{ write-file = {{ path = \"/proc/sysrq-trigger\", text = \"s\" }} }}]\n\
         [[functions]]\nname = \"should_failslab\"\nerrors = [\"ENOMEM\"]\n"
    );
    fs::write(folder.path().join("target.toml"), text).unwrap();
    let mut guest = guests_on(LEAN, folder.path().to_str().unwrap());
    let symbols = Arc::clone(&guest.prepared.symbols);
    for _ in 0..5 {
        let execution = guest.run(&plan(&[]));
        assert!(execution.findings.is_empty(), "{:?}", execution.findings);
        let threads = functions(&symbols, &execution, TraceRole::Threads);
        assert!(threads.contains("do_sync_work"), "{threads:?}");
    }
}
