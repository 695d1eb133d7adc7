//! `bench cases`: whether bugs that 6.12 had are found on a kernel with their fixes taken out, and
//! not on the one that has them.
//!
//! ```text
//! kernels/unfixed/CASE.patch   takes the fix out
//! kernels/unfixed/CASE.json    reproducer; a case without one has none yet
//! ```

use std::{fs, io, path::Path};

use clap::Parser;
use fuzz::{
    commands,
    exit::{Answer, CommandError},
    options::ReplayOptions,
};
use guests::project::Project;
use serde::Serialize;
use serde_json::Value;

use super::Session;

const UNFIXED: &str = "linux-6.12-unfixed";
const FIXED: &str = "linux-6.12-check";
/// Fresh guests for each case and kernel.
const RUNS: &str = "3";

/// One case.
#[derive(Debug, Serialize)]
struct Case {
    case: String,
    /// True when the bug is found where it is, and only there. Nothing where it has no reproducer
    /// yet.
    found: Option<bool>,
    /// Verdict of the replay without the fix, with the key.
    unfixed: Option<Value>,
    /// Verdict of the replay with the fix.
    fixed: Option<Value>,
}

/// All of them.
#[derive(Debug, Serialize)]
pub(super) struct Cases {
    cases: Vec<Case>,
}

impl Cases {
    /// Says whether all came again that were found once, and on the right kernel.
    pub(super) fn answer(&self) -> Answer {
        if self.cases.iter().all(|case| case.found != Some(false)) { Answer::Yes } else { Answer::No }
    }
}

/// Replays the cases on both kernels, which are built where they are missing.
///
/// # Errors
///
/// A reproducer is refused, or the environment; see [`CommandError`].
pub(super) fn cases(session: &Session<'_>) -> Result<Cases, CommandError> {
    let folder = Project::find()?.root().join("kernels/unfixed");
    let entries = fs::read_dir(&folder)?.collect::<io::Result<Vec<_>>>()?;
    let mut patches: Vec<_> = entries.into_iter().map(|entry| entry.path()).collect();
    patches.retain(|path| path.extension().is_some_and(|extension| extension == "patch"));
    patches.sort();
    let cases = patches.iter().map(|patch| case(session, patch));
    Ok(Cases { cases: cases.collect::<Result<_, _>>()? })
}

fn case(session: &Session<'_>, patch: &Path) -> Result<Case, CommandError> {
    let case = patch.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let file = patch.with_extension("json");
    if !file.exists() {
        return Ok(Case { case, found: None, unfixed: None, fixed: None });
    }
    let unfixed = verdict(session, &file, UNFIXED)?;
    let fixed = verdict(session, &file, FIXED)?;
    let found = unfixed["verdict"] == "still-there" && fixed["verdict"] == "fixed";
    session.progress.say(&format!("{case}: {}", if found { "found" } else { "not found" }));
    Ok(Case { case, found: Some(found), unfixed: Some(unfixed), fixed: Some(fixed) })
}

/// Replays the reproducer `file` on `kernel`, as a user would, and gives the last line that it
/// writes.
fn verdict(session: &Session<'_>, file: &Path, kernel: &str) -> Result<Value, CommandError> {
    /// The options of `fuzz replay`, by themselves.
    #[derive(Parser)]
    struct Replay {
        #[command(flatten)]
        options: ReplayOptions,
    }

    let file = file.to_string_lossy();
    let Replay { options } = Replay::parse_from(["replay", "--json", "--runs", RUNS, "--kernel", kernel, &file]);
    let mut out = Vec::new();
    commands::replay(&options, session.stop, &mut out, session.progress)?;
    let last = out.trim_ascii_end().rsplit(|byte| *byte == b'\n').next().unwrap_or_default();
    Ok(serde_json::from_slice(last).map_err(io::Error::other)?)
}
