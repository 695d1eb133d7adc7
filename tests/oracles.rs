//! Oracles beyond the kernel's own reports: each finds its planted bug and names it, and is silent
//! where nothing fails.

use std::fs;

use execution::{Execution, Finding, FindingKind, How};
use fault_plan::{Errno, Fault, FaultPlan, InjectedError, Round};
use guest_protocol::StepResult;
use tempfile::TempDir;

use crate::common::{Guests, KERNEL, LEAN, SLAB, fault, guests, guests_on, plan, steps_target};

const ENOMEM: StepResult = StepResult::Failed(12);

/// A target whose file system is the self-test's, on a disk that is full of old data.
fn planted(kernel: &str, steps: &str) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let text = format!(
        "description = \"a test\"\nkernel = \"{kernel}\"\n\
         functions = [{{ name = \"should_failslab\", errors = [\"ENOMEM\"] }}]\n\
         steps = [\n{{ mount = {{ fstype = \"fuzz_selftest\" }} }},\n{{ create = {{ path = \"data\" }} }},\n\
         {{ write = {{ path = \"data\", length = 16384 }} }},\n{steps}{{ umount = {{}} }},\n]\n\
         [image]\nscript = \"make-image\"\nsize_mib = 1\n"
    );
    fs::write(folder.path().join("target.toml"), text).unwrap();
    let script = "#!/bin/sh\nset -e\nhead -c 131072 /dev/zero | tr '\\0' '\\376' > \"$1\"\n";
    fs::write(folder.path().join("make-image"), script).unwrap();
    folder
}

/// The one finding of an execution in which this fault fired.
fn found(guest: &mut Guests, fault: Fault) -> (Finding, Execution) {
    let execution = guest.run_fresh(&plan(&[fault]));
    assert_eq!(execution.fired.len(), 1, "{execution:?}");
    let [finding] = &execution.findings[..] else { panic!("{:?} {:?}", execution.findings, execution.steps) };
    (finding.clone(), execution)
}

fn assert_silent(guest: &mut Guests, plan: &FaultPlan) {
    for _ in 0..2 {
        let execution = guest.run_fresh(plan);
        assert!(execution.findings.is_empty(), "{:?} {:?}", execution.findings, execution.steps);
    }
}

#[test]
fn lost_and_stale_data_and_busy_inodes_are_found_on_the_disk_and_named() {
    for kernel in [LEAN, KERNEL] {
        let folder = planted(kernel, "{ fsync = { path = \"data\" } },\n");
        let mut guest = guests(folder.path());
        assert_silent(&mut guest, &plan(&[]));

        let (swallowed, execution) =
            found(&mut guest, fault(&["__kmalloc_cache_noprof", "selftest_block_write", "selftest_data_flush"], 2));
        assert_eq!(swallowed.kind, FindingKind::Data);
        assert_eq!(swallowed.key, "error swallowed, data lost: selftest_block_write");
        assert!(swallowed.text.contains("data: byte 4096 is 0xfe"), "{}", swallowed.text);
        assert!(execution.steps.iter().all(|step| matches!(step, StepResult::Done(_))), "{:?}", execution.steps);

        let (stale, execution) = found(&mut guest, fault(&["...", "selftest_block_alloc"], 3));
        assert_eq!((stale.kind, execution.steps[2]), (FindingKind::Data, ENOMEM));
        assert_eq!(stale.key, "stale data: selftest_block_get");
        assert!(
            stale.text.contains("data: byte 8192 is 0xfe") && stale.text.contains("nobody wrote"),
            "{}",
            stale.text
        );

        let (busy, _) = found(&mut guest, fault(&["...", "selftest_handle_alloc"], 2));
        assert!(busy.is_report() && busy.text.contains("Busy inodes after unmount"), "{busy:?}");
    }
}

/// A target in which a rename that fails has the next step write into the disk under the mounted
/// file system: to the block bitmap of a group that holds nothing. Only a checker looks at that.
fn scribbling(oracles: &str) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let text = format!(
        "description = \"a test\"\nkernel = \"{LEAN}\"\noracles = [{oracles}]\n\
         functions = [{{ name = \"should_failslab\", errors = [\"ENOMEM\"] }}]\n\
         steps = [\n{{ mount = {{ fstype = \"ext4\" }} }},\n{{ create = {{ path = \"plain\" }} }},\n\
         {{ symlink = {{ target = \"/dev/ram0\", path = \"file\" }} }},\n\
         {{ rename = {{ from = \"plain\", to = \"file\" }} }},\n\
         {{ write = {{ path = \"file\", offset = 16778240, length = 1024 }} }},\n{{ umount = {{}} }},\n]\n\
         [image]\nmkfs = [\"mkfs.ext4\", \"-q\", \"-b\", \"1024\", \"-O\", \"^metadata_csum,^uninit_bg,^flex_bg\"]\n\
         size_mib = 32\n"
    );
    fs::write(folder.path().join("target.toml"), text).unwrap();
    folder
}

#[test]
fn a_disk_that_only_its_file_systems_checker_finds_damaged_is_found() {
    let folder = scribbling("\"fsck\"");
    let mut guest = guests(folder.path());
    assert_silent(&mut guest, &plan(&[]));
    let failed_rename = Fault { step: Some(4), ..fault(&[], 1) };
    let (damage, execution) = found(&mut guest, failed_rename.clone());
    assert_eq!((damage.kind, execution.steps[3]), (FindingKind::Fsck, ENOMEM));
    assert_eq!(damage.key, "e2fsck: Block bitmap differences");
    assert!(damage.text.contains("Pass 5: Checking group summary information"), "{}", damage.text);
    let failed_rename = plan(&[failed_rename]);
    for how in [How::Warm, How::Exact] {
        let execution = guest.ran(&failed_rename, how).execution.unwrap();
        assert!(execution.has_key(&damage.key), "{how:?}: {:?}", execution.findings);
    }
    let without = scribbling("\"errno\"");
    assert_silent(&mut guests(without.path()), &failed_rename);
}

#[test]
fn an_error_of_the_kernels_own_is_found_in_a_steps_result() {
    let folder = steps_target(&["wrong_errno"], SLAB);
    let mut guest = guests(folder.path());
    assert_silent(&mut guest, &plan(&[]));
    let (wrong, execution) = found(&mut guest, fault(&["...", "selftest_wrong_errno"], 1));
    assert_eq!((wrong.kind, execution.steps[0]), (FindingKind::Errno, StepResult::Failed(524)));
    assert_eq!(wrong.title, "trigger returned error 524, which the kernel has for itself");
}

#[test]
fn a_leak_is_found_by_its_source_line_and_a_lock_by_the_kernel() {
    let folder = steps_target(&["clean", "leak", "lock_kept"], &[]);
    let file = folder.path().join("target.toml");
    let steps = fs::read_to_string(&file).unwrap();
    fs::write(&file, format!("functions = [\"memory\"]\n{steps}")).unwrap();
    let mut guest = guests(folder.path());
    assert_silent(&mut guest, &plan(&[]));
    assert_silent(&mut guest, &plan(&[fault(&["...", "selftest_volume_table"], 1)]));
    let (leak, _) = found(&mut guest, fault(&["...", "selftest_parcel_content"], 1));
    assert_eq!((leak.kind, leak.key.as_str()), (FindingKind::Leak, "memory leak: selftest_parcel_label"));
    assert!(leak.title.contains("drivers/fuzz_selftest/bugs.c:"), "{}", leak.title);
    assert!(leak.text.contains("each of 4 runs left 1 allocations"), "{}", leak.text);
    let leaky = plan(&[fault(&["...", "selftest_parcel_content"], 1)]);
    let traced = guest.ran(&leaky, How::Traced).execution.unwrap();
    assert!(!traced.fired[0].returns.is_empty(), "{:?}", traced.fired);
    let sequence = FaultPlan { earlier: vec![Round { faults: Vec::new(), reset: true }], ..leaky.clone() };
    let others = [(&leaky, How::Warm), (&leaky, How::Exact), (&sequence, How::Fresh)];
    let others = others.map(|(plan, how)| guest.ran(plan, how).execution.unwrap());
    for execution in [traced].iter().chain(&others) {
        assert!(execution.has_key("memory leak: selftest_parcel_label"), "{:?}", execution.findings);
    }

    // kmemleak's own allocations are no calls of the workload: the third one is the same.
    let third = plan(&[fault(&["...", "selftest_leak"], 3)]);
    let searched = guest.ran(&third, How::Searched).execution.unwrap();
    let [leak] = &searched.findings[..] else { panic!("{:?} {:?}", searched.findings, searched.fired) };
    assert_eq!(leak.key, "memory leak: selftest_parcel_label");
    let callers = ["selftest_parcel_label", "selftest_parcel_pack", "selftest_leak"];
    assert!(leak.stack.windows(3).any(|stack| stack == callers), "{:?}", leak.stack);
    assert!(leak.text.contains("unreferenced object 0x") && leak.text.contains("(size 1024)"), "{}", leak.text);

    let (lock, _) = found(&mut guest, fault(&["...", "selftest_ledger_page"], 1));
    assert_eq!(lock.kind, FindingKind::Lockdep);
    assert!(lock.text.contains("selftest_ledger_lock"), "{}", lock.text);
}

#[test]
fn what_real_file_systems_hold_is_what_was_acknowledged() {
    for target in ["ext4-rw", "btrfs-rw", "xfs-rw", "btrfs-remount", "ext4-remount"] {
        let mut guest = guests_on(LEAN, target);
        let fault_free = guest.prepared.target.fault_free();
        assert_silent(&mut guest, &fault_free);
        // A failed write is told, and what was on the disk before stays.
        let failed =
            Fault::new("should_fail_bio", fault_plan::CallPath::default(), 9, InjectedError::Errno(Errno::EIO));
        assert_silent(&mut guest, &FaultPlan { faults: vec![failed], ..fault_free });
    }
}
