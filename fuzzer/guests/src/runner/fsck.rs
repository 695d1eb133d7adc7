//! Checks of the disk by its file system's own checker.
//!
//! ```text
//! warm guest:  plan ─▶ faults fired, nothing found, an end that was not seen before, time for it
//!                        └─▶ the plan once more: mount, unmount, checker
//! fresh guest: plan ─▶ mount, unmount, checker
//! ```
//!
//! A check takes as long as several executions, so that it has to be earned. What an execution did
//! to the disk shows in which callers' calls failed, and in what the steps returned: each such end
//! is checked once. In a fresh guest, in which crashes are tried, each execution is.

use std::{
    collections::HashSet,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    time::Instant,
};

use execution::{Execution, Fate, Finding, FindingKind, Fired, Oracle};
use fault_plan::FaultPlan;
use guest_protocol::StepResult;

use super::{
    Asked, GuestRunner,
    leftover::{evidence, seen, telling},
    share::Share,
};

/// One part in this many of all time is for checks, the executions before them included.
const SHARE: u32 = 30;

/// Beginnings of lines that are no complaints: `btrfs check` of btrfs-progs 6.2 (`check/main.c`),
/// `e2fsck` of e2fsprogs 1.47, `xfs_repair` of xfsprogs 6.1.
const PROGRESS: &[&str] = &[
    "Opening filesystem",
    "Checking filesystem on",
    "UUID:",
    "[",
    "found ",
    "total ",
    "btree space waste",
    "file data blocks allocated",
    "referenced ",
    "e2fsck ",
    "Pass ",
    "/dev/",
    "Phase ",
    "- ",
    "No modify flag set",
];
/// Beginnings of lines that sum up, or say what comes of a complaint: they count where there are no
/// others. What a program says of progress and of errors is not in the order of time.
const SUMMARIES: &[&str] = &["ERROR: errors found in", "would ", "Fix?", "Clear?"];

/// The ends of executions that were checked.
#[derive(Debug)]
pub(super) struct Checks {
    seen: HashSet<u64>,
    pub(super) time: Share,
    /// True when the checker has complained though no fault fired.
    pub(super) off: bool,
}

impl Default for Checks {
    fn default() -> Self {
        Self { seen: HashSet::new(), time: Share::new(SHARE), off: false }
    }
}

/// Hashes how an execution ended.
fn end(execution: &Execution) -> u64 {
    let mut hash = DefaultHasher::new();
    for fired in &execution.fired {
        (fired.step, telling(fired)).hash(&mut hash);
    }
    format!("{:?}", execution.steps).hash(&mut hash);
    hash.finish()
}

/// Makes the finding of what a checker said of the disk. Its key is the program and the first
/// complaint without its numbers.
pub(super) fn complained(said: &str, plan: &FaultPlan, fired: &[Fired], results: &[StepResult]) -> Option<Finding> {
    let (command, rest) = said.split_once('\n')?;
    let is_name = |word: &&str| !word.starts_with(['-', '/']);
    let program = command.split(' ').filter(is_name).collect::<Vec<_>>().join(" ");
    let key = format!("{program}: {}", complaint(rest));
    let title = match fired.last().and_then(telling) {
        Some(caller) => format!("{key} after a failure in {caller}"),
        None => key.clone(),
    };
    let text = evidence(said, plan, fired, results);
    Some(seen(FindingKind::Fsck, key, title, text, fired))
}

/// Gives the first complaint in what a checker said.
fn complaint(said: &str) -> String {
    let begins = |line: &str, with: &[&str]| with.iter().any(|start| line.starts_with(start));
    let lines: Vec<_> = said.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let complaints = || lines.iter().filter(|line| !begins(line, PROGRESS));
    let first = complaints().find(|line| !begins(line, SUMMARIES)).or_else(|| complaints().next());
    first.map_or_else(|| "it fails".to_owned(), |line| kernel_report::complaint_title(line))
}

impl GuestRunner {
    /// Checks the disk after an end of `plan` that was not seen before: runs it again in the guest
    /// at hand, and gives that `execution` instead where it shows something.
    pub(super) fn check_disk(&mut self, plan: &FaultPlan, execution: &mut Execution) {
        let clean = execution.guest == Fate::Alive && execution.findings.is_empty() && self.guest.is_some();
        if !self.checks() || !clean || execution.fired.is_empty() || !self.checks.time.is_due() {
            return;
        }
        if !self.checks.seen.insert(end(execution)) {
            return;
        }
        let started = Instant::now();
        let again = self.attempt_once(Asked { check: true, ..Asked::warm(plan) });
        self.growth.clear();
        self.checks.time.took(started.elapsed(), started.elapsed());
        match again {
            Ok(again) if again.findings.is_empty() => execution.guest = again.guest,
            Ok(again) => *execution = again,
            Err(_) => {
                self.discard();
                execution.guest = Fate::Retired;
            }
        }
    }

    /// Says whether disks are checked.
    pub(super) fn checks(&self) -> bool {
        self.has(Oracle::Fsck) && !self.checks.off && !self.prepared.target.checkers().is_empty()
    }

    /// Switches checks off after one that complains though no fault fired.
    pub(super) fn note_check(&mut self, complaints: &str, fired: &[Fired]) {
        if !complaints.is_empty() && fired.is_empty() && !self.checks.off {
            self.checks.off = true;
            tracing::warn!("disks are checked no more: there are complaints when nothing fails: {complaints}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_complaint_is_the_key_without_its_numbers() {
        for (said, expected) in [
            (
                "[1/7] checking root items\nERROR: errors found in extent allocation tree or chunk allocation\n\
                 Opening filesystem to check...\nUUID: 1-2\nref mismatch on [30441472 4096] extent item 1, found 0\n",
                "ref mismatch on [N N] extent item N, found",
            ),
            ("Pass 5: Checking\nBlock bitmap differences:  -7970 +(1--2)\nFix? no\n", "Block bitmap differences"),
            (
                "e2fsck 1.47.0 (5-Feb-2023)\nPass 1: Checking\nInode 12, i_size is 8, should be 0x10.  Fix? no\n",
                "Inode N, i_size is N, should be",
            ),
            ("Phase 2 - using internal log\n        - zero log...\nsb_ifree 61, counted 60\n", "sb_ifree N, counted"),
            ("Phase 3\nwould have reset inode 131 nlinks from 1 to 2\n", "would have reset inode N nlinks from N to"),
            ("ERROR: errors found in fs roots\n", "ERROR: errors found in fs roots"),
            ("", "it fails"),
        ] {
            assert_eq!(complaint(said), expected);
        }
    }

    #[test]
    fn a_finding_names_the_checker_and_has_all_that_it_said() {
        let said = "btrfs check --readonly /dev/ram0\nroot 5 inode 257 errors 1\n";
        let path = ["__kmalloc_noprof", "flush_block"].map(str::to_owned).to_vec();
        let fired = [Fired { times: 1, call_path: path, ..Fired::default() }];
        let found = complained(said, &FaultPlan::fault_free("t"), &fired, &[StepResult::Done(0)]).unwrap();
        assert_eq!((found.kind, found.key.as_str()), (FindingKind::Fsck, "btrfs check: root N inode N errors"));
        assert_eq!(found.title, "btrfs check: root N inode N errors after a failure in flush_block");
        assert!(found.text.contains(said) && !found.is_report());
        assert_eq!(complained("", &FaultPlan::fault_free("t"), &fired, &[]), None);
    }
}
