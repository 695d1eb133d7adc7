//! The workload and the one thread that runs it.
//!
//! ```text
//!   main thread                        workload thread
//!     owns the harness ── Order ─────▶   the set-up, open the trace, arm, the steps, disarm, close it
//!     oracles, report ◀── Outcome ───    owns nothing again
//! ```
//!
//! Faults and coverage follow the thread. While it is armed it makes the steps' system calls and no
//! others, and it touches no memory for the first time: whatever it needs is made before, and
//! [`keep_memory`] has put all of the agent's memory in place.

pub(crate) mod fs;
mod program;
mod steps;

use std::{
    sync::mpsc::{Receiver, SyncSender, sync_channel},
    thread,
    time::Instant,
};

use anyhow::{Context, Result, anyhow};
use nix::{
    sys::mman::{MlockAllFlags, mlockall},
    unistd::gettid,
};
pub(crate) use program::Program;

use crate::{coverage::Kcov, init, injector::Injector};

const STACK_BYTES: usize = 256 << 10;

/// Probes, trace and steps: an execution's parts, which the workload thread has while it runs the
/// steps.
pub(crate) struct Harness {
    /// The probes.
    pub(crate) injector: Injector,
    /// The coverage trace.
    pub(crate) kcov: Kcov,
    /// The steps.
    pub(crate) program: Program,
}

impl Harness {
    /// Runs the steps in the calling thread, number `thread`.
    fn run(&mut self, thread: u32, arm: bool, coverage: bool) -> nix::Result<u64> {
        self.program.rewind();
        self.program.set_up();
        let started = Instant::now();
        self.kcov.enable(coverage)?;
        self.kcov.start();
        if arm {
            self.injector.arm(thread);
        }
        self.program.run(|step| self.injector.enter_step(step));
        if arm {
            self.injector.disarm();
        }
        self.kcov.stop();
        let run_ns = nanoseconds_since(started);
        self.program.clean_up();
        Ok(run_ns)
    }
}

struct Order {
    harness: Box<Harness>,
    arm: bool,
    coverage: bool,
}

struct Outcome {
    harness: Box<Harness>,
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
            for Order { mut harness, arm, coverage } in order_queue {
                let run_ns = harness.run(thread, arm, coverage);
                if outcome_queue.send(Outcome { harness, run_ns }).is_err() {
                    return;
                }
            }
        };
        let builder = thread::Builder::new().name("workload".to_owned()).stack_size(STACK_BYTES);
        builder.spawn(work).context("cannot start the workload thread")?;
        Ok(Self { orders, outcomes })
    }

    /// Runs the steps once. Returns the harness and how many nanoseconds the steps took.
    pub(crate) fn run(&self, harness: Box<Harness>, arm: bool, coverage: bool) -> Result<(Box<Harness>, u64)> {
        let gone = || anyhow!("the workload thread is gone: {}", init::last_panic());
        self.orders.send(Order { harness, arm, coverage }).map_err(|_| gone())?;
        let outcome = self.outcomes.recv().map_err(|_| gone())?;
        let run_ns = outcome.run_ns.context("cannot switch the coverage trace")?;
        Ok((outcome.harness, run_ns))
    }
}

/// Puts all memory of the agent, present and future, in place for good: a page that is touched for
/// the first time while the workload is armed would be a call that can fail, and in another place
/// every time.
pub(crate) fn keep_memory() -> Result<()> {
    mlockall(MlockAllFlags::MCL_CURRENT | MlockAllFlags::MCL_FUTURE).context("cannot lock the agent's memory")
}

/// Nanoseconds since `started`.
pub(crate) fn nanoseconds_since(started: Instant) -> u64 {
    u64::try_from(started.elapsed().as_nanos()).unwrap_or(u64::MAX)
}
