//! The places that ran, on disk: a file for each kernel, and one for what ran without faults.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    fs, io,
    path::{Path, PathBuf},
};

use guest_protocol::TraceRole;

use super::{CampaignFolder, FolderError, entry_name, failed, read_if_there, write};

impl CampaignFolder {
    /// Writes the addresses covered so far on the kernel with this build id, one in hexadecimal on
    /// each line. Behind one that another task than the workload's covered stands that one's role.
    ///
    /// # Errors
    ///
    /// The file system says no.
    pub fn write_coverage(
        &self,
        build_id: &str,
        covered: impl Iterator<Item = (TraceRole, u64)>,
    ) -> Result<(), FolderError> {
        let mut text = String::new();
        for (role, pc) in covered {
            let _ = match role {
                TraceRole::Workload => writeln!(text, "{pc:x}"),
                _ => writeln!(text, "{pc:x} {role}"),
            };
        }
        write(&self.coverage_path(build_id), &text)
    }

    /// Reads the addresses that earlier starts covered on this very kernel.
    ///
    /// # Errors
    ///
    /// The file cannot be read; lines that are no address are left out.
    pub fn read_coverage(&self, build_id: &str) -> Result<Vec<(TraceRole, u64)>, FolderError> {
        let path = self.coverage_path(build_id);
        Ok(read_if_there(&path)?.unwrap_or_default().lines().filter_map(covered).collect())
    }

    /// Reads the coverage of the campaign in the folder `path`, which may be running: the addresses
    /// that ran, by the kernel's build id.
    ///
    /// # Errors
    ///
    /// The folder cannot be read, as where no campaign has been.
    pub fn coverage_in(path: &Path) -> Result<BTreeMap<String, BTreeSet<u64>>, FolderError> {
        let folder = path.join("coverage");
        let entries = fs::read_dir(&folder).and_then(Iterator::collect::<io::Result<Vec<_>>>);
        let mut coverage = BTreeMap::new();
        for path in entries.map_err(failed("read", &folder))?.iter().map(fs::DirEntry::path) {
            let name = entry_name(&path);
            let Some(build_id) = name.strip_suffix(".txt").filter(|name| !name.starts_with('.')) else { continue };
            let text = fs::read_to_string(&path).map_err(failed("read", &path))?;
            let pcs = text.lines().filter_map(covered).map(|(_, pc)| pc).collect();
            coverage.insert(build_id.to_owned(), pcs);
        }
        Ok(coverage)
    }

    /// Writes the addresses that the workload covers without faults on the kernel with this build
    /// id, one in hexadecimal on each line, in whatever task.
    ///
    /// # Errors
    ///
    /// The file system says no.
    pub(crate) fn write_fault_free(
        &self,
        build_id: &str,
        covered: impl Iterator<Item = u64>,
    ) -> Result<(), FolderError> {
        let mut text = String::new();
        for pc in covered {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{pc:x}");
        }
        write(&fault_free_path(&self.path, build_id), &text)
    }

    /// Reads the addresses that the workload covers without faults, of the campaign in the folder
    /// `path`, which may be running. Folders of older versions say nothing.
    ///
    /// # Errors
    ///
    /// The file cannot be read; lines that are no address are left out.
    pub fn fault_free_in(path: &Path, build_id: &str) -> Result<Option<BTreeSet<u64>>, FolderError> {
        let path = fault_free_path(path, build_id);
        let text = read_if_there(&path)?;
        Ok(text.map(|text| text.lines().filter_map(covered).map(|(_, pc)| pc).collect()))
    }

    fn coverage_path(&self, build_id: &str) -> PathBuf {
        self.path.join("coverage").join(format!("{}.txt", plain(build_id)))
    }
}

fn plain(build_id: &str) -> String {
    build_id.chars().filter(char::is_ascii_alphanumeric).collect()
}

fn fault_free_path(folder: &Path, build_id: &str) -> PathBuf {
    folder.join("coverage").join(format!("{}.fault-free", plain(build_id)))
}

/// Gives the address on a line of the coverage file, and whose code it was.
fn covered(line: &str) -> Option<(TraceRole, u64)> {
    let (pc, role) = line.split_once(' ').unwrap_or((line, TraceRole::Workload.as_str()));
    Some((TraceRole::of_name(role)?, u64::from_str_radix(pc, 16).ok()?))
}
