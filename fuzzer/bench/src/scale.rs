//! `bench scale`: how the rate of executions and the memory grow with the number of guests.
//!
//! Guests run the fault-free plan, each in a thread of its own as in a campaign, so that only they
//! and the host are measured. Processors that are shared with others are not equally fast: guests
//! are bound to them in turn, and where there are fewer guests than processors, each processor has
//! its turn.

use std::{
    sync::Barrier,
    thread,
    time::{Duration, Instant},
};

use execution::{How, RunError, Runner};
use fault_plan::FaultPlan;
use fuzz::exit::CommandError;
use guests::{prepare::prepare, process, runner::GuestRunner};
use serde::Serialize;

use super::{Measured, Session, TARGET};

/// Executions of each guest before it counts.
const WARM_UP: u32 = 5;
/// The most guests for each processor.
const PER_PROCESSOR: usize = 2;
/// Number of turns of each number of guests. A processor that is shared with others changes its
/// speed by half within seconds.
const ROUNDS: u32 = 30;
/// Time of a turn.
const TIME: Duration = Duration::from_secs(1);

/// One number of guests. As a processor has one of two speeds in a turn, which a median would
/// choose between, these are means.
#[derive(Debug, Serialize)]
struct Step {
    guests: usize,
    rate_per_s: f64,
    /// Over the rate of one guest.
    to_one: f64,
}

#[derive(Debug, Serialize)]
pub(super) struct Scale {
    measured: Measured,
    /// From a target's name to the end of the first execution, with everything in the cache.
    start_to_first_execution_s: f64,
    rounds: u32,
    seconds_each: u64,
    steps: Vec<Step>,
    /// Memory of a guest's process that is its own, and its part of what it shares; mean of all
    /// guests.
    proportional_mib_per_guest: f64,
    /// Memory that it has written to; mean.
    private_mib_per_guest: f64,
}

/// Measures.
///
/// # Errors
///
/// The environment or the target; see [`CommandError`].
pub(super) fn scale(session: &Session<'_>) -> Result<Scale, CommandError> {
    let Session { options, stop, progress } = session;
    let wanted = options.wanted(TARGET);
    let time = options.time.unwrap_or(TIME);
    drop(prepare(&wanted, stop, *progress)?);
    let start = Instant::now();
    let prepared = prepare(&wanted, stop, *progress)?;
    let plan = prepared.target.fault_free();
    let mut first = GuestRunner::new(&prepared);
    first.run(&plan, How::Warm).execution?;
    let start_to_first_execution_s = start.elapsed().as_secs_f64();
    let measured = Measured::of(&wanted.target.to_string(), &prepared);
    let processors = process::processors()?;
    let most = processors.len() * PER_PROCESSOR;
    let mut runners = vec![first];
    while runners.len() < most {
        runners.push(GuestRunner::new(&prepared));
    }
    let mut rates = vec![0.0; most];
    for round in 1..=ROUNDS {
        progress.say(&format!("1 to {most} guests, {} s each, round {round} of {ROUNDS}", time.as_secs()));
        for index in 0..most {
            let turns = if index + 1 < processors.len() { processors.len() } else { 1 };
            for first in 0..turns {
                bind(&mut runners[..=index], first, &processors)?;
                #[expect(clippy::cast_precision_loss, reason = "a number of processors")]
                let share = f64::from(ROUNDS) * turns as f64;
                rates[index] += rate(&mut runners[..=index], &plan, time)? / share;
            }
        }
    }
    let (proportional_mib_per_guest, private_mib_per_guest) = memory(&mut runners)?;
    Ok(Scale {
        measured,
        start_to_first_execution_s,
        rounds: ROUNDS,
        seconds_each: time.as_secs(),
        steps: (1..)
            .zip(&rates)
            .map(|(guests, rate)| Step { guests, rate_per_s: *rate, to_one: rate / rates[0] })
            .collect(),
        proportional_mib_per_guest,
        private_mib_per_guest,
    })
}

/// Has each guest run on one of the `processors`, the first guest on the one at `first`.
fn bind(runners: &mut [GuestRunner], first: usize, processors: &[usize]) -> Result<(), CommandError> {
    for (runner, processor) in runners.iter_mut().zip(processors.iter().cycle().skip(first)) {
        super::bind(runner, *processor)?;
    }
    Ok(())
}

/// Executions of all `runners` together in a second, while all of them run.
fn rate(runners: &mut [GuestRunner], plan: &FaultPlan, time: Duration) -> Result<f64, RunError> {
    let ready = Barrier::new(runners.len());
    let rates: Vec<Result<f64, RunError>> = thread::scope(|scope| {
        let threads: Vec<_> = runners
            .iter_mut()
            .map(|runner| {
                let ready = &ready;
                scope.spawn(move || {
                    let warm = (0..WARM_UP).try_for_each(|_| runner.run(plan, How::Warm).execution.map(drop));
                    // Whoever has failed must not keep the others waiting.
                    ready.wait();
                    warm?;
                    let (start, mut executions) = (Instant::now(), 0_u32);
                    while start.elapsed() < time {
                        runner.run(plan, How::Warm).execution?;
                        executions += 1;
                    }
                    Ok(f64::from(executions) / start.elapsed().as_secs_f64())
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap_or(Ok(f64::NAN))).collect()
    });
    rates.into_iter().sum()
}

/// Proportional and private memory of the guests, in MiB each.
fn memory(runners: &mut [GuestRunner]) -> Result<(f64, f64), CommandError> {
    #[expect(clippy::cast_precision_loss, reason = "memory for people; it stays below 2^52 KiB")]
    let mean = |kib: u64, guests: usize| kib as f64 / 1024.0 / guests as f64;
    let (mut proportional, mut private) = (0, 0);
    for runner in runners.iter_mut() {
        let used = process::memory(super::pid(runner)?)?;
        proportional += used.proportional_kib;
        private += used.private_kib;
    }
    Ok((mean(proportional, runners.len()), mean(private, runners.len())))
}
