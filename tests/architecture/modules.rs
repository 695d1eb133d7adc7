//! No circle between modules: those of one folder use each other in one direction.
//!
//! A module counts with all that is below it. A name that a parent passes on (`pub use`) counts as
//! the module that it comes from. That a module uses what its parent has, or the parent what it
//! has, is no arrow: they are one room.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use syn::{
    Item, UseTree,
    visit::{self, Visit},
};

use super::{root, workspace};

/// A module's path from the root of its crate.
type ModulePath = Vec<String>;

#[derive(Debug, Default)]
struct Module {
    /// Paths that it uses, from the root of the crate.
    uses: Vec<Vec<String>>,
    /// Names that it passes on, each with the path that it comes from.
    passes_on: BTreeMap<String, Vec<String>>,
}

/// Collects the paths that begin with `crate`, `self` or `super`.
struct Paths<'a> {
    module: &'a ModulePath,
    /// Modules within the file that the visitor is in.
    inner: Vec<String>,
    found: &'a mut Module,
}

impl Paths<'_> {
    /// Gives the path from the crate's root.
    fn absolute(&self, path: &[String]) -> Option<Vec<String>> {
        let mut at: Vec<String> = self.module.iter().chain(&self.inner).cloned().collect();
        let mut rest = path;
        match rest.first()?.as_str() {
            "crate" => (at, rest) = (Vec::new(), &rest[1..]),
            "self" => rest = &rest[1..],
            "super" => {}
            _ => return None,
        }
        while rest.first().is_some_and(|name| name == "super") {
            at.pop();
            rest = &rest[1..];
        }
        at.extend_from_slice(rest);
        Some(at)
    }

    fn add_use(&mut self, tree: &UseTree, prefix: &[String], passes_on: bool) {
        let with = |name: String| [prefix, &[name]].concat();
        match tree {
            UseTree::Path(path) => self.add_use(&path.tree, &with(path.ident.to_string()), passes_on),
            UseTree::Group(group) => group.items.iter().for_each(|tree| self.add_use(tree, prefix, passes_on)),
            UseTree::Name(name) => self.add(with(name.ident.to_string()), name.ident.to_string(), passes_on),
            UseTree::Rename(rename) => {
                self.add(with(rename.ident.to_string()), rename.rename.to_string(), passes_on);
            }
            UseTree::Glob(_) => self.add(with("*".to_owned()), "*".to_owned(), passes_on),
        }
    }

    fn add(&mut self, path: Vec<String>, name: String, passes_on: bool) {
        // `pub use child::Name` in a parent needs no `self`.
        let relative = |path: Vec<String>| [vec!["self".to_owned()], path].concat();
        let path = self.absolute(&path).or_else(|| passes_on.then(|| self.absolute(&relative(path)))?);
        let Some(path) = path else { return };
        if passes_on && self.inner.is_empty() {
            self.found.passes_on.insert(name, path);
        } else {
            self.found.uses.push(path);
        }
    }
}

impl<'ast> Visit<'ast> for Paths<'_> {
    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        let passes_on = !matches!(item.vis, syn::Visibility::Inherited);
        self.add_use(&item.tree, &[], passes_on);
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let names: Vec<_> = path.segments.iter().map(|segment| segment.ident.to_string()).collect();
        if let Some(path) = self.absolute(&names).filter(|_| names.len() > 1) {
            self.found.uses.push(path);
        }
        visit::visit_path(self, path);
    }

    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        let is_test = item.attrs.iter().any(|attribute| attribute.path().is_ident("cfg"));
        if item.content.is_some() && !is_test {
            self.inner.push(item.ident.to_string());
            visit::visit_item_mod(self, item);
            self.inner.pop();
        }
    }
}

/// Reads the module in `file` and those that it declares, but for tests.
fn read_module(file: &Path, path: &ModulePath, modules: &mut BTreeMap<ModulePath, Module>) {
    let text = fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    let tree = syn::parse_file(&text).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    let mut found = Module::default();
    Paths { module: path, inner: Vec::new(), found: &mut found }.visit_file(&tree);
    modules.insert(path.clone(), found);
    let stem = file.file_stem().unwrap().to_string_lossy().into_owned();
    let parent = file.parent().unwrap();
    let below = if ["lib", "main", "mod"].contains(&stem.as_str()) { parent.to_owned() } else { parent.join(stem) };
    for item in &tree.items {
        let Item::Mod(item) = item else { continue };
        let is_test = item.attrs.iter().any(|attribute| attribute.path().is_ident("cfg"));
        if item.content.is_some() || is_test {
            continue;
        }
        let name = item.ident.to_string();
        let files = [below.join(format!("{name}.rs")), below.join(&name).join("mod.rs")];
        let file = files.iter().find(|file| file.is_file()).unwrap_or_else(|| panic!("{files:?}"));
        read_module(file, &[path.clone(), vec![name]].concat(), modules);
    }
}

/// Follows names that parents pass on to the module that they come from.
fn resolve(path: &[String], modules: &BTreeMap<ModulePath, Module>) -> Vec<String> {
    let mut path = path.to_vec();
    for _ in 0..10 {
        let depth = (0..=path.len()).rev().find(|depth| modules.contains_key(&path[..*depth])).unwrap_or(0);
        let passed = path.get(depth).and_then(|name| modules.get(&path[..depth])?.passes_on.get(name));
        match passed {
            Some(from) => path = [from.clone(), path[depth + 1..].to_vec()].concat(),
            None => break,
        }
    }
    path
}

/// The arrows between the modules of each folder, with an example of each.
fn arrows(modules: &BTreeMap<ModulePath, Module>) -> BTreeMap<ModulePath, BTreeMap<String, BTreeSet<String>>> {
    let mut arrows: BTreeMap<ModulePath, BTreeMap<String, BTreeSet<String>>> = BTreeMap::new();
    for (from, module) in modules {
        for used in &module.uses {
            let to = resolve(used, modules);
            let shared = from.iter().zip(&to).take_while(|(from, to)| from == to).count();
            let folder = from[..shared].to_vec();
            let (Some(from), Some(to)) = (from.get(shared), to.get(shared)) else { continue };
            if modules.contains_key(&[folder.clone(), vec![to.clone()]].concat()) {
                arrows.entry(folder).or_default().entry(from.clone()).or_default().insert(to.clone());
            }
        }
    }
    arrows
}

/// A circle in these arrows, if there is one.
fn circle(arrows: &BTreeMap<String, BTreeSet<String>>) -> Option<Vec<String>> {
    fn search(at: &str, arrows: &BTreeMap<String, BTreeSet<String>>, way: &mut Vec<String>) -> Option<Vec<String>> {
        if let Some(start) = way.iter().position(|name| name == at) {
            return Some(way[start..].to_vec());
        }
        way.push(at.to_owned());
        let found = arrows.get(at).into_iter().flatten().find_map(|next| search(next, arrows, way));
        way.pop();
        found
    }
    arrows.keys().find_map(|start| search(start, arrows, &mut Vec::new()))
}

fn modules_of(file: &Path) -> BTreeMap<ModulePath, Module> {
    let mut modules = BTreeMap::new();
    read_module(file, &Vec::new(), &mut modules);
    modules
}

#[test]
fn modules_use_each_other_in_one_direction() {
    let mut circles = Vec::new();
    let mut read = 0;
    for folder in workspace("Cargo.toml").into_keys() {
        let source = root().join(&folder).join("src");
        for file in ["lib.rs", "main.rs"].map(|name| source.join(name)) {
            if !file.is_file() {
                continue;
            }
            let modules = modules_of(&file);
            read += modules.len();
            for (place, arrows) in arrows(&modules) {
                circles.extend(circle(&arrows).map(|circle| format!("{folder}/{}: {circle:?}", place.join("/"))));
            }
        }
    }
    assert!(read > 100, "{read} modules were read");
    assert!(circles.is_empty(), "modules use each other in a circle:\n{}", circles.join("\n"));
}

/// A crate of these files; each begins with its path.
fn crate_of(files: &[(&str, &str)]) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    for (path, text) in files {
        let path = folder.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    let file = folder.path().join("lib.rs");
    (folder, file)
}

#[test]
fn a_circle_is_seen_also_through_a_name_that_a_parent_passes_on() {
    let found = |b: &str| {
        let parent = "mod a; mod b; pub use self::b::{B, Other}; pub struct Root;";
        let (_folder, file) =
            crate_of(&[("lib.rs", parent), ("a.rs", "use crate::B; use super::Root; pub struct A;"), ("b.rs", b)]);
        arrows(&modules_of(&file)).values().find_map(circle)
    };
    assert_eq!(found("use crate::Root; pub struct B;"), None);
    assert_eq!(found("pub struct B; fn f(_: super::a::A) {}"), Some(vec!["a".to_owned(), "b".to_owned()]));
    assert_eq!(found("pub struct B; #[cfg(test)] mod tests { use super::super::a::A; }"), None, "tests do not count");
}
