//! The report for a terminal: a table of the crashes, then each of them.

use std::fmt::Write as _;

use super::wrap::{indent, plain};
use crate::{
    Report,
    model::{Crash, NamedFault, Standing, duration},
};

/// Most columns of prose.
const COLUMNS: usize = 100;
/// Most columns of a title in the table, and of a fault.
const MOST_TITLE: usize = 52;
const MOST_FAULT: usize = 56;

/// Writes the report for people at a terminal. With `key` only that crash is told.
#[must_use]
pub fn text(report: &Report, key: Option<&str>) -> String {
    let mut out = String::new();
    let chosen: Vec<_> = report.crashes.iter().filter(|crash| key.is_none_or(|key| crash.key == key)).collect();
    if key.is_none() {
        // Writing to a string cannot fail.
        let _ = header(report, &mut out);
    }
    for crash in chosen {
        let _ = one(crash, &mut out);
    }
    plain(&out)
}

fn header(report: &Report, out: &mut String) -> std::fmt::Result {
    let campaign = &report.campaign;
    let known = |text: &str| if text.is_empty() { "?".to_owned() } else { text.to_owned() };
    writeln!(out, "campaign   {}", campaign.folder.display())?;
    writeln!(out, "target     {} on {}", known(&campaign.target), known(&campaign.kernel))?;
    writeln!(out, "executions {} in {}", campaign.executions, duration(campaign.seconds as f64))?;
    for matrix in &report.matrices {
        writeln!(
            out,
            "points     {} on {}; of {} points × errors {} failed",
            matrix.points, matrix.kernel, matrix.cells, matrix.cells_failed
        )?;
    }
    report.gaps.iter().try_for_each(|gap| writeln!(out, "gap        {gap}"))?;
    let alarms = report.crashes.iter().filter(|crash| crash.standing == Standing::Alarm).count();
    writeln!(out, "crashes    {}, {alarms} of them alarms by design", report.crashes.len())?;
    table(report, out)
}

fn cut(text: &str, most: usize) -> String {
    if text.chars().count() <= most { text.to_owned() } else { text.chars().take(most - 1).chain(['…']).collect() }
}

fn table(report: &Report, out: &mut String) -> std::fmt::Result {
    if report.crashes.is_empty() {
        return Ok(());
    }
    let heads = ["Rank", "Title", "Fault", "Found at", "Replay", "Kernels", "Faults"].map(str::to_owned);
    let row = |crash: &Crash| {
        let kernels: Vec<_> = crash.kernels.iter().map(|kernel| kernel.name.as_str()).collect();
        let mark = match crash.standing {
            Standing::Finding => String::new(),
            Standing::Same => " (same)".to_owned(),
            Standing::Alarm => " (alarm)".to_owned(),
        };
        let fault = crash.last_fault();
        [
            format!("{}{mark}", crash.rank),
            cut(&crash.title, MOST_TITLE),
            cut(&fault, MOST_FAULT),
            crash.found(),
            crash.replays(),
            kernels.join(" "),
            crash.plan_faults.to_string(),
        ]
    };
    let rows: Vec<_> = std::iter::once(heads).chain(report.crashes.iter().map(row)).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: [usize; 7] = std::array::from_fn(width);
    writeln!(out)?;
    for row in &rows {
        let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}"));
        writeln!(out, "{}", cells.collect::<Vec<_>>().join("  ").trim_end())?;
    }
    Ok(())
}

fn one(crash: &Crash, out: &mut String) -> std::fmt::Result {
    writeln!(out, "\n{}\nRank {}: {}", "=".repeat(COLUMNS), crash.rank, crash.title)?;
    writeln!(out, "  {}", crash.key)?;
    for reason in &crash.reasons {
        out.push_str(&indent(reason, "  - ", COLUMNS));
    }
    writeln!(out, "\nFaults that fired")?;
    if crash.faults.is_empty() {
        writeln!(out, "  not known")?;
    }
    crash.faults.iter().try_for_each(|fault| named(fault, &crash.steps, out))?;
    writeln!(out, "\nReproducer")?;
    reproducer(crash, out)?;
    writeln!(out, "\nReport")?;
    if let Some(guilty) = &crash.guilty {
        writeln!(out, "  in {guilty}")?;
    }
    crash.report.lines().try_for_each(|line| writeln!(out, "  {line}"))?;
    crash.gaps.iter().try_for_each(|gap| writeln!(out, "  gap: {gap}"))
}

/// Says where and when a fault fired, for people.
pub(super) fn occasion(fault: &NamedFault, steps: &[String]) -> String {
    let mut parts = Vec::new();
    parts.extend(fault.round.map(|round| format!("round {round}")));
    if let Some(step) = fault.step {
        let name = steps.get((step as usize).saturating_sub(1)).filter(|name| !name.is_empty());
        parts.push(name.map_or_else(|| format!("step {step}"), |name| format!("step {step} ({name})")));
    }
    if let Some(occurrence) = fault.occurrence {
        let further = fault.further();
        parts.push(format!("occurrence {occurrence}{further}"));
    }
    parts.push(format!("call {} of the execution", fault.sequence));
    parts.push(match fault.scope.as_str() {
        "workload" => "by the workload's task".to_owned(),
        scope => format!("in scope {scope}"),
    });
    parts.extend(Some(fault.arguments.clone()).filter(|words| !words.is_empty()));
    parts.join(", ")
}

fn named(fault: &NamedFault, steps: &[String], out: &mut String) -> std::fmt::Result {
    writeln!(out, "  {}. {}", fault.number, fault.line())?;
    writeln!(out, "     {}", occasion(fault, steps))?;
    out.push_str(&indent(&format!("{}: {}", fault.chance.words(), fault.chance_reason), "     ", COLUMNS));
    for caller in &fault.call_path {
        let lines = if caller.lines.is_empty() { String::new() } else { format!("  {}", caller.lines.join(" ")) };
        let returned = caller.returned.as_ref().map_or_else(String::new, |value| format!("[{value}] "));
        let mark = caller.mark.as_ref().map_or_else(String::new, |mark| format!("  ! {mark} the error"));
        writeln!(out, "       {returned}{}{lines}{mark}", caller.function)?;
    }
    Ok(())
}

fn reproducer(crash: &Crash, out: &mut String) -> std::fmt::Result {
    let exact = match crash.exact {
        Some(true) => ", and instruction for instruction",
        Some(false) => ", but not instruction for instruction",
        None => "",
    };
    let file = crash.folder.join("reproducer.json");
    match crash.tried {
        0 => writeln!(out, "  {} was not tried yet", file.display())?,
        _ => writeln!(out, "  {} made it again in {} fresh guests{exact}", file.display(), crash.replays())?,
    }
    if let Some(minimized) = &crash.minimized {
        let [before, after] = minimized.faults;
        writeln!(out, "  minimised in {} executions: {before} faults before, {after} after", minimized.executions)?;
    }
    if let Some(program) = &crash.program {
        out.push_str(&indent(&format!("without the fuzzer ({}): {}", program.file, program.verdict), "  ", COLUMNS));
    }
    let Some(plan) = &crash.plan else { return writeln!(out, "  the plan is not known") };
    writeln!(out, "  plan: {}", crash.plan_words())?;
    plan.to_json().lines().try_for_each(|line| writeln!(out, "    {line}"))
}
