//! `fuzz targets`.

use std::io::Write;

use crate::exit::{Answer, CommandError};
use execution::Target;
use guests::project::Project;

/// Lists the targets, each with its variants.
///
/// # Errors
///
/// The project is not found, or a target is refused.
pub fn targets(json: bool, out: &mut dyn Write) -> Result<Answer, CommandError> {
    let targets = Target::all(&Project::find()?.corpus())?;
    let longest = targets.iter().map(|target| target.name.len()).max().unwrap_or_default();
    for target in targets {
        if json {
            let line = serde_json::json!({
                "name": target.name, "kernel": target.kernel, "description": target.description,
                "steps": target.steps.len(), "functions": target.functions.iter().map(|f| &f.name).collect::<Vec<_>>(),
                "memory_mib": target.memory_mib(), "definition": target.definition(),
            });
            writeln!(out, "{line}")?;
        } else {
            writeln!(out, "{:<longest$}  {:<18} {}", target.name, target.kernel, target.description)?;
        }
    }
    Ok(Answer::Yes)
}
