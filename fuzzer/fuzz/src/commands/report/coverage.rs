//! Coverage of a campaign's kernels, by file and function.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use campaign::CampaignFolder;
use guests::kernel::Built;
use triage::{CoveredPlace, KernelCoverage, Ran, Report, by_file, with_source};

use super::{kernels::CachedKernels, places::KernelPlaces};

/// Reads what the campaign in the folder `dir` covered of each of its kernels that the cache has.
/// `tree` has the source whose lines are shown. Kernels of which nothing can be said, and files
/// that are damaged, are gaps.
pub(super) fn coverage(
    dir: &Path,
    report: &Report,
    kernels: &CachedKernels,
    tree: Option<&Path>,
) -> (Vec<KernelCoverage>, Vec<String>) {
    let (mut found, mut gaps) = (Vec::new(), Vec::new());
    let is_there = dir.join("coverage").is_dir();
    let covered = if is_there { CampaignFolder::coverage_in(dir) } else { Ok(BTreeMap::new()) };
    let covered = covered.unwrap_or_else(|error| {
        gaps.push(format!("no coverage: {}", execution::chain(&error)));
        BTreeMap::new()
    });
    for (build_id, ran) in covered {
        let Some(built) = kernels.built(&build_id) else {
            gaps.push(format!("no coverage of the kernel with the build id {build_id}: the cache has it no more"));
            continue;
        };
        let fault_free = CampaignFolder::fault_free_in(dir, &build_id).unwrap_or_else(|error| {
            gaps.push(execution::chain(&error));
            None
        });
        let by_faults_known = fault_free.is_some();
        match files(&built, &ran, fault_free.as_ref().unwrap_or(&ran), report) {
            Ok(mut files) => {
                if let Some(tree) = tree {
                    with_source(&mut files, &|file| fs::read_to_string(tree.join(file)).ok());
                }
                found.push(KernelCoverage { kernel: built.meta.name.clone(), build_id, by_faults_known, files });
            }
            Err(reason) => gaps.push(format!("no coverage of {}: {reason}", built.meta.name)),
        }
    }
    // The kernel that judges comes first.
    found.sort_by_key(|kernel| (kernel.kernel != report.campaign.kernel, kernel.kernel.clone()));
    (found, gaps)
}

fn files(
    built: &Built,
    ran: &BTreeSet<u64>,
    fault_free: &BTreeSet<u64>,
    report: &Report,
) -> Result<Vec<triage::FileCoverage>, String> {
    let places = KernelPlaces::read(built)?;
    let covered = places.iter().map(|(pc, function, place)| {
        let ran = match (fault_free.contains(&pc), ran.contains(&pc)) {
            (true, _) => Ran::Workload,
            (false, true) => Ran::Faults,
            (false, false) => Ran::Never,
        };
        CoveredPlace { function, unit: place.unit, file: place.file, line: place.line, ran }
    });
    Ok(by_file(&covered.collect::<Vec<_>>(), &report.telling_callers))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn damaged_coverage_is_a_gap() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir_all(folder.path().join("coverage")).unwrap();
        fs::create_dir_all(folder.path().join("crashes")).unwrap();
        fs::write(folder.path().join("coverage/ab12.txt"), [0xff, b'\n']).unwrap();
        let report = triage::read(folder.path(), &triage::NoKernels).unwrap();
        let (found, gaps) = coverage(folder.path(), &report, &CachedKernels::find().unwrap(), None);
        assert!(found.is_empty() && gaps.len() == 1 && gaps[0].contains("ab12.txt"), "{gaps:?}");
    }
}
