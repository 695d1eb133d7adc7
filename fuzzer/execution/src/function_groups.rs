//! Groups of functions that may fail: a file each in `corpus/functions/`, used by many targets.
//!
//! A group says of each function which errors it may return, and when the kernel promises that it
//! does not fail. That promise holds for whatever target names the function.

mod wanted;

use std::{collections::BTreeMap, fs, io, path::Path};

use fault_plan::{Condition, ErrorType, InjectedError};
use files::{TextFile, TextFileError};
use guest_protocol::{Contract, MAX_CALLERS, MAX_CONDITIONS, MAX_FUNCTIONS};
use serde::{Deserialize, Serialize};
use toml::Spanned;

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
            let GroupFunction { name, error_type, errors, source, never } = function.into_inner();
            let function = TargetFunction { name, error_type, errors, never };
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
        let Self { name, error_type, never, errors: _ } = self.clone();
        Contract { function: name, error_type, never }
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
mod tests {
    use std::path::PathBuf;

    use fault_plan::CallerCondition;

    use super::*;
    use crate::target::Target;

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
        assert_eq!(groups.group("one").unwrap()[0].never.len(), 1);
        assert!(groups.group("three").is_none());
    }

    #[test]
    fn what_is_wrong_is_refused_with_the_line() {
        let typed = |kind: &str| load(&[("a.toml", &GOOD.replace("errors", &format!("type = {kind}\nerrors")))]);
        assert_eq!(typed("'ERRNO_NULL'").unwrap().group("a").unwrap()[0].error_type, Some(ErrorType::ErrnoNull));
        assert!(typed("'TRUE'").unwrap_err().ends_with("a.toml:2: \"f\" is of type TRUE and cannot return EIO"));
        assert!(typed("'BOOL'").unwrap_err().contains("unknown variant `BOOL`"));
        let refused = |from: &str, to: &str| load(&[("a.toml", &GOOD.replace(from, to))]).unwrap_err();
        assert!(refused("f.c, f(), 6.12", " ").ends_with("a.toml:2: \"f\" has no source"));
        assert!(refused("[\"EIO\"]", "[]").ends_with("a.toml:2: \"f\" has no errors to return"));
        assert!(refused("argument = 1", "argument = 9").contains("a.toml:6: there is no argument 9"));
        let five = format!("[{}]", "{ argument = 1, value = 0 },".repeat(5));
        assert!(refused("[{ argument = 1, value = 0 }]", &five).contains("under 5 conditions, possible are 4"));
        let nine = format!("[{{ caller = [{}] }}]", "'g', ".repeat(9));
        assert!(refused("[{ argument = 1, value = 0 }]", &nine).contains("below 9 callers, possible are 8"));
        let twice = load(&[("a.toml", &GOOD.repeat(2))]).unwrap_err();
        assert!(twice.ends_with("a.toml:8: \"f\" is there twice"), "{twice}");
        let shared = load(&[("a.toml", GOOD), ("b.toml", GOOD)]).unwrap_err();
        assert!(shared.ends_with("b.toml:2: \"f\" is in the group \"a\" already"), "{shared}");
        assert!(FunctionGroups::load(Path::new("/no/such/folder")).is_err());
    }

    const TARGET: &str = "description = 'one'\nkernel = 'k'\nsteps = [{ sync = {} }]\n";
    const BY_NAME: &str = "description = 'one'\nkernel = 'k'\nsteps = [{ sync = {} }]\n\
        [[functions]]\nname = 'should_failslab'\nerrors = ['ENOMEM']\n";

    fn corpus() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../corpus")
    }

    fn groups() -> FunctionGroups {
        FunctionGroups::load(&corpus().join("functions")).unwrap()
    }

    fn target(text: &str) -> Result<Target, String> {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("target.toml"), text).unwrap();
        Target::load(folder.path(), &groups()).map_err(|error| error.to_string())
    }

    #[test]
    fn functions_come_by_group_or_by_name() {
        let with = |functions: &str| {
            let text = format!("{TARGET}{functions}\n");
            target(&text)
        };
        let names = |target: &Target| target.functions.iter().map(|known| known.name.clone()).collect::<Vec<_>>();
        let mixed = with(r#"functions = ["block", { name = "f", errors = ["EIO"] }, "filemap"]"#).unwrap();
        assert_eq!(names(&mixed), ["should_fail_bio", "f", "__filemap_add_folio"]);
        assert!(mixed.functions[1].never.is_empty());
        assert_eq!(names(&with(r#"functions = "block""#).unwrap()), ["should_fail_bio"]);
        let alone = with(r#"functions = "blocks""#).unwrap_err();
        assert!(alone.contains("target.toml:4: no group of functions is called \"blocks\""), "{alone}");
        let unknown = with(r#"functions = ["memory", "blocks"]"#).unwrap_err();
        let known = "target.toml:4: no group of functions is called \"blocks\": there are block, block-layer, btrfs";
        assert!(unknown.contains(known), "{unknown}");
        for (functions, reason) in [
            (r#"["memory", "memory"]"#, "target.toml:4: \"should_failslab\" is there twice"),
            (r#"["block", { name = "should_fail_bio", errors = ["EIO"] }]"#, "\"should_fail_bio\" is there twice"),
            (r#"["block", { name = "f", error = ["EIO"] }]"#, "target.toml:4: unknown field `error`"),
            (r#"["block", 1]"#, "the name of a group of functions, or a table"),
            ("1", "the name of a group of functions, or a list"),
            (
                r#"[{ name = "f", type = "NULL", errors = ["NULL", "EIO"] }]"#,
                "target.toml:4: \"f\" is of type NULL and cannot return EIO",
            ),
            ("[]", "0 functions, possible are 1 to 512"),
        ] {
            let refusal = with(&format!("functions = {functions}")).unwrap_err();
            assert!(refusal.contains(reason), "{functions}: {refusal}");
        }
    }

    #[test]
    fn what_the_kernel_promises_of_a_function_holds_however_it_is_named() {
        let by_name = target(BY_NAME).unwrap();
        assert_eq!(by_name.functions[0].never, groups().group("memory").unwrap()[0].never);
        let (by_argument, by_caller): (Vec<_>, Vec<_>) =
            by_name.functions[0].never.iter().partition(|condition| matches!(condition, Condition::Argument(_)));
        assert_eq!(by_argument.len(), 2, "no allocation that must not fail, no bootstrap cache");
        let callers = |names: &[&str], optional| {
            let names = names.iter().map(|name| (*name).to_owned()).collect();
            Condition::Caller(CallerCondition { names, optional })
        };
        let disk = callers(&["brd_submit_bio"], false);
        let kasan = callers(&["stack_depot_save_flags", "__stack_depot_save"], true);
        assert_eq!(by_caller, [&disk, &kasan], "no disk under test, and none of KASAN's own memory");
        assert_eq!(by_name.setup().functions[0].never, by_name.functions[0].never);
        let more = target(&format!("{BY_NAME}never = [{{ argument = 2, value = 7 }}]")).unwrap();
        assert_eq!(more.functions[0].never.len(), 5, "a target may add to it");
    }

    #[test]
    fn a_function_off_the_list_has_its_type_however_it_is_named() {
        let groups = load(&[("a.toml", &GOOD.replace("errors", "type = 'ERRNO'\nerrors"))]).unwrap();
        let with = |entry: &str| {
            let folder = tempfile::tempdir().unwrap();
            fs::write(folder.path().join("target.toml"), format!("{TARGET}functions = [{{ {entry} }}]\n")).unwrap();
            let target = Target::load(folder.path(), &groups).map_err(|error| error.to_string())?;
            Ok::<_, String>((
                target.setup().functions[0].error_type,
                target.definition()["functions"][0]["type"].clone(),
            ))
        };
        let named = with("name = 'f', errors = ['EIO']").unwrap();
        assert_eq!(named, (Some(ErrorType::Errno), "ERRNO".into()));
        let other = with("name = 'g', errors = ['EIO']").unwrap();
        assert_eq!(other, (None, serde_json::Value::Null));
        let contradicts = with("name = 'f', type = 'ERRNO_NULL', errors = ['EIO']").unwrap_err();
        assert!(
            contradicts.ends_with("\"f\" is of type ERRNO in the group \"a\", and not ERRNO_NULL"),
            "{contradicts}"
        );
    }

    #[test]
    fn every_file_system_has_functions_that_are_on_no_list() {
        let groups = groups();
        let off_list =
            |name: &str| groups.group(name).unwrap().iter().filter(|known| known.error_type.is_some()).count();
        for (name, least) in [("btrfs", 60), ("ext4", 40), ("xfs", 40), ("vfs", 20), ("jbd2", 10)] {
            assert!(off_list(name) >= least, "{name}: {}", off_list(name));
        }
        assert!(["vfs", "block-layer", "jbd2"].map(off_list).iter().sum::<usize>() >= 40);
    }

    #[test]
    fn the_targets_of_the_corpus_have_their_functions() {
        let memory = ["should_failslab ENOMEM", "should_fail_alloc_page true"];
        let btrfs = [
            "should_fail_bio EIO",
            "__filemap_add_folio ENOMEM",
            "btrfs_search_slot EIO ENOMEM",
            "btrfs_cow_block ENOMEM EIO ENOSPC",
            "btrfs_check_leaf EUCLEAN",
            "btrfs_check_node EUCLEAN",
            "io_ctl_init ENOMEM",
        ];
        let all = [&memory[..], &btrfs].concat();
        let without_btrfs = &all[..4];
        let families = [("btrfs-", &all[..]), ("ext4-", without_btrfs), ("xfs-", without_btrfs), ("selftest", &memory)];
        for target in Target::all(&corpus()).unwrap() {
            let name = &target.name;
            let (_, expected) = families.iter().find(|(family, _)| name.starts_with(family)).unwrap();
            let function = |function: &TargetFunction| {
                let errors = function.errors.iter().map(|error| format!(" {error}"));
                format!("{}{}", function.name, errors.collect::<String>())
            };
            let first: Vec<_> = target.functions.iter().map(function).take(expected.len()).collect();
            assert_eq!(first, *expected, "{name}");
        }
    }
}
