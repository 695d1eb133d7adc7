//! The targets of the corpus: they work when nothing fails, and a call of each can fail. All are
//! run on the lean kernel, and one of each family on the checking one, which takes longer to start.
//! `bench quiet --variants` runs all of them on both, with their variants.

use std::{collections::BTreeSet, sync::Arc};

use execution::{Execution, Target};
use fault_plan::{CallPath, Fault, FaultPlan};
use guest_protocol::SiteDescription;
use guests::project::Project;

use crate::common::{KERNEL, LEAN, fired, guests_on};

/// Those that have a test of their own. Another one has all the rest.
const FAMILIES: [&str; 3] = ["btrfs", "ext4", "xfs"];

/// Gives the point in the middle of those that both runs without faults reached: slabs, for one,
/// are filled up now and then.
fn point(runs: [&Execution; 2]) -> Arc<SiteDescription> {
    let mut hits: Vec<_> = runs[0].workload_hits().collect();
    hits.sort_by_key(|hit| hit.first_sequence);
    let again: BTreeSet<u64> = runs[1].workload_hits().map(|hit| hit.site).collect();
    hits.retain(|hit| again.contains(&hit.site));
    let middle = hits[hits.len() / 2].site;
    Arc::clone(runs[0].sites.iter().find(|site| site.site == middle).unwrap())
}

/// Runs the target on the kernel: without faults, with one, and again without.
fn run(target: &Target, kernel: &str) {
    let name = format!("{} on {kernel}", target.name);
    let mut guest = guests_on(kernel, &target.name);
    let is_clean = |execution: &Execution| {
        assert!(execution.findings.is_empty(), "{name}: {:?}", execution.findings);
        for (number, (step, result)) in (1..).zip(target.steps.iter().zip(&execution.steps)) {
            assert!(step.expects(*result), "{name}: step {number} ({}): {result:?}", step.kind());
        }
    };
    let runs = [guest.run_fresh(&target.fault_free()), guest.run(&target.fault_free())];
    runs.iter().for_each(is_clean);
    let usage = guest.usage();
    assert_eq!((usage.guests, usage.harness_errors), (1, 0), "{name}: {usage:?}");

    let site = point(runs.each_ref());
    let call_path = CallPath(site.call_path.clone());
    let fault = Fault::new(&site.function, call_path, 1, target.errors(&site.function)[0]);
    let fault = Fault { step: Some(site.step), ..fault };
    let failed = guest.run(&FaultPlan { faults: vec![fault.clone()], ..target.fault_free() });
    assert_eq!(fired(&failed), [(0, site.step, 1)], "{name}: {fault:?}");
    assert_eq!(failed.fired[0].site, site.site, "{name}: {fault:?}");
    is_clean(&guest.run(&target.fault_free()));
}

/// Runs the targets of these families.
fn run_all(is_in: fn(&str) -> bool) {
    let targets = Target::all(&Project::find().unwrap().corpus()).unwrap();
    let family = |target: &&Target| target.name.split('-').next().is_some_and(is_in);
    let targets: Vec<_> = targets.iter().filter(|target| !target.name.contains(':')).filter(family).collect();
    assert!(!targets.is_empty(), "there are none");
    targets.iter().for_each(|target| run(target, LEAN));
    run(targets[0], KERNEL);
}

#[test]
fn the_btrfs_targets_work_and_fail() {
    run_all(|family| family == "btrfs");
}

#[test]
fn the_ext4_targets_work_and_fail() {
    run_all(|family| family == "ext4");
}

#[test]
fn the_xfs_targets_work_and_fail() {
    run_all(|family| family == "xfs");
}

#[test]
fn the_other_targets_work_and_fail() {
    run_all(|family| !FAMILIES.contains(&family));
}
