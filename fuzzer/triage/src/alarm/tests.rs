//! Both ways: alarms are recognised, and no bug becomes one.

use super::*;

fn path(functions: &str) -> Vec<String> {
    functions.split(' ').map(str::to_owned).collect()
}

fn judge(kind: &str, key: &str, report: &str, stack: &str, fault: (&str, &str)) -> Option<String> {
    let call_path = path(fault.1);
    alarm((kind, key), report, &path(stack), &[Injected { error: fault.0, call_path: &call_path }])
}

const ALLOCATION: &str = "kmem_cache_alloc_noprof btrfs_alloc_path lookup_inode outer syscall entry";

#[test]
fn a_check_of_the_result_of_what_was_failed_is_an_alarm() {
    let key = "check: fs/btrfs/file.c lookup_inode: WARN_ON(ret)";
    let reason = judge("warning", key, "", "lookup_inode outer syscall entry", ("ENOMEM", ALLOCATION)).unwrap();
    assert!(reason.contains("WARN_ON(ret)") && reason.contains("ENOMEM"), "{reason}");
}

#[test]
fn a_check_of_a_result_elsewhere_or_that_kills_is_a_finding() {
    let key = "check: fs/btrfs/file.c lookup_inode: WARN_ON(ret)";
    let stack = "lookup_inode outer syscall entry";
    for (why, kind, key, stack) in [
        ("another call of it", "warning", key, "lookup_inode other umount entry"),
        ("the fault was not below it", "warning", key, "cleanup outer syscall entry"),
        ("the kernel dies of it", "bug", "check: fs/btrfs/file.c lookup_inode: BUG_ON(ret)", stack),
        ("an assertion", "bug", "check: fs/btrfs/file.c lookup_inode: ASSERT(ret == 0)", stack),
        ("another result", "warning", "check: fs/btrfs/file.c lookup_inode: WARN_ON(ret == -ENOENT)", stack),
        ("no trace", "warning", key, ""),
    ] {
        assert_eq!(judge(kind, key, "", stack, ("ENOMEM", ALLOCATION)), None, "{why}");
    }
    assert_eq!(alarm(("warning", key), "", &path(stack), &[]), None, "no fault fired");
}

#[test]
fn a_file_systems_own_announcement_is_an_alarm() {
    let abort = "------------[ cut here ]------------\nBTRFS: Transaction aborted (error -28)\nWARNING: CPU: 0\n";
    assert!(judge("warning", "check: fs/btrfs/inode.c:7", abort, "f g", ("ENOSPC", "a b")).is_some());
    let ext4 =
        "EXT4-fs error (device ram0): ext4_find_entry:1666: inode #2: comm w: reading directory lblock 0: error -5";
    assert!(judge("warning", "ext4: error", ext4, "", ("EIO", "a b")).is_some());
    let xfs = "XFS (ram0): metadata I/O error in \"xfs_da_read_buf+0x1/0x2\" at daddr 0x60 len 8 error 5";
    assert!(judge("warning", "xfs: error", xfs, "", ("EIO", "a b")).is_some());
}

#[test]
fn an_announcement_of_another_error_or_of_none_is_a_finding() {
    let key = "check: fs/btrfs/inode.c f: btrfs_abort_transaction(trans, ret)";
    let abort = "------------[ cut here ]------------\nBTRFS: Transaction aborted (error -17)\nWARNING: CPU: 0\n";
    assert_eq!(judge("warning", key, abort, "f g h", ("ENOMEM", "a f g h")), None, "EEXIST is not what was injected");
    for (kind, text) in [
        ("panic", "Kernel panic - not syncing: EXT4-fs (device ram0): panic forced after error"),
        ("warning", "EXT4-fs (ram0): Remounting filesystem read-only"),
        ("warning", "Aborting journal on device ram0-8."),
        ("warning", "XFS (ram0): Metadata I/O Error (0x1) detected at f. Shutting down filesystem."),
    ] {
        assert_eq!(judge(kind, "x", text, "", ("EIO", "a b")), None, "{text}");
    }
}

#[test]
fn damage_that_a_file_system_finds_is_a_finding() {
    for text in [
        "EXT4-fs error (device ram0): ext4_free_inode:283: inode #12: comm w: bit already cleared for inode 12",
        "EXT4-fs error (device dm-12): ext4_lookup:1777: inode #12: comm w: deleted inode referenced: 12",
        "XFS (ram0): Corruption of in-memory data (0x8) detected at xfs_defer_finish_noroll+0x5ca/0x7e0",
        "XFS (ram0): Metadata corruption detected at xfs_agf_verify+0x1c2/0x2f0, xfs_agf block 0x1",
        "BTRFS critical (device ram0): corrupt leaf: root=1 block=30474240 slot=0, invalid level",
    ] {
        assert_eq!(judge("warning", "x", text, "", ("ENOMEM", "a b")), None, "{text}");
    }
    let behind = "WARNING: CPU: 0 PID: 1 at f\nCall Trace:\nf\nBTRFS: Transaction aborted (error -5)\n";
    assert_eq!(judge("warning", "x", behind, "", ("EIO", "a b")), None, "of another report");
}

/// The bugs of FINDINGS.md that are warnings, each with its fault and its trace.
#[test]
fn known_bugs_are_no_alarms() {
    let umount = "close_ctree btrfs_put_super generic_shutdown_super kill_anon_super";
    let space = "check: fs/btrfs/space-info.h DECLARE_SPACE_INFO_UPDATE(bytes_may_use, \"space_info\")";
    let csum = "check: fs/btrfs/inode.c btrfs_destroy_inode: WARN_ON(inode->csum_bytes)";
    let proc = "check: fs/proc/generic.c remove_proc_entry: WARN(1, \"name '%s'\\n\", name)";
    let busy = "check: fs/super.c generic_shutdown_super: if (CHECK_DATA_CORRUPTION(!list_empty(&sb->s_inodes), NULL, \
                \"VFS: Busy inodes after unmount of %s (%s)\", sb->s_id, sb->s_type->name))";
    for (kind, key, stack, fault) in [
        (
            "warning",
            space,
            format!("btrfs_block_rsv_release {umount}"),
            ("ENOMEM", format!("add_delayed_ref {umount}")),
        ),
        (
            "warning",
            csum,
            "btrfs_destroy_inode destroy_inode evict iput iget_failed btrfs_iget_path".to_owned(),
            ("ENOMEM", "xas_alloc btrfs_add_inode_to_root btrfs_iget_path btrfs_iget".to_owned()),
        ),
        (
            "warning",
            proc,
            "remove_proc_entry jbd2_journal_destroy ext4_put_super".to_owned(),
            ("NULL", "proc_create_data jbd2_journal_init_inode ext4_fill_super".to_owned()),
        ),
        ("bug", busy, format!("generic_shutdown_super {umount}"), ("ENOSPC", "btrfs_link vfs_link".to_owned())),
    ] {
        assert_eq!(judge(kind, key, "", &stack, (fault.0, &fault.1)), None, "{key}");
    }
}

#[test]
fn a_loop_without_an_error_to_return_is_an_alarm() {
    let judge = |kind: &str, stack: &str| judge(kind, "endless loop: f", "", stack, ("ENOMEM", "a b"));
    let asking = "kmem_cache_alloc_noprof alloc_extent_state __set_extent_bit __lock_extent";
    let reason = judge("loop", asking).unwrap();
    assert!(reason.starts_with("__set_extent_bit() has no error to return"), "{reason}");
    assert_eq!(judge("hang", asking), None, "nothing moves");
    assert_eq!(judge("loop", "__kmalloc_cache_noprof btrfs_cache_block_group find_free_extent"), None, "it has one");
    assert_eq!(judge("loop", "a b c d __set_extent_bit"), None, "another allocation below it");
}
