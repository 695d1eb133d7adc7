//! `fuzz coverage`: how much of each part of the kernel campaigns have covered.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{self, Write},
    path::{Path, PathBuf},
};

use campaign::CampaignFolder;
use files::cache;
use guests::{kernel, project::Project};

use crate::{
    exit::{Answer, CommandError},
    views::coverage::{self as view, KernelCoverage},
};

/// Writes for each kernel of the campaigns in the folders `dirs` how many places they have covered
/// together in each folder of the kernel's source.
///
/// # Errors
///
/// No campaign is in one of them, a file cannot be read, or none of the kernels is in the cache.
pub fn coverage(dirs: &[PathBuf], json: bool, out: &mut dyn Write) -> Result<Answer, CommandError> {
    let mut covered = Covered::new();
    for dir in dirs {
        if !dir.join("coverage").is_dir() {
            return Err(CommandError::Input(format!("{}: no campaign is there", dir.display())));
        }
        for (build_id, addresses) in CampaignFolder::coverage_in(dir)? {
            covered.entry(build_id).or_default().extend(addresses);
        }
    }
    let kernels = counted(&covered)?;
    if kernels.is_empty() {
        let dirs: Vec<_> = dirs.iter().map(|dir| dir.display().to_string()).collect();
        return Err(CommandError::Input(format!(
            "{}: there is no coverage of a kernel that is in the cache (fuzz kernel list)",
            dirs.join(", ")
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
    counted(&CampaignFolder::coverage_in(dir)?)
}

/// Covered addresses, by the kernel's build id.
type Covered = BTreeMap<String, BTreeSet<u64>>;

fn counted(covered: &Covered) -> Result<Vec<KernelCoverage>, CommandError> {
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
