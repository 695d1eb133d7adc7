//! A campaign on disk. Every file is written whole or not at all, so that a campaign killed at any
//! instant resumes with everything it had reported.
//!
//! ```text
//! DIR/campaign.json      target, kernel, seed, totals
//! DIR/corpus/ID.json     fault plans (written by LibAFL's corpus)
//! DIR/matrix/KERNEL.jsonl points found on a kernel, and what came of each error there
//! DIR/queue.jsonl        plans that wait to be checked
//! DIR/coverage/ID.txt    addresses that ran, by the kernel's build id
//! DIR/coverage/ID.fault-free those that the workload runs without faults
//! DIR/stats.jsonl        one line every few seconds
//! DIR/crashes/SLUG/      one crash; docs/campaign-folder.md has its files
//! ```

mod coverage;

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    sync::OnceLock,
};

use execution::Target;
use fault_plan::PlanError;
use kernel_report::slug;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::{matrix::Point, second_kernel::QueueRecord};
use files::{Journal, JournalError, cache::try_lock, cache::write_file};

/// The version of `campaign.json` and `meta.json`.
pub(crate) const FOLDER_VERSION: u32 = 1;

/// The file that a process holds locked while it works on the campaign.
pub(crate) const LOCK: &str = ".lock";

/// The folders of a campaign, itself first.
const FOLDERS: [&str; 5] = ["", "corpus", "crashes", "coverage", "matrix"];

/// Why a campaign's folder cannot be used.
#[derive(Debug, Error)]
pub enum FolderError {
    /// The file system says no.
    #[error("cannot {verb} {path}")]
    Io {
        /// The attempt.
        verb: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The reason.
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
    /// A journal of it cannot be used.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// A plan or reproducer of it is refused.
    #[error("{path}")]
    Plan {
        /// The file.
        path: PathBuf,
        /// Why.
        source: PlanError,
    },
    /// A plan is for another target.
    #[error("{path} is a plan for the target \"{found}\", not \"{wanted}\"")]
    OtherTarget {
        /// The file.
        path: PathBuf,
        /// Its target.
        found: String,
        /// The campaign's.
        wanted: String,
    },
    /// It is somebody else's.
    #[error("{path} is not empty and holds no campaign (there is {found}): give another --out")]
    NotOurs {
        /// The folder.
        path: PathBuf,
        /// The name of something in it.
        found: String,
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
        /// Target or kernel asked for.
        wanted: String,
    },
    /// Another version of this program wrote it.
    #[error("{path} has format version {found}, this build reads version {FOLDER_VERSION}: give another --out")]
    Version {
        /// The folder.
        path: PathBuf,
        /// Its version.
        found: u32,
    },
    /// Another process works on it.
    #[error("{path} is in use by another fuzz: give another --out, or stop that one")]
    Busy {
        /// The folder.
        path: PathBuf,
    },
}

impl FolderError {
    /// Says whether the user asked for the wrong folder or gave a wrong plan.
    #[must_use]
    pub fn is_input(&self) -> bool {
        !matches!(self, Self::Io { .. } | Self::Damaged { .. } | Self::Journal(_))
    }
}

/// `campaign.json`: the campaign's identity and totals.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CampaignFile {
    /// Format version.
    pub version: u32,
    /// The target.
    pub target: String,
    /// Digest of the target's definition when it ran last. Earlier versions wrote none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_digest: Option<String>,
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

/// A campaign's folder, locked for this process.
#[derive(Debug)]
pub struct CampaignFolder {
    path: PathBuf,
    kernel: String,
    /// Definition of the target, which goes with every reproducer; known once the campaign begins.
    target: OnceLock<Target>,
    _lock: File,
}

pub(crate) fn failed<'a>(verb: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> FolderError + 'a {
    move |source| FolderError::Io { verb, path: path.to_owned(), source }
}

impl CampaignFolder {
    /// Opens the folder, making it if need be, and locks it. Returns it with what an earlier start
    /// left.
    ///
    /// # Errors
    ///
    /// It cannot be written, is in use, or belongs to another target or kernel.
    pub fn open(path: &Path, target: &str, kernel: &str) -> Result<(Self, Option<CampaignFile>), FolderError> {
        if let Some(found) = not_ours(path) {
            return Err(FolderError::NotOurs { path: path.to_owned(), found });
        }
        for folder in FOLDERS.map(|name| path.join(name)) {
            fs::create_dir_all(&folder).map_err(failed("make", &folder))?;
        }
        let lock_path = path.join(LOCK);
        let lock = try_lock(&lock_path).map_err(failed("lock", &lock_path))?;
        let lock = lock.ok_or_else(|| FolderError::Busy { path: path.to_owned() })?;
        let folder = Self { path: path.to_owned(), kernel: kernel.to_owned(), target: OnceLock::new(), _lock: lock };
        folder.remove_unfinished()?;
        let earlier: Option<CampaignFile> = folder.read("campaign.json")?;
        if let Some(file) = &earlier {
            if file.version != FOLDER_VERSION {
                return Err(FolderError::Version { path: path.to_owned(), found: file.version });
            }
            for (what, found, wanted) in [("target", &file.target, target), ("kernel", &file.kernel, kernel)] {
                if found != wanted {
                    let (found, wanted) = (found.clone(), wanted.to_owned());
                    return Err(FolderError::Other { path: path.to_owned(), what, found, wanted });
                }
            }
        }
        Ok((folder, earlier))
    }

    /// Removes what a killed start had begun to write. Nothing else has a hidden name in a
    /// campaign's folder.
    fn remove_unfinished(&self) -> Result<(), FolderError> {
        for folder in FOLDERS.map(|name| self.path.join(name)) {
            for entry in fs::read_dir(&folder).map_err(failed("read", &folder))? {
                let path = entry.map_err(failed("read", &folder))?.path();
                let removed = match entry_name(&path) {
                    name if !name.starts_with('.') || name == LOCK => continue,
                    _ if path.is_dir() => fs::remove_dir_all(&path),
                    _ => fs::remove_file(&path),
                };
                removed.map_err(failed("remove", &path))?;
            }
        }
        Ok(())
    }

    /// Takes in what the reproducers are to carry. Later definitions do not count.
    pub(crate) fn define(&self, target: &Target) {
        self.target.get_or_init(|| target.clone());
    }

    /// Gives the target, where that is known.
    pub(crate) fn target(&self) -> Option<&Target> {
        self.target.get()
    }

    /// Gives the folder's path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Gives the folder of the fault plans.
    #[must_use]
    pub fn corpus(&self) -> PathBuf {
        self.path.join("corpus")
    }

    fn read<T: for<'de> Deserialize<'de>>(&self, name: &str) -> Result<Option<T>, FolderError> {
        let path = self.path.join(name);
        let Some(text) = read_if_there(&path)? else { return Ok(None) };
        serde_json::from_str(&text).map(Some).map_err(|source| FolderError::Damaged { path, source })
    }

    /// Gives the name of the campaign's kernel: the one that judges.
    #[must_use]
    pub fn kernel(&self) -> &str {
        &self.kernel
    }

    /// Counts the plans of the corpus.
    ///
    /// # Errors
    ///
    /// The file system says no.
    pub fn plans(&self) -> Result<usize, FolderError> {
        let folder = self.corpus();
        let entries = fs::read_dir(&folder).map_err(failed("read", &folder))?.flatten();
        Ok(entries.filter(|entry| !entry_name(&entry.path()).starts_with('.')).count())
    }

    /// Writes `campaign.json`.
    ///
    /// # Errors
    ///
    /// The file system says no.
    pub fn write_campaign(&self, file: &CampaignFile) -> Result<(), FolderError> {
        write_json(&self.path.join("campaign.json"), file)
    }

    /// Opens the matrix of the kernel called `kernel`. Returns it with its records.
    ///
    /// # Errors
    ///
    /// The file cannot be used or is damaged.
    pub(crate) fn open_matrix(&self, kernel: &str) -> Result<(Journal, Vec<Point>), FolderError> {
        let name = format!("{}.jsonl", slug(kernel));
        Ok(Journal::open(&self.path.join("matrix").join(name))?)
    }

    /// Opens the queue of plans that wait to be checked. Returns it with its records.
    ///
    /// # Errors
    ///
    /// The file cannot be used or is damaged.
    pub(crate) fn open_queue(&self) -> Result<(Journal, Vec<QueueRecord>), FolderError> {
        Ok(Journal::open(&self.path.join("queue.jsonl"))?)
    }
}

/// Gives the name of something in the folder `path` that no campaign has put there; nothing in a
/// folder with a campaign.
fn not_ours(path: &Path) -> Option<String> {
    if path.join("campaign.json").exists() {
        return None;
    }
    let ours = |name: &str| {
        let unfinished = name.starts_with('.') && name.ends_with(".tmp");
        unfinished || FOLDERS[1..].contains(&name) || [LOCK, "queue.jsonl", "sites.json", "stats.jsonl"].contains(&name)
    };
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    entries.map(|entry| entry_name(&entry.path())).find(|name| !ours(name))
}

pub(crate) fn entry_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// Reads a file that need not be there.
pub(crate) fn read_if_there(path: &Path) -> Result<Option<String>, FolderError> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed("read", path)(error)),
    }
}

pub(crate) fn write(path: &Path, text: &str) -> Result<(), FolderError> {
    write_file(path, text.as_bytes()).map_err(failed("write", path))
}

pub(crate) fn write_json<T: Serialize>(path: &Path, value: &T) -> Result<(), FolderError> {
    let mut text =
        serde_json::to_string_pretty(value).map_err(|source| FolderError::Damaged { path: path.to_owned(), source })?;
    text.push('\n');
    write(path, &text)
}
