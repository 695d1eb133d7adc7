//! The end of a campaign, for people.

use std::{
    io::{self, Write},
    path::PathBuf,
};

use campaign::Summary;

/// A campaign that has ended.
#[derive(Debug)]
pub struct Ended {
    /// Results of the campaign.
    pub summary: Summary,
    /// Its folder.
    pub folder: PathBuf,
    /// The checkers, if none of them got a guest in time.
    pub idle: Option<IdleCheckers>,
}

/// Checkers that never had a guest: every plan for them still waits.
#[derive(Debug)]
pub struct IdleCheckers {
    /// Their kernel's name.
    pub kernel: String,
    /// True when the cache has that kernel.
    pub built: bool,
}

/// Writes what the campaign did, and what is to be done where plans wait for a kernel.
pub(crate) fn write(ended: &Ended, out: &mut dyn Write) -> io::Result<()> {
    let Ended { summary, folder, .. } = ended;
    writeln!(out, "campaign   {}", folder.display())?;
    search(summary, out)?;
    trouble(summary, out)?;
    checks(ended, out)?;
    crashes(summary, out)
}

fn search(summary: &Summary, out: &mut dyn Write) -> io::Result<()> {
    let Summary { executions, seconds, counters, coverage, fault_free_coverage, .. } = summary;
    #[expect(clippy::cast_precision_loss, reason = "ratios for people; counts stay below 2^52")]
    let (rate, fired, times) = (
        *executions as f64 / (*seconds).max(1) as f64,
        100.0 * counters.fired as f64 / counters.with_faults.max(1) as f64,
        *coverage as f64 / (*fault_free_coverage).max(1) as f64,
    );
    writeln!(out, "executions {executions} in {seconds} s ({rate:.1}/s)")?;
    writeln!(out, "faults     {} executions with faults, one fired in {fired:.1} % of them", counters.with_faults)?;
    writeln!(out, "sites      {} discovered, {} failed at least once", summary.sites, summary.sites_failed)?;
    writeln!(
        out,
        "coverage   {coverage} places, {times:.2} times the {fault_free_coverage} of the fault-free workload; \
         {} corpus entries",
        summary.corpus
    )
}

fn trouble(summary: &Summary, out: &mut dyn Write) -> io::Result<()> {
    let counters = &summary.counters;
    writeln!(
        out,
        "trouble    {} crashed, {} hung, {} harness errors, {} guests not clean, {} plans refused, {} given up",
        counters.crashed, counters.hung, summary.harness_errors, summary.leftovers, counters.refused, counters.given_up
    )?;
    writeln!(
        out,
        "guests     {} started, at most {} executions in one; {} control runs, {} drifted",
        summary.guests, summary.longest_life, summary.controls, summary.drifted
    )
}

/// Writes what the checking kernel did. One that was not ready in time has checked nothing: then
/// the user has to do something.
fn checks(ended: &Ended, out: &mut dyn Write) -> io::Result<()> {
    let Ended { summary: Summary { checked, different, unchecked, .. }, .. } = ended;
    match &ended.idle {
        Some(IdleCheckers { kernel, built: false }) => {
            writeln!(out, "checks     none: {kernel} was not built in time, {unchecked} plans wait for it; build it:")?;
            writeln!(out, "             scripts/fuzz kernel build {kernel}")?;
            writeln!(out, "           Then the same command goes on with this campaign and checks its corpus.")
        }
        Some(IdleCheckers { kernel, built: true }) => {
            writeln!(
                out,
                "checks     none: no guest with {kernel} was ready in time, {unchecked} plans wait for one."
            )?;
            writeln!(
                out,
                "           The same command with more time goes on with this campaign and checks its corpus."
            )
        }
        None if checked + unchecked > 0 => writeln!(
            out,
            "checks     {checked} plans ran on the checking kernel too, {different} did something else there, \
             {unchecked} still wait"
        ),
        None => Ok(()),
    }
}

fn crashes(summary: &Summary, out: &mut dyn Write) -> io::Result<()> {
    if summary.crashes.is_empty() {
        return writeln!(out, "crashes    none");
    }
    let same = match summary.same {
        0 => String::new(),
        same => format!(" (and {same} that the explorers' kernel calls otherwise)"),
    };
    writeln!(out, "crashes    {}{same}", summary.crashes.len())?;
    for (title, reproduced, tried) in &summary.crashes {
        writeln!(out, "  {title}  (reproduced {reproduced} of {tried} times)")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_that_was_not_built_in_time_is_named_with_the_command_that_builds_it() {
        let summary = Summary { executions: 100, seconds: 20, unchecked: 7, ..Summary::default() };
        let text = |built: Option<bool>| {
            let idle = built.map(|built| IdleCheckers { kernel: "linux-check".to_owned(), built });
            let ended = Ended { summary: summary.clone(), folder: "campaigns/t".into(), idle };
            let mut out = Vec::new();
            write(&ended, &mut out).unwrap();
            String::from_utf8(out).unwrap()
        };
        let missing = text(Some(false));
        assert!(
            missing.contains("7 plans wait") && missing.contains("scripts/fuzz kernel build linux-check"),
            "{missing}"
        );
        let late = text(Some(true));
        assert!(late.contains("7 plans wait") && !late.contains("kernel build"), "{late}");
        let ready = text(None);
        assert!(ready.contains("7 still wait") && !ready.contains("same command"), "{ready}");
    }
}
