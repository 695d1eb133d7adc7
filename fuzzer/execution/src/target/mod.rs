//! Targets: folders of text that say what is fuzzed.
//!
//! ```text
//! corpus/NAME/target.toml ──▶ file ─┬─ image: command, script or file
//!                                   ├─ variant: what [variants.X] changes, for NAME:X
//!                                   └─ definition: all of it in one piece, and its digest
//! ```

mod definition;
mod disk;
mod file;
mod image;
mod oracle;
mod unrelated;
mod variant;

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use fault_plan::{FaultPlan, InjectableFunction, InjectedError, PlanError, Reproducer, Scope};
use guest_protocol::{Checker, LeftOut, Setup, Step, WorkloadStep};
use thiserror::Error;

use files::{TextFile, TextFileError};

pub use self::{
    definition::DefinitionError,
    disk::DiskKind,
    image::{ImageRecipe, ImageSource},
    oracle::Oracle,
};
use crate::function_groups::{FunctionGroups, TargetFunction};

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

/// Workload that is fuzzed, with its kernel, its disk and the functions that may fail.
#[derive(Clone, Debug)]
pub struct Target {
    /// Its name: that of its folder, with `:VARIANT` behind it for a variant.
    pub name: String,
    /// One line for people.
    pub description: String,
    /// Name of the kernel.
    pub kernel: String,
    /// Recipe of its disk; none for a target without disk.
    pub image: Option<ImageRecipe>,
    /// Functions that may fail.
    pub functions: Vec<TargetFunction>,
    /// Scopes whose calls may fail.
    pub scopes: Vec<Scope>,
    /// Functions below which calls of other tasks have nothing to do with the workload.
    pub unrelated: Vec<String>,
    /// Steps that run before the workload, not armed.
    pub setup_steps: Vec<WorkloadStep>,
    /// The workload.
    pub steps: Vec<WorkloadStep>,
    /// Oracles of the fuzzer's that judge its executions.
    pub oracles: Vec<Oracle>,
    /// Names of its variants; none of a variant.
    pub variants: Vec<String>,
    memory_mib: Option<u32>,
    folder: PathBuf,
    variant: Option<String>,
}

/// Memory in MiB of a guest without a disk, or with a small one.
pub const MEMORY_MIB: u32 = 512;
/// Memory in MiB of a guest without its disk, where that is large.
const BASE_MIB: u32 = 256;

impl Target {
    /// The target called `name` under `corpus`, or else the folder `name`. A name with a slash is
    /// always a folder's. `NAME:VARIANT` is a variant of either.
    ///
    /// # Errors
    ///
    /// There is none, or its file is refused.
    pub fn find(corpus: &Path, name: &str) -> Result<Self, TargetError> {
        let folder_of = |name: &str| {
            let named = (!name.contains('/')).then(|| corpus.join(name));
            let candidates = named.into_iter().chain([PathBuf::from(name)]);
            candidates.into_iter().find(|folder| folder.join("target.toml").is_file())
        };
        let variant = || {
            let (base, variant) = name.rsplit_once(':')?;
            Some((folder_of(base)?, Some(variant)))
        };
        let found = folder_of(name).map(|folder| (folder, None)).or_else(variant);
        let (folder, variant) = found.ok_or_else(|| {
            let known = Self::names(corpus).join(", ");
            TargetError::Unknown { name: name.to_owned(), known }
        })?;
        let target = Self::load_variant(&folder, &FunctionGroups::load(&corpus.join("functions"))?, variant)?;
        Ok(Self { unrelated: unrelated::load(corpus)?, ..target })
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

    /// Reads all targets under `corpus`, each followed by its variants.
    ///
    /// # Errors
    ///
    /// One of them is refused.
    pub fn all(corpus: &Path) -> Result<Vec<Self>, TargetError> {
        let groups = FunctionGroups::load(&corpus.join("functions"))?;
        let unrelated = unrelated::load(corpus)?;
        let mut targets: Vec<Self> = Vec::new();
        for name in Self::names(corpus) {
            let folder = corpus.join(name);
            let target = Self::load(&folder, &groups)?;
            let variants = target.variants.iter().map(|variant| Self::load_variant(&folder, &groups, Some(variant)));
            let variants = variants.collect::<Result<Vec<_>, _>>()?;
            targets.push(target);
            targets.extend(variants);
        }
        targets.iter_mut().for_each(|target| target.unrelated.clone_from(&unrelated));
        Ok(targets)
    }

    /// Reads the target in `folder`, whose functions may be those of `groups`.
    ///
    /// # Errors
    ///
    /// Its file cannot be read or is refused.
    pub fn load(folder: &Path, groups: &FunctionGroups) -> Result<Self, TargetError> {
        Self::load_variant(folder, groups, None)
    }

    fn load_variant(folder: &Path, groups: &FunctionGroups, variant: Option<&str>) -> Result<Self, TargetError> {
        let file = TextFile::read(&folder.join("target.toml"))?;
        let folder_name = folder
            .canonicalize()
            .ok()
            .and_then(|folder| folder.file_name().map(|name| name.to_string_lossy().into_owned()));
        let name = folder_name.unwrap_or_else(|| folder.display().to_string());
        Ok(file::parse(&name, folder, &file, groups, variant)?)
    }

    /// The target's own folder, in which the files of its text are; empty for one without.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The folder `name` of the target, or of the variant.
    fn subfolder(&self, name: &str) -> PathBuf {
        let folder = self.folder.join(name);
        match &self.variant {
            Some(variant) => folder.join(variant),
            None => folder,
        }
    }

    /// The folder with the target's seeds: `seeds`, or `seeds/VARIANT` of a variant.
    #[must_use]
    pub fn seeds(&self) -> PathBuf {
        self.subfolder("seeds")
    }

    /// Memory of its guests, in MiB. Disks that are memory are in it, and may be written to their
    /// end. So is the agent's copy of the image, which is small where a `mkfs` has made it.
    #[must_use]
    pub fn memory_mib(&self) -> u32 {
        let disks = self.disks_mib();
        let disk_and_copy = self.image.as_ref().map_or(0, |ImageRecipe { size_mib, source, .. }| match source {
            ImageSource::Mkfs(_) => disks + size_mib / 2,
            ImageSource::Script { .. } | ImageSource::File { .. } => disks + size_mib,
        });
        self.memory_mib.unwrap_or_else(|| MEMORY_MIB.max(BASE_MIB + disk_and_copy))
    }

    /// Number of its disks.
    #[must_use]
    pub fn disks(&self) -> u8 {
        self.image.as_ref().map_or(0, |image| image.disks)
    }

    /// Gives the device files of its disks.
    #[must_use]
    pub fn disk_paths(&self) -> Vec<String> {
        let paths = |image: &ImageRecipe| (0..image.disks).map(|number| image.kind.path(number)).collect();
        self.image.as_ref().map_or_else(Vec::new, paths)
    }

    /// Size in MiB of all its disks that are the guest's memory.
    fn disks_mib(&self) -> u32 {
        let in_memory = self.image.as_ref().filter(|image| image.kind == DiskKind::Memory);
        in_memory.map_or(0, |image| image.size_mib * u32::from(image.disks))
    }

    /// The crashes in the target's folder `known` (`known/VARIANT` of a variant), which must keep
    /// reproducing, in the order of their files' names.
    ///
    /// # Errors
    ///
    /// A file cannot be read or is no reproducer.
    pub fn known(&self) -> Result<Vec<Reproducer>, TargetError> {
        let folder = self.subfolder("known");
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
            functions: self.functions.iter().map(TargetFunction::contract).collect(),
            scopes: self.scopes.clone(),
            unrelated: self.unrelated.clone(),
            setup_steps: self.setup_steps.clone(),
            steps: self.steps.clone(),
            disks: self.disk_paths(),
            image_steps: self.image.as_ref().map_or_else(Vec::new, |image| image.steps.clone()),
            awake: false,
            allocations: self.oracles.contains(&Oracle::Leaks),
        }
    }

    /// Gives the checkers of the file systems that it mounts, where one is to read its disk. Of
    /// several disks none does: what a file system keeps on which of them is its own business.
    #[must_use]
    pub fn checkers(&self) -> Vec<&'static Checker> {
        if !self.oracles.contains(&Oracle::Fsck) || self.disks() != 1 {
            return Vec::new();
        }
        let mut found: Vec<&'static Checker> = Vec::new();
        for step in self.setup_steps.iter().chain(&self.steps) {
            let Step::Mount { fstype, .. } = &step.step else { continue };
            found.extend(Checker::of(fstype).filter(|checker| !found.contains(checker)));
        }
        found
    }

    /// The plan in which nothing fails.
    #[must_use]
    pub fn fault_free(&self) -> FaultPlan {
        FaultPlan::fault_free(&self.name)
    }

    /// Gives `plan` as it runs: no fault fires more often than its function may fail in a row.
    #[must_use]
    pub fn bounded(&self, plan: &FaultPlan) -> FaultPlan {
        let mut plan = plan.clone();
        for fault in &mut plan.faults {
            let known = self.functions.iter().find(|known| known.name == fault.function);
            if let Some(most) = known.and_then(|known| known.times) {
                fault.times = fault.times.min(most.get());
            }
        }
        plan
    }

    /// Gives the errors that `function` may return.
    #[must_use]
    pub fn errors(&self, function: &str) -> &[InjectedError] {
        self.functions.iter().find(|known| known.name == function).map_or(&[], |known| &known.errors)
    }

    /// Checks the functions against those `injectable` on the kernel. It may have left some out.
    ///
    /// # Errors
    ///
    /// A function that the kernel does not let fail, or not in that way.
    pub fn check_against(&self, injectable: &[InjectableFunction], left_out: &[LeftOut]) -> Result<(), TargetError> {
        let refuse = |reason| Err(TargetError::Kernel { path: self.folder.join("target.toml"), reason });
        for function in &self.functions {
            if left_out.iter().any(|left_out| left_out.function == function.name) {
                continue;
            }
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

#[cfg(test)]
mod tests;
