//! The end of a campaign, for people.

use std::{
    io::{self, Write},
    path::PathBuf,
};

use campaign::{Statistics, Summary};

use super::coverage::{self, KernelCoverage};

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
/// `covered` has the places of each kernel by folder.
pub(crate) fn write(ended: &Ended, covered: &[KernelCoverage], out: &mut dyn Write) -> io::Result<()> {
    let Ended { summary, folder, .. } = ended;
    writeln!(out, "campaign   {}", folder.display())?;
    search(summary, out)?;
    covered.iter().try_for_each(|kernel| coverage::write_few(kernel, out))?;
    judged(summary, out)?;
    trouble(summary, out)?;
    checks(ended, out)?;
    crashes(summary, out)
}

fn search(summary: &Summary, out: &mut dyn Write) -> io::Result<()> {
    let Summary { seconds, statistics, .. } = summary;
    let Statistics { executions, with_faults, fired, coverage, fault_free_coverage, .. } = statistics;
    #[expect(clippy::cast_precision_loss, reason = "ratios for people; counts stay below 2^52")]
    let (rate, fired, times) = (
        *executions as f64 / (*seconds).max(1) as f64,
        100.0 * *fired as f64 / (*with_faults).max(1) as f64,
        *coverage as f64 / (*fault_free_coverage).max(1) as f64,
    );
    writeln!(out, "executions {executions} in {seconds} s ({rate:.1}/s)")?;
    writeln!(out, "faults     {with_faults} executions with faults, one fired in {fired:.1} % of them")?;
    let Statistics { points, points_failed, cells, cells_failed, cells_unreached, alone_left, .. } = statistics;
    writeln!(
        out,
        "points     {points} found, {points_failed} failed; of {cells} points × errors {cells_failed} failed, \
         {cells_unreached} in vain"
    )?;
    if *alone_left > 0 {
        writeln!(out, "phase      alone: {alone_left} points × errors are still to be failed as the only fault")?;
    }
    writeln!(
        out,
        "coverage   {coverage} places, {times:.2} times the {fault_free_coverage} of the fault-free workload; \
         {} corpus entries",
        statistics.corpus
    )?;
    tasks(statistics, out)
}

/// Writes what was covered by whom, where there is more than the workload's trace, and which traces
/// were too short.
fn tasks(statistics: &Statistics, out: &mut dyn Write) -> io::Result<()> {
    let Statistics { coverage_workload, coverage_tasks, coverage_threads, .. } = statistics;
    if coverage_tasks + coverage_threads > 0 {
        writeln!(
            out,
            "           by the workload {coverage_workload}, by its children {coverage_tasks}, by kernel threads and \
             work items {coverage_threads}"
        )?;
    }
    let overflows = [
        ("the workload", statistics.overflowed_workload),
        ("its children", statistics.overflowed_tasks),
        ("kernel threads", statistics.overflowed_threads),
    ];
    overflows.iter().filter(|(_, executions)| *executions > 0).try_for_each(|(whose, executions)| {
        writeln!(out, "           {executions} executions filled the trace of {whose}: its last part does not count")
    })
}

/// Writes which points the checking kernel has failed, where there is one.
fn judged(summary: &Summary, out: &mut dyn Write) -> io::Result<()> {
    let Statistics { judged_cells, judged_failed, judged_unreached, .. } = &summary.statistics;
    if *judged_cells == 0 {
        return Ok(());
    }
    writeln!(
        out,
        "judged     of {judged_cells} points × errors on the checking kernel {judged_failed} failed, \
         {judged_unreached} in vain"
    )
}

fn trouble(summary: &Summary, out: &mut dyn Write) -> io::Result<()> {
    let Statistics { crashed, hung, harness_errors, leftovers, refused, given_up, .. } = &summary.statistics;
    let statistics = &summary.statistics;
    let Statistics { guests, longest_life, controls, drifted, worn, .. } = statistics;
    writeln!(
        out,
        "trouble    {crashed} crashed, {hung} hung, {harness_errors} harness errors, {leftovers} guests not clean, \
         {refused} plans refused, {given_up} given up"
    )?;
    if statistics.aftermath_executions > 0 {
        let Statistics { aftermath_executions, aftermath_ms, .. } = statistics;
        writeln!(out, "aftermath  {aftermath_executions} executions in {} s after leftovers", aftermath_ms / 1000)?;
    }
    writeln!(
        out,
        "guests     {guests} started, at most {longest_life} executions in one; {controls} control runs, \
         {drifted} drifted, {worn} worn out"
    )
}

/// Writes what the checking kernel did. One that was not ready in time has checked nothing: then
/// the user has to do something.
fn checks(ended: &Ended, out: &mut dyn Write) -> io::Result<()> {
    let Statistics { checked, different, unfired, unchecked, .. } = &ended.summary.statistics;
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
        None if checked + unfired + unchecked > 0 => writeln!(
            out,
            "checks     {checked} plans ran on the checking kernel too, {different} did something else there; \
             {unfired} did not fire there, {unchecked} still wait"
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
    fn coverage_is_told_by_task_and_with_what_it_lacks() {
        let statistics = Statistics {
            coverage: 90,
            coverage_workload: 70,
            coverage_threads: 40,
            overflowed_threads: 3,
            ..Statistics::default()
        };
        let ended =
            Ended { summary: Summary { statistics, ..Summary::default() }, folder: "campaigns/t".into(), idle: None };
        let mut out = Vec::new();
        write(&ended, &[], &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert!(text.contains("by the workload 70, by its children 0, by kernel threads and work items 40"), "{text}");
        assert!(text.contains(" 3 executions filled the trace of kernel threads"), "{text}");
        assert!(!text.contains("trace of the workload"), "{text}");
    }

    #[test]
    fn a_kernel_that_was_not_built_in_time_is_named_with_the_command_that_builds_it() {
        let statistics = Statistics { executions: 100, unchecked: 7, ..Statistics::default() };
        let summary = Summary { seconds: 20, statistics, ..Summary::default() };
        let text = |built: Option<bool>| {
            let idle = built.map(|built| IdleCheckers { kernel: "linux-check".to_owned(), built });
            let ended = Ended { summary: summary.clone(), folder: "campaigns/t".into(), idle };
            let mut out = Vec::new();
            write(&ended, &[], &mut out).unwrap();
            String::from_utf8(out).unwrap()
        };
        let missing = text(Some(false));
        assert!(
            missing.contains("7 plans wait") && missing.contains("scripts/fuzz kernel build linux-check"),
            "{missing}"
        );
        let late = text(Some(true));
        assert!(late.contains("7 plans wait") && !late.contains("kernel build"), "{late}");
        assert!(!late.contains("kernel threads"), "none were traced: {late}");
        let ready = text(None);
        assert!(ready.contains("7 still wait") && !ready.contains("same command"), "{ready}");
    }
}
