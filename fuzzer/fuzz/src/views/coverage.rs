//! Coverage by part of the kernel, for people.

use std::{
    collections::BTreeMap,
    io::{self, Write},
};

use serde::Serialize;

/// Folders that a summary has, those with most places covered.
const FEW_FOLDERS: usize = 6;

/// Places of one kernel that a campaign has covered.
#[derive(Debug, Serialize)]
pub(crate) struct KernelCoverage {
    /// The kernel.
    pub(crate) kernel: String,
    pub(crate) build_id: String,
    /// Places in all.
    pub(crate) coverage: usize,
    /// Places by the folder of the kernel's source.
    pub(crate) coverage_by_folder: BTreeMap<String, u64>,
}

impl KernelCoverage {
    /// Gives the folders, those with most places first.
    fn folders(&self) -> Vec<(&str, u64)> {
        let mut folders: Vec<_> =
            self.coverage_by_folder.iter().map(|(folder, count)| (folder.as_str(), *count)).collect();
        folders.sort_by_key(|(folder, count)| (u64::MAX - count, *folder));
        folders
    }
}

/// Writes the places of `kernel` in all folders.
pub(crate) fn write(kernel: &KernelCoverage, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "{}: {} places", kernel.kernel, kernel.coverage)?;
    kernel.folders().iter().try_for_each(|(folder, count)| writeln!(out, "{count:>8} {folder}"))
}

/// Writes the line of a summary that has the places of `kernel` in a few folders.
pub(crate) fn write_few(kernel: &KernelCoverage, out: &mut dyn Write) -> io::Result<()> {
    let folders = kernel.folders();
    let few = folders.iter().take(FEW_FOLDERS).map(|(folder, count)| format!("{count} {folder}"));
    writeln!(out, "places     {} on {}", few.collect::<Vec<_>>().join(", "), kernel.kernel)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_folders_with_most_places_come_first() {
        let counts = [("a", 1), ("b", 30), ("c", 2), ("d", 3), ("e", 4), ("f", 5), ("g", 30)];
        let kernel = KernelCoverage {
            kernel: "k".to_owned(),
            build_id: String::new(),
            coverage: 75,
            coverage_by_folder: counts.into_iter().map(|(folder, count)| (folder.to_owned(), count)).collect(),
        };
        let text = |write: fn(&KernelCoverage, &mut dyn Write) -> io::Result<()>| {
            let mut out = Vec::new();
            write(&kernel, &mut out).unwrap();
            String::from_utf8(out).unwrap()
        };
        assert_eq!(text(write_few), "places     30 b, 30 g, 5 f, 4 e, 3 d, 2 c on k\n");
        let all = text(write);
        assert!(all.starts_with("k: 75 places\n      30 b\n") && all.ends_with("\n       1 a\n"), "{all}");
    }
}
