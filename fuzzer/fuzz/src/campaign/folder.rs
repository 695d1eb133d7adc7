//! A campaign on disk. Every file is written whole or not at all, so that a campaign killed at any instant resumes
//! with everything it had reported.
//!
//! ```text
//! DIR/campaign.json      target, kernel, seed, totals
//! DIR/corpus/ID.json     fault plans (written by LibAFL's corpus)
//! DIR/sites.json         injection sites discovered so far
//! DIR/coverage/ID.txt    addresses that ran, by the kernel's build id
//! DIR/stats.jsonl        one line every few seconds
//! DIR/crashes/SLUG/      reproducer.json, report.txt, console.log, meta.json
//! ```

use std::{
    fmt::Write as _,
    fs::{self, File, TryLockError},
    io,
    path::{Path, PathBuf},
};

use fault_plan::{FaultPlan, REPRODUCER_VERSION, Reproducer};
use libafl::inputs::Input;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::{catalogue::Site, input::PlanInput};
use crate::{
    cache::{publish_directory, write_file},
    execution::Execution,
    report::title_slug,
};

/// The version of `campaign.json` and `meta.json`.
const FOLDER_VERSION: u32 = 1;

/// Why a campaign's folder cannot be used.
#[derive(Debug, Error)]
pub enum FolderError {
    /// The file system says no.
    #[error("cannot {verb} {path}")]
    Io {
        /// What was tried.
        verb: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A file of it makes no sense.
    #[error("{path} is damaged")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Line and reason.
        source: serde_json::Error,
    },
    /// It belongs to something else.
    #[error("{path} holds a campaign on {what} \"{found}\", not \"{wanted}\": give another --out")]
    Other {
        /// The folder.
        path: PathBuf,
        /// Target or kernel.
        what: &'static str,
        /// Its.
        found: String,
        /// The one asked for.
        wanted: String,
    },
    /// Another process works on it.
    #[error("{path} is in use by another fuzz: give another --out, or stop that one")]
    Busy {
        /// The folder.
        path: PathBuf,
    },
}

/// `campaign.json`: what the campaign is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CampaignFile {
    /// Format version.
    pub version: u32,
    /// The target.
    pub target: String,
    /// The kernel's name.
    pub kernel: String,
    /// Build id of the kernel that ran last.
    pub kernel_build_id: String,
    /// Version of this program.
    pub fuzz_version: String,
    /// Seed of the first start.
    pub seed: u64,
    /// Executions of all starts so far.
    pub executions: u64,
    /// Seconds of fuzzing of all starts so far.
    pub seconds: u64,
}

/// What is written of a crash.
#[derive(Debug)]
pub struct Crash<'a> {
    /// Its title.
    pub title: &'a str,
    /// The plan that caused it.
    pub plan: &'a FaultPlan,
    /// What happened.
    pub execution: &'a Execution,
}

/// `meta.json` of a crash.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CrashMeta {
    /// Format version.
    pub version: u32,
    /// The crash's title.
    pub title: String,
    /// The kind of report.
    pub kind: String,
    /// The faults that fired, in that order.
    pub fired: Vec<CrashFault>,
    /// The functions on the report's call trace, innermost first.
    pub stack: Vec<String>,
    /// Fresh guests in which the reproducer was tried.
    pub tried: u32,
    /// Those in which the same title came again.
    pub reproduced: u32,
}

/// A fault that fired before a crash.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CrashFault {
    /// Position in the plan, from 1.
    pub fault: usize,
    /// The injectable function.
    pub function: String,
    /// Position of the call among all calls of the execution, from 1.
    pub sequence: u32,
    /// The callers, innermost first.
    pub call_path: Vec<String>,
}

/// A campaign's folder, locked for this process.
#[derive(Debug)]
pub struct CampaignFolder {
    path: PathBuf,
    kernel: String,
    build_id: String,
    _lock: File,
}

fn failed<'a>(verb: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> FolderError + 'a {
    move |source| FolderError::Io { verb, path: path.to_owned(), source }
}

impl CampaignFolder {
    /// Opens the folder, making it if need be, and locks it. Returns it with what an earlier start left.
    ///
    /// # Errors
    ///
    /// It cannot be written, is in use, or belongs to another target or kernel.
    pub fn open(
        path: &Path,
        target: &str,
        kernel: &str,
        build_id: &str,
    ) -> Result<(Self, Option<CampaignFile>), FolderError> {
        for folder in [path.to_owned(), path.join("corpus"), path.join("crashes"), path.join("coverage")] {
            fs::create_dir_all(&folder).map_err(failed("make", &folder))?;
        }
        let lock_path = path.join(".lock");
        let lock = File::create(&lock_path).map_err(failed("write", &lock_path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(FolderError::Busy { path: path.to_owned() }),
            Err(TryLockError::Error(source)) => return Err(failed("lock", &lock_path)(source)),
        }
        let folder =
            Self { path: path.to_owned(), kernel: kernel.to_owned(), build_id: build_id.to_owned(), _lock: lock };
        let earlier: Option<CampaignFile> = folder.read("campaign.json")?;
        if let Some(file) = &earlier {
            for (what, found, wanted) in [("target", &file.target, target), ("kernel", &file.kernel, kernel)] {
                if found != wanted {
                    let (found, wanted) = (found.clone(), wanted.to_owned());
                    return Err(FolderError::Other { path: path.to_owned(), what, found, wanted });
                }
            }
        }
        Ok((folder, earlier))
    }

    /// The folder's path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The folder of the fault plans.
    #[must_use]
    pub fn corpus(&self) -> PathBuf {
        self.path.join("corpus")
    }

    fn read<T: for<'de> Deserialize<'de>>(&self, name: &str) -> Result<Option<T>, FolderError> {
        let path = self.path.join(name);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed("read", &path)(error)),
        };
        serde_json::from_str(&text).map(Some).map_err(|source| FolderError::Damaged { path, source })
    }

    fn write(&self, path: &Path, text: &str) -> Result<(), FolderError> {
        write_file(path, text.as_bytes()).map_err(failed("write", path))
    }

    fn write_json<T: Serialize>(&self, path: &Path, value: &T) -> Result<(), FolderError> {
        self.write(path, &json(path, value)?)
    }

    /// Whether the corpus has `plan`.
    #[must_use]
    pub fn has_plan(&self, plan: &PlanInput) -> bool {
        self.corpus().join(plan.generate_name(None)).is_file()
    }

    /// Writes `campaign.json`.
    ///
    /// # Errors
    ///
    /// The file system says no.
    pub fn write_campaign(&self, target: &str, seed: u64, executions: u64, seconds: u64) -> Result<(), FolderError> {
        let file = CampaignFile {
            version: FOLDER_VERSION,
            target: target.to_owned(),
            kernel: self.kernel.clone(),
            kernel_build_id: self.build_id.clone(),
            fuzz_version: env!("CARGO_PKG_VERSION").to_owned(),
            seed,
            executions,
            seconds,
        };
        self.write_json(&self.path.join("campaign.json"), &file)
    }

    /// Writes `sites.json`.
    ///
    /// # Errors
    ///
    /// The file system says no.
    pub fn write_sites(&self, sites: &[Site]) -> Result<(), FolderError> {
        self.write_json(&self.path.join("sites.json"), &sites)
    }

    /// The sites that earlier starts discovered.
    ///
    /// # Errors
    ///
    /// The file cannot be read or is damaged.
    pub fn read_sites(&self) -> Result<Vec<Site>, FolderError> {
        Ok(self.read("sites.json")?.unwrap_or_default())
    }

    /// Writes the addresses covered so far, one in hexadecimal on each line.
    ///
    /// # Errors
    ///
    /// The file system says no.
    pub fn write_coverage(&self, covered: impl Iterator<Item = u64>) -> Result<(), FolderError> {
        let mut text = String::new();
        for pc in covered {
            let _ = writeln!(text, "{pc:x}");
        }
        self.write(&self.coverage_path(), &text)
    }

    /// The addresses that earlier starts covered on this very kernel.
    ///
    /// # Errors
    ///
    /// The file cannot be read; lines that are no address are left out.
    pub fn read_coverage(&self) -> Result<Vec<u64>, FolderError> {
        let path = self.coverage_path();
        match fs::read_to_string(&path) {
            Ok(text) => Ok(text.lines().filter_map(|line| u64::from_str_radix(line, 16).ok()).collect()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(failed("read", &path)(error)),
        }
    }

    fn coverage_path(&self) -> PathBuf {
        let plain: String = self.build_id.chars().filter(char::is_ascii_alphanumeric).collect();
        self.path.join("coverage").join(format!("{plain}.txt"))
    }

    fn crash_path(&self, title: &str) -> PathBuf {
        self.path.join("crashes").join(title_slug(title))
    }

    /// Writes a crash's folder, whole.
    ///
    /// # Errors
    ///
    /// The file system says no.
    pub fn write_crash(&self, crash: &Crash<'_>) -> Result<(), FolderError> {
        let path = self.crash_path(crash.title);
        let reproducer = Reproducer {
            reproducer_version: REPRODUCER_VERSION,
            title: crash.title.to_owned(),
            kernel: self.kernel.clone(),
            kernel_build_id: self.build_id.clone(),
            plan: crash.plan.clone(),
        };
        let report = crash.execution.outcome.report();
        let meta = CrashMeta {
            version: FOLDER_VERSION,
            title: crash.title.to_owned(),
            kind: report.map_or_else(String::new, |report| report.kind.to_string()),
            fired: crash.execution.fired.iter().map(|fired| crash_fault(crash.plan, fired)).collect(),
            stack: report.map_or_else(Vec::new, |report| report.stack()),
            tried: 0,
            reproduced: 0,
        };
        let prepared = self.path.join("crashes").join(format!(".{}", title_slug(crash.title)));
        fs::create_dir_all(&prepared).map_err(failed("make", &prepared))?;
        self.write(&prepared.join("reproducer.json"), &reproducer.to_json())?;
        self.write(&prepared.join("report.txt"), report.map_or("", |report| &report.text))?;
        self.write(&prepared.join("console.log"), &crash.execution.console)?;
        self.write_json(&prepared.join("meta.json"), &meta)?;
        publish_directory(&prepared, &path).map_err(failed("write", &path))
    }

    /// Notes in a crash's `meta.json` how often its reproducer made it again.
    ///
    /// # Errors
    ///
    /// The file is gone or damaged, or the file system says no.
    pub fn note_tries(&self, title: &str, tried: u32, reproduced: u32) -> Result<(), FolderError> {
        let path = self.crash_path(title).join("meta.json");
        let mut meta = read_meta(&path)?;
        meta.tried = tried;
        meta.reproduced = reproduced;
        self.write_json(&path, &meta)
    }

    /// The crashes that are there, each with its plan.
    ///
    /// # Errors
    ///
    /// One of them is damaged.
    pub fn crashes(&self) -> Result<Vec<(CrashMeta, FaultPlan)>, FolderError> {
        let path = self.path.join("crashes");
        let mut crashes = Vec::new();
        for entry in fs::read_dir(&path).map_err(failed("read", &path))? {
            let folder = entry.map_err(failed("read", &path))?.path();
            let unfinished = entry_name(&folder).starts_with('.');
            if unfinished || !folder.join("meta.json").is_file() {
                continue;
            }
            let meta = read_meta(&folder.join("meta.json"))?;
            let file = folder.join("reproducer.json");
            let text = fs::read_to_string(&file).map_err(failed("read", &file))?;
            let reproducer: Reproducer =
                serde_json::from_str(&text).map_err(|source| FolderError::Damaged { path: file, source })?;
            crashes.push((meta, reproducer.plan));
        }
        crashes.sort_by(|a, b| a.0.title.cmp(&b.0.title));
        Ok(crashes)
    }
}

fn entry_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn crash_fault(plan: &FaultPlan, fired: &crate::execution::Fired) -> CrashFault {
    CrashFault {
        fault: fired.fault + 1,
        function: plan.faults.get(fired.fault).map_or_else(String::new, |fault| fault.function.clone()),
        sequence: fired.sequence,
        call_path: fired.call_path.clone(),
    }
}

fn read_meta(path: &Path) -> Result<CrashMeta, FolderError> {
    let text = fs::read_to_string(path).map_err(failed("read", path))?;
    serde_json::from_str(&text).map_err(|source| FolderError::Damaged { path: path.to_owned(), source })
}

fn json<T: Serialize>(path: &Path, value: &T) -> Result<String, FolderError> {
    let mut text =
        serde_json::to_string_pretty(value).map_err(|source| FolderError::Damaged { path: path.to_owned(), source })?;
    text.push('\n');
    Ok(text)
}
