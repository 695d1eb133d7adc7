//! The report as one page that needs nothing beside it.
//!
//! The guest is hostile: askama escapes all that stands in the template, the page's policy allows
//! no script but its own, whose digest it has, and nothing is loaded from anywhere.

mod plot;

use askama::Template;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use sha2::{Digest as _, Sha256};

use self::plot::{Plot, plots};
use super::{FormatError, text::occasion};
use crate::{
    Report,
    model::{Crash, FileCoverage, FunctionCoverage, KernelCoverage, LineCoverage, NamedFault, Ran, Standing, duration},
    way::way,
};

const STYLE: &str = include_str!("../../templates/report.css");
const SCRIPT: &str = include_str!("../../templates/report.js");

/// Most bytes of the source of all functions, those with most that ran with faults only first: more
/// makes the page slow. A function whose source is left out has its lines' numbers.
const MOST_LINES: usize = 3 << 19;
/// Most bytes of a crash's report.
const MOST_REPORT: usize = 24 << 10;
/// Bytes left at which no more source is shown.
const LAST_LINES: usize = 1 << 10;

/// Writes the page.
///
/// # Errors
///
/// The template cannot be filled.
pub fn html(report: &Report) -> Result<String, FormatError> {
    let mut left = MOST_LINES;
    let kernels = (0..).zip(&report.coverage).map(|(at, kernel)| KernelView::new(kernel, at == 0, &mut left));
    let page = Page {
        report,
        style: STYLE,
        script: SCRIPT,
        script_digest: STANDARD.encode(Sha256::digest(SCRIPT)),
        crashes: report.crashes.iter().map(CrashView::new).collect(),
        findings: report.crashes.iter().filter(|crash| crash.standing == Standing::Finding).count(),
        alarms: report.crashes.iter().filter(|crash| crash.standing == Standing::Alarm).count(),
        fuzzing: duration(report.campaign.seconds as f64),
        plots: plots(&report.growth),
        kernels: kernels.collect(),
        lines_cut: left < LAST_LINES,
    };
    Ok(page.render()?)
}

#[derive(Template)]
#[template(path = "report.html")]
struct Page<'a> {
    report: &'a Report,
    style: &'a str,
    script: &'a str,
    script_digest: String,
    crashes: Vec<CrashView<'a>>,
    findings: usize,
    alarms: usize,
    fuzzing: String,
    plots: Vec<Plot>,
    kernels: Vec<KernelView<'a>>,
    /// True when the text of lines is left out for its length.
    lines_cut: bool,
}

struct CrashView<'a> {
    crash: &'a Crash,
    /// Class of its rows.
    class: &'static str,
    /// Number of its impact, from 0: colour of the badge.
    badge: u8,
    fault: String,
    faults: Vec<FaultView<'a>>,
    found: String,
    found_s: f64,
    replays: String,
    kernels: String,
    guilty: String,
    plan: String,
    report: &'a str,
    /// True when the rest of the report is left out.
    report_cut: bool,
}

struct FaultView<'a> {
    fault: &'a NamedFault,
    line: String,
    occasion: String,
    /// Where the error went, where a traced run told.
    way: Option<String>,
}

impl<'a> CrashView<'a> {
    fn new(crash: &'a Crash) -> Self {
        let class = match crash.standing {
            Standing::Finding => "finding",
            Standing::Same => "same",
            Standing::Alarm => "alarm",
        };
        let view = |fault: &'a NamedFault| FaultView {
            fault,
            line: fault.line(),
            occasion: occasion(fault, &crash.steps),
            way: way(&fault.call_path),
        };
        let guilty = crash.guilty.as_ref().map_or_else(String::new, ToString::to_string);
        let report = &crash.report[..crash.report.floor_char_boundary(MOST_REPORT)];
        let kernels = crash.kernels.iter().map(|kernel| kernel.name.as_str());
        Self {
            crash,
            class,
            badge: crash.impact as u8,
            fault: crash.last_fault(),
            faults: crash.faults.iter().map(view).collect(),
            found: crash.found(),
            found_s: crash.found_s.unwrap_or(-1.0),
            replays: crash.replays(),
            kernels: kernels.collect::<Vec<_>>().join(", "),
            guilty,
            report,
            report_cut: report.len() < crash.report.len(),
            plan: crash.plan.as_ref().map(fault_plan::FaultPlan::to_json).unwrap_or_default(),
        }
    }
}

struct KernelView<'a> {
    name: &'a str,
    in_full: bool,
    by_faults_known: bool,
    /// Files of which something ran, those with most that ran with faults only first.
    files: Vec<FileView<'a>>,
    /// Names of the others.
    never: String,
}

impl<'a> KernelView<'a> {
    /// Makes it; functions are listed of a kernel `in_full`.
    fn new(kernel: &'a KernelCoverage, in_full: bool, left: &mut usize) -> Self {
        let shares = |file: &FileCoverage| Shares::of(file.functions.iter());
        let (mut ran, never): (Vec<_>, Vec<_>) = { kernel.files.iter() }.partition(|file| shares(file).ran() > 0);
        ran.sort_by_key(|file| std::cmp::Reverse((shares(file).faults, shares(file).workload)));
        let never: Vec<_> = never.iter().map(|file| file.file.as_str()).collect();
        let files = ran.into_iter().map(|file| FileView::new(file, in_full, left)).collect();
        Self { name: &kernel.kernel, in_full, by_faults_known: kernel.by_faults_known, files, never: never.join(" ") }
    }
}

/// Numbers of places, and their shares in percent.
struct Shares {
    workload: u32,
    faults: u32,
    never: u32,
    workload_share: u32,
    faults_share: u32,
}

impl Shares {
    fn of<'a>(functions: impl Iterator<Item = &'a FunctionCoverage> + Clone) -> Self {
        let sum = |count: fn(&FunctionCoverage) -> u32| functions.clone().map(count).fold(0, u32::saturating_add);
        let (workload, faults, never) =
            (sum(|function| function.workload), sum(|function| function.faults), sum(|function| function.never));
        let all = u64::from(workload) + u64::from(faults) + u64::from(never);
        let share = |count: u32| u32::try_from(u64::from(count) * 100 / all.max(1)).unwrap_or(0);
        Self { workload, faults, never, workload_share: share(workload), faults_share: share(faults) }
    }

    fn ran(&self) -> u32 {
        self.workload.saturating_add(self.faults)
    }
}

struct FileView<'a> {
    name: &'a str,
    shares: Shares,
    /// Those that ran.
    functions: Vec<FunctionView<'a>>,
    /// Names of the others.
    never: String,
}

struct FunctionView<'a> {
    name: &'a str,
    shares: Shares,
    /// Runs of lines of one kind, where the source is not at hand.
    runs: Vec<(&'static str, String)>,
    /// Lines with their text.
    source: Vec<(&'static str, &'a LineCoverage)>,
}

impl<'a> FileView<'a> {
    /// Makes it; `left` is the number of bytes that lines may still take.
    fn new(file: &'a FileCoverage, in_full: bool, left: &mut usize) -> Self {
        let shares = Shares::of(file.functions.iter());
        if !in_full {
            return Self { name: &file.file, shares, functions: Vec::new(), never: String::new() };
        }
        let (ran, never): (Vec<_>, Vec<_>) =
            file.functions.iter().partition(|function| function.workload + function.faults > 0);
        let never: Vec<_> = never.iter().map(|function| function.function.as_str()).collect();
        let functions = { ran }.into_iter().map(|function| FunctionView::new(function, left)).collect();
        Self { name: &file.file, shares, functions, never: never.join(" ") }
    }
}

impl<'a> FunctionView<'a> {
    fn new(function: &'a FunctionCoverage, left: &mut usize) -> Self {
        let shares = Shares::of(std::iter::once(function));
        let mut view = Self { name: &function.function, shares, runs: Vec::new(), source: Vec::new() };
        let text: usize = function.lines.iter().map(|line| 40 + line.text.as_ref().map_or(0, String::len)).sum();
        let has_text = function.lines.iter().any(|line| line.text.is_some());
        match left.checked_sub(text).filter(|rest| has_text && *rest >= LAST_LINES) {
            Some(rest) => {
                *left = rest;
                view.source = function.lines.iter().map(|line| (class(line.ran), line)).collect();
            }
            None => {
                if has_text {
                    *left = LAST_LINES - 1;
                }
                view.runs = runs(&function.lines);
            }
        }
        view
    }
}

fn class(ran: Option<Ran>) -> &'static str {
    match ran {
        Some(Ran::Workload) => "w",
        Some(Ran::Faults) => "f",
        Some(Ran::Never) => "n",
        None => "o",
    }
}

/// Joins neighbouring lines of one kind.
fn runs(lines: &[LineCoverage]) -> Vec<(&'static str, String)> {
    let same = |left: &LineCoverage, right: &LineCoverage| left.ran == right.ran;
    let name = |run: &[LineCoverage]| match run {
        [first, .., last] => format!("{}–{}", first.line, last.line),
        [line] => line.line.to_string(),
        [] => String::new(),
    };
    // Lines that have no place say nothing here.
    let lines: Vec<LineCoverage> = lines.iter().filter(|line| line.ran.is_some()).cloned().collect();
    lines.chunk_by(same).map(|run| (class(run.first().and_then(|line| line.ran)), name(run))).collect()
}
