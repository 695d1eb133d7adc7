//! Crashes on disk: each a folder named by its key.

use std::{
    fs,
    path::{Path, PathBuf},
};

use fault_plan::{FaultPlan, Reproducer, Round, Scope, one_line};
use serde::{Deserialize, Serialize};

use execution::{Finding, FindingKind, FrameReturn};

use super::evidence::{Cause, CrashNews};
use crate::folder::{
    CampaignFolder, FOLDER_VERSION, FolderError, entry_name, failed, read_if_there, write, write_json,
};
use files::{cache::publish_directory, cache::replace_directory};
use kernel_report::slug;

/// The file with what is known of a crash, [`CrashMeta`].
pub const META: &str = "meta.json";

/// The file with a crash's reproducer.
pub const REPRODUCER: &str = "reproducer.json";

/// The file with what the oracle saw: the kernel's report, or other evidence.
const REPORT: &str = "report.txt";

/// The file with the C program that makes a crash without the fuzzer, where there is one.
pub const PROGRAM: &str = "repro.c";

/// The module that [`PROGRAM`] needs where it fails functions that the kernel's list lacks.
pub const SLOTS: &str = "slots.c";
/// The file with the script by which bpftrace makes a crash, where there is one. It has [`STEPS`]
/// beside it.
pub const SCRIPT: &str = "repro.bt";

/// The file with the C program whose calls the script has fail.
pub const STEPS: &str = "steps.c";

/// The file with all rounds of the guest that a crash was found in, as a plan that can be replayed.
const HISTORY: &str = "history.json";

/// The file with the reproducer as it was found, where a simpler one has taken its place.
const FOUND: &str = "found.json";

/// `meta.json` of a crash.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CrashMeta {
    /// Format version.
    pub version: u32,
    /// The crash's key. In a folder of an older version the title stands for it.
    #[serde(default)]
    pub key: String,
    /// The crash's title.
    pub title: String,
    /// The kind of finding.
    pub kind: FindingKind,
    /// The faults that fired, in that order.
    pub fired: Vec<CrashFault>,
    /// The functions on the report's call trace, innermost first.
    pub stack: Vec<String>,
    /// Milliseconds of the campaign's fuzzing, all starts together, until this plan was found. Not
    /// there when another host found it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub found_ms: Option<u64>,
    /// Fresh guests in which the reproducer was tried.
    pub tried: u32,
    /// Those in which a finding of the same key came again.
    pub reproduced: u32,
    /// True when the key came again in a guest that counts instructions: then it does every time
    /// (`fuzz replay --exact`). Not there when that was not tried.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exact: Option<bool>,
    /// What minimising the plan has come to. Not there when that was not done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub minimized: Option<MinimizedMeta>,
    /// The key that this crash has on the kernel that judges, if the same plan crashed in the same
    /// function there, or that its plan has whenever it is tried. Not there when none is known or
    /// this is that key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub same_as: Option<String>,
    /// Reproducers that need no fuzzer. Not there when none was made yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repro: Option<CrashRepro>,
    /// The other host that found it, from which there is no report. Not there when this one did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<String>,
}

/// The outcome of minimising a crash's plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MinimizedMeta {
    /// Executions that it took.
    pub executions: u32,
    /// Number of faults of the plan as found, and of the reproducer.
    pub faults: [usize; 2],
}

/// Reproducers of a crash that need no fuzzer: of each in how many guests it made the crash, such
/// as `3 of 3`, or why there is none.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CrashRepro {
    /// The C program, `repro.c`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub c: Option<String>,
    /// The script for bpftrace, `repro.bt`. Not there where the C program was made, and where
    /// neither can be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bt: Option<String>,
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
    /// Step of the workload that the call was in, from 1. Not there in folders of older versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<u32>,
    /// Scope of the call, where it is another one than the workload's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<Scope>,
    /// The callers, innermost first.
    pub call_path: Vec<String>,
    /// Return addresses into the callers, such as `kmem_cache_alloc+0x2a`, on the kernel that it
    /// was found on. Not there in folders of older versions.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub frames: Vec<String>,
    /// The registers of the call's arguments, whether the function has as many or not. Not there in
    /// folders of older versions.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub arguments: Vec<u64>,
    /// Those of them that matter, in words, such as `size 64 bytes, flags GFP_KERNEL`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub words: String,
    /// What the functions of the call path returned after it, innermost first. Not there before a
    /// traced run took the same way.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub returns: Vec<FrameReturn>,
}

impl CrashMeta {
    /// Makes the meta of a crash of which no more is known.
    fn new(key: &str, title: &str, kind: FindingKind) -> Self {
        Self {
            version: FOLDER_VERSION,
            key: key.to_owned(),
            title: title.to_owned(),
            kind,
            fired: Vec::new(),
            stack: Vec::new(),
            found_ms: None,
            tried: 0,
            reproduced: 0,
            exact: None,
            minimized: None,
            same_as: None,
            repro: None,
            origin: None,
        }
    }
}

impl CampaignFolder {
    fn crash_path(&self, key: &str) -> PathBuf {
        self.path().join("crashes").join(slug(key))
    }

    /// Writes a crash's folder, whole; in the place of one of the same key, if there is one.
    /// `found_ms` is the time of fuzzing, earlier starts included, until it was found.
    ///
    /// # Errors
    ///
    /// The file system says no.
    pub(super) fn write_crash(
        &self,
        finding: &Finding,
        reproducer: &Reproducer,
        cause: &Cause<'_>,
        found_ms: u64,
    ) -> Result<(), FolderError> {
        let meta = CrashMeta {
            fired: cause.fired.iter().map(|fired| crash_fault(&cause.plan, fired)).collect(),
            stack: finding.stack.clone(),
            found_ms: Some(found_ms),
            ..CrashMeta::new(&reproducer.key, &finding.title, finding.kind)
        };
        let mut texts = vec![(REPORT, finding.text.as_str()), ("console.log", cause.console)];
        let history = cause.with_history().map(|plan| plan.to_json());
        texts.extend(history.as_deref().map(|history| (HISTORY, history)));
        self.publish_crash(&meta, reproducer, &texts)
    }

    /// Writes a crash's folder anew, with a simpler plan and what that has made. The reproducer as
    /// it was found and the guest's history stay.
    ///
    /// # Errors
    ///
    /// The folder is damaged, or the file system says no.
    pub(super) fn write_minimised(
        &self,
        finding: &Finding,
        reproducer: &Reproducer,
        cause: &Cause<'_>,
        (minimized, tried, reproduced): (MinimizedMeta, u32, u32),
    ) -> Result<(), FolderError> {
        let path = self.crash_path(&reproducer.key);
        let before = read_meta(&path.join(META))?;
        let meta = CrashMeta {
            fired: cause.fired.iter().map(|fired| crash_fault(&cause.plan, fired)).collect(),
            stack: finding.stack.clone(),
            title: finding.title.clone(),
            minimized: Some(minimized),
            tried,
            reproduced,
            // Those were the other plan's.
            exact: None,
            repro: None,
            ..before
        };
        let reproducer_path = path.join(REPRODUCER);
        let found = fs::read_to_string(&reproducer_path).map_err(failed("read", &reproducer_path))?;
        let history = read_if_there(&path.join(HISTORY))?;
        let mut texts = vec![(REPORT, finding.text.as_str()), ("console.log", cause.console), (FOUND, &found)];
        texts.extend(history.as_deref().map(|history| (HISTORY, history)));
        self.publish_crash(&meta, reproducer, &texts)
    }

    /// Writes the folder of a crash that `host` found, as [`CampaignFolder::write_crash`] does.
    /// There is no more of it than that host says.
    ///
    /// # Errors
    ///
    /// The file system says no.
    pub(super) fn write_foreign_crash(&self, host: &str, crash: &CrashNews) -> Result<(), FolderError> {
        let origin = Some(host.to_owned());
        let reproducer = &crash.reproducer;
        let meta = CrashMeta { origin, ..CrashMeta::new(reproducer.identity(), &reproducer.title, crash.kind) };
        self.publish_crash(&meta, reproducer, &[])
    }

    fn publish_crash(
        &self,
        meta: &CrashMeta,
        reproducer: &Reproducer,
        texts: &[(&str, &str)],
    ) -> Result<(), FolderError> {
        let path = self.crash_path(&meta.key);
        let prepared = self.path().join("crashes").join(format!(".{}", slug(&meta.key)));
        fs::create_dir_all(&prepared).map_err(failed("make", &prepared))?;
        let target = self.target().map(|target| target.narrowed(&reproducer.plan).definition());
        let reproducer = Reproducer { target, ..reproducer.clone() };
        write(&prepared.join(REPRODUCER), &reproducer.to_json())?;
        for (name, text) in texts {
            write(&prepared.join(name), text)?;
        }
        write_json(&prepared.join(META), meta)?;
        let publish = if path.exists() { replace_directory } else { publish_directory };
        publish(&prepared, &path).map_err(failed("write", &path))
    }

    /// Reads the rounds of the guest before the last one of the plan that a crash was found with.
    ///
    /// # Errors
    ///
    /// The file is damaged.
    pub(super) fn history(&self, key: &str) -> Result<Vec<Round>, FolderError> {
        let path = self.crash_path(key).join(HISTORY);
        let Some(text) = read_if_there(&path)? else { return Ok(Vec::new()) };
        let plan = FaultPlan::from_json(&text).map_err(|source| FolderError::Plan { path, source })?;
        Ok(plan.earlier)
    }

    /// Reads the time of fuzzing until a crash was found, in milliseconds.
    ///
    /// # Errors
    ///
    /// The folder is damaged.
    pub(super) fn found_ms(&self, key: &str) -> Result<Option<u64>, FolderError> {
        Ok(read_meta(&self.crash_path(key).join(META))?.found_ms)
    }

    /// Says whether the folder that a crash of this key would have is that of another key. Folders
    /// have short hashes in their names, so that another host can make such a key on purpose.
    ///
    /// # Errors
    ///
    /// The folder is damaged.
    pub(super) fn is_anothers(&self, key: &str) -> Result<bool, FolderError> {
        let path = self.crash_path(key).join(META);
        Ok(path.exists() && read_meta(&path)?.key != key)
    }

    /// Changes a crash's `meta.json`, which says what became of its reproducer, unless its folder
    /// is that of another key.
    ///
    /// # Errors
    ///
    /// The file is gone or damaged, or the file system says no.
    pub fn change_meta(&self, key: &str, change: impl FnOnce(&mut CrashMeta)) -> Result<(), FolderError> {
        let Some(mut meta) = self.meta_of(key)? else { return Ok(()) };
        change(&mut meta);
        write_json(&self.crash_path(key).join(META), &meta)
    }

    /// Reads a crash's `meta.json`; none where its folder is that of another key.
    fn meta_of(&self, key: &str) -> Result<Option<CrashMeta>, FolderError> {
        read_meta(&self.crash_path(key).join(META)).map(|meta| (meta.key == key).then_some(meta))
    }

    /// Writes a crash's report anew, as `finding` of the same key tells more, unless its folder is
    /// that of another key.
    ///
    /// # Errors
    ///
    /// The folder is damaged, or the file system says no.
    pub(super) fn change_report(&self, key: &str, finding: &Finding) -> Result<(), FolderError> {
        let Some(mut meta) = self.meta_of(key)? else { return Ok(()) };
        let path = self.crash_path(key);
        write(&path.join(REPORT), &finding.text)?;
        meta.stack.clone_from(&finding.stack);
        write_json(&path.join(META), &meta)
    }

    /// Reads the crashes that are there, each with its reproducer.
    ///
    /// # Errors
    ///
    /// One of them is damaged.
    pub fn crashes(&self) -> Result<Vec<(CrashMeta, Reproducer)>, FolderError> {
        let path = self.path().join("crashes");
        let mut crashes = Vec::new();
        for entry in fs::read_dir(&path).map_err(failed("read", &path))? {
            let folder = entry.map_err(failed("read", &path))?.path();
            let unfinished = entry_name(&folder).starts_with('.');
            if unfinished || !folder.join(META).is_file() {
                continue;
            }
            let meta = read_meta(&folder.join(META))?;
            let file = folder.join(REPRODUCER);
            let text = fs::read_to_string(&file).map_err(failed("read", &file))?;
            let reproducer = Reproducer::from_json(&text).map_err(|source| FolderError::Plan { path: file, source })?;
            crashes.push((meta, reproducer));
        }
        crashes.sort_by(|a, b| (&a.0.title, &a.0.key).cmp(&(&b.0.title, &b.0.key)));
        Ok(crashes)
    }
}

fn crash_fault(plan: &FaultPlan, fired: &execution::Fired) -> CrashFault {
    CrashFault {
        fault: fired.fault + 1,
        function: plan.all_faults().nth(fired.fault).map_or_else(String::new, |fault| fault.function.clone()),
        sequence: fired.sequence,
        step: Some(fired.step).filter(|step| *step > 0),
        task: fired.scope.condition(),
        call_path: fired.call_path.clone(),
        frames: fired.frames.clone(),
        arguments: fired.arguments.clone(),
        words: fired.words.clone(),
        returns: fired.returns.clone(),
    }
}

pub(super) fn read_meta(path: &Path) -> Result<CrashMeta, FolderError> {
    let text = fs::read_to_string(path).map_err(failed("read", path))?;
    let mut meta: CrashMeta =
        serde_json::from_str(&text).map_err(|source| FolderError::Damaged { path: path.to_owned(), source })?;
    if meta.key.is_empty() {
        meta.key.clone_from(&meta.title);
    }
    // A folder may be a stranger's.
    (meta.key, meta.title) = (one_line(&meta.key), one_line(&meta.title));
    Ok(meta)
}
