//! `fuzz bench`: what things cost. Each measurement is one JSON object with its units in the names, and says what it was made
//! on.

mod cost;
mod scale;

use std::{
    io::{self, Write},
    process::Command,
    time::Duration,
};

use serde::Serialize;

use super::{Answer, CommandError};
use crate::{
    guest::{AccelChoice, Stop},
    prepare::Prepared,
};

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bench {
    /// One guest: what an execution costs.
    Cost,
    /// Several guests: rates and memory.
    Scale,
}

/// What the user asked for.
#[derive(Debug)]
pub struct BenchOptions {
    /// What is measured.
    pub what: Bench,
    /// Name or folder of the target.
    pub target: String,
    /// A kernel other than the target's.
    pub kernel: Option<String>,
    /// Counted executions of each guest, where they are counted.
    pub executions: u32,
    /// How long the campaign runs, and each number of guests.
    pub campaign: Duration,
    /// How guests run.
    pub accel: AccelChoice,
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
    match options.what {
        Bench::Cost => cost::cost(options, stop, out, say),
        Bench::Scale => scale::scale(options, stop, out, say),
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
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    format!("{cpus} x {model}")
}
