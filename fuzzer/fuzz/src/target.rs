//! Targets: folders of text that say what is fuzzed.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use fault_plan::{FaultPlan, InjectableFunction, InjectedError};
use guest_protocol::{Setup, Step};
use serde::Deserialize;
use thiserror::Error;

/// Why a target is refused.
#[derive(Debug, Error)]
pub enum TargetError {
    /// No such target.
    #[error("no target \"{name}\": it is neither a folder with a target.toml nor one of {known}")]
    Unknown {
        /// What was asked for.
        name: String,
        /// What there is.
        known: String,
    },
    /// A file that cannot be read.
    #[error("cannot read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Not a target file.
    #[error("{path}: not a target")]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Line, column and reason.
        source: Box<toml::de::Error>,
    },
    /// A value that cannot be.
    #[error("{path}:{line}: {reason}")]
    Value {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong.
        reason: String,
    },
    /// The kernel does not let a function fail as asked.
    #[error("{path}: {reason}")]
    Kernel {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
}

/// How the target's disk is made.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImageRecipe {
    /// The command and its arguments; the image's path is appended.
    pub mkfs: Vec<String>,
    /// Size in MiB.
    pub size_mib: u32,
}

/// A function that may fail in this target.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TargetFunction {
    /// The kernel function.
    pub name: String,
    /// What it may return; the first is the one tried first.
    pub errors: Vec<InjectedError>,
}

/// `target.toml`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct TargetFile {
    description: String,
    kernel: String,
    image: Option<ImageRecipe>,
    functions: Vec<toml::Spanned<TargetFunction>>,
    steps: Vec<toml::Spanned<Step>>,
}

/// What is fuzzed.
#[derive(Clone, Debug)]
pub struct Target {
    /// Its name: that of its folder.
    pub name: String,
    /// One line for people.
    pub description: String,
    /// Name of the kernel.
    pub kernel: String,
    /// How its disk is made; none for a target without disk.
    pub image: Option<ImageRecipe>,
    /// What may fail.
    pub functions: Vec<TargetFunction>,
    /// The workload.
    pub steps: Vec<Step>,
    folder: PathBuf,
}

/// Bounds of a disk: what btrfs needs at least, and what the guest's memory holds.
const IMAGE_MIB: std::ops::RangeInclusive<u32> = 1..=1024;
const MAX_STEPS: usize = 1024;

impl Target {
    /// The target called `name` under `corpus`, or the folder `name`.
    ///
    /// # Errors
    ///
    /// There is none, or its file is refused.
    pub fn find(corpus: &Path, name: &str) -> Result<Self, TargetError> {
        let folder = [corpus.join(name), PathBuf::from(name)]
            .into_iter()
            .find(|folder| folder.join("target.toml").is_file())
            .ok_or_else(|| {
                let known = Self::names(corpus).join(", ");
                TargetError::Unknown { name: name.to_owned(), known }
            })?;
        Self::load(&folder)
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

    /// Reads the target in `folder`.
    ///
    /// # Errors
    ///
    /// Its file cannot be read or is refused.
    pub fn load(folder: &Path) -> Result<Self, TargetError> {
        let path = folder.join("target.toml");
        let text = fs::read_to_string(&path).map_err(|source| TargetError::Read { path: path.clone(), source })?;
        let folder_name = folder
            .canonicalize()
            .ok()
            .and_then(|folder| folder.file_name().map(|name| name.to_string_lossy().into_owned()));
        let name = folder_name.unwrap_or_else(|| folder.display().to_string());
        Self::parse(&name, folder, &path, &text)
    }

    fn parse(name: &str, folder: &Path, path: &Path, text: &str) -> Result<Self, TargetError> {
        let file: TargetFile = toml::from_str(text)
            .map_err(|source| TargetError::Syntax { path: path.to_owned(), source: Box::new(source) })?;
        check(path, text, &file)?;
        Ok(Self {
            name: name.to_owned(),
            description: file.description,
            kernel: file.kernel,
            image: file.image,
            functions: file.functions.into_iter().map(toml::Spanned::into_inner).collect(),
            steps: file.steps.into_iter().map(toml::Spanned::into_inner).collect(),
            folder: folder.to_owned(),
        })
    }

    /// The folder with the target's seeds.
    #[must_use]
    pub fn seeds(&self) -> PathBuf {
        self.folder.join("seeds")
    }

    /// What the agent needs to know.
    #[must_use]
    pub fn setup(&self) -> Setup {
        Setup {
            functions: self.functions.iter().map(|function| function.name.clone()).collect(),
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

    /// What `function` may return.
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

fn check(path: &Path, text: &str, file: &TargetFile) -> Result<(), TargetError> {
    let line_of = |offset: usize| text[..offset.min(text.len())].matches('\n').count() + 1;
    let refuse = |offset: usize, reason: String| {
        Err(TargetError::Value { path: path.to_owned(), line: line_of(offset), reason })
    };
    if let Some(image) = &file.image {
        let offset = text.find("[image]").unwrap_or(0);
        if !IMAGE_MIB.contains(&image.size_mib) {
            let (least, most) = (IMAGE_MIB.start(), IMAGE_MIB.end());
            return refuse(offset, format!("size_mib is {}, possible are {least} to {most}", image.size_mib));
        }
        if image.mkfs.first().is_none_or(String::is_empty) {
            return refuse(offset, "mkfs names no command".to_owned());
        }
    }
    if file.functions.is_empty() || file.functions.len() > abi::MAX_FUNCTIONS {
        return refuse(0, format!("{} functions, possible are 1 to {}", file.functions.len(), abi::MAX_FUNCTIONS));
    }
    for (index, function) in file.functions.iter().enumerate() {
        let (offset, name) = (function.span().start, &function.get_ref().name);
        if function.get_ref().errors.is_empty() {
            return refuse(offset, format!("\"{name}\" has no errors to return"));
        }
        if file.functions[..index].iter().any(|earlier| &earlier.get_ref().name == name) {
            return refuse(offset, format!("\"{name}\" is there twice"));
        }
    }
    if file.steps.is_empty() || file.steps.len() > MAX_STEPS {
        return refuse(0, format!("{} steps, possible are 1 to {MAX_STEPS}", file.steps.len()));
    }
    for step in &file.steps {
        if let Some(defect) = step.get_ref().defect() {
            return refuse(step.span().start, format!("step \"{}\": {defect}", step.get_ref().kind()));
        }
        if matches!(step.get_ref(), Step::Mount { .. }) && file.image.is_none() {
            return refuse(step.span().start, "a mount needs an [image] to mount".to_owned());
        }
    }
    Ok(())
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
        Target::parse("t", Path::new("t"), Path::new("t/target.toml"), text).map_err(|error| {
            let source = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
            format!("{error}: {source}")
        })
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
        assert!(refused("kernel =", "kernal =").contains("line 2"));
        assert!(refused("kernel =", "kernal =").contains("kernal"));
        assert!(refused("ENOMEM", "ENOMEMM").contains("line 12"));
        assert!(refused("128", "0").contains("t/target.toml:7: size_mib is 0"));
        assert!(
            refused("{ umount = {} }", "{ mkdir = { path = \"../x\" } }").contains("target.toml:5: step \"mkdir\"")
        );
        assert!(refused("fstype", "fstipe").contains("line 4"));
        assert!(refused("errors = [\"ENOMEM\"]", "errors = []").contains("no errors"));
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
