//! `bench steady`: a long campaign, and whether guests drift and memory grows in it.

use std::{fs, io, num::NonZeroUsize, time::Duration};

use campaign::StatsLine;
use fuzz::{
    exit::CommandError,
    options::{FuzzOptions, GuestOptions},
    views::summary::Ended,
};
use serde::Serialize;

use super::{Scratch, Session, middle};

const TARGET: &str = "btrfs-rw";
const TIME: Duration = Duration::from_secs(3600);
const GUESTS: NonZeroUsize = NonZeroUsize::new(2).expect("it is not 0");
const QUARTERS: usize = 4;

/// Change of a number over time.
#[derive(Debug, Serialize)]
struct Trend {
    /// Medians of the quarters of the time.
    quarters: Vec<f64>,
    most: u64,
}

#[derive(Debug, Serialize)]
pub(super) struct Steady {
    commit: String,
    host: String,
    target: String,
    guests: usize,
    seconds: u64,
    executions: u64,
    guests_started: u64,
    longest_life_executions: u64,
    control_runs: u64,
    drifted: u64,
    harness_errors: u64,
    crashes: usize,
    /// Calls by which the last control run differed from the first ones beyond their noise, in a
    /// million.
    control_off_ppm: Trend,
    /// The campaign's process.
    resident_mib: Trend,
    /// The processes of its guests: what they have of their own.
    guests_mib: Trend,
}

/// Measures.
///
/// # Errors
///
/// The environment or the target; see [`CommandError`].
pub(super) fn steady(session: &Session<'_>) -> Result<Steady, CommandError> {
    let Session { options, progress, .. } = session;
    let target = options.wanted(TARGET).target.to_string();
    let time = options.time.unwrap_or(TIME);
    progress.say(&format!("{target}: a campaign of {} s", time.as_secs()));
    let scratch = Scratch::new("steady");
    let options = FuzzOptions {
        target: target.clone(),
        time: Some(time),
        out: Some(scratch.0.clone()),
        vms: Some(GUESTS),
        seed: Some(1),
        json: false,
        listen: None,
        join: Vec::new(),
        guest: GuestOptions { kernel: options.guest.kernel.clone(), accel: options.guest.accel },
    };
    let Ended { summary, folder, .. } = super::campaign(&options, session)?;
    let text = fs::read_to_string(folder.join("stats.jsonl"))?;
    let lines =
        text.lines().map(serde_json::from_str).collect::<Result<Vec<StatsLine>, _>>().map_err(io::Error::other)?;
    Ok(Steady {
        commit: super::commit(),
        host: super::host(),
        target,
        guests: GUESTS.get(),
        seconds: summary.seconds,
        executions: summary.statistics.executions,
        guests_started: summary.statistics.guests,
        longest_life_executions: summary.statistics.longest_life,
        control_runs: summary.statistics.controls,
        drifted: summary.statistics.drifted,
        harness_errors: summary.statistics.harness_errors,
        crashes: summary.crashes.len(),
        control_off_ppm: trend(&lines, |line| line.statistics.control_off_ppm),
        resident_mib: trend(&lines, |line| line.resident_mib),
        guests_mib: trend(&lines, |line| line.guests_mib),
    })
}

fn trend(lines: &[StatsLine], of: fn(&StatsLine) -> u64) -> Trend {
    #[expect(clippy::cast_precision_loss, reason = "numbers for people; they stay below 2^52")]
    let median = |quarter: &[StatsLine]| middle(quarter.iter().map(|line| of(line) as f64).collect());
    let quarters = lines.chunks(lines.len().div_ceil(QUARTERS).max(1)).filter_map(median).collect();
    Trend { quarters, most: lines.iter().map(of).max().unwrap_or(0) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trend_has_a_median_for_each_quarter() {
        let line = |resident_mib| StatsLine { resident_mib, ..StatsLine::default() };
        let lines: Vec<_> = [1, 2, 9, 4, 4, 4, 5, 7, 6, 8, 8, 8].map(line).into();
        let trend = trend(&lines, |line| line.resident_mib);
        assert_eq!((trend.quarters, trend.most), (vec![2.0, 4.0, 6.0, 8.0], 9));
    }
}
