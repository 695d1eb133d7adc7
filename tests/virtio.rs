//! Virtio disks: completions in interrupts, and all that a memory disk promises.

use std::{
    fs::{self, File, OpenOptions},
    os::unix::fs::FileExt,
    thread,
    time::{Duration, Instant},
};

use execution::Execution;
use fault_plan::{Errno, InjectedError};
use guest_protocol::{DISK_PARTS, TraceRole};
use tempfile::TempDir;

use crate::{
    common::{Guests, LEAN, fails, fault, guests, plan},
    honest::CONTROL_INTERVAL,
    other_tasks::functions,
};

/// A target on such a disk, with these steps between a mount and an unmount.
fn target(disk: &str, mkfs: &[&str], size_mib: u32, steps: &str) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let fstype = mkfs[0].trim_start_matches("mkfs.");
    let text = format!(
        "description = \"a test\"\nkernel = \"{LEAN}\"\nfunctions = [\"memory\", \"block\"]\noracles = []\n\
         steps = [{{ mount = {{ fstype = \"{fstype}\" }} }}, {steps} {{ umount = {{}} }}]\n\
         [image]\nmkfs = {mkfs:?}\nsize_mib = {size_mib}\ndisk = \"{disk}\"\n"
    );
    fs::write(folder.path().join("target.toml"), text).unwrap();
    folder
}

/// With blocks of a page the end of a write is work for another task.
const EXT4: &[&str] = &["mkfs.ext4", "-q", "-b", "4096"];

/// Steps that write a file and wait until it is on the disk.
const FILE: &str = "{ create = { path = \"file\" } }, { write = { path = \"file\", length = 65536 } }, \
                    { fsync = { path = \"file\" } },";

/// Paths of the sites that have `caller` among their callers.
fn below<'a>(execution: &'a Execution, caller: &str) -> Vec<&'a [String]> {
    let paths = execution.sites.iter().map(|site| site.call_path.as_slice());
    paths.filter(|path| path.iter().any(|name| name == caller)).collect()
}

#[test]
fn writes_to_a_virtio_disk_end_in_interrupts_and_their_work_is_seen() {
    // `ext4_end_bio()` of `fs/ext4/page-io.c` (6.12) ends a write, and queues the work item that
    // makes the file's blocks valid. KCOV records tasks, and no interrupts.
    for (disk, in_a_task) in [("memory", true), ("virtio", false)] {
        let folder = target(disk, EXT4, 32, FILE);
        let mut guest = guests(folder.path());
        let execution = guest.run(&plan(&[]));
        assert!(execution.findings.is_empty(), "{disk}: {:?}", execution.findings);
        let of = |role| functions(&guest.prepared.symbols, &execution, role);
        let (workload, threads) = (of(TraceRole::Workload), of(TraceRole::Threads));
        let ends = |name: &str| workload.contains(name) || threads.contains(name);
        assert_eq!(ends("ext4_end_bio"), in_a_task, "{disk}");
        assert_eq!(threads.contains("ext4_end_io_rsv_work"), !in_a_task, "{disk}: {threads:?}");
        assert!(ends("virtio_queue_rqs") != in_a_task, "{disk}");
        for caller in ["brd_submit_bio", "virtio_queue_rq", "virtio_queue_rqs", "ext4_end_bio"] {
            assert!(below(&execution, caller).is_empty(), "{disk}: {:?}", below(&execution, caller));
        }
        assert!(execution.guarded > 0, "{disk}: the disk allocates");
    }
}

/// The first disk of the guest at hand: the file that QEMU has it in.
fn disk_of(guest: &mut Guests) -> File {
    let pid = guest.runner.guest_pid().unwrap();
    let files = fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten().map(|entry| entry.path());
    let is_disk = |path: &std::path::PathBuf| {
        fs::read_link(path).is_ok_and(|file| file.to_string_lossy().starts_with("/memfd:disk"))
    };
    let path = files.into_iter().find(is_disk).unwrap();
    OpenOptions::new().read(true).write(true).open(path).unwrap()
}

/// Waits until the disk has the content `expected`: the agent puts it back behind its report.
fn wait_until_it_is(disk: &File, expected: &[u8]) {
    let mut content = vec![0; expected.len()];
    let until = Instant::now() + Duration::from_secs(20);
    loop {
        disk.read_exact_at(&mut content, 0).unwrap();
        let differs = content.chunks(4096).zip(expected.chunks(4096)).position(|(found, wanted)| found != wanted);
        let Some(block) = differs else { return };
        assert!(Instant::now() < until, "block {block} is not the image's");
        thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_virtio_disk_is_put_back_compared_and_each_guests_own() {
    let folder = target("virtio", EXT4, 8, FILE);
    let mut guest = guests(folder.path());
    let image = fs::read(guest.prepared.template().config().disks.image.as_ref().unwrap()).unwrap();
    let whole = guest.run(&plan(&[]));
    let disk = disk_of(&mut guest);
    let failed_write = plan(&[fails("should_fail_bio", &["...", "ext4_io_submit"], InjectedError::Errno(Errno::EIO))]);
    for _ in 0..5 {
        let execution = guest.run(&failed_write);
        assert_eq!((execution.fired.len(), execution.findings.len()), (1, 0), "{:?}", execution.findings);
        assert_ne!(execution.steps, whole.steps, "the error is told");
        wait_until_it_is(&disk, &image);
    }
    assert_eq!(guest.run(&plan(&[])).steps, whole.steps);
    wait_until_it_is(&disk, &image);

    // One block of each part that a control run compares; no file has any of them.
    let part = image.len() as u64 / u64::from(DISK_PARTS);
    (1..=u64::from(DISK_PARTS)).for_each(|number| disk.write_all_at(b"damage", number * part - 4096).unwrap());
    for _ in 0..=CONTROL_INTERVAL {
        guest.run(&plan(&[]));
    }
    let usage = guest.usage();
    assert_eq!((usage.guests, usage.drifted, usage.harness_errors), (2, 1, 0), "{usage:?}");
    wait_until_it_is(&disk_of(&mut guest), &image);
}

#[test]
fn a_virtio_disk_that_is_left_open_is_found() {
    let folder = target("virtio", &["mkfs.btrfs", "-q"], 128, "");
    let mut guest = guests(folder.path());
    let execution = guest.run(&plan(&[fault(&["...", "super_setup_bdi_name"], 1)]));
    let keys: Vec<_> = execution.findings.iter().map(|finding| finding.key.as_str()).collect();
    assert_eq!(keys, ["device left open: super_setup_bdi"]);
    assert!(execution.findings[0].text.contains("/dev/vdb"), "{:?}", execution.findings);
    assert!(guest.run(&plan(&[])).findings.is_empty(), "another guest's disk is closed");
}
