//! The target of a replay.
//!
//! ```text
//! --target ───────────────────────────────▶ that one
//! the file carries a definition ──────────▶ this one, whatever the corpus says by now
//! else ───────────────────────────────────▶ the one that the plan names
//! ```

use std::{path::Path, sync::Arc};

use execution::{ImageSource, Target, chain};
use fault_plan::FaultPlan;
use guests::{prepare::WantedTarget, project::Project};
use serde_json::Value;

use crate::{exit::CommandError, options::InputOptions, views::progress::Progress};

/// Number of characters of a digest that are shown.
const SHOWN: usize = 12;

/// Gives the target to replay `plan` on; `definition` is what the file carries.
///
/// # Errors
///
/// The definition is refused, the file that its disk is made of is not at hand, or its disk is made
/// by a program that nobody trusts.
pub(in crate::commands) fn chosen(
    options: &InputOptions,
    plan: &FaultPlan,
    definition: Option<&Value>,
    progress: &Progress,
) -> Result<WantedTarget, CommandError> {
    let Some(definition) = definition.filter(|_| options.target.is_none()) else {
        return Ok(options.target.as_deref().unwrap_or(&plan.target).into());
    };
    let refuse = |reason: String| CommandError::Input(format!("{}: {reason}", options.file.display()));
    let mut target = Target::from_definition(definition).map_err(|error| refuse(chain(&error)))?;
    let present = Target::find(&Project::find()?.corpus(), &target.name).ok();
    if let Some(image) = &mut target.image {
        let beside = options.file.parent().unwrap_or_else(|| Path::new(""));
        let folders: Vec<_> = [beside].into_iter().chain(present.as_ref().map(Target::folder)).collect();
        image.find_file(&folders).map_err(refuse)?;
    }
    check_trust(options.trust, &target, present.as_ref()).map_err(refuse)?;
    // What else may fail changes nothing for this plan.
    let digest = target.narrowed(plan).digest();
    match present.map(|present| (present.narrowed(plan).digest(), present)) {
        Some((known, mut present)) if known == digest => {
            present.kernel = target.kernel;
            return Ok(Arc::new(present).into());
        }
        Some((present, _)) => {
            let short = |digest: &str| digest[..SHOWN.min(digest.len())].to_owned();
            progress.say(&format!(
                "the target {} is another one here by now (digest {}): replaying on the one in the file (digest {}); \
                 --target {} takes the one here",
                target.name,
                short(&present),
                short(&digest),
                target.name
            ));
        }
        None => {}
    }
    Ok(Arc::new(target).into())
}

/// Says which program would run that neither is harmless nor makes the disk of a target here.
fn check_trust(trust: bool, target: &Target, present: Option<&Target>) -> Result<(), String> {
    let Some(image) = &target.image else { return Ok(()) };
    let known = present.and_then(|present| present.image.as_ref()) == Some(image);
    if trust || known || image.is_harmless() {
        return Ok(());
    }
    let program = match &image.source {
        ImageSource::Mkfs(words) => format!("the command \"{}\"", words.join(" ")),
        ImageSource::Script { name, .. } => format!("the script {name}, whose text is in the file"),
        ImageSource::File { .. } => return Ok(()),
    };
    Err(format!("the target's disk is made by {program}: read it, and run it by --trust; or give --target"))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use execution::FunctionGroups;

    use super::*;

    fn target(image: &str) -> Target {
        let folder = tempfile::tempdir().unwrap();
        let text = format!(
            "description = 'd'\nkernel = 'k'\nsteps = [{{ sync = {{}} }}]\n\
             functions = [{{ name = 'f', errors = ['EIO'] }}]\n[image]\nsize_mib = 1\n{image}\n"
        );
        fs::write(folder.path().join("make"), "#!/bin/sh\n").unwrap();
        fs::write(folder.path().join("target.toml"), text).unwrap();
        Target::load(folder.path(), &FunctionGroups::default()).unwrap()
    }

    #[test]
    fn a_program_of_a_stranger_is_not_run() {
        let plain = target("mkfs = ['mkfs.ext4', '-q']");
        let script = target("script = 'make'");
        let odd = target("mkfs = ['rm', '-rf', '/home']");
        assert_eq!(check_trust(false, &plain, None), Ok(()));
        assert_eq!(check_trust(false, &script, Some(&script)), Ok(()));
        assert!(check_trust(false, &script, Some(&plain)).unwrap_err().contains("the script make"));
        assert!(check_trust(false, &odd, None).unwrap_err().contains("the command \"rm -rf /home\""));
        assert_eq!(check_trust(true, &odd, None), Ok(()));
    }
}
