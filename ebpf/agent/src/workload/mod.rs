//! The workload and the one thread that runs it.
//!
//! ```text
//!   main thread                        workload thread
//!     owns the harness ── Order ─────▶   the set-up, open the traces, arm, the steps, disarm,
//!                                        settle, close
//!     oracles, report ◀── Outcome ───    owns nothing again
//! ```
//!
//! Faults and coverage follow the thread and what works for it. While it is armed it makes the
//! steps' system calls and no others, and it touches no memory for the first time: whatever it
//! needs is made before, and [`keep_memory`] has put all of the agent's memory in place.

pub(crate) mod fs;
pub(crate) mod pattern;
mod program;
mod settle;
mod steps;

use std::{
    sync::mpsc::{Receiver, SyncSender, sync_channel},
    thread,
    time::Instant,
};

use anyhow::{Context, Result, anyhow};
use guest_protocol::Recorded;
use nix::{
    sys::mman::{MlockAllFlags, mlockall},
    unistd::gettid,
};
pub(crate) use program::Program;

use self::settle::Settling;
use crate::{coverage::Traces, init, injector::Injector};

const STACK_BYTES: usize = 256 << 10;

/// Probes, trace and steps: an execution's parts, which the workload thread has while it runs the
/// steps.
pub(crate) struct Harness {
    /// The probes.
    pub(crate) injector: Injector,
    /// The coverage traces.
    pub(crate) traces: Traces,
    /// The steps.
    pub(crate) program: Program,
    /// The end of what they cause.
    settling: Settling,
}

/// One run of the steps.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Ran {
    /// Nanoseconds that the steps took.
    pub(crate) run_ns: u64,
    /// Nanoseconds that settling took.
    pub(crate) settle_ns: u64,
    /// Address of the function of a work item that does not end.
    pub(crate) unsettled: Option<u64>,
}

impl Harness {
    /// Puts the parts together.
    ///
    /// # Errors
    ///
    /// The kernel does not tell what runs.
    pub(crate) fn new(injector: Injector, traces: Traces, program: Program) -> Result<Self> {
        Ok(Self { injector, traces, program, settling: Settling::new()? })
    }

    /// Runs the steps in the calling thread, number `thread`.
    fn run(&mut self, thread: u32, arm: bool, coverage: Recorded) -> Result<Ran> {
        self.program.rewind();
        self.program.set_up();
        let started = Instant::now();
        self.traces.record(coverage).context("cannot switch the coverage trace")?;
        self.traces.start();
        if arm {
            self.injector.arm(thread);
        }
        self.program.run(|step| self.injector.enter_step(step));
        if arm {
            self.injector.disarm();
        }
        self.traces.stop_workload();
        // Work may wait for what the steps left frozen.
        self.program.clean_up();
        let mut ran = Ran { run_ns: nanoseconds_since(started), ..Ran::default() };
        let started = Instant::now();
        if arm {
            ran.unsettled = self.settling.settle(&self.injector)?;
            self.injector.settled();
        }
        self.traces.stop_others();
        ran.settle_ns = nanoseconds_since(started);
        Ok(ran)
    }
}

struct Order {
    harness: Box<Harness>,
    arm: bool,
    coverage: Recorded,
}

struct Outcome {
    harness: Box<Harness>,
    ran: Result<Ran>,
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
                let ran = harness.run(thread, arm, coverage);
                if outcome_queue.send(Outcome { harness, ran }).is_err() {
                    return;
                }
            }
        };
        let builder = thread::Builder::new().name("workload".to_owned()).stack_size(STACK_BYTES);
        builder.spawn(work).context("cannot start the workload thread")?;
        Ok(Self { orders, outcomes })
    }

    /// Runs the steps once, and waits for the end of what they cause. Returns the harness, too.
    pub(crate) fn run(&self, harness: Box<Harness>, arm: bool, coverage: Recorded) -> Result<(Box<Harness>, Ran)> {
        let gone = || anyhow!("the workload thread is gone: {}", init::last_panic());
        self.orders.send(Order { harness, arm, coverage }).map_err(|_| gone())?;
        let outcome = self.outcomes.recv().map_err(|_| gone())?;
        Ok((outcome.harness, outcome.ran?))
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
