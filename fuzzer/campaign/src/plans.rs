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

/// A plan that a campaign begins with.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct FirstPlan {
    /// Number of its faults. Plans with few come first: what one reaches, a larger one need not be
    /// kept for.
    faults: usize,
    /// Its file.
    pub(crate) path: PathBuf,
    /// True when it is a seed of the target, and not of an earlier start's corpus.
    pub(crate) is_seed: bool,
}

/// Gives the plans to begin with: those of the campaign's corpus, and the target's seeds that are
/// not among them.
///
/// # Errors
///
/// A folder cannot be read, or a seed is no plan for `target`.
pub(crate) fn first_plans(target: &Target, folder: &CampaignFolder) -> Result<Vec<FirstPlan>, FolderError> {
    let mut plans = Vec::new();
    let mut names = HashSet::new();
    for (directory, is_seed) in [(target.seeds(), true), (folder.corpus(), false)] {
        if !directory.is_dir() {
            continue;
        }
        for entry in fs::read_dir(&directory).map_err(failed("read", &directory))? {
            let path = entry.map_err(failed("read", &directory))?.path();
            if path.extension().is_none_or(|extension| extension != "json") {
                continue;
            }
            match (read_plan(&path, target), is_seed) {
                // Every client that loads plans runs these anyway.
                (Ok(plan), _) if plan.0.is_fault_free() || plan == PlanInput::twice(&target.name) => {}
                (Ok(plan), _) if names.insert(plan.generate_name(None)) => {
                    plans.push(FirstPlan { faults: plan.0.all_faults().count(), path, is_seed });
                }
                (Ok(_), _) => {}
                // The target may have changed since the campaign kept it.
                (Err(error), false) => tracing::warn!("left out: {}", execution::chain(&error)),
                (Err(error), true) => return Err(error),
            }
        }
    }
    plans.sort();
    Ok(plans)
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
