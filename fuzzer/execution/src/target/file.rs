//! `target.toml`: how it is read, and what is refused.

use std::{collections::BTreeMap, ops::RangeInclusive, path::Path};

use fault_plan::Scope;
use files::{TextFile, TextFileError};
use guest_protocol::{Step, WorkloadStep};
use serde::Deserialize;
use toml::Spanned;

use super::{
    ImageRecipe, Oracle, Target,
    image::ImageText,
    variant::{VariantText, is_name},
};
use crate::function_groups::{FunctionGroups, WantedFunctions};

/// Memory of a guest in MiB, beyond which the window could not be at its address.
const MEMORY_MIB: RangeInclusive<u32> = 256..=3072;
/// Memory in MiB that the guest needs besides a disk that is full.
const BESIDE_DISK_MIB: u32 = 192;
const MAX_STEPS: usize = 1024;

/// `target.toml`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct TargetFile {
    description: String,
    kernel: String,
    memory_mib: Option<Spanned<u32>>,
    image: Option<Spanned<ImageText>>,
    functions: Spanned<WantedFunctions>,
    scope: Option<Vec<Scope>>,
    oracles: Option<Vec<Oracle>>,
    #[serde(default)]
    setup: Vec<Spanned<toml::Table>>,
    steps: Vec<Spanned<toml::Table>>,
    #[serde(default)]
    variants: BTreeMap<String, Spanned<VariantText>>,
}

impl TargetFile {
    /// Gives the variant called `name`, and its place in the text.
    fn variant(&self, text: &TextFile, name: &str) -> Result<(usize, VariantText), TextFileError> {
        let found = self.variants.get(name).ok_or_else(|| {
            let known: Vec<_> = self.variants.keys().map(String::as_str).collect();
            let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
            text.invalid(0, format!("no variant is called \"{name}\": there are {known}"))
        })?;
        Ok((found.span().start, found.get_ref().clone()))
    }
}

/// Reads the target `name` in `folder`, or its variant.
pub(super) fn parse(
    name: &str,
    folder: &Path,
    text: &TextFile,
    groups: &FunctionGroups,
    variant: Option<&str>,
) -> Result<Target, TextFileError> {
    let file: TargetFile = text.toml()?;
    if let Some((name, variant)) = file.variants.iter().find(|(name, _)| !is_name(name)) {
        let reason = format!("\"{name}\" cannot be a variant's name: use letters, digits, and - or _");
        return Err(text.invalid(variant.span().start, reason));
    }
    let chosen = variant.map(|name| file.variant(text, name)).transpose()?;
    let (at, change) = chosen.unwrap_or_default();
    let (mut setup_steps, mut steps) = (read_steps(text, &file.setup)?, read_steps(text, &file.steps)?);
    let mut image = image(text, folder, file.image.as_ref(), &change)?;
    let image_steps = image.iter_mut().flat_map(|image| &mut image.steps);
    let mounts = change.change_mounts(setup_steps.iter_mut().chain(&mut steps).chain(image_steps));
    mounts.map_err(|reason| text.invalid(at, reason))?;
    let target = Target {
        name: variant.map_or_else(|| name.to_owned(), |variant| format!("{name}:{variant}")),
        description: change.description.clone().unwrap_or(file.description),
        kernel: file.kernel,
        image,
        functions: groups.resolve(text, change.functions.as_ref().unwrap_or(&file.functions))?,
        scopes: file.scope.unwrap_or_else(|| Scope::ALL.to_vec()),
        unrelated: Vec::new(),
        oracles: file.oracles.unwrap_or_else(|| Oracle::ALL.to_vec()),
        setup_steps,
        steps,
        memory_mib: file.memory_mib.as_ref().map(|memory| *memory.get_ref()),
        variants: if variant.is_some() { Vec::new() } else { file.variants.into_keys().collect() },
        folder: folder.to_owned(),
        variant: variant.map(str::to_owned),
    };
    let Some(defect) = defect(&target) else { return Ok(target) };
    let mount = file.setup.iter().chain(&file.steps).find(|step| step.get_ref().contains_key("mount"));
    let place = match (&file.memory_mib, mount) {
        (_, Some(step)) if target.image.is_none() => step.span().start,
        (Some(memory), _) => memory.span().start,
        _ => 0,
    };
    Err(text.invalid(place, defect))
}

/// Makes the recipe of the image, with what the variant changes.
fn image(
    text: &TextFile,
    folder: &Path,
    image: Option<&Spanned<ImageText>>,
    variant: &VariantText,
) -> Result<Option<ImageRecipe>, TextFileError> {
    let (at, image) = match (image, &variant.image) {
        (None, None) => return Ok(None),
        (Some(image), None) => (image.span().start, image.get_ref().clone()),
        (None, Some(change)) => (change.span().start, change.get_ref().clone()),
        (Some(image), Some(change)) => (change.span().start, image.get_ref().changed(change.get_ref())),
    };
    let steps = read_steps(text, &image.steps)?;
    image.recipe(folder, steps).map(Some).map_err(|reason| text.invalid(at, reason))
}

/// Says what is wrong with a target as a whole.
pub(super) fn defect(target: &Target) -> Option<String> {
    let (setup, steps) = (target.setup_steps.len(), target.steps.len());
    if steps == 0 || steps > MAX_STEPS {
        return Some(format!("{steps} steps, possible are 1 to {MAX_STEPS}"));
    }
    if setup > MAX_STEPS {
        return Some(format!("{setup} steps of set-up, possible are at most {MAX_STEPS}"));
    }
    if target.scopes.is_empty() {
        return Some("`scope` is empty: no call could fail".to_owned());
    }
    let workload = || target.setup_steps.iter().chain(&target.steps);
    if target.image.is_none() && workload().any(|step| matches!(step.step, Step::Mount { .. })) {
        return Some("a mount needs an [image] to mount".to_owned());
    }
    if workload().any(|step| matches!(step.step, Step::CrashCopy {})) {
        return Some("a step crash-copy stands only among the steps of [image]".to_owned());
    }
    let disks = target.disks();
    let step_defect = |step: &WorkloadStep| {
        let absent = || step.step.disk().filter(|disk| *disk >= disks);
        let defect = step.step.defect().or_else(|| {
            absent().map(|disk| format!("there is no disk {disk}: [image] has disks = {disks}, counted from 0"))
        });
        Some(format!("step \"{}\": {}", step.kind(), defect?))
    };
    let image_steps = target.image.iter().flat_map(|image| &image.steps);
    let all = || workload().chain(image_steps.clone());
    if let Some(defect) = all().find_map(step_defect).or_else(|| all().find_map(|step| no_disk(target, &step.step))) {
        return Some(defect);
    }
    let memory = target.memory_mib();
    let disk = target.disks_mib();
    let (least, most) = (*MEMORY_MIB.start().max(&(disk + BESIDE_DISK_MIB)), MEMORY_MIB.end());
    let whose = if target.memory_mib.is_some() { "memory_mib is" } else { "the disks take guests of memory_mib" };
    (memory < least || memory > *most).then(|| format!("{whose} {memory}, possible are {least} to {most}"))
}

/// Says which mount option names a device that is none of the target's disks.
fn no_disk(target: &Target, step: &Step) -> Option<String> {
    let (Step::Mount { options, .. } | Step::Remount { options }) = step else { return None };
    let paths = target.disk_paths();
    let is_absent = |option: &&str| {
        let (_, value) = option.split_once('=').unwrap_or_default();
        value.starts_with("/dev/") && !paths.iter().any(|path| path == value)
    };
    let option = options.split(',').find(is_absent)?;
    Some(format!("mount option \"{option}\": the target's disks are {}", paths.join(", ")))
}

/// The steps that `tables` are.
fn read_steps(text: &TextFile, tables: &[Spanned<toml::Table>]) -> Result<Vec<WorkloadStep>, TextFileError> {
    tables.iter().map(|step| read_step(text, step)).collect()
}

/// The step that `table` is. An error names it, which one of the whole file's would not.
fn read_step(text: &TextFile, table: &Spanned<toml::Table>) -> Result<WorkloadStep, TextFileError> {
    let kind = table.get_ref().keys().find(|key| *key != "expect").cloned().unwrap_or_default();
    let refuse = |reason: &str| text.invalid(table.span().start, format!("step \"{kind}\": {reason}"));
    let read = table.get_ref().clone().try_into::<WorkloadStep>().map_err(|error| refuse(error.message()))?;
    read.step.defect().map_or(Ok(read), |defect| Err(refuse(&defect)))
}
