//! `bench oracles`: what the oracles cost.
//!
//! Points of the fault-free workload fail alone, in a guest that all oracles judge and in one that
//! none does, by turns. So both have the same of the host.

use std::{
    fs, io,
    path::Path,
    time::{Duration, Instant},
};

use execution::{How, RunError, Runner};
use fault_plan::{Fault, FaultPlan};
use fuzz::exit::CommandError;
use guests::{
    prepare::{Wanted, prepare},
    project::Project,
    runner::GuestRunner,
};
use serde::Serialize;

use super::{
    Measured, Scratch, Session,
    both_kernels::{EXPLORED, single_faults},
};

const TARGETS: &[&str] = &["btrfs-rw", "btrfs-remount", "ext4-rw", "xfs-rw"];

/// One target.
#[derive(Debug, Serialize)]
struct Judged {
    measured: Measured,
    plans: usize,
    /// Seconds that all plans took, with new guests where one was lost.
    all_oracles_s: f64,
    no_oracle_s: f64,
    /// Executions in a second with all oracles, of those with none.
    rate: f64,
}

/// All of them.
#[derive(Debug, Serialize)]
pub(super) struct Oracles {
    targets: Vec<Judged>,
    /// Mean of the targets' rates.
    mean_rate: f64,
}

/// Measures.
///
/// # Errors
///
/// The environment or the target; see [`CommandError`].
pub(super) fn oracles(session: &Session<'_>) -> Result<Oracles, CommandError> {
    let targets = session.options.targets(TARGETS);
    let targets = targets.into_iter().map(|target| judged(session, target)).collect::<Result<Vec<_>, _>>()?;
    let mean_rate = targets.iter().map(|target| target.rate).sum::<f64>() / targets.len() as f64;
    Ok(Oracles { targets, mean_rate })
}

fn judged(session: &Session<'_>, name: &str) -> Result<Judged, CommandError> {
    let scratch = Scratch::new(&format!("oracles-{name}"));
    copy(&Project::find()?.corpus().join(name), &scratch.0)?;
    let guests = |target: &str| {
        let kernel = session.options.guest.kernel.clone().unwrap_or_else(|| EXPLORED.to_owned());
        let wanted = Wanted { kernel: Some(kernel), accel: session.options.guest.accel, ..Wanted::new(target) };
        prepare(&wanted, session.stop, session.progress)
    };
    let (with, without) = (guests(name)?, guests(&scratch.0.to_string_lossy())?);
    let (mut judged, mut plain) = (GuestRunner::new(&with), GuestRunner::new(&without));
    let singles = single_faults(&with.target, &mut judged)?;
    let step = (singles.len() / session.options.executions as usize).max(1);
    let faults: Vec<Vec<Fault>> = singles.into_iter().step_by(step).map(|plan| plan.faults).collect();
    session.progress.say(&format!("{name}: {} single faults with oracles and without", faults.len()));
    let (mut all, mut none) = (Duration::ZERO, Duration::ZERO);
    for faults in &faults {
        let plan = |free: FaultPlan| FaultPlan { faults: faults.clone(), ..free };
        all += took(&mut judged, &plan(with.target.fault_free()))?;
        none += took(&mut plain, &plan(without.target.fault_free()))?;
    }
    Ok(Judged {
        measured: Measured::of(name, &with),
        plans: faults.len(),
        all_oracles_s: all.as_secs_f64(),
        no_oracle_s: none.as_secs_f64(),
        rate: none.as_secs_f64() / all.as_secs_f64(),
    })
}

fn took(runner: &mut GuestRunner, plan: &FaultPlan) -> Result<Duration, RunError> {
    let start = Instant::now();
    runner.run(plan, How::Warm).execution?;
    Ok(start.elapsed())
}

/// Copies the target's folder `from`, and leaves out the oracles.
fn copy(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let path = entry?.path();
        if path.is_file() {
            fs::copy(&path, to.join(path.file_name().unwrap_or_default()))?;
        }
    }
    let file = to.join("target.toml");
    fs::write(&file, format!("oracles = []\n{}", fs::read_to_string(&file)?))
}
