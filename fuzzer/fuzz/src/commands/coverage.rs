//! `fuzz coverage`: how much of each part of the kernel a campaign has covered.

use std::{
    io::{self, Write},
    path::Path,
};

use campaign::CampaignFolder;
use files::cache;
use guests::{kernel, project::Project};

use crate::{
    exit::{Answer, CommandError},
    views::coverage::{self as view, KernelCoverage},
};

/// Writes for each kernel of the campaign in the folder `dir` how many places it has covered in
/// each folder of the kernel's source.
///
/// # Errors
///
/// No campaign is there, a file cannot be read, or none of its kernels is in the cache.
pub fn coverage(dir: &Path, json: bool, out: &mut dyn Write) -> Result<Answer, CommandError> {
    if !dir.join("coverage").is_dir() {
        return Err(CommandError::Input(format!("{}: no campaign is there", dir.display())));
    }
    let kernels = by_folder(dir)?;
    if kernels.is_empty() {
        return Err(CommandError::Input(format!(
            "{}: there is no coverage of a kernel that is in the cache (fuzz kernel list)",
            dir.display()
        )));
    }
    for kernel in kernels {
        if json {
            writeln!(out, "{}", serde_json::to_string(&kernel).map_err(io::Error::other)?)?;
        } else {
            view::write(&kernel, out)?;
        }
    }
    Ok(Answer::Yes)
}

/// Counts what the campaign in the folder `dir` has covered of each of its kernels that the cache
/// still has.
pub(crate) fn by_folder(dir: &Path) -> Result<Vec<KernelCoverage>, CommandError> {
    let covered = CampaignFolder::coverage_in(dir)?;
    let catalogue = kernel::Catalogue::load(Project::find()?.root())?;
    let mut kernels = Vec::new();
    for built in kernel::list(&catalogue, &cache::directory()?)?.into_iter().filter_map(|listed| listed.built) {
        let Some(addresses) = covered.get(&built.meta.build_id) else { continue };
        kernels.push(KernelCoverage {
            coverage: addresses.len(),
            coverage_by_folder: built.count_by_folder(addresses.iter().copied())?,
            kernel: built.meta.name,
            build_id: built.meta.build_id,
        });
    }
    Ok(kernels)
}
