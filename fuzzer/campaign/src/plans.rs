//! The plans that a campaign begins with.

use std::{
    collections::HashSet,
    fs,
    path::{Path, PathBuf},
};

use execution::Target;
use fault_plan::{FaultPlan, PlanError};
use libafl::inputs::Input;

use crate::{
    folder::{CampaignFolder, FolderError, failed},
    input::PlanInput,
};

/// Gives the files of the plans to begin with: those of the campaign's corpus, and the target's
/// seeds that are not among them.
///
/// # Errors
///
/// A folder cannot be read, or a seed is no plan for `target`.
pub(crate) fn first_plans(target: &Target, folder: &CampaignFolder) -> Result<Vec<PathBuf>, FolderError> {
    let mut files = Vec::new();
    let mut names = HashSet::new();
    for (directory, ours) in [(folder.corpus(), true), (target.seeds(), false)] {
        if !directory.is_dir() {
            continue;
        }
        for entry in fs::read_dir(&directory).map_err(failed("read", &directory))? {
            let path = entry.map_err(failed("read", &directory))?.path();
            if path.extension().is_none_or(|extension| extension != "json") {
                continue;
            }
            match (read_plan(&path, target), ours) {
                (Ok(plan), _) if names.insert(plan.generate_name(None)) => files.push(path),
                (Ok(_), _) => {}
                // The target may have changed since the campaign kept it.
                (Err(error), true) => tracing::warn!("left out: {}", execution::chain(&error)),
                (Err(error), false) => return Err(error),
            }
        }
    }
    files.sort();
    Ok(files)
}

/// Reads the plan in the file `path`, which must be one for `target`.
fn read_plan(path: &Path, target: &Target) -> Result<PlanInput, FolderError> {
    let text = fs::read_to_string(path).map_err(failed("read", path))?;
    let refused = |source| FolderError::Plan { path: path.to_owned(), source };
    let plan = FaultPlan::from_json(&text).map_err(refused)?;
    if plan.target != target.name {
        let (path, found, wanted) = (path.to_owned(), plan.target, target.name.clone());
        return Err(FolderError::OtherTarget { path, found, wanted });
    }
    if let Some((fault, index)) =
        plan.all_faults().zip(1..).find(|(fault, _)| target.errors(&fault.function).is_empty())
    {
        let reason = format!("{} is none of the target's functions", fault.function);
        return Err(refused(PlanError::Fault { index, reason }));
    }
    Ok(PlanInput(plan))
}
