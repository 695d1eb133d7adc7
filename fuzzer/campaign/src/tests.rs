//! The whole loop over a fake runner: everything but guests.

mod folder;
mod lifecycle;
mod peers;
mod search;
mod trouble;
mod two_kernels;
mod week;

use std::{fs, io, path::Path};

use fault_plan::FaultPlan;
use kernel_report::slug;
use libafl::inputs::Input;

use super::*;
use crate::fake::FakeRunner;
use execution::{Attributed, Execution, Finding, How, Ran, Usage};

/// Makes the only client of a campaign.
fn explorer<'a, R: Runner + Send + 'a>(runner: R) -> Vec<Client<'a, R>> {
    vec![client(Role::Explorer, "fake", runner)]
}

fn client<'a, R: Runner + Send + 'a>(role: Role, kernel: &str, runner: R) -> Client<'a, R> {
    let kernel = fake::kernel(kernel);
    Client { role, start: Box::new(move || Ok(ClientSetup { kernel, runner })) }
}

fn targets() -> tempfile::TempDir {
    let targets = tempfile::tempdir().unwrap();
    fs::create_dir(targets.path().join("fake")).unwrap();
    fs::create_dir(targets.path().join("functions")).unwrap();
    fs::write(targets.path().join("fake/target.toml"), fake::TARGET).unwrap();
    targets
}

fn options(folder: &Path, stop: &Stop, time: Option<Duration>) -> CampaignOptions {
    options_for(targets().path(), folder, stop, time)
}

fn options_for(targets: &Path, folder: &Path, stop: &Stop, time: Option<Duration>) -> CampaignOptions {
    let target = Target::find(targets, "fake").unwrap();
    let (opened, earlier) = CampaignFolder::open(folder, "fake", "fake").unwrap();
    CampaignOptions {
        target: Arc::new(target),
        folder: Arc::new(opened),
        earlier,
        stop: stop.clone(),
        time,
        seed: 1,
        progress: Box::new(io::sink()),
        peers: PeerOptions::default(),
    }
}

fn campaign(folder: &Path, executions: u32) -> Summary {
    let stop = Stop::new();
    let runner = FakeRunner::new(&stop, executions);
    run(options(folder, &stop, None), explorer(runner)).unwrap()
}

/// A runner whose every execution is changed.
struct Changing<F>(FakeRunner, F);

impl<F: FnMut(&FaultPlan, &mut Execution)> Runner for Changing<F> {
    fn run(&mut self, plan: &FaultPlan, how: How) -> Ran {
        let mut ran = self.0.run(plan, how);
        if let Ok(execution) = &mut ran.execution {
            self.1(plan, execution);
        }
        ran
    }

    fn finish(&mut self) -> Vec<Attributed> {
        Vec::new()
    }

    fn usage(&self) -> Usage {
        self.0.usage()
    }
}

/// Makes a runner whose every execution comes with reports of its own.
fn with_reports(
    fake: FakeRunner,
    mut reports: impl FnMut(&FaultPlan) -> Vec<Finding>,
) -> Changing<impl FnMut(&FaultPlan, &mut Execution)> {
    Changing(fake, move |plan: &FaultPlan, execution: &mut Execution| execution.findings = reports(plan))
}

fn reporting(folder: &Path, reports: impl FnMut(&FaultPlan) -> Vec<Finding> + Send) -> Result<Summary, CampaignError> {
    let stop = Stop::new();
    let fake = FakeRunner::new(&stop, 300);
    run(options(folder, &stop, None), explorer(with_reports(fake, reports)))
}

/// Reads the points that a campaign has found on the kernel called `kernel`.
fn points(folder: &Path, kernel: &str) -> Vec<Point> {
    let text = fs::read_to_string(folder.join("matrix").join(format!("{kernel}.jsonl"))).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Reads a crash's `meta.json`, if it is there.
fn meta(folder: &Path, title: &str) -> Option<CrashMeta> {
    let text = fs::read_to_string(folder.join("crashes").join(slug(title)).join("meta.json")).ok()?;
    Some(serde_json::from_str(&text).unwrap())
}

/// Reads the last line of `stats.jsonl`.
fn last_line(folder: &Path) -> serde_json::Value {
    let text = fs::read_to_string(folder.join("stats.jsonl")).unwrap();
    serde_json::from_str(text.lines().last().unwrap()).unwrap()
}
