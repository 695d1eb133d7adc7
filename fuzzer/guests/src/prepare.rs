//! From names to a guest that is ready: kernel, image, agent, template, symbols.

use std::{
    collections::BTreeMap,
    fmt, fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use execution::{ImageRecipe, MEMORY_MIB, Stop, Target, TargetError};
use files::cache::{self, CacheError};
use guest_protocol::{LeftOut, Ready, Setup};
use kcov_parser::{CallSites, ElfError, Symbols};
use thiserror::Error;

use crate::{
    checkers::checkers,
    image::{ImageError, image},
    initramfs::initramfs,
    kernel::{self, Built, Checks, KernelError, Progress},
    prepared::{OtherGuests, Prepared},
    progress::{Logged, Part, ProgressSink},
    project::{Project, ProjectError},
    qemu::{About, Accel, AccelChoice, Chosen, Disks, GuestConfig, GuestError, Template},
    sites::Sites,
};

/// Why no guest can be prepared.
#[derive(Debug, Error)]
pub enum PrepareError {
    /// The project's files.
    #[error(transparent)]
    Project(#[from] ProjectError),
    /// The cache.
    #[error(transparent)]
    Cache(#[from] CacheError),
    /// The target.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// The kernel.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// The disk image.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// The guest.
    #[error(transparent)]
    Guest(#[from] GuestError),
    /// The kernel image's contents.
    #[error("{path}: not a kernel that can be fuzzed")]
    Elf {
        /// The kernel image.
        path: PathBuf,
        /// Defect of the image.
        source: ElfError,
    },
    /// The guest runs something else.
    #[error("the guest does not run the kernel {path}: its build id or addresses are others")]
    OtherKernel {
        /// The kernel image.
        path: PathBuf,
    },
    /// A file.
    #[error("cannot use {path}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Underlying error.
        source: io::Error,
    },
}

impl PrepareError {
    /// Says whether this is only that the user wanted to stop.
    #[must_use]
    pub fn is_stop(&self) -> bool {
        matches!(self, Self::Guest(GuestError::Stopped) | Self::Kernel(KernelError::Stopped))
    }

    /// Says whether the user's input is wrong, and not the environment.
    #[must_use]
    pub fn is_input(&self) -> bool {
        match self {
            Self::Target(_) => true,
            Self::Kernel(error) => error.is_input(),
            _ => false,
        }
    }
}

/// A target that is asked for.
#[derive(Clone, Debug)]
pub enum WantedTarget {
    /// The one of this name, or in this folder.
    Named(String),
    /// This one, which need not be in any folder.
    Given(Arc<Target>),
}

impl fmt::Display for WantedTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Named(name) => name,
            Self::Given(target) => &target.name,
        })
    }
}

impl From<&str> for WantedTarget {
    fn from(name: &str) -> Self {
        Self::Named(name.to_owned())
    }
}

impl From<&String> for WantedTarget {
    fn from(name: &String) -> Self {
        Self::Named(name.clone())
    }
}

impl From<Arc<Target>> for WantedTarget {
    fn from(target: Arc<Target>) -> Self {
        Self::Given(target)
    }
}

/// Request for a prepared guest.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// The target.
    pub target: WantedTarget,
    /// A kernel other than the target's.
    pub kernel: Option<String>,
    /// Acceleration of the guests.
    pub accel: AccelChoice,
    /// True when the first executions of two guests repeat exactly: see [`GuestConfig::exact`].
    pub exact: bool,
    /// True when the kernel's detector of memory that nothing points to is on. It takes time and
    /// memory at each allocation.
    pub kmemleak: bool,
    /// True when the prepared guest is kept in the cache for later starts.
    pub kept: bool,
    /// True when functions are probed; false only to measure the cost of the workload by itself.
    pub probes: bool,
}

impl Wanted {
    /// Asks for guests of the target on its own kernel, with whatever acceleration works.
    #[must_use]
    pub fn new(target: impl Into<WantedTarget>) -> Self {
        let (target, accel) = (target.into(), AccelChoice::Auto);
        Self { target, kernel: None, accel, exact: false, kmemleak: false, kept: true, probes: true }
    }
}

/// Prepares what is `wanted`: builds the kernel and the image unless the cache has them, and boots
/// a guest. Tells `progress` what takes long.
///
/// # Errors
///
/// See [`PrepareError`].
pub fn prepare(wanted: &Wanted, stop: &Stop, progress: &dyn ProgressSink) -> Result<Arc<Prepared>, PrepareError> {
    let project = Project::find()?;
    let cache = cache::directory()?;
    let target = match &wanted.target {
        WantedTarget::Named(name) => Arc::new(Target::find(&project.corpus(), name)?),
        WantedTarget::Given(target) => Arc::clone(target),
    };
    project.agent()?;
    let kernel = built_kernel(&project, wanted.kernel.as_ref().unwrap_or(&target.kernel), &cache, stop, progress)?;
    let checks = Arc::new(Checks::read(&kernel.dir)?);
    let disks = target.image.as_ref().map(|recipe| disks(recipe, &cache)).transpose()?.unwrap_or_default();
    let (call_sites, symbols) = read_image(&kernel.vmlinux)?;
    let memory_mib = target.memory_mib();
    let config = GuestConfig { disks, memory_mib, ..guest_with(&project, &kernel, &checkers(&target))? };
    let choice = match wanted.accel {
        AccelChoice::Auto if wanted.exact => AccelChoice::Tcg,
        choice => choice,
    };
    let Chosen { accel, reason } = choice.choose(&config.qemu, &config.vmlinux, &cache, stop)?;
    let kmemleak = if wanted.kmemleak { " kmemleak=on" } else { "" };
    let config =
        GuestConfig { accel, kernel_options: kernel.options.clone() + kmemleak, exact: wanted.exact, ..config };
    let name = &kernel.meta.name;
    tracing::debug!(name, reason, "acceleration");
    let mut boot = None;
    let booting = &mut || {
        let doubt = accel == Accel::Tcg && choice == AccelChoice::Auto;
        let how = format!("{accel}{}", if doubt { " (`fuzz doctor` says why not kvm)" } else { "" });
        let text = format!("booting a guest with {name}{kmemleak} under {how}, kept for later starts");
        let task = progress.begin(name, &text);
        let probed = target.functions.len();
        task.update(&format!("booting a guest, {probed} functions to be probed"), None);
        boot = Some(task);
    };
    let setup = target.setup();
    let setup = if wanted.probes { setup } else { Setup { functions: Vec::new(), ..setup } };
    let template = template(wanted, config, &setup, (&cache, stop, booting))?;
    drop(boot);
    let About { hello, ready, .. } = template.about();
    if hello.kernel_build_id != kernel.meta.build_id || ready.text_start != call_sites.text_start() {
        return Err(PrepareError::OtherKernel { path: kernel.vmlinux });
    }
    if wanted.probes {
        target.check_against(&ready.functions, &ready.left_out)?;
    }
    tell_what_lacks(wanted, ready, &target.name, &kernel.meta.name);
    Ok(Arc::new(Prepared {
        exact: exact_guests(wanted, &kernel.meta.name, template.config(), stop),
        searched: searched_guests(wanted, &kernel.meta.name, accel, stop),
        target,
        kernel,
        call_sites,
        symbols,
        checks,
        sites: Sites::default(),
        stop: stop.clone(),
        template,
    }))
}

/// Describes the disks that a recipe is of. Makes their image unless the cache has it.
fn disks(recipe: &ImageRecipe, cache: &Path) -> Result<Disks, PrepareError> {
    let image = image(recipe, cache)?;
    Ok(Disks { image: Some(image), kind: recipe.kind, count: recipe.disks, mib: recipe.size_mib })
}

/// Warns of what the user asked for and these guests do without. Of guests of other kinds it does
/// not: they lack the same.
fn tell_what_lacks(wanted: &Wanted, ready: &Ready, target: &str, kernel: &str) {
    if wanted.exact || wanted.kmemleak {
        return;
    }
    left_out_lines(&ready.left_out).iter().for_each(|line| tracing::warn!("{kernel} leaves out {line}"));
    if !ready.unchecked.is_empty() {
        tracing::warn!("{target}: disks are not checked: {}", ready.unchecked);
    }
}

/// Gives the guest that all others are clones of, from the cache where it is kept for later starts.
fn template(
    wanted: &Wanted,
    config: GuestConfig,
    setup: &Setup,
    (cache, stop, booting): (&Path, &Stop, &mut dyn FnMut()),
) -> Result<Template, GuestError> {
    if wanted.kept {
        return Template::cached(config, setup, cache, stop, booting);
    }
    booting();
    Template::prepare(config, setup, stop)
}

/// Gives the same target and kernel with guests that repeat exactly, prepared when they are needed.
fn exact_guests(wanted: &Wanted, kernel: &str, config: &GuestConfig, stop: &Stop) -> OtherGuests {
    let not_counted = (config.accel != Accel::Tcg).then_some("instructions are counted under TCG only");
    if let Some(why) = not_counted.or_else(|| config.disks.inexact()) {
        return OtherGuests::none(why);
    }
    let kernel = Some(kernel.to_owned());
    let wanted = Wanted { kernel, accel: AccelChoice::Tcg, exact: true, ..wanted.clone() };
    let stop = stop.clone();
    OtherGuests::made_by(move || prepare(&wanted, &stop, &Logged).map_err(|error| execution::chain(&error)))
}

/// Gives the same target and kernel with guests whose kernel can tell to which memory nothing
/// points, prepared when they are needed.
fn searched_guests(wanted: &Wanted, kernel: &str, accel: Accel, stop: &Stop) -> OtherGuests {
    let accel = if accel == Accel::Kvm { AccelChoice::Kvm } else { AccelChoice::Tcg };
    let wanted = Wanted { kernel: Some(kernel.to_owned()), accel, exact: false, kmemleak: true, ..wanted.clone() };
    let stop = stop.clone();
    OtherGuests::made_by(move || {
        let prepared = prepare(&wanted, &stop, &Logged).map_err(|error| execution::chain(&error))?;
        let features = &prepared.template().about().hello.features;
        let missing = features.iter().find(|feature| feature.name == "kmemleak").map(|feature| &feature.missing);
        match missing {
            Some(missing) if missing.is_empty() => Ok(prepared),
            missing => Err(format!("kmemleak: {}", missing.map_or("the agent does not know it", String::as_str))),
        }
    })
}

/// Reads where a kernel image can report coverage, and its functions.
fn read_image(vmlinux: &Path) -> Result<(Arc<CallSites>, Arc<Symbols>), PrepareError> {
    let elf = fs::read(vmlinux).map_err(|source| PrepareError::Io { path: vmlinux.to_owned(), source })?;
    let bad_elf = |source| PrepareError::Elf { path: vmlinux.to_owned(), source };
    let call_sites = Arc::new(CallSites::from_elf(&elf).map_err(bad_elf)?);
    let symbols = Arc::new(Symbols::from_elf(&elf).map_err(bad_elf)?);
    Ok((call_sites, symbols))
}

/// Lists the functions that are left out on a kernel: a line for each reason, with all its names.
#[must_use]
pub fn left_out_lines(left_out: &[LeftOut]) -> Vec<String> {
    let mut names: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for LeftOut { function, reason } in left_out {
        names.entry(reason).or_default().push(function);
    }
    names.iter().map(|(reason, names)| format!("{}: {reason}", names.join(", "))).collect()
}

/// Describes a guest without disk that boots `kernel` under TCG.
///
/// # Errors
///
/// The agent is not built, or a file cannot be read.
pub fn bare_guest(project: &Project, kernel: &Built) -> Result<GuestConfig, PrepareError> {
    guest_with(project, kernel, &BTreeMap::new())
}

/// Describes such a guest that has these checkers of file systems.
fn guest_with(
    project: &Project,
    kernel: &Built,
    checkers: &BTreeMap<String, Vec<u8>>,
) -> Result<GuestConfig, PrepareError> {
    let read = |path: &Path| fs::read(path).map_err(|source| PrepareError::Io { path: path.to_owned(), source });
    let agent = read(&project.agent()?)?;
    let slots = kernel.slots.as_deref().map(read).transpose()?;
    Ok(GuestConfig {
        qemu: PathBuf::from("qemu-system-x86_64"),
        accel: Accel::Tcg,
        vmlinux: kernel.vmlinux.clone(),
        initramfs: initramfs(&agent, slots.as_deref(), checkers),
        disks: Disks::default(),
        memory_mib: MEMORY_MIB,
        kernel_options: String::new(),
        exact: false,
    })
}

/// Gives the kernel called `name`, built now unless the cache has it.
///
/// # Errors
///
/// It is unknown or cannot be built, or the user asks to stop.
pub fn built_kernel(
    project: &Project,
    name: &str,
    cache: &Path,
    stop: &Stop,
    progress: &dyn ProgressSink,
) -> Result<Built, KernelError> {
    let catalogue = kernel::Catalogue::load(project.root())?;
    let wanted = catalogue.get(name)?;
    if let Some(built) = kernel::find(wanted, cache)? {
        return Ok(built);
    }
    let text = format!("building {name} once, for good: up to 10 minutes on 2 idle cores");
    let task = progress.begin(name, &text);
    let built = kernel::build(wanted, cache, stop, &mut |stage: Progress| match stage {
        Progress::Substitute { .. } => task.note(&stage.to_string()),
        Progress::Compiling { done, total, .. } => task.update(&stage.to_string(), Some(Part { done, total })),
        Progress::Waiting | Progress::Step(_) => task.update(&stage.to_string(), None),
    })?;
    task.done("built");
    Ok(built)
}
