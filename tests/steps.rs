//! Steps of workloads: each does in the kernel what it says, on the file systems that have it; and
//! the targets of the corpus work when nothing fails.

use std::{fs, path::Path};

use execution::{Execution, Stop, Target};
use fault_plan::Errno;
use guest_protocol::StepResult;
use guests::{
    prepare::{Wanted, prepare},
    progress::Silent,
    project::Project,
};
use tempfile::TempDir;

use crate::common::{KERNEL, LEAN, fault, guests, guests_on, plan};

/// A step, the result that it has without faults, and a function of the kernel below which it
/// allocates memory; empty where that depends on what ran before.
type Row<'a> = (&'a str, Result<i64, &'static str>, &'a str);

const OK: Result<i64, &'static str> = Ok(0);

/// A target of these steps, with the image `image`, in which slab allocations may fail.
fn target(kernel: &str, rows: &[Row<'_>], image: &str) -> TempDir {
    let steps: Vec<_> = rows
        .iter()
        .map(|(step, result, _)| match result {
            Ok(_) => format!("    {{ {step} }},\n"),
            Err(error) => format!("    {{ {step}, expect = \"{error}\" }},\n"),
        })
        .collect();
    let text = format!(
        "description = \"a test\"\nkernel = \"{kernel}\"\n\
         functions = [{{ name = \"should_failslab\", errors = [\"ENOMEM\"] }}]\nsteps = [\n{}]\n{image}",
        steps.concat()
    );
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("target.toml"), text).unwrap();
    folder
}

fn expected(result: Result<i64, &'static str>) -> StepResult {
    result.map_or_else(|error| StepResult::Failed(Errno::from_name(error).unwrap().number().into()), StepResult::Done)
}

/// Says whether the step `number`, from 1, allocated memory below `function`.
fn reaches(execution: &Execution, number: usize, function: &str) -> bool {
    execution
        .sites
        .iter()
        .any(|site| site.step as usize == number && site.call_path.iter().any(|name| name == function))
}

/// Runs these steps twice in one guest: they have their results, and do what they are for.
fn check(rows: &[Row<'_>], image: &str) {
    let folder = target(LEAN, rows, image);
    let mut guest = guests(folder.path());
    let first = guest.run_fresh(&plan(&[]));
    let mut wrong = Vec::new();
    for (number, ((step, result, function), got)) in (1..).zip(rows.iter().zip(&first.steps)) {
        if *got != expected(*result) || !function.is_empty() && !reaches(&first, number, function) {
            wrong.push(format!("step {number}: {step}: {got:?}, below {function}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    let again = guest.run(&plan(&[]));
    assert_eq!((again.steps, again.findings.len()), (first.steps, 0), "the disks are as they were");
    assert_eq!(guest.usage().harness_errors, 0, "{:?}", guest.usage());
}

fn why_not_prepared(folder: &Path) -> String {
    let Err(error) = prepare(&Wanted::new(folder.to_str().unwrap()), &Stop::new(), &Silent) else {
        panic!("it is prepared")
    };
    execution::chain(&error)
}

#[test]
fn the_steps_of_btrfs_do_what_they_say() {
    let rows = [
        ("mount = { fstype = \"btrfs\" }", OK, "btrfs_get_tree"),
        ("create = { path = \"file\" }", OK, "btrfs_create_common"),
        ("write = { path = \"file\", length = 65536, direct = true }", Ok(65536), "btrfs_direct_write"),
        ("write = { path = \"file\", length = 4096, sync = true }", Ok(4096), "btrfs_sync_file"),
        ("mmap-write = { path = \"file\", offset = 5000, length = 3000 }", Ok(3000), "btrfs_page_mkwrite"),
        ("mmap-write = { path = \"file\", offset = 70000, length = 1 }", Err("EFAULT"), ""),
        ("fallocate = { path = \"file\", offset = 65536, length = 4096 }", OK, "btrfs_fallocate"),
        ("read = { path = \"file\" }", Ok(69632), ""),
        ("fallocate = { path = \"file\", mode = \"punch-hole\", offset = 8192, length = 8192 }", OK, "btrfs_fallocate"),
        (
            "fallocate = { path = \"file\", mode = \"zero-range\", offset = 20000, length = 9000 }",
            OK,
            "btrfs_fallocate",
        ),
        (
            "fallocate = { path = \"file\", mode = \"collapse-range\", offset = 0, length = 4096 }",
            Err("EOPNOTSUPP"),
            "",
        ),
        ("create = { path = \"shared\" }", OK, ""),
        ("reflink = { from = \"file\", to = \"shared\" }", OK, "btrfs_remap_file_range"),
        ("read = { path = \"shared\" }", Ok(69632), ""),
        ("symlink = { target = \"shared\", path = \"link\" }", OK, "btrfs_symlink"),
        ("read = { path = \"link\" }", Ok(69632), ""),
        ("readdir = {}", Ok(5), "iterate_dir"),
        ("chmod = { path = \"file\", mode = 0o600 }", OK, "chmod_common"),
        ("chown = { path = \"file\", uid = 1, gid = 1 }", OK, "chown_common"),
        ("defragment = { path = \"file\" }", OK, ""),
        ("remount = { options = \"ro\" }", OK, "btrfs_reconfigure"),
        ("create = { path = \"other\" }", Err("EROFS"), ""),
        ("remount = { options = \"rw\" }", OK, ""),
        ("freeze = {}", OK, "freeze_super"),
        ("umount = {}", Err("EBUSY"), ""),
        ("thaw = {}", OK, ""),
        ("thaw = {}", Err("EINVAL"), ""),
        ("fstrim = {}", OK, "btrfs_trim_fs"),
        ("shutdown = {}", Err("ENOTTY"), ""),
        ("quota-enable = {}", OK, "btrfs_quota_enable"),
        ("quota-rescan = {}", OK, ""),
        ("quota-disable = {}", OK, "btrfs_quota_disable"),
        ("resize = { size = \"-8m\" }", OK, "btrfs_shrink_device"),
        ("resize = { size = \"1g\" }", Err("EFBIG"), ""),
        ("scrub = {}", OK, "btrfs_scrub_dev"),
        ("device-add = { disk = 1 }", OK, "btrfs_init_new_device"),
        ("balance = { convert = \"raid1\" }", OK, "btrfs_balance"),
        ("device-remove = { disk = 1 }", Err("EINVAL"), ""),
        ("balance = { convert = \"single\", groups = [\"data\", \"metadata\"] }", OK, "btrfs_balance"),
        ("device-replace = { device = 2, disk = 2 }", OK, "btrfs_dev_replace_by_ioctl"),
        ("device-forget = { disk = 1 }", OK, ""),
        ("umount = {}", OK, ""),
        ("device-forget = { disk = 2 }", OK, ""),
        ("mount = { fstype = \"btrfs\" }", Err("ENOENT"), ""),
    ];
    check(&rows, "[image]\nmkfs = [\"mkfs.btrfs\", \"-q\"]\nsize_mib = 272\ndisks = 3\n");
}

#[test]
fn the_steps_of_ext4_and_xfs_do_what_they_say() {
    for (name, size_mib, roots) in [("ext4", 32, 3), ("xfs", 320, 2)] {
        let mount = format!("mount = {{ fstype = \"{name}\" }}");
        let in_file = |mode: &str, offset: u32, length: u32| {
            format!("fallocate = {{ path = \"file\", mode = \"{mode}\", offset = {offset}, length = {length} }}")
        };
        let (collapse, insert) = (in_file("collapse-range", 8192, 4096), in_file("insert-range", 4096, 8192));
        let (keep, unshare) = (in_file("keep-size", 65536, 65536), in_file("unshare", 0, 4096));
        let shares = name == "xfs";
        let only_xfs = |value| if shares { value } else { Err("EOPNOTSUPP") };
        let rows = [
            (mount.as_str(), OK, "get_tree_bdev_flags"),
            ("create = { path = \"file\" }", OK, "path_openat"),
            ("write = { path = \"file\", length = 65536, direct = true, sync = true }", Ok(65536), "__iomap_dio_rw"),
            (&collapse, OK, ""),
            ("read = { path = \"file\" }", Ok(61440), ""),
            (&insert, OK, ""),
            ("read = { path = \"file\" }", Ok(69632), ""),
            (&keep, OK, ""),
            ("read = { path = \"file\" }", Ok(69632), "the file is as long"),
            (&unshare, only_xfs(OK), ""),
            ("create = { path = \"shared\" }", OK, ""),
            ("reflink = { from = \"file\", to = \"shared\" }", only_xfs(OK), ""),
            ("read = { path = \"shared\" }", Ok(if shares { 69632 } else { 0 }), ""),
            ("mmap-write = { path = \"file\", length = 69632 }", Ok(69632), ""),
            ("mmap-write = { path = \"file\", offset = 70000, length = 100 }", Err("EFAULT"), ""),
            ("readdir = {}", Ok(roots + 2), ""),
            ("remount = { options = \"ro\" }", OK, ""),
            ("chmod = { path = \"file\", mode = 0o600 }", Err("EROFS"), ""),
            ("remount = { options = \"rw\" }", OK, ""),
            ("freeze = {}", OK, ""),
            ("thaw = {}", OK, ""),
            ("fstrim = {}", OK, ""),
            ("unlink = { path = \"shared\" }", OK, ""),
            ("fsync = { path = \"file\" }", OK, ""),
            ("shutdown = { how = \"log-flush\" }", OK, ""),
            ("chmod = { path = \"file\", mode = 0o600 }", Err("EIO"), ""),
            ("umount = {}", OK, ""),
            (&mount, OK, "the log is recovered"),
            ("read = { path = \"file\" }", Ok(69632), ""),
            ("read = { path = \"shared\" }", Err("ENOENT"), ""),
            ("umount = {}", OK, ""),
        ];
        let rows =
            rows.map(|(step, result, function)| (step, result, if function.contains(' ') { "" } else { function }));
        check(&rows, &format!("[image]\nmkfs = [\"mkfs.{name}\", \"-q\"]\nsize_mib = {size_mib}\n"));
    }
}

#[test]
fn steps_without_a_file_system_do_what_they_say() {
    let rows = [
        ("write-file = { path = \"/proc/sys/vm/swappiness\", text = \"77\" }", Ok(2), ""),
        ("read-file = { path = \"/proc/sys/vm/swappiness\" }", Ok(3), ""),
        ("write-file = { path = \"/proc/sys/vm/swappiness\", text = \"seven\" }", Err("EINVAL"), ""),
        ("read-file = { path = \"/sys/kernel/debug/none\" }", Err("ENOENT"), ""),
        ("fork = {}", OK, "copy_process"),
        ("fork = { exec = true }", OK, "copy_process"),
        ("sleep = { ms = 30 }", OK, ""),
    ];
    check(&rows, "");
    let folder = target(LEAN, &rows, "");
    let mut guest = guests(folder.path());
    let failed = guest.run(&plan(&[fault(&["...", "copy_process"], 1)]));
    assert!(matches!(failed.steps[4], StepResult::Failed(_)), "{:?}", failed.steps);
    assert_eq!((failed.fired.len(), failed.steps[5]), (1, StepResult::Done(0)));
    let second = guest.run(&plan(&[]));
    assert!(second.timings.run_ns > 30_000_000, "it slept: {:?}", second.timings);
    let wrong = [("sleep = { ms = 1 }", Err("EIO"), "")];
    let reason = why_not_prepared(target(LEAN, &wrong, "").path());
    assert!(reason.contains("step 1 (sleep) worked, expected is EIO"), "{reason}");
}

#[test]
fn steps_make_an_image_once_also_one_with_a_log_to_recover() {
    let image = |steps: &str| {
        format!(
            "[image]\nmkfs = [\"mkfs.xfs\", \"-q\"]\nsize_mib = 320\nsteps = [{{ mount = {{ fstype = \"xfs\" }} }}, {steps}]\n"
        )
    };
    let made = "{ create = { path = \"file\" } }, { write = { path = \"file\", length = 5000 } }, \
                { fsync = { path = \"file\" } }, ";
    let rows = [
        ("mount = { fstype = \"xfs\" }", OK, "xlog_do_recovery_pass"),
        ("read = { path = \"file\" }", Ok(5000), ""),
        ("umount = {}", OK, ""),
    ];
    let copied =
        image(&format!("{made}{{ crash-copy = {{}} }}, {{ unlink = {{ path = \"file\" }} }}, {{ umount = {{}} }}"));
    check(&rows, &copied);
    let clean = image(&format!("{made}{{ umount = {{}} }}"));
    let rows = [rows[0], ("create = { path = \"file\" }", Err("EEXIST"), ""), rows[2]];
    let rows = rows.map(|(step, result, _)| (step, result, ""));
    check(&rows, &clean);
    let mounted = target(LEAN, &rows, &image(&made.replace("length = 5000", "offset = 1, length = 5000")));
    assert!(prepare(&Wanted::new(mounted.path().to_str().unwrap()), &Stop::new(), &Silent).is_ok(), "it is unmounted");
    let broken = target(LEAN, &rows, &image("{ unlink = { path = \"none\" } }, { umount = {} }"));
    let reason = why_not_prepared(broken.path());
    assert!(reason.contains("the image cannot be made: step 2 (unlink) failed with ENOENT"), "{reason}");
}

/// Each target of the corpus on the kernel `kernel`, its variants too where `variants` says so.
fn all_are_clean(kernel: &str, variants: bool) {
    for target in Target::all(&Project::find().unwrap().corpus()).unwrap() {
        if target.image.is_none() || target.name.contains(':') && !variants {
            continue;
        }
        let name = &target.name;
        let began = std::time::Instant::now();
        let mut guest = guests_on(kernel, name);
        eprintln!("W {name} prepared {:?}", began.elapsed());
        for round in 1..=3 {
            let execution = guest.run(&target.fault_free());
            eprintln!(
                "W {name} run_ns {} ms reset {} ms",
                execution.timings.run_ns / 1000000,
                execution.timings.reset_ns / 1000000
            );
            assert!(execution.findings.is_empty(), "{name} on {kernel}, round {round}: {:?}", execution.findings);
            for (number, (step, result)) in (1..).zip(target.steps.iter().zip(&execution.steps)) {
                assert!(step.expects(*result), "{name} on {kernel}: step {number} ({}): {result:?}", step.kind());
            }
        }
        let usage = guest.usage();
        assert_eq!((usage.guests, usage.harness_errors), (1, 0), "{name} on {kernel}: {usage:?}");
    }
}

#[test]
fn the_targets_work_on_the_kernel_that_judges() {
    all_are_clean(KERNEL, false);
}

#[test]
fn the_targets_and_their_variants_work_on_the_kernel_that_explores() {
    all_are_clean(LEAN, true);
}
