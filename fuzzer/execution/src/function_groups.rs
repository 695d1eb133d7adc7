//! Groups of functions that may fail: a file each in `corpus/functions/`, used by many targets.
//!
//! A group says of each function which errors it may return, and when the kernel promises that it
//! does not fail. That promise holds for whatever target names the function.

mod wanted;

use std::{collections::BTreeMap, fs, io, num::NonZeroU32, path::Path};

use fault_plan::{Condition, ErrorType, InjectedError};
use files::{TextFile, TextFileError};
use guest_protocol::{Contract, MAX_CALLERS, MAX_CONDITIONS, MAX_FUNCTIONS};
use serde::{Deserialize, Serialize};
use toml::Spanned;

use crate::arguments::{self, NamedArgument, shown};

use self::wanted::WantedFunction;
pub(crate) use self::wanted::WantedFunctions;

/// A function that may fail in this target.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TargetFunction {
    /// The kernel function.
    pub name: String,
    /// Type of its errors, for a function that the kernel's own list need not have; it is added
    /// there then. None for one that must be on the list, which says the type.
    #[serde(rename = "type", default, skip_serializing_if = "Option::is_none")]
    pub error_type: Option<ErrorType>,
    /// Errors that it may return; the first is the one tried first.
    pub errors: Vec<InjectedError>,
    /// A call for which any of these holds never fails.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub never: Vec<Condition>,
    /// The most times that a plan may have it fail in a row, where its callers try again until it
    /// works. None where nobody does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub times: Option<NonZeroU32>,
    /// The arguments that a report tells. They change nothing of what a plan means.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub arguments: Vec<NamedArgument>,
}

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
    #[serde(rename = "type")]
    error_type: Option<ErrorType>,
    errors: Vec<InjectedError>,
    /// Place in the kernel's source that says so: file, function, version.
    source: String,
    #[serde(default)]
    never: Vec<Condition>,
    times: Option<NonZeroU32>,
    #[serde(default)]
    arguments: Vec<NamedArgument>,
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
            let GroupFunction { name, error_type, errors, source, never, times, arguments } = function.into_inner();
            let function = TargetFunction { name, error_type, errors, never, times, arguments };
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

    /// The functions of all groups.
    pub fn functions(&self) -> impl Iterator<Item = &TargetFunction> {
        self.0.values().flatten()
    }

    /// The names of the groups, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// The functions that `wanted` stands for, in that order. What its group says of a function's
    /// type and promises holds however it was named.
    ///
    /// # Errors
    ///
    /// A group is unknown, a function is there twice or is of another type in its group; `text` is
    /// the target's file.
    pub(crate) fn resolve(
        &self,
        text: &TextFile,
        wanted: &Spanned<WantedFunctions>,
    ) -> Result<Vec<TargetFunction>, TextFileError> {
        let entries = match wanted.get_ref() {
            WantedFunctions::Group(name) => &vec![Spanned::new(wanted.span(), WantedFunction::Group(name.clone()))],
            WantedFunctions::Several(entries) => entries,
        };
        let mut functions: Vec<TargetFunction> = Vec::new();
        for entry in entries {
            let refuse = |reason: String| text.invalid(entry.span().start, reason);
            let found = match entry.get_ref() {
                WantedFunction::Group(name) => self.group(name).map(<[_]>::to_vec).ok_or_else(|| {
                    let known = self.names().collect::<Vec<_>>().join(", ");
                    refuse(format!("no group of functions is called \"{name}\": there are {known}"))
                })?,
                WantedFunction::One(function) => vec![self.completed(function).map_err(refuse)?],
            };
            for function in found {
                let twice =
                    || functions.iter().any(|earlier| earlier.name == function.name).then(|| "is there twice".into());
                if let Some(defect) = function.defect().or_else(twice) {
                    return Err(refuse(format!("\"{}\" {defect}", function.name)));
                }
                functions.push(function);
            }
        }
        if functions.is_empty() || functions.len() > MAX_FUNCTIONS {
            return Err(text.invalid(0, format!("{} functions, possible are 1 to {MAX_FUNCTIONS}", functions.len())));
        }
        Ok(functions)
    }

    /// Adds to `function`, of a target, what its group says of it.
    fn completed(&self, function: &TargetFunction) -> Result<TargetFunction, String> {
        let mut function = function.clone();
        let Some((group, known)) = self.function(&function.name) else { return Ok(function) };
        if let Some((ours, theirs)) = function.error_type.zip(known.error_type).filter(|(ours, theirs)| ours != theirs)
        {
            let name = &function.name;
            return Err(format!("\"{name}\" is of type {theirs} in the group \"{group}\", and not {ours}"));
        }
        function.error_type = function.error_type.or(known.error_type);
        function.never.extend_from_slice(&known.never);
        function.times = function.times.or(known.times);
        if function.arguments.is_empty() {
            function.arguments.clone_from(&known.arguments);
        }
        Ok(function)
    }

    fn function(&self, name: &str) -> Option<(&str, &TargetFunction)> {
        self.0.iter().find_map(|(group, functions)| {
            functions.iter().find(|function| function.name == name).map(|function| (group.as_str(), function))
        })
    }
}

impl TargetFunction {
    /// Gives the part of it that the agent needs to know.
    #[must_use]
    pub fn contract(&self) -> Contract {
        let Self { name, error_type, never, arguments, errors: _, times: _ } = self.clone();
        Contract { function: name, error_type, never, shown: shown(&arguments) }
    }

    /// Says what is wrong with it, in words that go behind its name.
    pub(crate) fn defect(&self) -> Option<String> {
        if self.errors.is_empty() {
            return Some("has no errors to return".to_owned());
        }
        if let Some(error_type) = self.error_type
            && let Some(error) = self.errors.iter().find(|error| !error_type.allows(**error))
        {
            return Some(format!("is of type {error_type} and cannot return {error}"));
        }
        if let Some(defect) = arguments::defect(&self.arguments) {
            return Some(defect);
        }
        let (mut arguments, mut callers) = (0, 0);
        for condition in &self.never {
            match condition {
                Condition::Argument(_) => arguments += 1,
                Condition::Caller(caller) => callers += caller.names.len(),
            }
        }
        if arguments > MAX_CONDITIONS {
            return Some(format!("never fails under {arguments} conditions, possible are {MAX_CONDITIONS}"));
        }
        (callers > MAX_CALLERS).then(|| format!("never fails below {callers} callers, possible are {MAX_CALLERS}"))
    }
}

#[cfg(test)]
mod tests;
