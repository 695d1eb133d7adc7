//! `fuzz targets`.

use std::io::Write;

use crate::exit::{Answer, CommandError};
use execution::Target;
use guests::project::Project;

/// Lists the targets.
///
/// # Errors
///
/// The project is not found, or a target is refused.
pub fn targets(json: bool, out: &mut dyn Write) -> Result<Answer, CommandError> {
    let corpus = Project::find()?.corpus();
    for name in Target::names(&corpus) {
        let target = Target::find(&corpus, &name)?;
        if json {
            let line = serde_json::json!({
                "name": target.name, "kernel": target.kernel, "description": target.description,
                "steps": target.steps.len(), "functions": target.functions.iter().map(|f| &f.name).collect::<Vec<_>>(),
            });
            writeln!(out, "{line}")?;
        } else {
            writeln!(out, "{:<14} {:<18} {}", target.name, target.kernel, target.description)?;
        }
    }
    Ok(Answer::Yes)
}
