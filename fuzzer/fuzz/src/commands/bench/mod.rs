//! `fuzz bench`: what things cost. Each measurement is one JSON object with its units in the names, and says what it was made
//! on.

mod cost;
mod exact;
mod kernels;
mod scale;
mod steady;

use std::{
    convert::Infallible,
    io::{self, Write},
    path::PathBuf,
    process::Command,
    thread,
    time::Duration,
};

use crossbeam::{channel::bounded, select};
use serde::Serialize;

use super::{Answer, CommandError, FuzzOptions, fuzz};
use crate::{
    campaign::Summary,
    execution::ExecuteError,
    guest::{AccelChoice, Stop},
    pool::GuestPool,
    prepare::{Prepared, Wanted},
    process,
};

/// What runs where nothing else is asked for.
const TARGET: &str = "btrfs-mount";

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bench {
    /// One guest: what an execution costs.
    Cost,
    /// Several guests: rates and memory.
    Scale,
    /// Whether executions that are to repeat exactly do.
    Exact,
    /// What campaigns on two kernels find and when, and what those on the checking kernel alone do.
    Kernels,
    /// A long campaign: whether guests drift and memory grows.
    Steady,
}

/// What the user asked for.
#[derive(Debug)]
pub struct BenchOptions {
    /// What is measured.
    pub what: Bench,
    /// Name or folder of the only target to run; each measurement has its own without it.
    pub target: Option<String>,
    /// A kernel other than the target's.
    pub kernel: Option<String>,
    /// Counted executions of each guest, where they are counted.
    pub executions: u32,
    /// How long each campaign runs, and each number of guests; each measurement has its own time without it.
    pub time: Option<Duration>,
    /// How guests run.
    pub accel: AccelChoice,
}

impl BenchOptions {
    /// A guest for `target`, if no other one is asked for.
    fn wanted<'a>(&'a self, target: &'a str) -> Wanted<'a> {
        let target = self.target.as_deref().unwrap_or(target);
        Wanted { target, kernel: self.kernel.as_deref(), accel: self.accel, exact: false }
    }

    /// The targets to run, if no other one is asked for.
    fn targets<'a>(&'a self, targets: &[&'a str]) -> Vec<&'a str> {
        self.target.as_deref().map_or_else(|| targets.to_vec(), |target| vec![target])
    }
}

/// What a measurement is told.
struct Session<'a> {
    options: &'a BenchOptions,
    stop: &'a Stop,
    /// Is told each step that takes a while.
    say: &'a mut dyn FnMut(&str),
}

/// Measures and writes one JSON object.
///
/// # Errors
///
/// The environment or the target; see [`CommandError`].
pub fn bench(
    options: &BenchOptions,
    stop: &Stop,
    out: &mut dyn Write,
    say: &mut dyn FnMut(&str),
) -> Result<Answer, CommandError> {
    let mut session = Session { options, stop, say };
    match options.what {
        Bench::Cost => write_json(&cost::cost(&mut session)?, out),
        Bench::Scale => write_json(&scale::scale(&mut session)?, out),
        Bench::Exact => write_json(&exact::exact(&mut session)?, out),
        Bench::Kernels => write_json(&kernels::kernels(&mut session)?, out),
        Bench::Steady => write_json(&steady::steady(&mut session)?, out),
    }
}

/// What a measurement was made on.
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
            commit: first_line("git", &["describe", "--always", "--dirty"]),
            host: host(),
            qemu: first_line("qemu-system-x86_64", &["--version"]),
            acceleration: prepared.pool.template().config().accel.to_string(),
        }
    }
}

fn write_json(result: &impl Serialize, out: &mut dyn Write) -> Result<Answer, CommandError> {
    let text = serde_json::to_string_pretty(result).map_err(io::Error::other)?;
    writeln!(out, "{text}")?;
    Ok(Answer::Yes)
}

/// Runs a campaign. One whose time is up requests to stop where a worker is still getting ready: that is not for the next one.
fn campaign(options: &FuzzOptions, stop: &Stop) -> Result<(Summary, PathBuf), CommandError> {
    let own = Stop::new();
    let (running, ended) = bounded::<Infallible>(0);
    let result = thread::scope(|scope| {
        scope.spawn(|| {
            select! {
                recv(stop.receiver()) -> _ => own.request(),
                recv(ended) -> _ => {}
            }
        });
        let result = fuzz::campaign(options, &own, |_| {});
        drop(running);
        result
    })?;
    if stop.is_requested() { Err(ExecuteError::Stopped.into()) } else { Ok(result) }
}

/// Has the guest of `pool` run on `processor` alone, for as long as it lives.
fn bind(pool: &mut GuestPool, processor: usize) -> Result<(), CommandError> {
    let pid = pool.guest_pid().map_err(|source| ExecuteError::Guest { attempts: 1, source })?;
    Ok(process::bind(pid, processor)?)
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
