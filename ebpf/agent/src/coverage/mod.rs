//! Coverage: traces of the basic blocks that the workload's thread enters, that other user tasks
//! do, and that kernel threads do. The last two need our patch of the kernel.
//!
//! ```text
//!   open                   start                 stop_workload              stop_others
//!  ─────▶ all are closed ─────────▶ all record ───────────────▶ the others ─────────────▶ all closed
//!                ▲                  (steps)                      record yet (settling)        │
//!                └──────────────────────────── the host reads ───────────────────────────────┘
//! ```
//!
//! What is followed stays enabled: `KCOV_ENABLE` touches every page of the memory, most of which no
//! execution needs. Between executions a trace is *closed*: its count is beyond what there is room
//! for, so that the kernel writes nothing. See [`guest_protocol::TraceMemory`].

mod kcov;
pub(crate) mod pagemap;

use anyhow::{Context, Result};
use guest_protocol::{Recorded, TraceMemory, TraceRole};

use self::kcov::{Follow, Kcov};

/// Words of the workload's trace, the count included: thirty times what mounting and unmounting
/// btrfs writes.
const WORKLOAD_WORDS: usize = 1 << 21;
/// Roles of the traces that follow tasks other than the workload's, and their words. A transaction
/// of btrfs, half of which kernel threads run, takes a tenth of theirs.
const OTHERS: [(TraceRole, Follow, usize); 2] =
    [(TraceRole::Tasks, Follow::Tasks, 1 << 18), (TraceRole::Threads, Follow::Threads, 1 << 20)];

/// The traces of an execution.
pub(crate) struct Traces {
    workload: Kcov,
    /// True when the workload's thread is followed.
    enabled: bool,
    /// True when the other traces are used.
    with_others: bool,
    /// Traces of other tasks, as far as the kernel has them. They are always enabled.
    others: Vec<(TraceRole, Kcov)>,
}

impl Traces {
    /// Opens the traces that this kernel can have.
    ///
    /// # Errors
    ///
    /// The kernel has no KCOV, or no memory.
    pub(crate) fn open() -> Result<Self> {
        let workload = Kcov::open(WORKLOAD_WORDS)?;
        let mut others = Vec::new();
        for (role, follow, words) in OTHERS {
            if Kcov::can(follow)? {
                let kcov = Kcov::open(words)?;
                kcov.enable(follow).with_context(|| format!("cannot trace the kernel's other {role}"))?;
                others.push((role, kcov));
            }
        }
        Ok(Self { workload, enabled: false, with_others: false, others })
    }

    /// Empties the traces, and closes them.
    pub(crate) fn clear(&self) {
        self.workload.clear();
        self.others.iter().for_each(|(_, kcov)| kcov.clear());
    }

    /// Has the next execution record this. Called by the workload's thread alone.
    pub(crate) fn record(&mut self, recorded: Recorded) -> nix::Result<()> {
        let enabled = recorded != Recorded::Nothing;
        if enabled != self.enabled {
            self.clear();
            if enabled { self.workload.enable(Follow::Caller) } else { self.workload.disable() }?;
            self.enabled = enabled;
        }
        self.with_others = recorded == Recorded::All;
        Ok(())
    }

    /// Starts empty traces of what is to be recorded. Makes no system call.
    pub(crate) fn start(&self) {
        if self.with_others {
            self.others.iter().for_each(|(_, kcov)| kcov.start());
        }
        if self.enabled {
            self.workload.start();
        }
    }

    /// Ends the trace of the workload's thread, which calls this. Makes no system call.
    pub(crate) fn stop_workload(&self) {
        self.workload.stop();
    }

    /// Ends the traces of other tasks.
    pub(crate) fn stop_others(&self) {
        self.others.iter().for_each(|(_, kcov)| kcov.stop());
    }

    /// Finds the places at which the host reads the traces.
    ///
    /// # Errors
    ///
    /// The kernel does not tell.
    pub(crate) fn memory(&self) -> Result<Vec<TraceMemory>> {
        let all = [(TraceRole::Workload, &self.workload)].into_iter();
        let all = all.chain(self.others.iter().map(|(role, kcov)| (*role, kcov)));
        all.map(|(role, kcov)| Ok(TraceMemory { role, ranges: kcov.physical_ranges()? })).collect()
    }
}

/// Says why other tasks cannot be traced, if so.
pub(crate) fn others_defect() -> String {
    match OTHERS.into_iter().map(|(_, follow, _)| Kcov::can(follow)).collect::<Result<Vec<_>>>() {
        Ok(can) if can.iter().all(|can| *can) => String::new(),
        Ok(_) => {
            "coverage of children and kernel threads needs kernels/patches/0002-kcov-trace-other-tasks.patch".to_owned()
        }
        Err(error) => format!("{error:#}"),
    }
}
