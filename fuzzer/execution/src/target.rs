//! Targets: folders of text that say what is fuzzed.

use std::{
    fs, io,
    ops::RangeInclusive,
    path::{Path, PathBuf},
};

use fault_plan::{FaultPlan, InjectableFunction, InjectedError, PlanError, Reproducer};
use guest_protocol::{Contract, Setup, Step};
use serde::Deserialize;
use thiserror::Error;
use toml::Spanned;

use files::{TextFile, TextFileError};

use crate::function_groups::{FunctionGroups, TargetFunction, WantedFunctions};

/// Why a target is refused.
#[derive(Debug, Error)]
pub enum TargetError {
    /// No such target.
    #[error("no target \"{name}\": it is neither a folder with a target.toml nor one of {known}")]
    Unknown {
        /// Name that was asked for.
        name: String,
        /// Names that there are.
        known: String,
    },
    /// A file that cannot be read or understood.
    #[error(transparent)]
    File(#[from] TextFileError),
    /// A known crash.
    #[error("{}", path.display())]
    Known {
        /// The file.
        path: PathBuf,
        /// Defect of the file.
        source: PlanError,
    },
    /// The kernel does not let a function fail as asked.
    #[error("{path}: {reason}")]
    Kernel {
        /// The file.
        path: PathBuf,
        /// Defect of the function's entry.
        reason: String,
    },
}

/// Recipe of the target's disk.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImageRecipe {
    /// The command and its arguments; the image's path is appended.
    pub mkfs: Vec<String>,
    /// Size in MiB.
    pub size_mib: u32,
}

/// `target.toml`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct TargetFile {
    description: String,
    kernel: String,
    image: Option<Spanned<ImageRecipe>>,
    functions: Vec<Spanned<WantedFunctions>>,
    steps: Vec<Spanned<toml::Table>>,
}

/// Workload that is fuzzed, with its kernel, its disk and the functions that may fail.
#[derive(Clone, Debug)]
pub struct Target {
    /// Its name: that of its folder.
    pub name: String,
    /// One line for people.
    pub description: String,
    /// Name of the kernel.
    pub kernel: String,
    /// Recipe of its disk; none for a target without disk.
    pub image: Option<ImageRecipe>,
    /// Functions that may fail.
    pub functions: Vec<TargetFunction>,
    /// The workload.
    pub steps: Vec<Step>,
    folder: PathBuf,
}

/// Memory of the guest that a target runs in, in MiB.
pub const MEMORY_MIB: u32 = 512;
/// Size of a disk in MiB: it is in the guest's memory, of which it may fill one half.
const IMAGE_MIB: RangeInclusive<u32> = 1..=MEMORY_MIB / 2;
const MAX_STEPS: usize = 1024;

impl Target {
    /// The target called `name` under `corpus`, or else the folder `name`. A name with a slash is
    /// always a folder's.
    ///
    /// # Errors
    ///
    /// There is none, or its file is refused.
    pub fn find(corpus: &Path, name: &str) -> Result<Self, TargetError> {
        let named = (!name.contains('/')).then(|| corpus.join(name));
        let folder = named
            .into_iter()
            .chain([PathBuf::from(name)])
            .find(|folder| folder.join("target.toml").is_file())
            .ok_or_else(|| {
                let known = Self::names(corpus).join(", ");
                TargetError::Unknown { name: name.to_owned(), known }
            })?;
        Self::load(&folder, &FunctionGroups::load(&corpus.join("functions"))?)
    }

    /// The names of the targets under `corpus`, sorted.
    #[must_use]
    pub fn names(corpus: &Path) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(corpus)
            .into_iter()
            .flatten()
            .flatten()
            .filter(|entry| entry.path().join("target.toml").is_file())
            .filter_map(|entry| entry.file_name().into_string().ok())
            .collect();
        names.sort();
        names
    }

    /// Reads the target in `folder`, whose functions may be those of `groups`.
    ///
    /// # Errors
    ///
    /// Its file cannot be read or is refused.
    pub fn load(folder: &Path, groups: &FunctionGroups) -> Result<Self, TargetError> {
        let file = TextFile::read(&folder.join("target.toml"))?;
        let folder_name = folder
            .canonicalize()
            .ok()
            .and_then(|folder| folder.file_name().map(|name| name.to_string_lossy().into_owned()));
        let name = folder_name.unwrap_or_else(|| folder.display().to_string());
        Ok(Self::parse(&name, folder, &file, groups)?)
    }

    fn parse(name: &str, folder: &Path, text: &TextFile, groups: &FunctionGroups) -> Result<Self, TextFileError> {
        let file: TargetFile = text.toml()?;
        check(text, &file)?;
        let steps = file.steps.into_iter().map(|step| read_step(text, step)).collect::<Result<Vec<_>, _>>()?;
        Ok(Self {
            name: name.to_owned(),
            description: file.description,
            kernel: file.kernel,
            image: file.image.map(Spanned::into_inner),
            functions: groups.resolve(text, &file.functions)?,
            steps,
            folder: folder.to_owned(),
        })
    }

    /// The folder with the target's seeds.
    #[must_use]
    pub fn seeds(&self) -> PathBuf {
        self.folder.join("seeds")
    }

    /// The crashes in the target's folder `known`, which must keep reproducing, in the order of
    /// their files' names.
    ///
    /// # Errors
    ///
    /// A file cannot be read or is no reproducer.
    pub fn known(&self) -> Result<Vec<Reproducer>, TargetError> {
        let folder = self.folder.join("known");
        if !folder.is_dir() {
            return Ok(Vec::new());
        }
        let entries = fs::read_dir(&folder).and_then(Iterator::collect::<io::Result<Vec<_>>>);
        let entries = entries.map_err(|source| TextFileError::Read { path: folder, source })?;
        let mut paths: Vec<_> = entries.iter().map(fs::DirEntry::path).collect();
        paths.retain(|path| path.extension().is_some_and(|extension| extension == "json"));
        paths.sort();
        let read = |path: &PathBuf| {
            let TextFile { path, text } = TextFile::read(path)?;
            Reproducer::from_json(&text).map_err(|source| TargetError::Known { path, source })
        };
        paths.iter().map(read).collect()
    }

    /// Gives the part of the target that the agent needs to know.
    #[must_use]
    pub fn setup(&self) -> Setup {
        Setup {
            functions: self
                .functions
                .iter()
                .map(|function| Contract { function: function.name.clone(), never: function.never.clone() })
                .collect(),
            steps: self.steps.clone(),
            disk: self.image.is_some(),
            awake: false,
        }
    }

    /// The plan in which nothing fails.
    #[must_use]
    pub fn fault_free(&self) -> FaultPlan {
        FaultPlan::fault_free(&self.name)
    }

    /// Gives the errors that `function` may return.
    #[must_use]
    pub fn errors(&self, function: &str) -> &[InjectedError] {
        self.functions.iter().find(|known| known.name == function).map_or(&[], |known| &known.errors)
    }

    /// Checks the functions against what the kernel allows.
    ///
    /// # Errors
    ///
    /// A function that the kernel does not let fail, or not in that way.
    pub fn check_against(&self, injectable: &[InjectableFunction]) -> Result<(), TargetError> {
        let refuse = |reason| Err(TargetError::Kernel { path: self.folder.join("target.toml"), reason });
        for function in &self.functions {
            let Some(known) = injectable.iter().find(|known| known.name == function.name) else {
                return refuse(format!(
                    "\"{}\" is not on the kernel's list of functions that may fail \
                     (/sys/kernel/debug/error_injection/list)",
                    function.name
                ));
            };
            if let Some(error) = function.errors.iter().find(|error| !known.error_type.allows(**error)) {
                let name = &function.name;
                return refuse(format!("\"{name}\" is of type {} and cannot return {error}", known.error_type));
            }
        }
        Ok(())
    }
}

fn check(text: &TextFile, file: &TargetFile) -> Result<(), TextFileError> {
    let refuse = |offset: usize, reason: String| Err(text.invalid(offset, reason));
    if let Some(image) = &file.image {
        let (offset, image) = (image.span().start, image.get_ref());
        if !IMAGE_MIB.contains(&image.size_mib) {
            let (least, most) = (IMAGE_MIB.start(), IMAGE_MIB.end());
            return refuse(offset, format!("size_mib is {}, possible are {least} to {most}", image.size_mib));
        }
        if image.mkfs.first().is_none_or(String::is_empty) {
            return refuse(offset, "mkfs names no command".to_owned());
        }
    }
    if file.steps.is_empty() || file.steps.len() > MAX_STEPS {
        return refuse(0, format!("{} steps, possible are 1 to {MAX_STEPS}", file.steps.len()));
    }
    let mount = file.steps.iter().find(|step| step.get_ref().contains_key("mount"));
    match mount {
        Some(step) if file.image.is_none() => refuse(step.span().start, "a mount needs an [image] to mount".to_owned()),
        _ => Ok(()),
    }
}

/// The step that `table` is. An error names it, which one of the whole file's would not.
fn read_step(text: &TextFile, table: Spanned<toml::Table>) -> Result<Step, TextFileError> {
    let offset = table.span().start;
    let kind = table.get_ref().keys().next().cloned().unwrap_or_default();
    let refuse = |error: toml::de::Error| text.invalid(offset, format!("step \"{kind}\": {}", error.message()));
    table.into_inner().try_into().map_err(refuse)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"description = "one"
kernel = "k"
steps = [
    { mount = { fstype = "btrfs" } },
    { umount = {} },
]
[image]
mkfs = ["mkfs.btrfs", "-q"]
size_mib = 128
[[functions]]
name = "should_failslab"
errors = ["ENOMEM"]
"#;

    fn parse(text: &str) -> Result<Target, String> {
        let file = TextFile { path: "t/target.toml".into(), text: text.to_owned() };
        Target::parse("t", Path::new("t"), &file, &FunctionGroups::default()).map_err(|error| error.to_string())
    }

    #[test]
    fn a_target_is_read() {
        let target = parse(GOOD).unwrap();
        assert_eq!(target.steps.len(), 2);
        assert_eq!(target.errors("should_failslab").len(), 1);
        assert!(target.setup().disk);
    }

    #[test]
    fn what_is_wrong_is_refused_with_the_line() {
        let refused = |from: &str, to: &str| parse(&GOOD.replace(from, to)).unwrap_err();
        assert!(refused("kernel =", "kernal =").starts_with("t/target.toml:2: unknown field `kernal`"));
        assert!(refused("ENOMEM", "ENOMEMM").starts_with("t/target.toml:12: "));
        assert!(refused("128", "0").starts_with("t/target.toml:7: size_mib is 0"));
        let half = MEMORY_MIB / 2;
        assert!(parse(&GOOD.replace("128", &half.to_string())).is_ok());
        assert!(refused("128", &(half + 1).to_string()).contains("possible are 1 to 256"));
        let misleading = GOOD.replace("\"one\"", "\"[image]\"").replace("128", "0");
        assert!(parse(&misleading).unwrap_err().starts_with("t/target.toml:7: "));
        assert!(
            refused("{ umount = {} }", "{ mkdir = { path = \"../x\" } }")
                .contains("target.toml:5: step \"mkdir\": \"../x\" is not a plain path")
        );
        assert!(refused("umount = {}", "unmount = {}").contains("target.toml:5: step \"unmount\": unknown variant"));
        assert!(refused("fstype", "fstipe").starts_with("t/target.toml:4: step \"mount\": unknown field"));
        assert!(refused("errors = [\"ENOMEM\"]", "errors = []").contains("no errors"));
    }

    #[test]
    fn a_name_with_a_slash_is_a_path() {
        let folder = tempfile::tempdir().unwrap();
        for (name, description) in [("corpus/t/u", "in the corpus"), ("t/u", "elsewhere")] {
            let target = folder.path().join(name);
            fs::create_dir_all(&target).unwrap();
            fs::write(target.join("target.toml"), GOOD.replace("one", description)).unwrap();
        }
        let corpus = folder.path().join("corpus");
        fs::create_dir(corpus.join("t/functions")).unwrap();
        fs::create_dir(corpus.join("functions")).unwrap();
        assert_eq!(Target::find(&corpus.join("t"), "u").unwrap().description, "in the corpus");
        let path = folder.path().join("t/u");
        assert_eq!(Target::find(&corpus, path.to_str().unwrap()).unwrap().description, "elsewhere");
        assert!(matches!(Target::find(&corpus, "t/u"), Err(TargetError::Unknown { .. })));
    }

    #[test]
    fn the_kernel_has_the_last_word() {
        let target = parse(GOOD).unwrap();
        let function = |name: &str, error_type| InjectableFunction { name: name.to_owned(), error_type };
        let errno = fault_plan::ErrorType::Errno;
        assert!(target.check_against(&[function("should_failslab", errno)]).is_ok());
        assert!(target.check_against(&[function("open_ctree", errno)]).is_err());
        let null = fault_plan::ErrorType::Null;
        assert!(target.check_against(&[function("should_failslab", null)]).unwrap_err().to_string().contains("NULL"));
    }
}
