//! The report of a campaign: what all its forms are written from. As JSON it is the form `json`.

mod fault;

use std::{collections::BTreeMap, fmt, path::PathBuf};

use fault_plan::FaultPlan;
use serde::Serialize;

pub use self::fault::{Caller, NamedFault};
use crate::{chance::Chance, impact::Impact};

/// The version of the report's JSON.
pub const REPORT_VERSION: u32 = 1;

/// The report of a campaign.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Version of this form, [`REPORT_VERSION`].
    pub version: u32,
    /// The campaign itself.
    pub campaign: Campaign,
    /// Defects of the campaign's folder: what is missing or damaged, one sentence each.
    pub gaps: Vec<String>,
    /// The crashes, the most urgent first.
    pub crashes: Vec<Crash>,
    /// The matrix of each kernel, counted.
    pub matrices: Vec<MatrixCount>,
    /// The campaign's numbers over time.
    pub growth: Vec<Growth>,
    /// Coverage of each kernel that the cache has.
    pub coverage: Vec<KernelCoverage>,
    /// Points by the caller that says most: they tell which code the target is about.
    #[serde(skip)]
    pub telling_callers: BTreeMap<String, u64>,
}

/// The identity of a campaign and its totals. Nothing of it is known where `campaign.json` is gone.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Campaign {
    /// Its folder.
    pub folder: PathBuf,
    /// The target.
    pub target: String,
    /// Name of the kernel that judges.
    pub kernel: String,
    /// Build id of that kernel.
    pub kernel_build_id: String,
    /// Version of the program that made the folder.
    pub fuzz_version: String,
    /// Executions of all starts.
    pub executions: u64,
    /// Seconds of fuzzing of all starts.
    pub seconds: u64,
}

/// One crash.
#[derive(Clone, Debug, Serialize)]
pub struct Crash {
    /// Its place among all, from 1.
    pub rank: usize,
    /// Standing among the others.
    pub standing: Standing,
    /// The reason of its rank, one sentence each.
    pub reasons: Vec<String>,
    /// The damage that it does.
    pub impact: Impact,
    /// Likelihood of its faults, that of the least likely one.
    pub chance: Chance,
    /// Identity.
    pub key: String,
    /// One line for people.
    pub title: String,
    /// The kind of finding.
    pub kind: String,
    /// Folder of the crash, within the campaign's.
    pub folder: PathBuf,
    /// The faults that fired, in that order; of a round that is repeated, those of one.
    pub faults: Vec<NamedFault>,
    /// Faults that the reproducer's plan takes; of a round that is repeated, those of one.
    pub plan_faults: usize,
    /// Rounds that the reproducer's plan has.
    pub plan_rounds: usize,
    /// The reproducer's plan.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub plan: Option<FaultPlan>,
    /// Work of the minimiser, where it ran.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub minimized: Option<Minimized>,
    /// The C program or script that makes it without the fuzzer, where one was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub program: Option<Standalone>,
    /// The place that the report blames.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub guilty: Option<Guilty>,
    /// Seconds of fuzzing until it was found.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub found_s: Option<f64>,
    /// Fresh guests in which the reproducer was tried.
    pub tried: u32,
    /// Those in which the key came again.
    pub reproduced: u32,
    /// True when it came again in a guest that repeats exactly.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exact: Option<bool>,
    /// Kernels on which the key was seen; the reproducer's comes first.
    pub kernels: Vec<CrashKernel>,
    /// Key of the same crash on the kernel that judges, or whenever it is tried.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub same_as: Option<String>,
    /// The other host that found it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub origin: Option<String>,
    /// The steps of the target's workload, a word each.
    pub steps: Vec<String>,
    /// The command that makes its disk, the disk's size in MiB, mount options, and the steps that
    /// were done on it before; none of a target without one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disk: Option<String>,
    /// The kernel's report or the oracle's, decoded where the cache has the kernel.
    pub report: String,
    /// Defects of the crash's folder.
    pub gaps: Vec<String>,
}

/// Standing of a crash among the others. The later ones are listed later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Standing {
    /// A finding.
    Finding,
    /// Another crash again, on another kernel or with more faults.
    Same,
    /// An alarm by design: the kernel says that the injected error came.
    Alarm,
}

/// Work of the minimiser on a plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Minimized {
    /// Executions that it took.
    pub executions: u64,
    /// Faults of the plan before and after.
    pub faults: [u64; 2],
}

/// A reproducer that needs no fuzzer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Standalone {
    /// Its file, `repro.c` or `repro.bt`.
    pub file: String,
    /// Outcome of its check, or why there is none.
    pub verdict: String,
    /// Its text, where it made the crash.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
}

/// The place that a report blames.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Guilty {
    /// The function.
    pub function: String,
    /// File of the kernel's source.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// Line in the file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<u32>,
}

impl fmt::Display for Guilty {
    /// Writes `function (file:line)`, as far as it is known.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { function, file, line } = self;
        let line = line.map_or_else(String::new, |line| format!(":{line}"));
        match file {
            Some(file) => write!(f, "{function} ({file}{line})"),
            None => f.write_str(function),
        }
    }
}

/// A kernel on which a crash was seen.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct CrashKernel {
    /// Its name.
    pub name: String,
    /// Its build id, where that is known.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub build_id: String,
    /// Its release, as `uname -r` says it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub release: Option<String>,
    /// The source that it was built from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// The compiler.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub compiler: Option<String>,
    /// Its configuration, a file in the cache.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub config: Option<PathBuf>,
}

/// The matrix of a kernel, counted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct MatrixCount {
    /// The kernel.
    pub kernel: String,
    /// Points found.
    pub points: u64,
    /// Points times errors.
    pub cells: u64,
    /// Those that were failed.
    pub cells_failed: u64,
    /// Those whose failure was the last one before a finding.
    pub cells_with_findings: u64,
}

/// The campaign's numbers at one time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Growth {
    /// Seconds of fuzzing, all starts together.
    pub seconds: f64,
    /// Executions.
    pub executions: u64,
    /// Places covered.
    pub coverage: u64,
    /// Points found.
    pub points: u64,
    /// Points failed.
    pub points_failed: u64,
    /// Crashes.
    pub crashes: u64,
}

/// Coverage of one kernel.
#[derive(Clone, Debug, Default, Serialize)]
pub struct KernelCoverage {
    /// The kernel.
    pub kernel: String,
    /// Its build id.
    pub build_id: String,
    /// True when it is known what the workload runs without faults.
    pub by_faults_known: bool,
    /// The files of the kernel's source that matter for the target.
    pub files: Vec<FileCoverage>,
}

/// Coverage of the functions of one file.
#[derive(Clone, Debug, Default, Serialize)]
pub struct FileCoverage {
    /// The file.
    pub file: String,
    /// Its functions, in the order of the source.
    pub functions: Vec<FunctionCoverage>,
}

/// Coverage of one function: numbers of places that can report coverage.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct FunctionCoverage {
    /// The function.
    pub function: String,
    /// Places that the workload runs by itself.
    pub workload: u32,
    /// Places that ran with faults only.
    pub faults: u32,
    /// Places that never ran.
    pub never: u32,
    /// Lines of its file that have places, in order.
    pub lines: Vec<LineCoverage>,
}

/// Coverage of a line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LineCoverage {
    /// The line.
    pub line: u32,
    /// Who ran it; nobody knows of a line without a place.
    pub ran: Option<Ran>,
    /// Its text, where the kernel's source is at hand.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
}

/// Executions that ran a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ran {
    /// None.
    Never,
    /// Executions with faults only.
    Faults,
    /// The workload without faults.
    Workload,
}

impl Crash {
    /// Gives the last fault, after which the crash came, in one line.
    #[must_use]
    pub fn last_fault(&self) -> String {
        self.faults.last().map_or_else(|| "not known".to_owned(), NamedFault::line)
    }

    /// Gives the last fault, and how many fired where it was not the only one.
    #[must_use]
    pub fn fault_line(&self) -> String {
        match self.faults.len() {
            0 | 1 => self.last_fault(),
            fired => format!("{} ({fired} faults fired)", self.last_fault()),
        }
    }

    /// Says whether the rounds of the reproducer's plan are one, run several times.
    #[must_use]
    pub fn is_repeated(&self) -> bool {
        self.plan.as_ref().is_some_and(FaultPlan::is_repeated)
    }

    /// Gives the size of the reproducer's plan.
    #[must_use]
    pub fn plan_words(&self) -> String {
        let each = if self.is_repeated() { "each of " } else { "" };
        format!("{} faults in {each}{} rounds", self.plan_faults, self.plan_rounds)
    }

    /// Gives how often the key came again, `3/3`; nothing where nobody tried.
    #[must_use]
    pub fn replays(&self) -> String {
        if self.tried == 0 { "not tried".to_owned() } else { format!("{}/{}", self.reproduced, self.tried) }
    }

    /// Gives the time of fuzzing until it was found, for people.
    #[must_use]
    pub fn found(&self) -> String {
        self.found_s.map_or_else(|| "not known".to_owned(), duration)
    }
}

/// Gives seconds as people read them, such as `3 min 20 s`.
#[must_use]
pub fn duration(seconds: f64) -> String {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is bounded just before")]
    let whole = seconds.clamp(0.0, 1e12) as u64;
    match (whole / 3600, whole / 60 % 60, whole % 60) {
        (0, 0, _) => format!("{seconds:.1} s"),
        (0, minutes, seconds) => format!("{minutes} min {seconds} s"),
        (hours, minutes, _) => format!("{hours} h {minutes} min"),
    }
}
