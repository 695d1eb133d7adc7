//! `bench quiet`: runs workloads without faults for long, and counts what the oracles find.
//! Whatever they find is a false alarm of the fuzzer, or a bug that needs no fault. A variant that
//! runs nothing but what its target runs is of no use.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use execution::{Finding, How, Ran, RunError, Runner, Target, Usage};
use fuzz::exit::{Answer, CommandError};
use guests::{
    kernel::Catalogue,
    prepare::{Wanted, prepare},
    prepared::Prepared,
    project::Project,
    runner::GuestRunner,
};
use serde::Serialize;

use super::{Measured, Session};

const TIME: Duration = Duration::from_secs(900);

/// The first executions of a run, whose places count.
const COUNTED: u64 = 16;

/// One target on one kernel.
#[derive(Debug, Serialize)]
struct Quiet {
    measured: Measured,
    seconds: u64,
    executions: u64,
    /// How often each finding was made, by its key.
    findings: BTreeMap<String, u64>,
    guests_started: u64,
    longest_life_executions: u64,
    harness_errors: u64,
    /// Executions compared with the first ones.
    control_runs: u64,
    drifted: u64,
    worn: u64,
    /// Calls by which the last of them was off, in a million.
    control_off_ppm: u64,
    /// Places that the first executions cover.
    places: usize,
    /// Of these, how many its target does not cover on this kernel, if it is a variant and both
    /// were run.
    beside_its_target: Option<usize>,
    #[serde(skip)]
    covered: BTreeSet<u64>,
}

/// All of them.
#[derive(Debug, Serialize)]
pub(super) struct AllQuiet {
    runs: Vec<Quiet>,
    findings: u64,
}

impl AllQuiet {
    /// Says whether there was no finding, and each variant differs from its target.
    pub(super) fn answer(&self) -> Answer {
        let same = self.runs.iter().any(|run| run.beside_its_target == Some(0));
        if self.findings == 0 && !same { Answer::Yes } else { Answer::No }
    }
}

/// Runs the targets, some at once, each for the time that was asked for, on the kernel that judges
/// and at the same time on the one that explores.
///
/// # Errors
///
/// The environment or the target; see [`CommandError`].
pub(super) fn quiet(session: &Session<'_>) -> Result<AllQuiet, CommandError> {
    let Session { options, progress, .. } = session;
    let project = Project::find()?;
    let time = options.time.unwrap_or(TIME);
    let names = match &options.target {
        Some(name) => vec![name.clone()],
        None if options.variants => Target::all(&project.corpus())?.into_iter().map(|target| target.name).collect(),
        None => Target::names(&project.corpus()),
    };
    let mut runs = Vec::new();
    for at_once in names.chunks(options.at_once.get()) {
        let mut prepared = Vec::new();
        for name in at_once {
            prepared.extend(on_its_kernels(session, &project, name)?);
        }
        progress.say(&format!("{}: {} s without faults", at_once.join(", "), time.as_secs()));
        let run = |prepared| move || run_quietly(prepared, time);
        let ended: Vec<Result<Quiet, RunError>> = thread::scope(|scope| {
            let threads: Vec<_> = prepared.iter().map(|prepared| scope.spawn(run(prepared))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap_or(Err(RunError::Stopped))).collect()
        });
        for run in ended {
            runs.push(run?);
        }
    }
    compare(&mut runs);
    let findings = runs.iter().flat_map(|run| run.findings.values()).sum();
    Ok(AllQuiet { runs, findings })
}

/// Counts what each variant covers and its target does not.
fn compare(runs: &mut [Quiet]) {
    let of = |run: &Quiet| (run.measured.target.clone(), run.measured.kernel.clone());
    let covered: BTreeMap<_, _> = runs.iter().map(|run| (of(run), run.covered.clone())).collect();
    for run in runs {
        let (name, kernel) = of(run);
        let target = name.split_once(':').and_then(|(target, _)| covered.get(&(target.to_owned(), kernel)));
        run.beside_its_target = target.map(|target| run.covered.difference(target).count());
    }
}

/// Prepares a target on the kernel that judges, and on the one that explores where there is one.
fn on_its_kernels(session: &Session<'_>, project: &Project, name: &str) -> Result<Vec<Arc<Prepared>>, CommandError> {
    let Session { options, stop, progress } = session;
    let wanted = options.wanted(name);
    let judge = prepare(&wanted, stop, *progress)?;
    let explorer = Catalogue::load(project.root())?.get(&judge.kernel.meta.name)?.explorer.clone();
    let mut prepared = vec![judge];
    if let Some(explorer) = explorer.filter(|_| wanted.kernel.is_none()) {
        prepared.push(prepare(&Wanted { kernel: Some(explorer), ..wanted }, stop, *progress)?);
    }
    Ok(prepared)
}

fn run_quietly(prepared: &Arc<Prepared>, time: Duration) -> Result<Quiet, RunError> {
    let plan = prepared.target.fault_free();
    let mut runner = GuestRunner::new(prepared);
    let (start, mut executions) = (Instant::now(), 0);
    let mut findings = BTreeMap::new();
    let mut covered = BTreeSet::new();
    let mut count = |found: &[Finding]| found.iter().for_each(|finding| note(&mut findings, finding));
    while start.elapsed() < time {
        let Ran { execution, late } = runner.run(&plan, How::Warm);
        let execution = execution?;
        count(&execution.findings);
        if executions < COUNTED {
            covered.extend(execution.covered().map(|(_, place)| place));
        }
        late.iter().for_each(|late| count(&late.findings));
        executions += 1;
    }
    let usage = runner.usage();
    runner.finish().iter().for_each(|late| count(&late.findings));
    let Usage { guests, harness_errors, controls, control_off_ppm, drifted, worn, longest_life, .. } = usage;
    Ok(Quiet {
        measured: Measured::of(&prepared.target.name, prepared),
        seconds: start.elapsed().as_secs(),
        executions,
        findings,
        guests_started: guests,
        longest_life_executions: longest_life,
        harness_errors,
        control_runs: controls,
        drifted,
        worn,
        control_off_ppm,
        places: covered.len(),
        beside_its_target: None,
        covered,
    })
}

/// Counts a finding, and says it: in hours of quiet it would be lost.
fn note(findings: &mut BTreeMap<String, u64>, finding: &Finding) {
    tracing::warn!(title = finding.title, "found without a fault:\n{}", finding.text);
    *findings.entry(finding.key.clone()).or_default() += 1;
}
