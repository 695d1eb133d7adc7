//! `bench kernels`: what campaigns with an explorer and a checker find, and what those on the
//! checking kernel alone find in the same time with as many guests.

use std::{collections::BTreeMap, num::NonZeroUsize, time::Duration};

use campaign::{CampaignFolder, Summary};
use execution::Target;
use fuzz::{
    exit::CommandError,
    options::{FuzzOptions, GuestOptions},
};
use guests::project::Project;
use serde::Serialize;

use super::{Scratch, Session, middle};

/// The targets, and how long each campaign runs.
const TARGETS: [(&str, Duration); 2] = [("selftest", Duration::from_secs(20)), ("btrfs-rw", Duration::from_secs(120))];
const GUESTS: NonZeroUsize = NonZeroUsize::new(2).expect("it is not 0");

/// When a crash was found, in seconds from the start of each campaign; nothing where it was not.
#[derive(Debug, Default, Serialize)]
struct Found {
    two_kernels_s: Vec<Option<f64>>,
    checking_alone_s: Vec<Option<f64>>,
    /// The value in the middle; nothing when most campaigns did not find it.
    two_kernels_median_s: Option<f64>,
    checking_alone_median_s: Option<f64>,
}

/// One target.
#[derive(Debug, Serialize)]
struct Compared {
    target: String,
    seconds_each: u64,
    /// Executions per second, the checks included; medians.
    two_kernels_rate_per_s: f64,
    checking_alone_rate_per_s: f64,
    /// By key on the checking kernel.
    found: BTreeMap<String, Found>,
    /// Titles that most campaigns on the checking kernel alone found and most on two kernels did
    /// not.
    missed: Vec<String>,
    /// Titles that both mostly found, the checking kernel alone sooner.
    later: Vec<String>,
}

#[derive(Debug, Serialize)]
pub(super) struct Kernels {
    commit: String,
    host: String,
    guests: usize,
    campaigns_each: usize,
    targets: Vec<Compared>,
}

/// Measures.
///
/// # Errors
///
/// The environment or a target; see [`CommandError`].
pub(super) fn kernels(session: &Session<'_>) -> Result<Kernels, CommandError> {
    let mut targets = Vec::new();
    for target in session.options.targets(&TARGETS.map(|(target, _)| target)) {
        let usual = TARGETS.iter().find(|(name, _)| *name == target).map_or(TARGETS[1].1, |(_, time)| *time);
        targets.push(compare(session, target, session.options.time.unwrap_or(usual))?);
    }
    let commit = super::commit();
    Ok(Kernels {
        commit,
        host: super::host(),
        guests: GUESTS.get(),
        campaigns_each: session.options.campaigns.get(),
        targets,
    })
}

fn compare(session: &Session<'_>, target: &str, time: Duration) -> Result<Compared, CommandError> {
    let kernel = Target::find(&Project::find()?.corpus(), target)?.kernel;
    let mut found: BTreeMap<String, Found> = BTreeMap::new();
    let mut rates = [Vec::new(), Vec::new()];
    let campaigns = session.options.campaigns.get();
    for repeat in 0..campaigns {
        for (alone, rates) in [false, true].into_iter().zip(&mut rates) {
            let kernels = if alone { "the checking kernel alone" } else { "two kernels" };
            session.progress.say(&format!("{target}: campaign {} of {campaigns} on {kernels}", repeat + 1));
            let only = alone.then(|| kernel.clone());
            let (summary, crashes) = campaign(session, target, &kernel, only, time, repeat)?;
            #[expect(clippy::cast_precision_loss, reason = "a rate for people; counts stay below 2^52")]
            rates.push(summary.statistics.executions as f64 / summary.seconds.max(1) as f64);
            for (title, seconds) in crashes {
                let found = found.entry(title).or_default();
                let times = if alone { &mut found.checking_alone_s } else { &mut found.two_kernels_s };
                // Campaigns before this one that did not find it.
                times.resize(repeat, None);
                times.push(Some(seconds));
            }
        }
    }
    for found in found.values_mut() {
        found.two_kernels_median_s = median_of(&mut found.two_kernels_s, campaigns);
        found.checking_alone_median_s = median_of(&mut found.checking_alone_s, campaigns);
    }
    let titles = |are: fn(&Found) -> bool| {
        found.iter().filter(|(_, found)| are(found)).map(|(title, _)| title.clone()).collect::<Vec<_>>()
    };
    let [two, alone] = rates.map(|rates| middle(rates).unwrap_or(f64::NAN));
    Ok(Compared {
        target: target.to_owned(),
        seconds_each: time.as_secs(),
        two_kernels_rate_per_s: two,
        checking_alone_rate_per_s: alone,
        missed: titles(|found| found.checking_alone_median_s.is_some() && found.two_kernels_median_s.is_none()),
        later: titles(|found| {
            found.two_kernels_median_s.zip(found.checking_alone_median_s).is_some_and(|(two, alone)| two > alone)
        }),
        found,
    })
}

/// The value in the middle of those of all `campaigns`; what was not found comes last.
fn median_of(times: &mut Vec<Option<f64>>, campaigns: usize) -> Option<f64> {
    times.resize(campaigns, None);
    middle(times.iter().map(|time| time.unwrap_or(f64::INFINITY)).collect()).filter(|time| time.is_finite())
}

/// Runs a campaign, on the kernel `only` if there is one. Returns what it did, and when it found
/// each crash, by the key that the crash has on the checking kernel.
fn campaign(
    session: &Session<'_>,
    target: &str,
    kernel: &str,
    only: Option<String>,
    time: Duration,
    seed: usize,
) -> Result<(Summary, BTreeMap<String, f64>), CommandError> {
    let scratch = Scratch::new("kernels");
    let options = FuzzOptions {
        target: target.to_owned(),
        time: Some(time),
        out: Some(scratch.0.clone()),
        vms: Some(GUESTS),
        seed: u64::try_from(seed).ok(),
        json: false,
        listen: None,
        join: Vec::new(),
        guest: GuestOptions { kernel: only, accel: session.options.guest.accel },
    };
    let summary = super::campaign(&options, session)?.summary;
    let mut found = BTreeMap::new();
    for (meta, _) in CampaignFolder::open(&scratch.0, target, kernel)?.0.crashes()? {
        let seconds = Duration::from_millis(meta.found_ms.unwrap_or(u64::MAX)).as_secs_f64();
        let first = found.entry(meta.same_as.unwrap_or(meta.key)).or_insert(seconds);
        *first = first.min(seconds);
    }
    Ok((summary, found))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_most_campaigns_did_not_find_has_no_median() {
        assert_eq!(median_of(&mut vec![None, Some(3.0)], 5), None);
        assert_eq!(median_of(&mut vec![Some(9.0), None, Some(3.0), None, Some(5.0)], 5), Some(9.0));
        assert_eq!(median_of(&mut vec![Some(9.0), Some(1.0), Some(3.0)], 5), Some(9.0), "two did not find it");
    }
}
