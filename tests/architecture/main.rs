//! The map in ARCHITECTURE.md against the code, and the limits of the papers.
//!
//! Cargo keeps the arrows between crates, and the map must say the same. Within a crate this test
//! keeps them: modules of one folder must not use each other in a circle.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod modules;
mod papers;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;

/// The project's folder.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The crates of a workspace and their dependencies on each other, by folder. Dependencies of tests
/// do not count.
fn workspace(manifest: &str) -> BTreeMap<String, BTreeSet<String>> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--locked", "--format-version=1", "--manifest-path"])
        .arg(root().join(manifest))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let folder = |path: &str| Path::new(path).strip_prefix(root()).unwrap().display().to_string();
    let dependencies = |package: &Value| {
        let all = package["dependencies"].as_array().unwrap().iter();
        let own = all.filter(|dependency| dependency["kind"].is_null() && dependency["path"].is_string());
        own.map(|dependency| folder(dependency["path"].as_str().unwrap())).collect()
    };
    let packages = metadata["packages"].as_array().unwrap().iter();
    packages
        .map(|package| {
            let manifest = folder(package["manifest_path"].as_str().unwrap());
            (manifest.trim_end_matches("/Cargo.toml").to_owned(), dependencies(package))
        })
        .collect()
}

/// The rows of the map: a crate's folder, and the crates that it may use, by name.
fn map() -> BTreeMap<String, BTreeSet<String>> {
    let text = read("ARCHITECTURE.md");
    let mut lines = text.lines().skip_while(|line| *line != "| crate | what it is | may use |").skip(2);
    let quoted = |cell: &str| cell.split('`').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>();
    lines
        .by_ref()
        .take_while(|line| line.starts_with('|'))
        .map(|line| {
            let cells: Vec<_> = line.trim_matches('|').split('|').collect();
            assert_eq!(cells.len(), 3, "{line}");
            (quoted(cells[0])[0].clone(), quoted(cells[2]).into_iter().collect())
        })
        .collect()
}

/// Adds to each crate all that may be reached from it.
fn closed(map: &BTreeMap<String, BTreeSet<String>>) -> BTreeMap<String, BTreeSet<String>> {
    let mut closed = map.clone();
    for _ in 0..map.len() {
        let before = closed.clone();
        for reached in closed.values_mut() {
            let more: Vec<_> = reached.iter().flat_map(|name| before[name].clone()).collect();
            reached.extend(more);
        }
    }
    closed
}

#[test]
fn crates_use_what_the_map_lets_them_use_and_nothing_else() {
    let name = |folder: &str| folder.rsplit('/').next().unwrap().to_owned();
    let named: BTreeMap<String, BTreeSet<String>> =
        map().into_iter().map(|(folder, may_use)| (name(&folder), may_use)).collect();
    let may_use = closed(&named);
    for (crate_name, reached) in &may_use {
        assert!(!reached.contains(crate_name), "the map has a circle through {crate_name}");
    }
    let mut crates = workspace("Cargo.toml");
    crates.extend(workspace("ebpf/programs/Cargo.toml"));
    let mapped: BTreeSet<_> = map().into_keys().collect();
    assert_eq!(crates.keys().cloned().collect::<BTreeSet<_>>(), mapped, "the map lists every crate");
    let mut used_by_all = BTreeMap::new();
    for (folder, used) in crates {
        let used: BTreeSet<String> = used.iter().map(|folder| name(folder)).collect();
        let beyond: Vec<_> = used.difference(&may_use[&name(&folder)]).collect();
        assert!(beyond.is_empty(), "{folder} uses {beyond:?}, which the map does not let it");
        used_by_all.insert(name(&folder), used);
    }
    let reached = closed(&used_by_all);
    for (crate_name, may_use) in &named {
        let unused: Vec<_> = may_use.difference(&reached[crate_name]).collect();
        assert!(unused.is_empty(), "the map lets {crate_name} use {unused:?}, which it does not");
    }
}
