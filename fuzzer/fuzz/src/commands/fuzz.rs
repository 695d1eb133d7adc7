//! `fuzz --target NAME`: a campaign.

use std::{
    io::{self, Write},
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use super::{Answer, CommandError};
use crate::{
    campaign::{self, CampaignFolder, CampaignKernel, CampaignOptions, Equipment, Role, Summary, Worker},
    guest::{AccelChoice, Stop},
    prepare::{Prepared, Wanted, prepare},
};

/// What the user asked for.
#[derive(Debug)]
pub struct FuzzOptions {
    /// Name or folder of the target.
    pub target: String,
    /// How long to fuzz; until stopped without it.
    pub time: Option<Duration>,
    /// The campaign's folder; `campaigns/TARGET` without it.
    pub out: Option<PathBuf>,
    /// A kernel other than the target's.
    pub kernel: Option<String>,
    /// How guests run.
    pub accel: AccelChoice,
    /// Seed of the random generator; the clock without it.
    pub seed: Option<u64>,
    /// Whether the summary is JSON.
    pub json: bool,
}

/// Runs a campaign, or goes on with the one in the folder.
///
/// # Errors
///
/// The environment, the target or the folder; see [`CommandError`].
pub fn fuzz(
    options: &FuzzOptions,
    stop: &Stop,
    out: &mut dyn Write,
    say: &mut dyn FnMut(&str),
) -> Result<Answer, CommandError> {
    let wanted =
        Wanted { target: &options.target, kernel: options.kernel.as_deref(), accel: options.accel, exact: false };
    let Prepared { target, kernel, call_sites, pool } = prepare(&wanted, stop, say)?;
    let path = options.out.clone().unwrap_or_else(|| PathBuf::from("campaigns").join(&target.name));
    let (folder, earlier) = CampaignFolder::open(&path, &target.name, &kernel.meta.name)?;
    match &earlier {
        Some(earlier) => say(&format!(
            "going on with the campaign in {} ({} executions so far); Ctrl-C ends it",
            path.display(),
            earlier.executions
        )),
        None => say(&format!("new campaign in {}; Ctrl-C ends it", path.display())),
    }
    let campaign = CampaignOptions {
        target,
        folder: Arc::new(folder),
        earlier,
        stop: stop.clone(),
        time: options.time,
        seed: options.seed.unwrap_or_else(seed_from_clock),
        progress: Box::new(io::stderr()),
    };
    let kernel = CampaignKernel { name: kernel.meta.name, build_id: kernel.meta.build_id, call_sites };
    let equip = Box::new(move || Ok(Equipment { kernel, runner: pool }));
    let summary = campaign::run(campaign, vec![Worker { role: Role::Explorer, equip }])?;
    if options.json {
        let text = serde_json::to_string(&summary).map_err(io::Error::other)?;
        writeln!(out, "{text}")?;
    } else {
        write_summary(&summary, &path.display().to_string(), out)?;
    }
    Ok(Answer::Yes)
}

fn seed_from_clock() -> u64 {
    let nanoseconds = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
    u64::try_from(nanoseconds & u128::from(u64::MAX)).unwrap_or(1)
}

fn write_summary(summary: &Summary, folder: &str, out: &mut dyn Write) -> io::Result<()> {
    let Summary { counters, .. } = summary;
    #[expect(clippy::cast_precision_loss, reason = "ratios for people; counts stay below 2^52")]
    let (rate, fired, coverage) = (
        summary.executions as f64 / summary.seconds.max(1) as f64,
        100.0 * counters.fired as f64 / counters.with_faults.max(1) as f64,
        summary.coverage as f64 / summary.fault_free_coverage.max(1) as f64,
    );
    writeln!(out, "campaign   {folder}")?;
    writeln!(
        out,
        "executions {} in {} s ({rate:.1}/s), {} guests",
        summary.executions, summary.seconds, summary.guests
    )?;
    writeln!(out, "faults     {} executions with faults, one fired in {fired:.1} % of them", counters.with_faults)?;
    writeln!(out, "sites      {} discovered, {} failed at least once", summary.sites, summary.sites_failed)?;
    writeln!(
        out,
        "coverage   {} places, {coverage:.2} times the {} of the fault-free workload; {} corpus entries",
        summary.coverage, summary.fault_free_coverage, summary.corpus
    )?;
    writeln!(
        out,
        "trouble    {} crashed, {} hung, {} harness errors, {} guests not clean, {} plans refused, {} given up",
        counters.crashed, counters.hung, summary.harness_errors, summary.leftovers, counters.refused, counters.given_up
    )?;
    if summary.crashes.is_empty() {
        return writeln!(out, "crashes    none");
    }
    writeln!(out, "crashes    {}", summary.crashes.len())?;
    for (title, reproduced, tried) in &summary.crashes {
        writeln!(out, "  {title}  (reproduced {reproduced} of {tried} times)")?;
    }
    Ok(())
}
