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
    model::{Crash, FileCoverage, FunctionCoverage, LineCoverage, NamedFault, Ran, Standing, duration},
};

const STYLE: &str = include_str!("../../templates/report.css");
const SCRIPT: &str = include_str!("../../templates/report.js");

/// Most bytes of the lines of all functions: more make the page slow.
const MOST_LINES: usize = 2 << 20;

/// Writes the page.
///
/// # Errors
///
/// The template cannot be filled.
pub fn html(report: &Report) -> Result<String, FormatError> {
    let mut left = MOST_LINES;
    let kernels = report.coverage.iter().map(|kernel| KernelView {
        name: &kernel.kernel,
        by_faults_known: kernel.by_faults_known,
        files: kernel.files.iter().map(|file| FileView::new(file, &mut left)).collect(),
    });
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
        lines_cut: left == 0,
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
    /// True when lines are left out for their number.
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
}

struct FaultView<'a> {
    fault: &'a NamedFault,
    line: String,
    occasion: String,
}

impl<'a> CrashView<'a> {
    fn new(crash: &'a Crash) -> Self {
        let class = match crash.standing {
            Standing::Finding => "finding",
            Standing::Same => "same",
            Standing::Alarm => "alarm",
        };
        let view =
            |fault: &'a NamedFault| FaultView { fault, line: fault.line(), occasion: occasion(fault, &crash.steps) };
        let guilty = crash.guilty.as_ref().map_or_else(String::new, |guilty| {
            let line = guilty.line.map_or_else(String::new, |line| format!(":{line}"));
            guilty
                .file
                .as_ref()
                .map_or_else(|| guilty.function.clone(), |file| format!("{} ({file}{line})", guilty.function))
        });
        let kernels = crash.kernels.iter().map(|kernel| kernel.name.as_str());
        Self {
            crash,
            class,
            badge: crash.impact as u8,
            fault: crash.faults.last().map_or_else(|| "not known".to_owned(), NamedFault::line),
            faults: crash.faults.iter().map(view).collect(),
            found: crash.found(),
            found_s: crash.found_s.unwrap_or(-1.0),
            replays: crash.replays(),
            kernels: kernels.collect::<Vec<_>>().join(", "),
            guilty,
            plan: crash.plan.as_ref().map(fault_plan::FaultPlan::to_json).unwrap_or_default(),
        }
    }
}

struct KernelView<'a> {
    name: &'a str,
    by_faults_known: bool,
    files: Vec<FileView<'a>>,
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
}

struct FileView<'a> {
    name: &'a str,
    shares: Shares,
    functions: Vec<FunctionView<'a>>,
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
    fn new(file: &'a FileCoverage, left: &mut usize) -> Self {
        let functions = file.functions.iter().map(|function| FunctionView::new(function, left));
        Self { name: &file.file, functions: functions.collect(), shares: Shares::of(file.functions.iter()) }
    }
}

impl<'a> FunctionView<'a> {
    fn new(function: &'a FunctionCoverage, left: &mut usize) -> Self {
        let shares = Shares::of(std::iter::once(function));
        let mut view = Self { name: &function.function, shares, runs: Vec::new(), source: Vec::new() };
        // A function that never ran says nothing by its lines.
        if function.workload + function.faults == 0 {
            return view;
        }
        let has_text = function.lines.iter().any(|line| line.text.is_some());
        if has_text {
            view.source = function.lines.iter().map(|line| (class(line.ran), line)).collect();
        } else {
            view.runs = runs(&function.lines);
        }
        let text = |line: &LineCoverage| line.text.as_ref().map_or(0, String::len);
        let bytes = view.runs.len() * 32 + view.source.iter().map(|(_, line)| 40 + text(line)).sum::<usize>();
        match left.checked_sub(bytes) {
            Some(rest) => *left = rest,
            None => (*left, view.runs, view.source) = (0, Vec::new(), Vec::new()),
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
    lines.chunk_by(same).map(|run| (class(run.first().and_then(|line| line.ran)), name(run))).collect()
}
