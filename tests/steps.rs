//! Steps of workloads: each does in the kernel what it says, on the file systems that have it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use execution::{Execution, Stop};
use fault_plan::Errno;
use guest_protocol::{BlockGroups, Fallocate, Profile, Shutdown, Step, StepResult};
use guests::{
    prepare::{Wanted, prepare},
    progress::Silent,
};
use serde::Serialize;
use serde_json::Value;
use strum::{VariantArray, VariantNames};
use tempfile::TempDir;

use crate::common::{LEAN, fault, guests, plan};

/// A step, the result that it has without faults, and a function of the kernel below which it
/// allocates memory, or behind a `!` does not; empty where that depends on what ran before.
type Row<'a> = (&'a str, Result<i64, &'static str>, &'a str);

const OK: Result<i64, &'static str> = Ok(0);

/// Steps on a btrfs with three disks, of which two are blank.
const BTRFS: &[Row<'static>] = &[
    ("mount = { fstype = \"btrfs\", disk = 1 }", Err("EINVAL"), "btrfs_get_tree"),
    ("mount = { fstype = \"btrfs\" }", OK, "btrfs_get_tree"),
    ("create = { path = \"file\" }", OK, "btrfs_create_common"),
    ("write = { path = \"file\", length = 65536, direct = true }", Ok(65536), "btrfs_direct_write"),
    ("write = { path = \"file\", offset = 61440, length = 4096, sync = true }", Ok(4096), "btrfs_sync_file"),
    ("write = { path = \"file\", length = 100 }", Ok(100), "btrfs_buffered_write"),
    ("fsync = { path = \"file\" }", OK, "btrfs_sync_file"),
    ("mmap-write = { path = \"file\", offset = 5000, length = 3000 }", Ok(3000), "btrfs_page_mkwrite"),
    ("mmap-write = { path = \"file\", offset = 70000, length = 1 }", Err("EFAULT"), ""),
    ("fallocate = { path = \"file\", offset = 65536, length = 4096 }", OK, "btrfs_fallocate"),
    ("read = { path = \"file\" }", Ok(69632), ""),
    ("fallocate = { path = \"file\", mode = \"punch-hole\", offset = 8192, length = 8192 }", OK, "btrfs_fallocate"),
    ("fallocate = { path = \"file\", mode = \"zero-range\", offset = 20000, length = 9000 }", OK, "btrfs_fallocate"),
    ("fallocate = { path = \"file\", mode = \"collapse-range\", offset = 0, length = 4096 }", Err("EOPNOTSUPP"), ""),
    ("create = { path = \"shared\" }", OK, ""),
    ("reflink = { from = \"file\", to = \"shared\" }", OK, "btrfs_remap_file_range"),
    ("read = { path = \"shared\" }", Ok(69632), ""),
    // FIDEDUPERANGE of 64 KiB to one file, BTRFS_IOC_INO_PATHS of the inode 257, BTRFS_IOC_SYNC.
    (
        "ioctl = { path = \"file\", request = 0xc0189436, bytes = 56, \
         data = \"0000000000000000 0000010000000000 01\", file = { at = 24, path = \"shared\" } }",
        OK,
        "btrfs_remap_file_range",
    ),
    (
        "ioctl = { request = 0xc0389423, data = \"0101000000000000 0010000000000000\", \
         memory = { at = 48, bytes = 4096 } }",
        OK,
        "btrfs_ioctl",
    ),
    ("ioctl = { request = 0xc0389423, data = \"0101000000000000 0010000000000000\" }", Err("EFAULT"), "btrfs_ioctl"),
    ("ioctl = { request = 0x9408 }", OK, ""),
    ("create = { path = \"part\" }", OK, ""),
    (
        "reflink = { from = \"file\", to = \"part\", from_offset = 4096, to_offset = 8192, length = 4096 }",
        OK,
        "btrfs_remap_file_range",
    ),
    ("read = { path = \"part\" }", Ok(12288), ""),
    ("symlink = { target = \"shared\", path = \"link\" }", OK, "btrfs_symlink"),
    ("read = { path = \"link\" }", Ok(69632), ""),
    ("mkdir = { path = \"dir\" }", OK, "btrfs_mkdir"),
    ("link = { from = \"shared\", to = \"dir/old\" }", OK, "btrfs_link"),
    ("rename = { from = \"dir/old\", to = \"dir/new\" }", OK, "btrfs_rename2"),
    ("readdir = { path = \"dir\" }", Ok(3), "iterate_dir"),
    ("truncate = { path = \"dir/new\", length = 5000 }", OK, "btrfs_setattr"),
    ("read = { path = \"shared\" }", Ok(5000), ""),
    ("unlink = { path = \"dir/old\" }", Err("ENOENT"), ""),
    ("unlink = { path = \"dir/new\" }", OK, "btrfs_unlink"),
    ("read = { path = \"dir/new\" }", Err("ENOENT"), ""),
    ("set-xattr = { path = \"file\", name = \"user.note\", value = \"a value\" }", OK, "btrfs_xattr_handler_set"),
    ("subvolume-create = { path = \"dir/volume\" }", OK, "btrfs_mksubvol"),
    ("create = { path = \"dir/volume/inside\" }", OK, ""),
    ("write = { path = \"dir/volume/inside\", length = 100 }", Ok(100), ""),
    ("sync = {}", OK, "btrfs_sync_fs"),
    ("subvolume-snapshot = { from = \"dir/volume\", to = \"snapshot\" }", OK, "btrfs_mksubvol"),
    ("read = { path = \"snapshot/inside\" }", Ok(100), ""),
    ("subvolume-delete = { path = \"snapshot\" }", OK, "btrfs_delete_subvolume"),
    ("read = { path = \"snapshot/inside\" }", Err("ENOENT"), ""),
    ("subvolume-snapshot = { from = \"dir/volume\", to = \"first\", read_only = true }", OK, "btrfs_mksubvol"),
    ("create = { path = \"first/other\" }", Err("EROFS"), ""),
    ("truncate = { path = \"dir/volume/inside\", length = 50 }", OK, ""),
    ("subvolume-snapshot = { from = \"dir/volume\", to = \"second\", read_only = true }", OK, "btrfs_mksubvol"),
    ("send = { path = \"dir/volume\" }", Err("EPERM"), ""),
    ("send = { path = \"first\" }", OK, "btrfs_ioctl_send"),
    ("send = { path = \"second\", parent = \"first\" }", OK, "changed_cb"),
    ("subvolume-delete = { path = \"first\" }", OK, "btrfs_delete_subvolume"),
    ("subvolume-delete = { path = \"second\" }", OK, "btrfs_delete_subvolume"),
    ("readdir = {}", Ok(7), "iterate_dir"),
    ("chmod = { path = \"file\", mode = 0o600 }", OK, "chmod_common"),
    ("chown = { path = \"file\", uid = 1, gid = 1 }", OK, "chown_common"),
    ("defragment = { path = \"file\" }", OK, "btrfs_defrag_file"),
    ("remount = { options = \"ro\" }", OK, "btrfs_reconfigure"),
    ("create = { path = \"other\" }", Err("EROFS"), ""),
    ("scrub = {}", Err("EROFS"), ""),
    ("scrub = { read_only = true }", OK, "btrfs_scrub_dev"),
    ("remount = { options = \"rw\" }", OK, ""),
    ("freeze = {}", OK, "freeze_super"),
    ("umount = {}", Err("EBUSY"), ""),
    ("thaw = {}", OK, ""),
    ("thaw = {}", Err("EINVAL"), ""),
    ("fstrim = {}", OK, "btrfs_trim_fs"),
    ("shutdown = {}", Err("ENOTTY"), ""),
    ("quota-enable = {}", OK, "btrfs_quota_enable"),
    ("quota-rescan = {}", OK, ""),
    ("quota-limit = { path = \"dir/volume\", bytes = 131072 }", OK, "btrfs_limit_qgroup"),
    ("write = { path = \"dir/volume/inside\", length = 262144 }", Err("EDQUOT"), ""),
    ("quota-disable = {}", OK, "btrfs_quota_disable"),
    ("quota-limit = { path = \"dir/volume\", bytes = 131072 }", Err("ENOTCONN"), ""),
    // Nothing is counted again of what only new writes count.
    ("quota-enable = { simple = true }", OK, "btrfs_quota_enable"),
    ("quota-rescan = {}", Err("EINVAL"), ""),
    ("quota-disable = {}", OK, "btrfs_quota_disable"),
    ("resize = { size = \"-8m\" }", OK, "btrfs_shrink_device"),
    ("resize = { size = \"1g\" }", Err("EFBIG"), ""),
    ("resize = { size = \"max\" }", OK, "btrfs_ioctl"),
    ("resize = { device = 9, size = \"max\" }", Err("ENODEV"), ""),
    ("scrub = {}", OK, "btrfs_scrub_dev"),
    ("scrub = { device = 9 }", Err("ENODEV"), ""),
    // No group is empty.
    ("balance = { groups = [\"metadata\"], usage = 0 }", OK, "!btrfs_relocate_block_group"),
    ("balance = { groups = [\"metadata\"], usage = 100 }", OK, "btrfs_relocate_block_group"),
    ("balance = { groups = [\"metadata\"], convert = \"dup\" }", OK, "btrfs_relocate_block_group"),
    ("balance = { groups = [\"data\"], convert = \"raid0\" }", OK, "btrfs_relocate_block_group"),
    ("balance = { groups = [\"data\"], convert = \"raid5\" }", Err("EINVAL"), ""),
    ("balance = { groups = [\"data\"], convert = \"raid10\" }", Err("EINVAL"), ""),
    ("device-add = { disk = 1 }", OK, "btrfs_init_new_device"),
    ("balance = { groups = [\"data\"], convert = \"raid6\" }", Err("EINVAL"), ""),
    ("balance = { groups = [\"data\"], convert = \"raid5\" }", OK, "btrfs_relocate_block_group"),
    ("balance = { groups = [\"data\"], convert = \"raid10\" }", OK, "btrfs_relocate_block_group"),
    ("balance = { convert = \"raid1\" }", OK, "btrfs_balance"),
    ("device-remove = { disk = 1 }", Err("EINVAL"), ""),
    ("balance = { convert = \"single\", groups = [\"data\", \"metadata\"] }", OK, "btrfs_balance"),
    // The tree of chunks still has a mirror.
    ("device-remove = { disk = 1 }", Err("EINVAL"), ""),
    ("balance = { convert = \"single\", groups = [\"system\"] }", OK, "btrfs_balance"),
    ("device-remove = { disk = 1 }", OK, "btrfs_rm_device"),
    ("device-remove = {}", Err("EINVAL"), ""),
    ("device-add = { disk = 1 }", OK, "btrfs_init_new_device"),
    ("device-replace = { device = 2, disk = 2 }", OK, "btrfs_dev_replace_by_ioctl"),
    ("device-forget = { disk = 1 }", OK, ""),
    ("umount = {}", OK, ""),
    ("device-forget = { disk = 2 }", OK, ""),
    ("mount = { fstype = \"btrfs\" }", Err("ENOENT"), ""),
];

/// Steps on an ext4, of which the data is compared as well. A file that is not flushed before a
/// shutdown is there with its data, without, or not at all, as the shutdown says.
const EXT4: &[Row<'static>] = &[
    ("mount = { fstype = \"ext4\" }", OK, "get_tree_bdev_flags"),
    ("mkdir = { path = \"dir\" }", OK, "ext4_mkdir"),
    ("create = { path = \"file\" }", OK, "path_openat"),
    ("write = { path = \"file\", length = 65536, direct = true, sync = true }", Ok(65536), "__iomap_dio_rw"),
    ("fallocate = { path = \"file\", mode = \"collapse-range\", offset = 8192, length = 4096 }", OK, "vfs_fallocate"),
    ("read = { path = \"file\" }", Ok(61440), ""),
    ("fallocate = { path = \"file\", mode = \"insert-range\", offset = 4096, length = 8192 }", OK, ""),
    ("read = { path = \"file\" }", Ok(69632), ""),
    ("fallocate = { path = \"file\", mode = \"keep-size\", offset = 65536, length = 65536 }", OK, "vfs_fallocate"),
    ("read = { path = \"file\" }", Ok(69632), ""),
    ("fallocate = { path = \"file\", mode = \"zero-range\", offset = 30000, length = 9000 }", OK, "vfs_fallocate"),
    ("fallocate = { path = \"file\", mode = \"punch-hole\", offset = 20000, length = 9000 }", OK, "vfs_fallocate"),
    ("create = { path = \"shared\" }", OK, ""),
    ("reflink = { from = \"file\", to = \"shared\" }", Err("EOPNOTSUPP"), ""),
    ("read = { path = \"shared\" }", OK, ""),
    ("fallocate = { path = \"shared\", mode = \"unshare\", offset = 0, length = 4096 }", Err("EOPNOTSUPP"), ""),
    ("mmap-write = { path = \"file\", length = 69632 }", Ok(69632), ""),
    ("mmap-write = { path = \"file\", offset = 70000, length = 100 }", Err("EFAULT"), ""),
    ("readdir = {}", Ok(6), ""),
    ("remount = { options = \"ro\" }", OK, ""),
    ("chmod = { path = \"file\", mode = 0o600 }", Err("EROFS"), ""),
    ("remount = { options = \"rw\" }", OK, ""),
    ("freeze = {}", OK, ""),
    ("thaw = {}", OK, ""),
    ("fstrim = {}", OK, ""),
    ("truncate = { path = \"file\", length = 69000 }", OK, ""),
    ("unlink = { path = \"shared\" }", OK, ""),
    ("fsync = { path = \"file\" }", OK, ""),
    ("create = { path = \"dir/named\" }", OK, ""),
    ("write = { path = \"dir/named\", length = 5000 }", Ok(5000), ""),
    ("shutdown = { how = \"log-flush\" }", OK, ""),
    ("chmod = { path = \"file\", mode = 0o600 }", Err("EIO"), ""),
    ("umount = {}", OK, ""),
    // The log is recovered.
    ("mount = { fstype = \"ext4\" }", OK, ""),
    ("read = { path = \"file\" }", Ok(69000), ""),
    ("read = { path = \"shared\" }", Err("ENOENT"), ""),
    ("read = { path = \"dir/named\" }", OK, ""),
    ("create = { path = \"dir/whole\" }", OK, ""),
    ("write = { path = \"dir/whole\", length = 5000 }", Ok(5000), ""),
    ("shutdown = { how = \"flush\" }", OK, ""),
    ("umount = {}", OK, ""),
    ("mount = { fstype = \"ext4\" }", OK, ""),
    ("read = { path = \"dir/whole\" }", Ok(5000), ""),
    ("create = { path = \"dir/lost\" }", OK, ""),
    ("shutdown = { how = \"no-flush\" }", OK, ""),
    ("umount = {}", OK, ""),
    ("mount = { fstype = \"ext4\", options = \"ro\" }", OK, ""),
    ("read = { path = \"dir/lost\" }", Err("ENOENT"), ""),
    ("create = { path = \"dir/lost\" }", Err("EROFS"), ""),
    ("umount = {}", OK, ""),
    // One that shuts down while it is frozen, when xfs lets nobody open it.
    ("mount = { fstype = \"ext4\" }", OK, ""),
    ("freeze = {}", OK, ""),
    ("shutdown = { how = \"no-flush\" }", OK, ""),
    ("thaw = {}", OK, ""),
    ("umount = {}", OK, ""),
];

/// The steps of [`EXT4`] on an xfs, which shares blocks.
fn xfs() -> Vec<Row<'static>> {
    let on_xfs = |(step, result, function): Row<'static>| match step {
        "mount = { fstype = \"ext4\" }" => ("mount = { fstype = \"xfs\" }", result, function),
        "mount = { fstype = \"ext4\", options = \"ro\" }" => {
            ("mount = { fstype = \"xfs\", options = \"ro\" }", result, function)
        }
        "mkdir = { path = \"dir\" }" => (step, result, "xfs_create"),
        "readdir = {}" => (step, Ok(5), function),
        "read = { path = \"shared\" }" if result.is_ok() => (step, Ok(69632), function),
        _ if step.starts_with("reflink") => (step, OK, "xfs_file_remap_range"),
        _ if step.contains("unshare") => (step, OK, "xfs_reflink_unshare"),
        _ => (step, result, function),
    };
    EXT4.iter().copied().map(on_xfs).collect()
}

/// Steps that need no file system.
const SYSTEM: &[Row<'static>] = &[
    ("write-file = { path = \"/proc/sys/vm/swappiness\", text = \"77\" }", Ok(2), ""),
    ("read-file = { path = \"/proc/sys/vm/swappiness\" }", Ok(3), ""),
    ("write-file = { path = \"/proc/sys/vm/swappiness\", text = \"seven\" }", Err("EINVAL"), ""),
    ("read-file = { path = \"/sys/kernel/debug/none\" }", Err("ENOENT"), ""),
    ("fork = {}", OK, "copy_process"),
    ("fork = { exec = true }", OK, "load_elf_binary"),
    ("sleep = { ms = 30 }", OK, ""),
    ("trigger = { name = \"clean\" }", Ok(1), "selftest_clean"),
];

/// Steps that make an image, of which a crash takes the last.
const IMAGE: &[Row<'static>] = &[
    ("mount = { fstype = \"xfs\" }", OK, ""),
    ("create = { path = \"file\" }", OK, ""),
    ("write = { path = \"file\", length = 5000 }", Ok(5000), ""),
    ("fsync = { path = \"file\" }", OK, ""),
    ("crash-copy = {}", OK, ""),
    ("unlink = { path = \"file\" }", OK, ""),
    ("umount = {}", OK, ""),
];

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
        let is_reached = match function.strip_prefix('!') {
            Some(other) => !reaches(&first, number, other),
            None => function.is_empty() || reaches(&first, number, function),
        };
        if *got != expected(*result) || !is_reached {
            wrong.push(format!("step {number}: {step}: {got:?}, below {function}: {is_reached}"));
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
fn each_kind_of_step_with_each_field_and_word_is_in_a_test() {
    let tried = [BTRFS, EXT4, &xfs()[..], SYSTEM, IMAGE].concat();
    let mut kinds = BTreeSet::new();
    let mut values: BTreeMap<(&str, String), Vec<Value>> = BTreeMap::new();
    for (text, ..) in tried {
        let step: Step = toml::from_str(text).unwrap();
        kinds.insert(step.kind());
        let fields = serde_json::to_value(&step).unwrap()[step.kind()].take();
        for (field, value) in fields.as_object().unwrap() {
            let seen = values.entry((step.kind(), field.clone())).or_default();
            seen.extend(value.as_array().map_or_else(|| vec![value.clone()], Clone::clone));
        }
    }
    assert_eq!(kinds, Step::VARIANTS.iter().copied().collect(), "each kind has a row");
    let absent = [Value::Null, false.into(), 0.into()];
    let unset: Vec<_> = values.iter().filter(|(_, seen)| seen.iter().all(|value| absent.contains(value))).collect();
    assert!(unset.is_empty(), "no row says anything with these fields: {unset:?}");
    for (field, words) in [
        (("fallocate", "mode"), words::<Fallocate>()),
        (("shutdown", "how"), words::<Shutdown>()),
        (("balance", "groups"), words::<BlockGroups>()),
        (("balance", "convert"), words::<Profile>()),
    ] {
        let seen = &values[&(field.0, field.1.to_owned())];
        let missing: Vec<_> = words.iter().filter(|word| !seen.contains(word)).collect();
        assert!(missing.is_empty(), "{field:?}: {missing:?}");
    }
}

/// The words of files for all of these.
fn words<W: VariantArray + Serialize>() -> Vec<Value> {
    W::VARIANTS.iter().map(|word| serde_json::to_value(word).unwrap()).collect()
}

#[test]
fn the_steps_of_btrfs_do_what_they_say() {
    check(BTRFS, "[image]\nmkfs = [\"mkfs.btrfs\", \"-q\"]\nsize_mib = 272\ndisks = 3\n");
}

#[test]
fn the_steps_of_ext4_and_xfs_do_what_they_say() {
    for (name, size_mib, rows) in [("ext4", 32, EXT4), ("xfs", 320, &xfs())] {
        check(rows, &format!("[image]\nmkfs = [\"mkfs.{name}\", \"-q\"]\nsize_mib = {size_mib}\n"));
    }
}

#[test]
fn steps_without_a_file_system_do_what_they_say() {
    check(SYSTEM, "");
    let folder = target(LEAN, SYSTEM, "");
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
    let image = |rows: &[Row<'_>], last: &str| {
        let steps: String = rows.iter().map(|(step, ..)| format!("{{ {step} }}, ")).collect();
        format!("[image]\nmkfs = [\"mkfs.xfs\", \"-q\"]\nsize_mib = 320\nsteps = [{steps}{last}]\n")
    };
    let made = &IMAGE[..4];
    let rows = [
        ("mount = { fstype = \"xfs\" }", OK, "xlog_do_recovery_pass"),
        ("read = { path = \"file\" }", Ok(5000), ""),
        ("umount = {}", OK, ""),
    ];
    check(&rows, &image(IMAGE, ""));
    let clean = image(made, "{ umount = {} }");
    let rows = [rows[0], ("create = { path = \"file\" }", Err("EEXIST"), ""), rows[2]];
    let rows = rows.map(|(step, result, _)| (step, result, ""));
    check(&rows, &clean);
    let mounted = target(LEAN, &rows, &image(made, "").replace("length = 5000", "offset = 1, length = 5000"));
    let unmounted = prepare(&Wanted::new(mounted.path().to_str().unwrap()), &Stop::new(), &Silent);
    assert!(unmounted.is_ok(), "{}", unmounted.err().map(|error| execution::chain(&error)).unwrap_or_default());
    let broken = target(LEAN, &rows, &image(&IMAGE[..1], "{ unlink = { path = \"none\" } }, { umount = {} }"));
    let reason = why_not_prepared(broken.path());
    assert!(reason.contains("the image cannot be made: step 2 (unlink) failed with ENOENT"), "{reason}");
}
