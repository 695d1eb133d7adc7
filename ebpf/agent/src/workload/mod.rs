//! The workload and the one thread that runs it.
//!
//! ```text
//!   main thread                        workload thread
//!     owns the harness ── Order ─────▶   the set-up, open the traces, arm, the steps, disarm,
//!                                        settle, close
//!     oracles, report ◀── Outcome ───    owns nothing again
//! ```
//!
//! The main thread looks every second whether the steps go on. A step that sleeps for ever is none
//! of the kernel's hung tasks when it wakes in between. The guest is idle then, so that this does
//! not depend on how often the host lets it run. Of one that runs for ever the console tells where:
//! the host's deadline decides, and when it passes the processor may work for somebody else.
//!
//! Faults and coverage follow the thread and what works for it. While it is armed it makes the
//! steps' system calls and no others, and it touches no memory for the first time: whatever it
//! needs is made before, and [`keep_memory`] has put all of the agent's memory in place.

pub(crate) mod fs;
mod program;
mod settle;
mod steps;

use std::{
    fs::read_to_string,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
        mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow};
use guest_protocol::{Recorded, step_runs};
use nix::{
    sys::mman::{MlockAllFlags, mlockall},
    unistd::gettid,
};
pub(crate) use program::Program;

use self::settle::Settling;
use crate::{coverage::Traces, init, injector::Injector};

const STACK_BYTES: usize = 256 << 10;

/// Time between two looks at a run, and the number of looks in a row after which a step has hung
/// that is still the same, in an idle guest. The kernel's own detectors speak after 10 s.
const LOOK: (Duration, u32) = (Duration::from_secs(1), 12);
/// The number of looks in a row after which the agent says where a step runs that is still the same
/// in a guest that is not idle.
const RUNS: u32 = 6;

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

    /// Runs the steps in the calling thread, which is noted in `at`, as the steps are.
    fn run(&mut self, at: &At, arm: bool, coverage: Recorded) -> Result<Ran> {
        self.program.rewind();
        let entered = || at.entered.fetch_add(1, Ordering::Relaxed);
        self.program.set_up(|_| {
            entered();
        });
        let started = Instant::now();
        self.traces.record(coverage).context("cannot switch the coverage trace")?;
        self.traces.start();
        if arm {
            self.injector.arm(at.thread.load(Ordering::Relaxed));
        }
        self.program.run(|step| {
            entered();
            self.injector.enter_step(step);
        });
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

/// The place at which the workload thread is.
#[derive(Default)]
struct At {
    /// The thread's number.
    thread: AtomicU32,
    /// Number of steps that it has entered.
    entered: AtomicU32,
}

impl At {
    /// Gives the functions in which the thread waits, or would go on.
    fn stack(&self) -> String {
        self.read("stack").unwrap_or_else(|error| format!("{error:#}\n"))
    }

    /// Says whether the thread would go on if it had the processor.
    fn runs(&self) -> bool {
        // `proc_pid_status()` of fs/proc/array.c, 6.12: "State:\tR (running)".
        self.read("status").is_ok_and(|status| status.contains("\nState:\tR"))
    }

    fn read(&self, file: &str) -> Result<String> {
        let path = format!("/proc/self/task/{}/{file}", self.thread.load(Ordering::Relaxed));
        read_to_string(&path).with_context(|| format!("cannot read {path}"))
    }
}

/// The end of a run.
pub(crate) enum End {
    /// The steps have run. The harness comes back.
    Ran(Box<Harness>, Ran),
    /// A step does not return in an idle guest: the functions in which it waits.
    Hung(String),
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
    at: Arc<At>,
    /// Tells whether the guest is idle.
    settling: Settling,
}

impl Worker {
    /// Starts the thread, which lives as long as the agent.
    pub(crate) fn start() -> Result<Self> {
        let (orders, order_queue) = sync_channel::<Order>(1);
        let (outcome_queue, outcomes) = sync_channel(1);
        let at = Arc::new(At::default());
        let noted = Arc::clone(&at);
        let work = move || {
            noted.thread.store(u32::try_from(gettid().as_raw()).unwrap_or_default(), Ordering::Relaxed);
            for Order { mut harness, arm, coverage } in order_queue {
                let ran = harness.run(&noted, arm, coverage);
                if outcome_queue.send(Outcome { harness, ran }).is_err() {
                    return;
                }
            }
        };
        let builder = thread::Builder::new().name("workload".to_owned()).stack_size(STACK_BYTES);
        builder.spawn(work).context("cannot start the workload thread")?;
        Ok(Self { orders, outcomes, at, settling: Settling::new()? })
    }

    /// Runs the steps once, and waits for the end of what they cause.
    ///
    /// # Errors
    ///
    /// The thread, or what it needs of the kernel, failed.
    pub(crate) fn run(&self, harness: Box<Harness>, arm: bool, coverage: Recorded) -> Result<End> {
        let gone = || anyhow!("the workload thread is gone: {}", init::last_panic());
        self.orders.send(Order { harness, arm, coverage }).map_err(|_| gone())?;
        let (pause, most) = LOOK;
        let (mut entered, mut same, mut busy) = (self.at.entered.load(Ordering::Relaxed), 0, 0);
        loop {
            match self.outcomes.recv_timeout(pause) {
                Ok(Outcome { harness, ran }) => return Ok(End::Ran(harness, ran?)),
                Err(RecvTimeoutError::Disconnected) => return Err(gone()),
                Err(RecvTimeoutError::Timeout) => {}
            }
            let now = self.at.entered.load(Ordering::Relaxed);
            if now != entered {
                (entered, same, busy) = (now, 0, 0);
            } else if self.settling.is_idle()? {
                (same, busy) = (same + 1, 0);
                if same == most {
                    return Ok(End::Hung(self.at.stack()));
                }
            } else {
                (same, busy) = (0, busy + 1);
                if busy % RUNS == 0 && self.at.runs() {
                    init::say(&step_runs(&self.at.stack()));
                }
            }
        }
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
