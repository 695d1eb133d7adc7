//! Targets that fail on purpose, that set something up, and whose disks are made in many ways; and
//! reproducers that carry theirs.

use std::{fs, path::Path, process::Command};

use execution::{Stop, Target};
use fault_plan::{REPRODUCER_VERSION, Reproducer};
use guest_protocol::StepResult;
use guests::{
    prepare::{Wanted, prepare},
    progress::Silent,
    project::Project,
};
use tempfile::TempDir;

use crate::common::{KERNEL, fault, guests, guests_of, plan, program};

const EROFS: i32 = 30;
const WRITTEN: StepResult = StepResult::Done(1);

/// A target of this text, in which slab allocations may fail.
fn target(text: &str) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let head = format!(
        "description = \"a test\"\nkernel = \"{KERNEL}\"\n\
         functions = [{{ name = \"should_failslab\", errors = [\"ENOMEM\"] }}]\n"
    );
    fs::write(folder.path().join("target.toml"), head + text).unwrap();
    folder
}

fn why_not_prepared(folder: &Path) -> String {
    let Err(error) = prepare(&Wanted::new(folder.to_str().unwrap()), &Stop::new(), &Silent) else {
        panic!("it is prepared")
    };
    execution::chain(&error)
}

#[test]
fn a_step_may_fail_on_purpose_and_only_as_it_says() {
    const READ_ONLY: &str = "steps = [\n\
         { mount = { fstype = \"ext4\", options = \"ro\" } },\n\
         { create = { path = \"file\" }, expect = [\"EIO\", \"EROFS\"] },\n\
         { umount = {} },\n]\n\
         [image]\nmkfs = [\"mkfs.ext4\", \"-q\"]\nsize_mib = 16\n";
    let folder = target(READ_ONLY);
    let mut guest = guests(folder.path());
    let first = guest.run(&plan(&[]));
    assert_eq!(first.steps, [StepResult::Done(0), StepResult::Failed(EROFS), StepResult::Done(0)]);
    assert!(first.findings.is_empty(), "{:?}", first.findings);
    let wrong = target(&READ_ONLY.replace("[\"EIO\", \"EROFS\"]", "\"ENOSPC\""));
    let reason = why_not_prepared(wrong.path());
    assert!(reason.contains("step 2 (create) failed with EROFS (30), expected is ENOSPC"), "{reason}");
    let works = target(&READ_ONLY.replace("{ umount = {} }", "{ umount = {}, expect = \"EBUSY\" }"));
    let reason = why_not_prepared(works.path());
    assert!(reason.contains("step 3 (umount) worked, expected is EBUSY"), "{reason}");
}

#[test]
fn a_set_up_is_not_armed_and_must_work() {
    // Without the set-up, this fault is a warning of the kernel: see `guest`.
    let bug = plan(&[fault(&["...", "selftest_group_join"], 1)]);
    let folder = target("setup = [{ trigger = { name = \"warn\" } }]\nsteps = [{ trigger = { name = \"clean\" } }]\n");
    let mut guest = guests(folder.path());
    let quiet = guest.run(&plan(&[]));
    assert_eq!(quiet.steps, [WRITTEN], "its results are not among the steps");
    let names = |call_path: &[String]| call_path.iter().any(|caller| caller == "selftest_group_join");
    assert!(!quiet.sites.is_empty() && !quiet.sites.iter().any(|site| names(&site.call_path)), "{:?}", quiet.sites);
    let spared = guest.run(&bug);
    assert_eq!((spared.fired.len(), spared.findings.len(), spared.steps), (0, 0, vec![WRITTEN]));
    let armed = guest.run(&plan(&[fault(&["...", "selftest_volume_table"], 1)]));
    assert_eq!(armed.fired.len(), 1, "the workload behind it is armed");
    assert_eq!((guest.usage().guests, guest.usage().harness_errors), (1, 0));
    let broken = target("setup = [{ umount = {} }]\nsteps = [{ trigger = { name = \"clean\" } }]\n");
    let reason = why_not_prepared(broken.path());
    assert!(reason.contains("the set-up does not work: step 1 (umount) was skipped"), "{reason}");
}

#[test]
fn a_disk_is_as_large_as_xfs_needs_and_made_by_a_script_or_a_variant() {
    let folder = target(
        "setup = [{ mount = { fstype = \"xfs\" } }]\n\
         steps = [{ create = { path = \"file\" } }, { write = { path = \"file\", length = 65536 } }, { umount = {} }]\n\
         [image]\nmkfs = [\"mkfs.xfs\", \"-q\"]\nsize_mib = 320\n\
         [variants.scripted]\nimage = { script = \"make-image\" }\noptions = \"ro\"\nfunctions = \
         [{ name = \"should_fail_bio\", errors = [\"EIO\"] }]\n",
    );
    let script = "#!/bin/sh\nset -e\nmkfs.xfs -q -L scripted \"$1\"\n";
    fs::write(folder.path().join("make-image"), script).unwrap();
    let mut guest = guests(folder.path());
    let expected = [StepResult::Done(0), StepResult::Done(65536), StepResult::Done(0)];
    for _ in 0..3 {
        assert_eq!(guest.run(&plan(&[])).steps, expected, "the disk is as it was");
    }
    assert_eq!((guest.usage().guests, guest.prepared.target.memory_mib()), (1, 736));
    let variant = format!("{}:scripted", folder.path().display());
    let reason = why_not_prepared(Path::new(&variant));
    assert!(reason.contains("step 1 (create) failed with EROFS (30), expected is to work"), "{reason}");
    let path = folder.path().join("target.toml");
    let text = fs::read_to_string(&path).unwrap().replace("options = \"ro\"\n", "options = { xfs = \"noquota\" }\n");
    fs::write(&path, text).unwrap();
    let mut guest = guests_of(&variant);
    let ran = guest.run(&plan(&[]));
    assert_eq!(ran.steps, expected);
    assert!(!ran.sites.is_empty() && ran.sites.iter().all(|site| site.function == "should_fail_bio"));
    assert!(guest.prepared.target.name.ends_with(":scripted"));
}

#[test]
fn a_reproducer_carries_its_target() {
    let corpus = Project::find().unwrap().corpus();
    let known = Target::find(&corpus, "selftest").unwrap().known().unwrap();
    let known = known.into_iter().find(|known| known.title.contains("selftest_index_grow")).unwrap();
    // In the corpus the target of this name has other steps, and none has the other name.
    let steps = "steps = [{ trigger = { name = \"null_deref\" } }]\n";
    for (name, said) in [("selftest", "is another one here by now"), ("gone", "run 1 of 1")] {
        let folder = target(steps);
        let there = folder.path().join(name);
        fs::create_dir(&there).unwrap();
        fs::rename(folder.path().join("target.toml"), there.join("target.toml")).unwrap();
        fs::create_dir(folder.path().join("functions")).unwrap();
        let target = Target::find(folder.path(), name).unwrap();
        let mut carrying =
            Reproducer { reproducer_version: REPRODUCER_VERSION, target: Some(target.definition()), ..known.clone() };
        name.clone_into(&mut carrying.plan.target);
        let file = folder.path().join("reproducer.json");
        fs::write(&file, carrying.to_json()).unwrap();
        let ran = Command::new(program()).arg("replay").arg(&file).output().unwrap();
        let (out, err) = (String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
        assert_eq!(ran.status.code(), Some(0), "{out}{err}");
        assert!(out.contains("came again in 1 of 1 runs"), "{out}");
        assert!(out.contains(said) || err.contains(said), "{out}{err}");
    }
}
