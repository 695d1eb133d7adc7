//! Measurements. Each is one JSON object, with its units in the names, and says what it was made
//! on.

mod both_kernels;
mod cases;
mod cost;
mod exact;
mod kernels;
mod oracles;
mod paper;
mod quiet;
mod record;
mod scale;
mod steady;
mod tasks;
mod timed_campaign;

use std::{
    convert::Infallible,
    io::{self, Write},
    num::NonZeroUsize,
    path::PathBuf,
    process::Command,
    thread,
    time::Duration,
};

use clap::{Parser, ValueEnum};
use crossbeam::{channel::bounded, select};
use execution::{RunError, Stop};
use fuzz::{
    commands,
    exit::{Answer, CommandError},
    options::{FuzzOptions, GuestOptions, duration},
    views::{progress::Progress, summary::Ended},
};
use guests::{prepare::Wanted, prepared::Prepared, process, project::Project, runner::GuestRunner};
use serde::Serialize;
use serde_json::Value;

/// Target that runs where no other is asked for.
const TARGET: &str = "btrfs-mount";

/// Options of the measurements.
#[derive(Clone, Debug, Parser)]
#[command(version, about = "Measures executions, guests and campaigns; prints JSON")]
pub struct Options {
    /// The measurement.
    #[arg(value_enum, default_value = "cost")]
    pub what: Measurement,
    /// With `all`: make only these, and keep the others as they are in docs/measurements.json.
    #[arg(value_name = "MEASUREMENT")]
    pub only: Vec<String>,
    /// The only target to run; each measurement has its own without it.
    #[arg(long)]
    pub target: Option<String>,
    /// Counted executions of the bare guest and of the full one. Of several the last counts.
    #[arg(long, value_name = "N", overrides_with = "executions", default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..))]
    pub executions: u32,
    /// Time of each campaign, or of each number of guests; each measurement has its own time
    /// without it.
    #[arg(long, value_parser = duration)]
    pub time: Option<Duration>,
    /// With `quiet`: targets that run at the same time, each on two guests.
    #[arg(long, value_name = "N", default_value = "1")]
    pub at_once: NonZeroUsize,
    /// With `quiet`: the targets' variants, too. The exit status is 1 for one that covers nothing
    /// that its target does not.
    #[arg(long)]
    pub variants: bool,
    /// With `kernels`: campaigns of each kind.
    #[arg(long, value_name = "N", default_value = "5")]
    pub campaigns: NonZeroUsize,
    /// The guests.
    #[command(flatten)]
    pub guest: GuestOptions,
}

/// A measurement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Measurement {
    /// One guest: cost of an execution, by phase. 4 minutes.
    Cost,
    /// Several guests: rates and memory. 7 minutes on 2 processors, and longer on more.
    Scale,
    /// Exact repetition: whether executions that are to repeat exactly do. 5 minutes.
    Exact,
    /// Crashes of campaigns on two kernels and when they were found, and of campaigns on the
    /// checking kernel alone. 25 minutes.
    Kernels,
    /// Two kernels: whether plans that fire on the explorers' kernel fire on the checking one. 10
    /// minutes.
    BothKernels,
    /// Coverage of kernel threads and children: places, noise, cost. 2 minutes, and no part of
    /// `all`.
    Tasks,
    /// Single faults with all oracles and with none: what the oracles cost. 10 minutes, and no part
    /// of `all`.
    Oracles,
    /// A long campaign: whether guests drift and memory grows. An hour.
    Steady,
    /// Fault-free executions of each target on its kernels, and what is found in them: exit status
    /// 1 when there is anything. 15 minutes a target, and no part of `all`.
    Quiet,
    /// Bugs of error paths on a kernel with their fixes taken out, which is built first, and on the
    /// one with the fixes: exit status 1 when one is not found, or found there. 5 minutes, and no
    /// part of `all`.
    Cases,
    /// All of them but `quiet` and `cases`, one after the other, kept in docs/measurements.json and
    /// docs/measurements.md. 100 minutes.
    All,
}

impl Options {
    /// A guest for `target`, if no other one is asked for.
    fn wanted(&self, target: &str) -> Wanted {
        let target = self.target.as_deref().unwrap_or(target);
        Wanted { kernel: self.guest.kernel.clone(), accel: self.guest.accel, ..Wanted::new(target) }
    }

    /// The targets to run, if no other one is asked for.
    fn targets<'a>(&'a self, targets: &[&'a str]) -> Vec<&'a str> {
        self.target.as_deref().map_or_else(|| targets.to_vec(), |target| vec![target])
    }
}

/// Parameters of a measurement.
struct Session<'a> {
    options: &'a Options,
    stop: &'a Stop,
    /// Shows what takes a while.
    progress: &'a Progress,
}

/// Measures and writes one JSON object.
///
/// # Errors
///
/// The environment or the target; see [`CommandError`].
pub fn bench(options: &Options, stop: &Stop, out: &mut dyn Write, progress: &Progress) -> Result<Answer, CommandError> {
    let session = Session { options, stop, progress };
    let (result, answer) = match options.what {
        Measurement::All => (record::record(&session)?, Answer::Yes),
        Measurement::Quiet => {
            let quiet = quiet::quiet(&session)?;
            (serde_json::to_value(&quiet).map_err(io::Error::other)?, quiet.answer())
        }
        Measurement::Cases => {
            let cases = cases::cases(&session)?;
            (serde_json::to_value(&cases).map_err(io::Error::other)?, cases.answer())
        }
        _ => (measure(&session)?, Answer::Yes),
    };
    let text = serde_json::to_string_pretty(&result).map_err(io::Error::other)?;
    writeln!(out, "{text}")?;
    Ok(answer)
}

/// Makes one measurement.
fn measure(session: &Session<'_>) -> Result<Value, CommandError> {
    let result = match session.options.what {
        Measurement::Cost => serde_json::to_value(cost::cost(session)?),
        Measurement::Scale => serde_json::to_value(scale::scale(session)?),
        Measurement::Exact => serde_json::to_value(exact::exact(session)?),
        Measurement::Kernels => serde_json::to_value(kernels::kernels(session)?),
        Measurement::BothKernels => serde_json::to_value(both_kernels::both_kernels(session)?),
        Measurement::Tasks => serde_json::to_value(tasks::tasks(session)?),
        Measurement::Oracles => serde_json::to_value(oracles::oracles(session)?),
        Measurement::Steady => serde_json::to_value(steady::steady(session)?),
        Measurement::Quiet | Measurement::Cases | Measurement::All => {
            let not_kept = "\"quiet\", \"cases\" and \"all\" are not kept with the measurements";
            return Err(CommandError::Input(not_kept.to_owned()));
        }
    };
    Ok(result.map_err(io::Error::other)?)
}

/// Environment of a measurement.
#[derive(Debug, Serialize)]
struct Measured {
    target: String,
    kernel: String,
    kernel_build_id: String,
    commit: String,
    host: String,
    qemu: String,
    acceleration: String,
}

impl Measured {
    fn of(target: &str, prepared: &Prepared) -> Self {
        let kernel = prepared.kernel.meta.clone();
        Self {
            target: target.to_owned(),
            kernel: kernel.name,
            kernel_build_id: kernel.build_id,
            commit: commit(),
            host: host(),
            qemu: first_line("qemu-system-x86_64", &["--version"]),
            acceleration: prepared.template().config().accel.to_string(),
        }
    }
}

/// Runs a campaign. One whose time is up requests to stop where a client is still starting:
/// that is not for the next one.
fn campaign(options: &FuzzOptions, session: &Session<'_>) -> Result<Ended, CommandError> {
    let Session { stop, progress, .. } = session;
    let own = Stop::new();
    let (running, ended) = bounded::<Infallible>(0);
    let result = thread::scope(|scope| {
        scope.spawn(|| {
            select! {
                recv(stop.receiver()) -> _ => own.request(),
                recv(ended) -> _ => {}
            }
        });
        let result = commands::campaign(options, &own, progress);
        drop(running);
        result
    })?;
    if stop.is_requested() { Err(RunError::Stopped.into()) } else { Ok(result) }
}

/// Has the guest of `runner` run on `processor` alone, for as long as it lives.
fn bind(runner: &mut GuestRunner, processor: usize) -> Result<(), CommandError> {
    let pid = pid(runner)?;
    Ok(process::bind(pid, processor)?)
}

/// Gives the process id of the guest of `runner`.
fn pid(runner: &mut GuestRunner) -> Result<u32, RunError> {
    runner.guest_pid().map_err(|source| RunError::Guests { attempts: 1, source: Box::new(source) })
}

/// A folder for a campaign that nobody is to go on with, gone when dropped.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        Self(std::env::temp_dir().join(format!("fuzz-bench-{name}-{}", std::process::id())))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            tracing::warn!(%error, "the folder {} stays", self.0.display());
        }
    }
}

/// The value in the middle, if there is any.
fn middle(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}

/// Gives the commit of the checkout that is measured.
fn commit() -> String {
    let root = Project::find().map(|project| project.root().display().to_string()).unwrap_or_default();
    first_line("git", &["-C", &root, "describe", "--always", "--dirty"])
}

fn first_line(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    text.lines().next().unwrap_or("unknown").to_owned()
}

fn host() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info
        .lines()
        .find_map(|line| line.strip_prefix("model name"))
        .unwrap_or("")
        .trim_start_matches([' ', '\t', ':']);
    let cpus = thread::available_parallelism().map_or(1, usize::from);
    format!("{cpus} x {model}")
}
