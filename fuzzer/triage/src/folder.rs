//! Reading a campaign's folder.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::{Path, PathBuf},
};

use fault_plan::{FaultPlan, Reproducer, one_line};
use serde::de::DeserializeOwned;
use thiserror::Error;

use crate::{
    faults,
    kernels::{Kernels, KnownKernel},
    meta::{CampaignJson, MetaJson, MinimizedJson, PointJson, StatsJson},
    model::{Campaign, Crash, CrashKernel, Growth, MatrixCount, Minimized, REPORT_VERSION, Report, Standalone},
    rank::{self, Evidence},
};

/// Most bytes of one file that are read: a guest decides how long some of them are.
const MOST_BYTES: u64 = 64 << 20;
/// Most bytes of a crash's report that are shown.
const MOST_REPORT: usize = 64 << 10;
/// Most points of time that are kept.
const MOST_GROWTH: usize = 400;

/// Why there is no report.
#[derive(Debug, Error)]
pub enum ReportError {
    /// There is no campaign.
    #[error("{path}: no campaign is there: it has neither campaign.json nor crashes")]
    NoCampaign {
        /// The folder.
        path: PathBuf,
    },
}

/// What is read of one crash.
struct Read {
    folder: PathBuf,
    meta: MetaJson,
    reproducer: Option<Reproducer>,
    report: String,
    gaps: Vec<String>,
}

/// Reads the campaign in the folder `path`, which may be running, and ranks its crashes.
///
/// # Errors
///
/// No campaign is there. What else is missing or damaged becomes a gap of the report.
pub fn read(path: &Path, kernels: &dyn Kernels) -> Result<Report, ReportError> {
    if !path.join("campaign.json").exists() && !path.join("crashes").is_dir() {
        return Err(ReportError::NoCampaign { path: path.to_owned() });
    }
    let mut gaps = Vec::new();
    let campaign: CampaignJson = json(&path.join("campaign.json")).unwrap_or_else(|gap| {
        gaps.push(gap);
        CampaignJson::default()
    });
    let Matrices { counts: matrices, seen, telling_callers } = matrices(&path.join("matrix"), &mut gaps);
    let build_ids = build_ids(&path.join("coverage"), &mut gaps, kernels);
    let on = |name: &String| crash_kernel(name, build_ids.get(name).map_or("", String::as_str), kernels);
    let seen = { seen }.into_iter().map(|(key, names)| (key, names.iter().map(on).collect())).collect();
    let growth = growth(&path.join("stats.jsonl"), &mut gaps);
    let mut crashes = Vec::new();
    for folder in folders(&path.join("crashes"), &mut gaps) {
        let read = read_crash(&folder);
        crashes.push(crash(read, path, &seen, kernels));
    }
    rank::sort(&mut crashes);
    let campaign = Campaign {
        folder: path.to_owned(),
        target: campaign.target,
        kernel: campaign.kernel,
        kernel_build_id: campaign.kernel_build_id,
        fuzz_version: campaign.fuzz_version,
        executions: campaign.executions.max(growth.last().map_or(0, |last| last.executions)),
        seconds: campaign.seconds,
    };
    let coverage = Vec::new();
    Ok(Report { version: REPORT_VERSION, campaign, gaps, crashes, matrices, growth, coverage, telling_callers })
}

/// Reads a text file of bounded size; bytes that are no text are replaced.
fn text(path: &Path) -> Result<String, String> {
    let gap = |reason: String| format!("{}: {reason}", path.display());
    let about = fs::metadata(path).map_err(|error| gap(error.to_string()))?;
    if about.len() > MOST_BYTES {
        return Err(gap(format!("{} bytes, more than {MOST_BYTES} are not read", about.len())));
    }
    let bytes = fs::read(path).map_err(|error| gap(error.to_string()))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn json<T: DeserializeOwned>(path: &Path) -> Result<T, String> {
    serde_json::from_str(&text(path)?).map_err(|error| format!("{}: damaged: {error}", path.display()))
}

/// Reads the lines of a journal; one that is not whole, as the last one of a running campaign may
/// be, is left out.
fn lines<T: DeserializeOwned>(path: &Path, gaps: &mut Vec<String>) -> Vec<T> {
    let text = text(path).unwrap_or_else(|gap| {
        gaps.push(gap);
        String::new()
    });
    let count = text.lines().count();
    let read: Vec<T> = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let whole = if text.ends_with('\n') { count } else { count.saturating_sub(1) };
    if read.len() < whole {
        gaps.push(format!("{}: {} of {count} lines are damaged", path.display(), whole - read.len()));
    }
    read
}

/// Gives the folders in `path` that are not hidden, in the order of their names.
fn folders(path: &Path, gaps: &mut Vec<String>) -> Vec<PathBuf> {
    let mut found = entries(path, gaps);
    found.retain(|entry| entry.is_dir() && !name(entry).starts_with('.'));
    found
}

fn entries(path: &Path, gaps: &mut Vec<String>) -> Vec<PathBuf> {
    match fs::read_dir(path).and_then(|entries| entries.map(|entry| entry.map(|entry| entry.path())).collect()) {
        Ok(found) => {
            let mut found: Vec<PathBuf> = found;
            found.sort();
            found
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(error) => {
            gaps.push(format!("{}: {error}", path.display()));
            Vec::new()
        }
    }
}

fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// Kernels on which each key was seen.
type Seen = BTreeMap<String, BTreeSet<String>>;

/// What the matrices say.
#[derive(Default)]
struct Matrices {
    counts: Vec<MatrixCount>,
    seen: Seen,
    telling_callers: BTreeMap<String, u64>,
}

fn matrices(path: &Path, gaps: &mut Vec<String>) -> Matrices {
    let mut all = Matrices::default();
    for file in entries(path, gaps) {
        let Some(kernel) = name(&file).strip_suffix(".jsonl").filter(|name| !name.starts_with('.')).map(str::to_owned)
        else {
            continue;
        };
        // Of two lines of a point the later one counts.
        let points: BTreeMap<_, _> = lines::<PointJson>(&file, gaps)
            .into_iter()
            .map(|point| ((point.function, point.call_path, point.step, point.scope), point.cells))
            .collect();
        let mut count = MatrixCount { kernel, points: points.len() as u64, ..MatrixCount::default() };
        for (_, call_path, ..) in points.keys() {
            if let Some(caller) = kernel_report::telling_caller(call_path) {
                *all.telling_callers.entry(caller.to_owned()).or_default() += 1;
            }
        }
        for cell in points.into_values().flatten() {
            count.cells += 1;
            count.cells_failed += u64::from(cell.faults.is_some());
            count.cells_with_findings += u64::from(!cell.findings.is_empty());
            for key in cell.findings {
                all.seen.entry(key).or_default().insert(count.kernel.clone());
            }
        }
        all.counts.push(count);
    }
    all
}

/// Reads the numbers over time. The seconds of a line are those of one start: a start that follows
/// another one goes on where that ended.
fn growth(path: &Path, gaps: &mut Vec<String>) -> Vec<Growth> {
    let (mut before, mut last, mut all) = (0.0, 0.0, Vec::new());
    for line in lines::<StatsJson>(path, gaps) {
        let seconds = if line.seconds.is_finite() { line.seconds.max(0.0) } else { last };
        if seconds < last {
            before += last;
        }
        last = seconds;
        let StatsJson { executions, coverage, points, points_failed, crashes, .. } = line;
        all.push(Growth { seconds: before + seconds, executions, coverage, points, points_failed, crashes });
    }
    let every = all.len().div_ceil(MOST_GROWTH).max(1);
    let end = all.len().saturating_sub(1);
    { all }.into_iter().enumerate().filter(|(at, _)| at % every == 0 || *at == end).map(|(_, growth)| growth).collect()
}

fn read_crash(folder: &Path) -> Read {
    let mut gaps = Vec::new();
    let mut gap = |gap: String| gaps.push(gap.replace(&format!("{}/", folder.display()), ""));
    let meta = json(&folder.join("meta.json")).unwrap_or_else(|reason| {
        gap(reason);
        MetaJson::default()
    });
    let reproducer = text(&folder.join("reproducer.json"))
        .and_then(|text| Reproducer::from_json(&text).map_err(|error| format!("reproducer.json: damaged: {error}")));
    let reproducer = reproducer.map_err(&mut gap).ok();
    let report = match text(&folder.join("report.txt")) {
        Ok(report) => report,
        // Another host tells no report.
        Err(_) if meta.origin.is_some() => String::new(),
        Err(reason) => {
            gap(reason);
            String::new()
        }
    };
    Read { folder: folder.to_owned(), meta, reproducer, report, gaps }
}

/// Makes a crash of what was read.
fn crash(read: Read, campaign: &Path, seen: &BTreeMap<String, Vec<CrashKernel>>, kernels: &dyn Kernels) -> Crash {
    let Read { folder, mut meta, reproducer, report, gaps } = read;
    let own = reproducer.as_ref().map_or("", Reproducer::identity);
    let first = |known: &[&str]| {
        let known = known.iter().find(|text| !text.is_empty()).map(|text| (*text).to_owned());
        one_line(&known.unwrap_or_else(|| name(&folder)))
    };
    let key = first(&[&meta.key, own, &meta.title]);
    let title = first(&[&meta.title, reproducer.as_ref().map_or("", |reproducer| &reproducer.title), &key]);
    let build_id = reproducer.as_ref().map_or("", |reproducer| &reproducer.kernel_build_id);
    let plan = reproducer.as_ref().map(|reproducer| reproducer.plan.clone());
    if let Some(plan) = &plan {
        faults::of_one_round(&mut meta.fired, plan);
    }
    let found = found_plan(&folder);
    let plans: Vec<&FaultPlan> = plan.iter().chain(found.as_ref()).collect();
    let faults: Vec<_> = meta.fired.iter().map(|fired| faults::named(fired, &plans, build_id, kernels)).collect();
    let evidence = Evidence {
        kind: &meta.kind,
        key: &key,
        title: &title,
        report: &report,
        stack: &meta.stack,
        fired: &meta.fired,
        faults: &faults,
        same_as: meta.same_as.as_deref(),
        tried: (meta.reproduced, meta.tried),
    };
    let judged = rank::judge(&evidence);
    Crash {
        rank: 0,
        standing: judged.standing,
        reasons: judged.reasons,
        impact: judged.impact,
        chance: judged.chance,
        guilty: faults::guilty(&key, &report, &meta.stack, build_id, kernels),
        plan_faults: plan.as_ref().map_or(0, FaultPlan::count),
        plan_rounds: plan.as_ref().map_or(0, |plan| plan.earlier.len() + 1),
        minimized: meta.minimized.map(|MinimizedJson { executions, faults }| Minimized { executions, faults }),
        program: standalone(&folder, &meta.repro),
        kernels: crash_kernels(reproducer.as_ref(), seen.get(&key).map_or(&[], Vec::as_slice), kernels),
        steps: reproducer.as_ref().map(faults::steps).unwrap_or_default(),
        disk: reproducer.as_ref().and_then(faults::disk),
        folder: folder.strip_prefix(campaign).unwrap_or(&folder).to_owned(),
        report: kernels.decode(build_id, &report).map_or_else(|| cut(&report), |decoded| cut(&decoded)),
        #[expect(clippy::cast_precision_loss, reason = "milliseconds stay below 2^52")]
        found_s: meta.found_ms.map(|found| found as f64 / 1000.0),
        tried: meta.tried,
        reproduced: meta.reproduced,
        exact: meta.exact,
        same_as: meta.same_as,
        origin: meta.origin,
        kind: meta.kind,
        key,
        title,
        faults,
        plan,
        gaps,
    }
}

/// Reads the plan that a crash was found with, where a smaller one took its place.
fn found_plan(folder: &Path) -> Option<FaultPlan> {
    let text = text(&folder.join("found.json")).ok()?;
    let reproducer = Reproducer::from_json(&text).map(|reproducer| reproducer.plan);
    reproducer.or_else(|_| FaultPlan::from_json(&text)).ok()
}

fn cut(report: &str) -> String {
    let end = report.floor_char_boundary(MOST_REPORT);
    let more = if end < report.len() { "\n[cut off here]\n" } else { "" };
    format!("{}{more}", &report[..end])
}

/// Gives the C program or the script of a crash, by its verdict; where neither made the crash, the
/// one that was tried last. A file that no verdict says made the crash is of another plan, or does
/// not work.
fn standalone(folder: &Path, verdicts: &BTreeMap<String, serde_json::Value>) -> Option<Standalone> {
    let tried = |(way, file): (&str, &str)| {
        let verdict = verdicts.get(way)?;
        let verdict = verdict.as_str().map_or_else(|| verdict.to_string(), str::to_owned);
        let times = verdict.split_once(" of ").and_then(|(times, _)| times.parse::<u32>().ok());
        let text = times.filter(|times| *times > 0).and_then(|_| text(&folder.join(file)).ok());
        Some(Standalone { file: file.to_owned(), verdict, text })
    };
    let ways: Vec<Standalone> = [("c", "repro.c"), ("bt", "repro.bt")].into_iter().filter_map(tried).collect();
    ways.iter().find(|way| way.text.is_some()).or_else(|| ways.last()).cloned()
}

fn crash_kernels(reproducer: Option<&Reproducer>, seen: &[CrashKernel], kernels: &dyn Kernels) -> Vec<CrashKernel> {
    let own = reproducer.map(|reproducer| crash_kernel(&reproducer.kernel, &reproducer.kernel_build_id, kernels));
    let mut found: Vec<CrashKernel> = own.into_iter().collect();
    found.extend(seen.iter().filter(|kernel| reproducer.is_none_or(|own| own.kernel != kernel.name)).cloned());
    found
}

fn crash_kernel(name: &str, build_id: &str, kernels: &dyn Kernels) -> CrashKernel {
    let (name, build_id, known) = (name.to_owned(), build_id.to_owned(), kernels.known(build_id));
    let Some(KnownKernel { release, source, compiler, config, .. }) = known else {
        return CrashKernel { name, build_id, ..CrashKernel::default() };
    };
    let (release, source, compiler, config) = (Some(release), Some(source), Some(compiler), Some(config));
    CrashKernel { name, build_id, release, source, compiler, config }
}

/// Gives the build ids of the campaign's kernels, by name: its files of coverage are called so.
fn build_ids(coverage: &Path, gaps: &mut Vec<String>, kernels: &dyn Kernels) -> BTreeMap<String, String> {
    let ids = entries(coverage, gaps).into_iter().filter_map(|file| Some(name(&file).strip_suffix(".txt")?.to_owned()));
    { ids }.filter_map(|id| Some((kernels.known(&id)?.name, id))).collect()
}

#[cfg(test)]
mod tests;
