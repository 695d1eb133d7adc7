//! Every dependency comes from an allowed registry under an allowed licence, as `deny.toml` says: the part of
//! `cargo deny` that needs neither that tool nor a network.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{collections::BTreeSet, fs, path::Path, process::Command};

use serde_json::Value;

struct Policy {
    licenses: BTreeSet<String>,
    registries: BTreeSet<String>,
}

fn strings(table: &toml::Table, section: &str, key: &str) -> BTreeSet<String> {
    let list = table[section][key].as_array().unwrap_or_else(|| panic!("{section}.{key} is a list"));
    list.iter().map(|entry| entry.as_str().unwrap().to_owned()).collect()
}

fn policy(root: &Path) -> Policy {
    let table = fs::read_to_string(root.join("deny.toml")).unwrap().parse().unwrap();
    Policy {
        licenses: strings(&table, "licenses", "allow"),
        registries: strings(&table, "sources", "allow-registry")
            .into_iter()
            .map(|url| format!("registry+{url}"))
            .collect(),
    }
}

fn packages(manifest: &Path) -> Vec<Value> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--locked", "--format-version=1", "--manifest-path"])
        .arg(manifest)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    metadata["packages"].as_array().unwrap().clone()
}

/// Whether the SPDX expression lets the crate be used under licences that `allowed` accepts. `AND` binds tighter than
/// `OR`; a slash is the old way of writing `OR`. An exception (`WITH`) only widens its licence.
fn permits(expression: &str, allowed: &dyn Fn(&str) -> bool) -> bool {
    let spaced = expression.replace('(', " ( ").replace(')', " ) ").replace('/', " OR ");
    let tokens: Vec<_> = spaced.split_whitespace().collect();
    let mut position = 0;
    let permitted = either(&tokens, &mut position, allowed);
    permitted && position == tokens.len()
}

fn either(tokens: &[&str], position: &mut usize, allowed: &dyn Fn(&str) -> bool) -> bool {
    let mut permitted = both(tokens, position, allowed);
    while tokens.get(*position) == Some(&"OR") {
        *position += 1;
        permitted |= both(tokens, position, allowed);
    }
    permitted
}

fn both(tokens: &[&str], position: &mut usize, allowed: &dyn Fn(&str) -> bool) -> bool {
    let mut permitted = one(tokens, position, allowed);
    while tokens.get(*position) == Some(&"AND") {
        *position += 1;
        permitted &= one(tokens, position, allowed);
    }
    permitted
}

fn one(tokens: &[&str], position: &mut usize, allowed: &dyn Fn(&str) -> bool) -> bool {
    let token = tokens.get(*position).copied().unwrap_or_default();
    *position += 1;
    if token == "(" {
        let permitted = either(tokens, position, allowed);
        let closed = tokens.get(*position) == Some(&")");
        *position += 1;
        return permitted && closed;
    }
    if tokens.get(*position) == Some(&"WITH") {
        *position += 2;
    }
    allowed(token)
}

#[test]
fn expressions_are_read_as_spdx_says() {
    let allowed = |license: &str| ["MIT", "Apache-2.0", "Unicode-3.0"].contains(&license);
    for expression in [
        "MIT",
        "GPL-2.0 OR MIT",
        "MIT/Apache-2.0",
        "(MIT OR GPL-2.0) AND Unicode-3.0",
        "Apache-2.0 WITH LLVM-exception",
        "GPL-2.0 AND BSD-2-Clause OR MIT",
    ] {
        assert!(permits(expression, &allowed), "{expression}");
    }
    for expression in ["", "GPL-2.0", "MIT AND GPL-2.0", "(MIT OR Apache-2.0) AND GPL-2.0", "(MIT", "MIT Apache-2.0"] {
        assert!(!permits(expression, &allowed), "{expression}");
    }
}

#[test]
fn dependencies_have_allowed_licenses_and_sources() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let policy = policy(&root);
    let mut refused = Vec::new();
    let mut checked = 0;
    for manifest in ["Cargo.toml", "ebpf/programs/Cargo.toml"] {
        for package in packages(&root.join(manifest)) {
            // A path has no source: that is this project's own crate.
            let Some(source) = package["source"].as_str() else { continue };
            checked += 1;
            let license = package["license"].as_str().unwrap_or_default();
            let name = format!("{} {}", package["name"], package["version"]);
            if !policy.registries.contains(source) {
                refused.push(format!("{name}: source {source}"));
            }
            if !permits(license, &|license| policy.licenses.contains(license)) {
                refused.push(format!("{name}: licence '{license}'"));
            }
        }
    }
    assert!(checked > 0, "cargo names the dependencies");
    assert!(refused.is_empty(), "not allowed by deny.toml:\n{}", refused.join("\n"));
}
