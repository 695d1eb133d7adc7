//! The workload and the one thread that runs it.
//!
//! ```text
//!   main thread                        workload thread
//!     owns the rig ── Order ─────────▶   open the trace, arm, the steps, disarm, close it
//!     clean-up, report ◀── Outcome ──    owns nothing again
//! ```
//!
//! Faults and coverage follow the thread. While it is armed it makes the steps' system calls and no others, and it
//! touches no memory for the first time: whatever it needs is made before, and [`keep_memory`] has put all of the
//! agent's memory in place.

pub(crate) mod btrfs;
mod options;
mod step;

use std::{
    sync::mpsc::{Receiver, SyncSender, sync_channel},
    thread,
    time::Instant,
};

use anyhow::{Context, Result, anyhow};
use guest_protocol::StepResult;
use nix::{
    sys::mman::{MlockAllFlags, mlockall},
    unistd::gettid,
};
use step::Scene;
pub(crate) use step::{MOUNT_POINT, ReadyStep};

use crate::{init, injector::Injector, kcov::Kcov};

const STACK_BYTES: usize = 256 << 10;

/// What an execution needs; the workload thread has it while it runs the steps.
pub(crate) struct Rig {
    /// The probes.
    pub(crate) injector: Injector,
    /// The coverage trace.
    pub(crate) kcov: Kcov,
    /// One result for each step of the last execution.
    pub(crate) results: Vec<StepResult>,
    steps: Vec<ReadyStep>,
    scene: Scene,
}

impl Rig {
    /// Puts the parts together.
    pub(crate) fn new(injector: Injector, kcov: Kcov, steps: Vec<ReadyStep>) -> Result<Self> {
        let results = Vec::with_capacity(steps.len());
        Ok(Self { injector, kcov, results, steps, scene: Scene::new()? })
    }

    /// Runs the steps in the calling thread, number `thread`.
    fn run(&mut self, thread: u32, arm: bool, coverage: bool) -> nix::Result<u64> {
        self.results.clear();
        self.scene.mounted = false;
        let started = Instant::now();
        self.kcov.enable(coverage)?;
        self.kcov.start();
        if arm {
            self.injector.arm(thread);
        }
        for step in &mut self.steps {
            self.results.push(step.run(&mut self.scene));
        }
        if arm {
            self.injector.disarm();
        }
        self.kcov.stop();
        Ok(nanoseconds_since(started))
    }
}

struct Order {
    rig: Box<Rig>,
    arm: bool,
    coverage: bool,
}

struct Outcome {
    rig: Box<Rig>,
    run_ns: nix::Result<u64>,
}

/// The workload thread.
pub(crate) struct Worker {
    orders: SyncSender<Order>,
    outcomes: Receiver<Outcome>,
}

impl Worker {
    /// Starts the thread, which lives as long as the agent.
    pub(crate) fn start() -> Result<Self> {
        let (orders, order_queue) = sync_channel::<Order>(1);
        let (outcome_queue, outcomes) = sync_channel(1);
        let work = move || {
            let thread = u32::try_from(gettid().as_raw()).unwrap_or_default();
            for Order { mut rig, arm, coverage } in order_queue {
                let run_ns = rig.run(thread, arm, coverage);
                if outcome_queue.send(Outcome { rig, run_ns }).is_err() {
                    return;
                }
            }
        };
        let builder = thread::Builder::new().name("workload".to_owned()).stack_size(STACK_BYTES);
        builder.spawn(work).context("cannot start the workload thread")?;
        Ok(Self { orders, outcomes })
    }

    /// Runs the steps once. Returns the rig and how many nanoseconds the steps took.
    pub(crate) fn run(&self, rig: Box<Rig>, arm: bool, coverage: bool) -> Result<(Box<Rig>, u64)> {
        let gone = || anyhow!("the workload thread is gone: {}", init::last_panic());
        self.orders.send(Order { rig, arm, coverage }).map_err(|_| gone())?;
        let outcome = self.outcomes.recv().map_err(|_| gone())?;
        let run_ns = outcome.run_ns.context("cannot switch the coverage trace")?;
        Ok((outcome.rig, run_ns))
    }
}

/// Puts all memory of the agent, present and future, in place for good: a page that is touched for the first time
/// while the workload is armed would be a call that can fail, and in another place every time.
pub(crate) fn keep_memory() -> Result<()> {
    mlockall(MlockAllFlags::MCL_CURRENT | MlockAllFlags::MCL_FUTURE).context("cannot lock the agent's memory")
}

/// Nanoseconds since `started`.
pub(crate) fn nanoseconds_since(started: Instant) -> u64 {
    u64::try_from(started.elapsed().as_nanos()).unwrap_or(u64::MAX)
}
