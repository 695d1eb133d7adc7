//! `bench cost`: what an execution costs, and where the time goes.
//!
//! Two guests take turns in short blocks, as a processor that is shared with others changes its
//! speed by half from one second to the next, and each block is compared with the one beside it: a
//! bare one without probes and without coverage (only the tracepoint that notes which blocks were
//! written is there), and one as the fuzzer uses it, which after that does only a part of it. Both
//! run the fault-free plan on the same processor, as of two that are shared one can be slower than
//! the other for long. Both are new clones in each round: by where its process has what in memory,
//! one guest is up to a tenth faster than the next, for as long as it lives. Then a short campaign
//! tells what the search itself costs.

use std::time::{Duration, Instant};

use execution::{Execution, Fate, How, RunError, Runner, Stop};
use fault_plan::{CallPath, Fault, FaultPlan, InjectedError};
use fuzz::{exit::CommandError, views::progress::Progress};
use guest_protocol::Recorded;
use guests::{
    prepare::{Wanted, prepare},
    process,
    runner::GuestRunner,
};
use serde::Serialize;

use super::{Measured, Session, TARGET, middle, timed_campaign::timed_campaign};

/// Executions of one guest before the other has its turn, but for one not counted, which finds the
/// other's work in the processor's caches.
const BLOCK: u32 = 5;
/// Executions of each guest in a round.
const ROUND: u32 = 20;
/// Clones that are started to see how long that takes.
const CLONES: usize = 11;
/// Executions not counted at the start of each guest: cold translations, cold caches.
const WARM_UP: u32 = 10;
/// The target of which crashes are known, and how often each of them is made.
const CRASHING: &str = "selftest";
const CRASHES: u32 = 4;
/// Time that the campaign runs.
const CAMPAIGN: Duration = Duration::from_secs(60);

/// Medians, in milliseconds.
#[derive(Debug, Serialize)]
struct Phases {
    arm_ms: f64,
    run_ms: f64,
    /// Until the work that the steps caused has ended.
    settle_ms: f64,
    collect_ms: f64,
    /// Between the report and the next request, while the host digests the report.
    reset_ms: f64,
    /// From request to reply less the guest's phases: doorbell, encoding, what is left to do of the
    /// reset.
    transfer_ms: f64,
    /// On the host after the reply: reading the trace, distinct addresses.
    digest_ms: f64,
}

/// Times of the steps alone when only a part of what an execution needs is on; medians, in
/// milliseconds.
#[derive(Debug, Serialize)]
struct Parts {
    /// Probes are in place and nothing is armed, nothing recorded.
    disarmed_run_ms: f64,
    /// Coverage of the workload is recorded.
    coverage_run_ms: f64,
    /// Coverage of children and kernel threads, too.
    all_coverage_run_ms: f64,
    /// Calls are counted, call paths read, faults matched.
    probes_run_ms: f64,
}

#[derive(Debug, Serialize)]
pub(super) struct Cost {
    measured: Measured,
    executions: u32,
    boot_s: f64,
    setup_s: f64,
    /// From nothing to a clone's first answer, a refusal; median.
    clone_answer_ms: f64,
    /// Boot and set-up over that.
    boot_to_clone: f64,
    /// From nothing to the first report of a clone, whose code is not translated yet.
    clone_first_execution_ms: f64,
    /// Cost of a crash beside its own execution, until the next one begins in a fresh guest. It is
    /// the median over the known crashes of the self-test target. Nothing when none of them came
    /// again.
    crash_to_next_ms: Option<f64>,
    /// The steps alone in a guest without probes and coverage, median.
    bare_run_ms: f64,
    bare_rate_per_s: f64,
    /// A whole execution on the host, median.
    full_execution_ms: f64,
    full_rate_per_s: f64,
    /// Full rate over bare rate in two blocks that follow one another, median over all.
    full_to_bare: f64,
    /// A whole execution in the bare guest on the host, with its reset and its transfer, median.
    bare_execution_ms: f64,
    /// Full rate over the rate of that, in the same way.
    full_to_bare_execution: f64,
    phases: Phases,
    /// The same of the bare guest.
    bare_phases: Phases,
    parts: Parts,
    covered_places: usize,
    injection_sites: usize,
    injectable_calls: u64,
    campaign_s: u64,
    campaign_executions: u64,
    campaign_rate_per_s: f64,
    /// Time of the search itself (feedback, mutation, disk) for each execution of the campaign,
    /// mean.
    search_ms: f64,
    guest_resident_kib: Option<u64>,
}

/// Measures.
///
/// # Errors
///
/// The environment or the target; see [`CommandError`].
pub(super) fn cost(session: &Session<'_>) -> Result<Cost, CommandError> {
    let Session { options, stop, progress } = session;
    let wanted = options.wanted(TARGET);
    let time = options.time.unwrap_or(CAMPAIGN);
    let mut bare = GuestRunner::new(&prepare(&Wanted { probes: false, ..wanted.clone() }, stop, *progress)?);
    let prepared = prepare(&wanted, stop, *progress)?;
    let mut full = GuestRunner::new(&prepared);
    let plan = prepared.target.fault_free();

    let clone_answer_ms = clone_answer_ms(&mut full, &plan)?;
    let clone_first_execution_ms = clone_first_execution_ms(&mut full, &plan)?;
    progress.say(&format!("{} executions of each guest, in turns", options.executions));
    let Turns { bare: bare_runs, full: full_runs, parts } =
        take_turns(&mut bare, &mut full, &plan, options.executions)?;
    let bare_run_ms = median(&bare_runs, in_steps);
    let [bare_execution_ms, full_execution_ms] = [&bare_runs, &full_runs].map(|runs| median(runs, |run| run.took_ms));
    let none = || CommandError::Input("no executions to measure".to_owned());
    let last = &full_runs.last().ok_or_else(none)?.execution;
    let guest_resident_kib = full.guest_pid().ok().and_then(process::resident_kib);
    let (covered_places, injection_sites) = (last.places(), last.hits.len());
    let injectable_calls = last.hits.iter().map(|hit| u64::from(hit.count)).sum();
    let (phases, bare_phases) = (phases(&full_runs), phases(&bare_runs));
    drop(bare);

    let about = prepared.template().about();
    let [boot_s, setup_s] = [about.boot_time, about.setup_time].map(|time| time.as_secs_f64());
    let measured = Measured::of(&wanted.target.to_string(), &prepared);
    progress.say("crashes of the self-test target");
    let crash_to_next_ms = crash_to_next_ms(&wanted, &measured.kernel, stop, progress)?;
    progress.say(&format!("a campaign of {} s", time.as_secs()));
    let (summary, in_runner, elapsed) = timed_campaign(&prepared, &mut full, time, stop)?;
    #[expect(clippy::cast_precision_loss, reason = "a rate for people; counts stay below 2^52")]
    let executions = summary.statistics.executions.max(1) as f64;
    Ok(Cost {
        measured,
        executions: u32::try_from(full_runs.len()).unwrap_or(u32::MAX),
        boot_s,
        setup_s,
        clone_answer_ms,
        boot_to_clone: (boot_s + setup_s) * 1e3 / clone_answer_ms,
        clone_first_execution_ms,
        crash_to_next_ms,
        bare_run_ms,
        bare_rate_per_s: 1e3 / bare_run_ms,
        full_execution_ms,
        full_rate_per_s: 1e3 / full_execution_ms,
        full_to_bare: over_turns(&bare_runs, &full_runs, in_steps),
        bare_execution_ms,
        full_to_bare_execution: over_turns(&bare_runs, &full_runs, |run| run.took_ms),
        phases,
        bare_phases,
        parts,
        covered_places,
        injection_sites,
        injectable_calls,
        campaign_s: summary.seconds,
        campaign_executions: summary.statistics.executions,
        campaign_rate_per_s: executions / elapsed.as_secs_f64(),
        search_ms: elapsed.saturating_sub(in_runner).as_secs_f64() * 1e3 / executions,
        guest_resident_kib,
    })
}

/// Measures how long a clone takes from its start to the end of its first execution.
fn clone_first_execution_ms(runner: &mut GuestRunner, plan: &FaultPlan) -> Result<f64, RunError> {
    runner.discard();
    let start = Instant::now();
    runner.run(plan, How::Warm).execution?;
    Ok(start.elapsed().as_secs_f64() * 1e3)
}

/// The median time that a clone takes to come to life and answer that it cannot do what it is asked
/// for.
fn clone_answer_ms(runner: &mut GuestRunner, plan: &FaultPlan) -> Result<f64, RunError> {
    let mut impossible = plan.clone();
    impossible.faults.push(Fault::new("none", CallPath::default(), 1, InjectedError::True));
    let mut times = Vec::new();
    for _ in 0..CLONES {
        runner.discard();
        let start = Instant::now();
        match runner.run(&impossible, How::Warm).execution {
            Err(RunError::Refused(_)) => times.push(start.elapsed().as_secs_f64() * 1e3),
            Err(error) => return Err(error),
            Ok(_) => {
                return Err(RunError::Refused("a fault of a function that does not exist was taken".to_owned()));
            }
        }
    }
    Ok(middle(times).unwrap_or(f64::NAN))
}

/// Measures the cost of the known crashes of the target [`CRASHING`], in guests of the kernel
/// called `kernel`.
fn crash_to_next_ms(
    wanted: &Wanted,
    kernel: &str,
    stop: &Stop,
    progress: &Progress,
) -> Result<Option<f64>, CommandError> {
    let wanted = Wanted { target: CRASHING.into(), kernel: Some(kernel.to_owned()), ..wanted.clone() };
    let prepared = prepare(&wanted, stop, progress)?;
    let plan = prepared.target.fault_free();
    let mut times = Vec::new();
    let mut runner = GuestRunner::new(&prepared);
    for known in prepared.target.known()? {
        for _ in 0..CRASHES {
            runner.run(&plan, How::Warm).execution?;
            let crash = timed(&mut runner, &known.plan)?;
            if crash.execution.guest == Fate::Dead {
                let next = timed(&mut runner, &plan)?;
                times.push(crash.took_ms - wall_ms(&crash) + next.took_ms - wall_ms(&next));
            }
        }
    }
    Ok(middle(times))
}

/// An execution of `plan`.
pub(super) fn timed(runner: &mut GuestRunner, plan: &FaultPlan) -> Result<Run, RunError> {
    let start = Instant::now();
    let execution = runner.run(plan, How::Warm).execution?;
    Ok(Run { execution, took_ms: start.elapsed().as_secs_f64() * 1e3 })
}

/// Milliseconds from the request to the reply or the guest's end.
fn wall_ms(run: &Run) -> f64 {
    run.execution.wall.as_secs_f64() * 1e3
}

/// An execution and how long it took on the host, from asking for it to having all of it.
pub(super) struct Run {
    pub(super) execution: Execution,
    pub(super) took_ms: f64,
}

/// Runs of the bare and the full guest, in turns.
struct Turns {
    bare: Vec<Run>,
    full: Vec<Run>,
    parts: Parts,
}

/// Parts that are on: counting of calls, recording of coverage.
type Mode = (bool, Recorded);

const FULL: Mode = (true, Recorded::All);
/// The parts of it: nothing, coverage of the workload, coverage of all tasks, probes.
const PARTS: [Mode; 4] =
    [(false, Recorded::Nothing), (false, Recorded::Workload), (false, Recorded::All), (true, Recorded::Nothing)];

fn take_turns(
    bare: &mut GuestRunner,
    full: &mut GuestRunner,
    plan: &FaultPlan,
    executions: u32,
) -> Result<Turns, CommandError> {
    let block = |pool: &mut GuestRunner, (inject, coverage): Mode, runs: &mut Vec<Run>, uncounted: u32, count: u32| {
        (pool.inject, pool.coverage) = (inject, coverage);
        for _ in 0..uncounted {
            timed(pool, plan)?;
        }
        for _ in 0..count {
            runs.push(timed(pool, plan)?);
        }
        Ok::<(), CommandError>(())
    };
    let (mut bare_runs, mut full_runs, mut part_runs) = (Vec::new(), Vec::new(), PARTS.map(|_| Vec::new()));
    let processors = process::processors()?;
    for (_, processor) in (0..executions.div_ceil(ROUND)).zip(processors.iter().cycle()) {
        for pool in [&mut *bare, &mut *full] {
            pool.discard();
            super::bind(pool, *processor)?;
        }
        block(bare, PARTS[0], &mut bare_runs, WARM_UP, 0)?;
        block(full, FULL, &mut full_runs, WARM_UP, 0)?;
        for _ in 0..ROUND / BLOCK {
            block(bare, PARTS[0], &mut bare_runs, 1, BLOCK)?;
            block(full, FULL, &mut full_runs, 1, BLOCK)?;
        }
        for (mode, runs) in PARTS.into_iter().zip(&mut part_runs) {
            block(full, mode, runs, 1, ROUND / 2)?;
        }
    }
    (full.inject, full.coverage) = FULL;
    let [disarmed_run_ms, coverage_run_ms, all_coverage_run_ms, probes_run_ms] =
        part_runs.map(|runs| median(&runs, in_steps));
    Ok(Turns {
        bare: bare_runs,
        full: full_runs,
        parts: Parts { disarmed_run_ms, coverage_run_ms, all_coverage_run_ms, probes_run_ms },
    })
}

/// Milliseconds that the steps took in the guest.
fn in_steps(run: &Run) -> f64 {
    milliseconds(run.execution.timings.run_ns)
}

fn phases(runs: &[Run]) -> Phases {
    let in_guest = |run: &Run| {
        let timings = run.execution.timings;
        timings.arm_ns + timings.run_ns + timings.settle_ns + timings.collect_ns
    };
    Phases {
        arm_ms: median(runs, |run| milliseconds(run.execution.timings.arm_ns)),
        run_ms: median(runs, in_steps),
        settle_ms: median(runs, |run| milliseconds(run.execution.timings.settle_ns)),
        collect_ms: median(runs, |run| milliseconds(run.execution.timings.collect_ns)),
        reset_ms: median(runs, |run| milliseconds(run.execution.timings.reset_ns)),
        transfer_ms: median(runs, |run| wall_ms(run) - milliseconds(in_guest(run))),
        digest_ms: median(runs, |run| run.took_ms - wall_ms(run)),
    }
}

fn milliseconds(nanoseconds: u64) -> f64 {
    Duration::from_nanos(nanoseconds).as_secs_f64() * 1e3
}

/// Divides `of` of the bare guest in a block by the time of the full one's whole executions in the
/// next. Gives the median over all blocks.
fn over_turns(bare: &[Run], full: &[Run], of: impl Fn(&Run) -> f64) -> f64 {
    let turns = bare.chunks(BLOCK as usize).zip(full.chunks(BLOCK as usize));
    middle(turns.map(|(bare, full)| median(bare, &of) / median(full, |run| run.took_ms)).collect()).unwrap_or(f64::NAN)
}

fn median(runs: &[Run], of: impl Fn(&Run) -> f64) -> f64 {
    middle(runs.iter().map(of).collect()).unwrap_or(f64::NAN)
}
