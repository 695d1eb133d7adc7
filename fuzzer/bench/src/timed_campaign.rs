//! A campaign that tells how much of its time the guests take: the rest is the search.

use std::{
    io,
    sync::Arc,
    time::{Duration, Instant},
};

use campaign::{CampaignFolder, CampaignKernel, CampaignOptions, Client, ClientSetup, PeerOptions, Role};
use execution::{Attributed, How, Ran, Runner, Stop, Usage};
use fault_plan::FaultPlan;
use fuzz::exit::CommandError;
use guests::{prepared::Prepared, runner::GuestRunner};

use super::Scratch;

/// Runs a campaign of the time `time`. Gives its summary, the time spent in the runner, and the
/// time of all.
///
/// # Errors
///
/// The campaign fails.
pub(super) fn timed_campaign(
    prepared: &Prepared,
    runner: &mut GuestRunner,
    time: Duration,
    stop: &Stop,
) -> Result<(campaign::Summary, Duration, Duration), CommandError> {
    let scratch = Scratch::new("cost");
    let meta = &prepared.kernel.meta;
    let (folder, earlier) = CampaignFolder::open(&scratch.0, &prepared.target.name, &meta.name)?;
    let options = CampaignOptions {
        target: Arc::clone(&prepared.target),
        folder: Arc::new(folder),
        earlier,
        stop: stop.clone(),
        time: Some(time),
        seed: 1,
        progress: Box::new(io::sink()),
        peers: PeerOptions::default(),
    };
    let kernel = CampaignKernel {
        name: meta.name.clone(),
        build_id: meta.build_id.clone(),
        call_sites: Arc::clone(&prepared.call_sites),
    };
    let mut in_runner = Duration::ZERO;
    let timed = Timed { runner, total: &mut in_runner };
    let start = Instant::now();
    let explorer = Client { role: Role::Explorer, start: Box::new(move || Ok(ClientSetup { kernel, runner: timed })) };
    let summary = campaign::run(options, vec![explorer]);
    let elapsed = start.elapsed();
    Ok((summary?, in_runner, elapsed))
}

/// A runner that adds up the time spent in it.
struct Timed<'a, R> {
    runner: &'a mut R,
    total: &'a mut Duration,
}

impl<R: Runner> Runner for Timed<'_, R> {
    fn run(&mut self, plan: &FaultPlan, how: How) -> Ran {
        let start = Instant::now();
        let ran = self.runner.run(plan, how);
        *self.total += start.elapsed();
        ran
    }

    fn finish(&mut self) -> Vec<Attributed> {
        self.runner.finish()
    }

    fn usage(&self) -> Usage {
        self.runner.usage()
    }
}
