//! Honest guests: no call fails that the kernel would never fail, and a guest that is not fit to
//! judge another plan goes.

use std::{
    fs::{self, File, OpenOptions},
    os::unix::fs::FileExt,
    process::Command,
};

use execution::{Execution, Stop};
use fault_plan::{CallPath, Errno, Fault, FaultPlan, InjectedError};
use guest_protocol::DISK_PARTS;
use guests::{
    prepare::{Wanted, prepare},
    progress::Silent,
};

use tempfile::TempDir;

use crate::common::{Guests, KERNEL, LEAN, SLAB, fault, guests, guests_on, plan, steps_target};

/// The first call of `function` below `caller` fails.
fn below(function: &str, caller: &str, error: InjectedError) -> Fault {
    Fault::new(function, CallPath(vec!["...".to_owned(), caller.to_owned()]), 1, error)
}

/// Runs the target's workload with this one fault.
fn run_with(guest: &mut Guests, fault: Fault) -> Execution {
    let plan = FaultPlan { faults: vec![fault], ..guest.prepared.target.fault_free() };
    guest.run(&plan)
}

/// The functions of the sites that have `caller` among their callers.
fn functions_below<'a>(execution: &'a Execution, caller: &str) -> Vec<&'a str> {
    let below = |path: &[String]| path.iter().any(|name| name == caller);
    execution.sites.iter().filter(|site| below(&site.call_path)).map(|site| site.function.as_str()).collect()
}

#[test]
fn what_the_disk_allocates_and_blocks_just_made_are_no_injection_sites() {
    let damaged = InjectedError::Errno(Errno::from_name("EUCLEAN").unwrap());
    for kernel in [KERNEL, LEAN] {
        let mut guest = guests_on(kernel, "btrfs-rw");
        let fault_free = guest.prepared.target.fault_free();
        let whole = guest.run(&fault_free);
        assert!(whole.guarded > 20, "{kernel}: the disk allocates, blocks are written: {}", whole.guarded);
        assert_eq!(functions_below(&whole, "brd_submit_bio"), [""; 0], "{kernel}");
        assert_eq!(functions_below(&whole, "btree_csum_one_bio"), [""; 0], "{kernel}");

        for spared in [
            below("should_fail_alloc_page", "brd_submit_bio", InjectedError::True),
            below("should_failslab", "brd_submit_bio", InjectedError::Errno(Errno::ENOMEM)),
            below("btrfs_check_leaf", "btree_csum_one_bio", damaged),
            below("btrfs_check_node", "btree_csum_one_bio", damaged),
        ] {
            let execution = run_with(&mut guest, spared.clone());
            assert_eq!((execution.fired.len(), &execution.steps), (0, &whole.steps), "{kernel}: {spared:?}");
        }
    }
}

/// Gives a target whose calls below one of `callers` never fail.
fn sparing(callers: &str) -> TempDir {
    let folder = steps_target(&["reachable"], SLAB);
    let file = folder.path().join("target.toml");
    let text = fs::read_to_string(&file).unwrap() + &format!("never = [{{ caller = {callers} }}]\n");
    fs::write(&file, text).unwrap();
    folder
}

#[test]
fn a_call_is_spared_below_one_caller_and_not_below_another() {
    let folder = sparing("[\"no_such_caller\", \"selftest_path_a\"]");
    let mut guest = guests(folder.path());
    let nomem = InjectedError::Errno(Errno::ENOMEM);
    let whole = guest.run(&plan(&[]));
    assert!(whole.guarded >= 1);
    assert_eq!(functions_below(&whole, "selftest_path_a").len(), 0);
    let spared = run_with(&mut guest, below("should_failslab", "selftest_path_a", nomem));
    assert_eq!((spared.fired.len(), &spared.steps), (0, &whole.steps));
    assert!(spared.guarded >= 1);
    // The call counts in no pattern: the first below the common caller is the other one.
    let other = run_with(&mut guest, below("should_failslab", "selftest_reachable", nomem));
    assert!(other.fired[0].call_path.contains(&"selftest_path_b".to_owned()), "{:?}", other.fired);
}

#[test]
fn a_contract_that_a_kernel_cannot_keep_is_refused() {
    let folder = sparing("[\"no_such_caller\", \"nor_this_one\"]");
    let Err(error) = prepare(&Wanted::new(folder.path().to_str().unwrap()), &Stop::new(), &Silent) else {
        panic!("a guard that cannot hold was dropped")
    };
    let error = execution::chain(&error);
    assert!(error.contains("\"no_such_caller\" or \"nor_this_one\"") && error.contains("should_failslab"), "{error}");
}

/// The memory of the guest at hand, to do there what no workload does.
struct Memory {
    file: File,
    start: u64,
    bytes: u64,
}

impl Memory {
    fn of(guest: &mut Guests) -> Self {
        let bytes = u64::from(guest.prepared.template().config().memory_mib) << 20;
        let pid = guest.runner.guest_pid().unwrap();
        let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
        let start = maps.lines().find_map(|line| {
            let (start, end) = line.split_once(' ')?.0.split_once('-')?;
            let number = |text| u64::from_str_radix(text, 16).unwrap();
            (number(end) - number(start) == bytes).then(|| number(start))
        });
        let file = OpenOptions::new().read(true).write(true).open(format!("/proc/{pid}/mem")).unwrap();
        Self { file, start: start.unwrap(), bytes }
    }

    /// Puts `bytes` where the kernel's variable `name` is: its image is mapped at 2 GiB below the
    /// end of all addresses, and not moved (`nokaslr`).
    fn set(&self, guest: &Guests, name: &str, bytes: &[u8]) {
        let list = Command::new("nm").arg(&guest.prepared.kernel.vmlinux).output().unwrap().stdout;
        let list = String::from_utf8(list).unwrap();
        let line = list.lines().find(|line| line.split(' ').nth(2) == Some(name)).unwrap();
        let address = u64::from_str_radix(line.split(' ').next().unwrap(), 16).unwrap() - 0xffff_ffff_8000_0000;
        self.file.write_all_at(bytes, self.start + address).unwrap();
    }

    /// Changes each copy of this block in another way. Gives how many there are.
    fn spoil(&self, block: &[u8]) -> usize {
        let mut copies = 0;
        let mut page = vec![0; block.len()];
        for address in (0..self.bytes).step_by(block.len()) {
            if self.file.read_exact_at(&mut page, self.start + address).is_ok() && page == block {
                let at = copies * 8;
                self.file.write_all_at(&[!page[at]], self.start + address + at as u64).unwrap();
                copies += 1;
            }
        }
        copies
    }
}

/// Executions from one control run to the next.
pub(crate) const CONTROL_INTERVAL: u32 = 50;

/// A target with a disk that its workload leaves alone, so that executions are short.
fn idle_disk() -> TempDir {
    let folder = steps_target(&["two_faults"], SLAB);
    let file = folder.path().join("target.toml");
    let image = "[image]\nmkfs = [\"mkfs.ext4\", \"-q\"]\nsize_mib = 8\n";
    // The oracle of leaks runs without faults now and then, which counts as a control run.
    let oracles = "oracles = []\n";
    fs::write(&file, oracles.to_owned() + &fs::read_to_string(&file).unwrap() + image).unwrap();
    folder
}

#[test]
fn a_guest_whose_disk_or_detector_is_not_as_it_was_is_replaced() {
    let folder = idle_disk();
    let mut guest = guests(folder.path());
    let harmless = plan(&[fault(&["...", "selftest_queue_large"], 1)]);
    let run = |guest: &mut Guests, executions: u32| {
        for _ in 0..executions {
            let execution = guest.run(&harmless);
            assert!(execution.findings.is_empty(), "{:?}", execution.findings);
        }
    };
    run(&mut guest, CONTROL_INTERVAL);
    assert_eq!((guest.usage().controls, guest.usage().guests), (0, 1));
    Memory::of(&mut guest).set(&guest, "debug_locks", &[0; 4]);
    run(&mut guest, CONTROL_INTERVAL);
    let usage = guest.usage();
    assert_eq!((usage.worn, usage.drifted, usage.guests), (1, 0, 2), "lockdep was off: {usage:?}");

    // The first block of the image, with the superblock. No workload writes to it.
    let image = File::open(guest.prepared.template().config().disks.image.as_ref().unwrap()).unwrap();
    let mut block = vec![0; 4096];
    image.read_exact_at(&mut block, 0).unwrap();
    let copies = Memory::of(&mut guest).spoil(&block);
    assert!(copies >= 2, "the agent's copy and the disk's: {copies}");
    for _ in 0..=DISK_PARTS {
        run(&mut guest, CONTROL_INTERVAL);
    }
    let usage = guest.usage();
    assert_eq!((usage.worn, usage.drifted, usage.guests), (1, 1, 3), "the disk was another one: {usage:?}");
    assert_eq!(usage.harness_errors, 0, "{usage:?}");
}

#[test]
fn a_guest_without_room_for_sites_is_replaced() {
    // Each step has points of its own.
    let folder = tempfile::tempdir().unwrap();
    let step = "{ write = { path = \"file\", length = 5000 } }, { fsync = { path = \"file\" } }, ";
    let text = format!(
        "description = \"a test\"\nkernel = \"{LEAN}\"\nfunctions = [\"memory\", \"block\", \"filemap\", \"btrfs\"]\n\
         steps = [{{ mount = {{ fstype = \"btrfs\" }} }}, {{ create = {{ path = \"file\" }} }}, {}{{ umount = {{}} }}]\n\
         [image]\nmkfs = [\"mkfs.btrfs\", \"-q\"]\nsize_mib = 128\n",
        step.repeat(200)
    );
    fs::write(folder.path().join("target.toml"), text).unwrap();
    let mut guest = guests(folder.path());
    for run in 1..=2 {
        let execution = guest.run(&plan(&[]));
        assert!(execution.incomplete && execution.findings.is_empty(), "{run}: {} points", execution.hits.len());
        let usage = guest.usage();
        assert_eq!(
            (usage.worn, usage.guests, usage.harness_errors),
            (run, run, 0),
            "{} {usage:?}",
            execution.hits.len()
        );
    }
}
