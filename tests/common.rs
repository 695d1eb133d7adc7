//! Helpers that the end-to-end tests share.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::Arc,
};

use execution::{Execution, How, Ran, Runner, Stop, Usage};
use fault_plan::{CallPath, Errno, Fault, FaultPlan, InjectedError};
use guests::{
    kernel::Built,
    prepare::{Wanted, built_kernel, prepare},
    prepared::Prepared,
    progress::Silent,
    project::Project,
    qemu::AccelChoice,
    runner::GuestRunner,
};
use tempfile::TempDir;

/// The kernel that the tests run on.
pub(crate) const KERNEL: &str = "linux-6.12-check";
/// The one that explores.
#[allow(dead_code, reason = "one of the test programs uses it")]
pub(crate) const LEAN: &str = "linux-6.12-lean";

/// Functions that may fail, each with its error.
pub(crate) type Functions = &'static [(&'static str, InjectedError)];

/// Allocations from slabs.
pub(crate) const SLAB: Functions = &[("should_failslab", InjectedError::Errno(Errno::ENOMEM))];
/// Allocations of all kinds, and additions to the page cache.
pub(crate) const MEMORY: Functions = &[
    ("should_failslab", InjectedError::Errno(Errno::ENOMEM)),
    ("should_fail_alloc_page", InjectedError::True),
    ("__filemap_add_folio", InjectedError::Errno(Errno::ENOMEM)),
];

/// A target without disk in which `functions` may fail and whose steps pull these triggers of the
/// self-test module.
pub(crate) fn steps_target(triggers: &[&str], functions: Functions) -> TempDir {
    let steps: Vec<String> = triggers.iter().map(|name| format!("{{ trigger = {{ name = \"{name}\" }} }}")).collect();
    let mut text = format!("description = \"a test\"\nkernel = \"{KERNEL}\"\nsteps = [{}]\n", steps.join(", "));
    for (name, error) in functions {
        text.push_str(&format!("[[functions]]\nname = \"{name}\"\nerrors = [\"{error}\"]\n"));
    }
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("target.toml"), text).unwrap();
    folder
}

/// A prepared target and a runner of its guests.
pub(crate) struct Guests {
    pub(crate) prepared: Arc<Prepared>,
    pub(crate) runner: GuestRunner,
}

#[allow(dead_code, reason = "each test program uses some of it")]
impl Guests {
    /// Runs the plan in the guest at hand.
    pub(crate) fn run(&mut self, plan: &FaultPlan) -> Execution {
        self.ran(plan, How::Warm).execution.unwrap()
    }

    /// Runs the plan in a fresh guest.
    pub(crate) fn run_fresh(&mut self, plan: &FaultPlan) -> Execution {
        self.ran(plan, How::Fresh).execution.unwrap()
    }

    pub(crate) fn ran(&mut self, plan: &FaultPlan, how: How) -> Ran {
        self.runner.run(plan, how)
    }

    pub(crate) fn usage(&self) -> Usage {
        self.runner.usage()
    }
}

/// Guests of the target called so, or in the folder of that path.
pub(crate) fn guests_of(target: &str) -> Guests {
    guests_as(Wanted::new(target))
}

/// Guests of the target called so, or in the folder of that path, on a kernel other than its own.
#[allow(dead_code, reason = "one of the test programs uses it")]
pub(crate) fn guests_on(kernel: &str, target: &str) -> Guests {
    guests_as(Wanted { kernel: Some(kernel.to_owned()), ..Wanted::new(target) })
}

/// Guests for the target in `folder`.
pub(crate) fn guests(folder: &Path) -> Guests {
    guests_of(folder.to_str().unwrap())
}

/// Guests for the target in `folder` whose first executions repeat exactly.
#[allow(dead_code, reason = "one of the test programs uses it")]
pub(crate) fn exact_guests(folder: &Path) -> Guests {
    guests_as(Wanted { accel: AccelChoice::Tcg, exact: true, ..Wanted::new(folder.to_str().unwrap()) })
}

fn guests_as(wanted: Wanted) -> Guests {
    let prepared = prepare(&wanted, &Stop::new(), &Silent).unwrap();
    Guests { runner: GuestRunner::new(&prepared), prepared }
}

/// A fault of `should_failslab`.
pub(crate) fn fault(path: &[&str], occurrence: u32) -> Fault {
    fault_of("should_failslab", path, occurrence)
}

/// A fault of one of the functions [`MEMORY`].
pub(crate) fn fault_of(function: &str, path: &[&str], occurrence: u32) -> Fault {
    let error = MEMORY.iter().find(|(name, _)| *name == function).map(|(_, error)| *error);
    let error = error.unwrap_or_else(|| panic!("\"{function}\" has no error"));
    Fault { occurrence, ..fails(function, path, error) }
}

/// A fault by which the first call of a function on this path fails.
pub(crate) fn fails(function: &str, path: &[&str], error: InjectedError) -> Fault {
    Fault::new(function, CallPath(path.iter().map(ToString::to_string).collect()), 1, error)
}

/// A plan with these faults.
pub(crate) fn plan(faults: &[Fault]) -> FaultPlan {
    FaultPlan { faults: faults.to_vec(), ..FaultPlan::fault_free("test") }
}

/// What fired: the fault's index, the step, and how often.
#[allow(dead_code, reason = "one of the test programs uses it")]
pub(crate) fn fired(execution: &Execution) -> Vec<(usize, u32, u32)> {
    execution.fired.iter().map(|fired| (fired.fault, fired.step, fired.times)).collect()
}

/// The kernel, built if need be.
pub(crate) fn kernel() -> Built {
    let cache = files::cache::directory().unwrap();
    built_kernel(&Project::find().unwrap(), KERNEL, &cache, &Stop::new(), &Silent).unwrap()
}

/// Runs the command `fuzz` to its end.
#[allow(dead_code, reason = "one of the test programs uses it")]
pub(crate) fn fuzz(arguments: &[&str]) -> Output {
    Command::new(program()).args(arguments).stdin(Stdio::null()).output().unwrap()
}

/// What it printed.
#[allow(dead_code, reason = "one of the test programs uses it")]
pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The program under test.
pub(crate) fn program() -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_fuzz"))
}
