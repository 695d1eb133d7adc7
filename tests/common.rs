//! What the end-to-end tests share.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use fault_plan::{CallPath, Errno, Fault, FaultPlan, InjectedError};
use fuzz::{
    guest::{AccelChoice, Stop},
    kernel::Built,
    prepare::{Prepared, Wanted, built_kernel, prepare},
    project::Project,
};
use tempfile::TempDir;

/// The kernel that the tests run on.
pub(crate) const KERNEL: &str = "linux-6.12-check";

/// A target without disk whose steps pull these triggers of the self-test module.
pub(crate) fn steps_target(triggers: &[&str]) -> TempDir {
    let steps: Vec<String> = triggers.iter().map(|name| format!("{{ trigger = {{ name = \"{name}\" }} }}")).collect();
    let text = format!(
        "description = \"a test\"\nkernel = \"{KERNEL}\"\nsteps = [{}]\n\
         [[functions]]\nname = \"should_failslab\"\nerrors = [\"ENOMEM\"]\n",
        steps.join(", ")
    );
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("target.toml"), text).unwrap();
    folder
}

/// Guests for the target in `folder`.
pub(crate) fn prepared(folder: &Path) -> Prepared {
    let target = folder.to_str().unwrap();
    prepare(&Wanted { target, kernel: None, accel: AccelChoice::Auto, exact: false }, &Stop::new(), &mut |_| ())
        .unwrap()
}

/// A fault of `should_failslab`.
pub(crate) fn fault(path: &[&str], occurrence: u32) -> Fault {
    Fault {
        function: "should_failslab".to_owned(),
        call_path: CallPath(path.iter().map(ToString::to_string).collect()),
        occurrence,
        error: InjectedError::Errno(Errno::ENOMEM),
    }
}

/// A plan with these faults.
pub(crate) fn plan(faults: &[Fault]) -> FaultPlan {
    FaultPlan { faults: faults.to_vec(), ..FaultPlan::fault_free("test") }
}

/// The kernel, built if need be.
pub(crate) fn kernel() -> Built {
    let cache = fuzz::cache::directory().unwrap();
    built_kernel(&Project::find().unwrap(), KERNEL, &cache, &Stop::new(), &mut |_| ()).unwrap()
}

/// The program under test.
pub(crate) fn program() -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_fuzz"))
}
