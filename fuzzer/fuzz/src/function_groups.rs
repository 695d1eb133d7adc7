//! Groups of functions that may fail: a file each in `corpus/functions/`, used by many targets.
//!
//! A group says of each function which errors it may return, and when the kernel promises that it does not fail. That promise holds
//! for whatever target names the function.

use std::{collections::BTreeMap, fs, io, path::Path};

use fault_plan::{Condition, InjectedError};
use guest_protocol::MAX_CONDITIONS;
use serde::Deserialize;
use toml::Spanned;

use crate::{
    target::TargetFunction,
    text_file::{TextFile, TextFileError},
};

/// The groups, by name.
#[derive(Clone, Debug, Default)]
pub struct FunctionGroups(BTreeMap<String, Vec<TargetFunction>>);

/// A group's file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct GroupFile {
    functions: Vec<Spanned<GroupFunction>>,
}

/// A function in a group's file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct GroupFunction {
    name: String,
    errors: Vec<InjectedError>,
    /// Where the kernel says so: file, function, version.
    source: String,
    #[serde(default)]
    never: Vec<Condition>,
}

impl FunctionGroups {
    /// The groups in the files `*.toml` of `folder`, each called as its file.
    ///
    /// # Errors
    ///
    /// The folder or a file cannot be read or is refused, or a function is in two groups.
    pub fn load(folder: &Path) -> Result<Self, TextFileError> {
        let entries = fs::read_dir(folder).and_then(Iterator::collect::<io::Result<Vec<_>>>);
        let entries = entries.map_err(|source| TextFileError::Read { path: folder.to_owned(), source })?;
        let mut paths: Vec<_> = entries.iter().map(fs::DirEntry::path).collect();
        paths.retain(|path| path.extension().is_some_and(|extension| extension == "toml"));
        paths.sort();
        let mut groups = Self::default();
        for path in &paths {
            let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            groups.add(name, &TextFile::read(path)?)?;
        }
        Ok(groups)
    }

    fn add(&mut self, name: String, text: &TextFile) -> Result<(), TextFileError> {
        let file: GroupFile = text.toml()?;
        let mut functions: Vec<TargetFunction> = Vec::with_capacity(file.functions.len());
        for function in file.functions {
            let offset = function.span().start;
            let GroupFunction { name, errors, source, never } = function.into_inner();
            let function = TargetFunction { name, errors, never };
            let defect = match self.function(&function.name) {
                _ if source.trim().is_empty() => Some("has no source".to_owned()),
                Some((group, _)) => Some(format!("is in the group \"{group}\" already")),
                None if functions.iter().any(|earlier| earlier.name == function.name) => {
                    Some("is there twice".to_owned())
                }
                None => function.defect(),
            };
            if let Some(defect) = defect {
                return Err(text.invalid(offset, format!("\"{}\" {defect}", function.name)));
            }
            functions.push(function);
        }
        self.0.insert(name, functions);
        Ok(())
    }

    /// The functions of the group `name`.
    #[must_use]
    pub fn group(&self, name: &str) -> Option<&[TargetFunction]> {
        self.0.get(name).map(Vec::as_slice)
    }

    /// The names of the groups, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// The conditions under which the kernel promises that the function `name` does not fail; none are known of a function in no group.
    #[must_use]
    pub fn never(&self, name: &str) -> &[Condition] {
        self.function(name).map_or(&[], |(_, function)| &function.never)
    }

    fn function(&self, name: &str) -> Option<(&str, &TargetFunction)> {
        self.0.iter().find_map(|(group, functions)| {
            functions.iter().find(|function| function.name == name).map(|function| (group.as_str(), function))
        })
    }
}

impl TargetFunction {
    /// What is wrong with it, fit after its name.
    pub(crate) fn defect(&self) -> Option<String> {
        if self.errors.is_empty() {
            return Some("has no errors to return".to_owned());
        }
        let conditions = self.never.len();
        (conditions > MAX_CONDITIONS)
            .then(|| format!("never fails under {conditions} conditions, possible are {MAX_CONDITIONS}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"
[[functions]]
name = "f"
errors = ["EIO"]
source = "f.c, f(), 6.12"
never = [{ argument = 1, value = 0 }]
"#;

    fn load(files: &[(&str, &str)]) -> Result<FunctionGroups, String> {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            fs::write(folder.path().join(name), text).unwrap();
        }
        FunctionGroups::load(folder.path()).map_err(|error| error.to_string())
    }

    #[test]
    fn a_group_is_a_file() {
        let groups =
            load(&[("one.toml", GOOD), ("two.toml", &GOOD.replace("\"f\"", "\"g\"")), ("readme", "?")]).unwrap();
        assert_eq!(groups.names().collect::<Vec<_>>(), ["one", "two"]);
        assert_eq!(groups.group("two").unwrap()[0].name, "g");
        assert_eq!((groups.never("f").len(), groups.never("h").len()), (1, 0));
        assert!(groups.group("three").is_none());
    }

    #[test]
    fn what_is_wrong_is_refused_with_the_line() {
        let refused = |from: &str, to: &str| load(&[("a.toml", &GOOD.replace(from, to))]).unwrap_err();
        assert!(refused("f.c, f(), 6.12", " ").ends_with("a.toml:2: \"f\" has no source"));
        assert!(refused("[\"EIO\"]", "[]").ends_with("a.toml:2: \"f\" has no errors to return"));
        assert!(refused("argument = 1", "argument = 9").contains("a.toml:6: there is no argument 9"));
        let five = format!("[{}]", "{ argument = 1, value = 0 },".repeat(5));
        assert!(refused("[{ argument = 1, value = 0 }]", &five).contains("under 5 conditions, possible are 4"));
        let twice = load(&[("a.toml", &GOOD.repeat(2))]).unwrap_err();
        assert!(twice.ends_with("a.toml:8: \"f\" is there twice"), "{twice}");
        let shared = load(&[("a.toml", GOOD), ("b.toml", GOOD)]).unwrap_err();
        assert!(shared.ends_with("b.toml:2: \"f\" is in the group \"a\" already"), "{shared}");
        assert!(FunctionGroups::load(Path::new("/no/such/folder")).is_err());
    }
}
