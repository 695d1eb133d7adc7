//! From names to a guest that is ready: kernel, image, agent, template, symbols.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use guest_protocol::Setup;
use kcov_parser::{CallSites, ElfError, Symbols};
use thiserror::Error;

use crate::{
    cache::{self, CacheError},
    guest::{About, Accel, AccelChoice, Chosen, GuestConfig, GuestError, Stop, Template},
    image::{ImageError, image},
    initramfs::initramfs,
    kernel::{self, Built, KernelError, Progress},
    pool::GuestPool,
    project::{Project, ProjectError},
    target::{MEMORY_MIB, Target, TargetError},
};

/// How long an execution may take. The kernel's own detectors speak after 10 to 20 s and should have the first word.
const DEADLINE: Duration = Duration::from_secs(60);

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
        /// What is wrong with it.
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
        /// Why not.
        source: io::Error,
    },
}

/// What to prepare.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// Name or folder of the target.
    pub target: &'a str,
    /// A kernel other than the target's.
    pub kernel: Option<&'a str>,
    /// How guests run.
    pub accel: AccelChoice,
    /// Whether the first executions of two guests repeat exactly: see [`GuestConfig::exact`].
    pub exact: bool,
}

/// A target with all that is needed to run it.
pub struct Prepared {
    /// The target.
    pub target: Arc<Target>,
    /// The kernel.
    pub kernel: Built,
    /// Where the kernel can report coverage.
    pub call_sites: Arc<CallSites>,
    /// Guests.
    pub pool: GuestPool,
}

/// Prepares what is `wanted`: builds the kernel and the image unless the cache has them, and boots a guest.
/// `say` is told each step that takes a while.
///
/// # Errors
///
/// See [`PrepareError`].
pub fn prepare(wanted: &Wanted<'_>, stop: &Stop, say: &mut dyn FnMut(&str)) -> Result<Prepared, PrepareError> {
    prepare_with(wanted, Target::setup, stop, say)
}

/// Like [`prepare`], but nothing is probed in the guests: what the workload costs by itself.
///
/// # Errors
///
/// See [`PrepareError`].
pub fn prepare_bare(wanted: &Wanted<'_>, stop: &Stop, say: &mut dyn FnMut(&str)) -> Result<Prepared, PrepareError> {
    prepare_with(wanted, |target| Setup { functions: Vec::new(), ..target.setup() }, stop, say)
}

fn prepare_with(
    wanted: &Wanted<'_>,
    setup: fn(&Target) -> Setup,
    stop: &Stop,
    say: &mut dyn FnMut(&str),
) -> Result<Prepared, PrepareError> {
    let project = Project::find()?;
    let cache = cache::directory()?;
    let target = Target::find(&project.corpus(), wanted.target)?;
    project.agent()?;
    let kernel = built_kernel(&project, wanted.kernel.unwrap_or(&target.kernel), &cache, stop, say)?;
    let disk = target.image.as_ref().map(|recipe| image(recipe, &cache)).transpose()?;
    let (call_sites, symbols) = read_image(&kernel.vmlinux)?;
    let disk_mib = target.image.as_ref().map_or(0, |recipe| recipe.size_mib);
    let config = GuestConfig { disk, disk_mib, ..bare_guest(&project, &kernel.vmlinux)? };
    let choice = match wanted.accel {
        AccelChoice::Auto if wanted.exact => AccelChoice::Tcg,
        choice => choice,
    };
    let Chosen { accel, reason } = choice.choose(&config.qemu, &config.vmlinux, &cache, stop)?;
    let config = GuestConfig { accel, kernel_options: kernel.options.clone(), exact: wanted.exact, ..config };
    let booting = || {
        say(&format!(
            "booting a guest with {}, {reason}: 10 to 20 s under TCG, kept for later starts",
            kernel.meta.name
        ));
    };
    let template = Template::cached(config, &setup(&target), &cache, stop, booting)?;
    let About { hello, ready, .. } = &template.about;
    if hello.kernel_build_id != kernel.meta.build_id || ready.text_start != call_sites.text_start() {
        return Err(PrepareError::OtherKernel { path: kernel.vmlinux });
    }
    target.check_against(&hello.injectable)?;
    let target = Arc::new(target);
    let pool = GuestPool::new(template, Arc::clone(&target), symbols, stop.clone(), DEADLINE);
    Ok(Prepared { target, kernel, call_sites, pool })
}

/// Where a kernel image can report coverage, and its functions.
type Image = (Arc<CallSites>, Arc<Symbols>);

/// What was read of each kernel image. The clients of a campaign share it; a path in the cache is always the same image.
static IMAGES: Mutex<BTreeMap<PathBuf, Arc<Mutex<Option<Image>>>>> = Mutex::new(BTreeMap::new());

fn read_image(vmlinux: &Path) -> Result<Image, PrepareError> {
    let image =
        Arc::clone(IMAGES.lock().unwrap_or_else(PoisonError::into_inner).entry(vmlinux.to_owned()).or_default());
    // Held while this one is read, and the others are not.
    let mut image = image.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(image) = &*image {
        return Ok(image.clone());
    }
    let elf = fs::read(vmlinux).map_err(|source| PrepareError::Io { path: vmlinux.to_owned(), source })?;
    let bad_elf = |source| PrepareError::Elf { path: vmlinux.to_owned(), source };
    let call_sites = Arc::new(CallSites::from_elf(&elf).map_err(bad_elf)?);
    let symbols = Arc::new(Symbols::from_elf(&elf).map_err(bad_elf)?);
    Ok(image.insert((call_sites, symbols)).clone())
}

/// A guest without disk that boots `vmlinux` under TCG.
///
/// # Errors
///
/// The agent is not built or cannot be read.
pub fn bare_guest(project: &Project, vmlinux: &Path) -> Result<GuestConfig, PrepareError> {
    let agent = project.agent()?;
    let content = fs::read(&agent).map_err(|source| PrepareError::Io { path: agent, source })?;
    Ok(GuestConfig {
        qemu: PathBuf::from("qemu-system-x86_64"),
        accel: Accel::Tcg,
        vmlinux: vmlinux.to_owned(),
        initramfs: initramfs(&content),
        disk: None,
        disk_mib: 0,
        memory_mib: MEMORY_MIB,
        kernel_options: String::new(),
        exact: false,
    })
}

/// The kernel called `name`, built now unless the cache has it.
///
/// # Errors
///
/// It is unknown or cannot be built, or the user asks to stop.
pub fn built_kernel(
    project: &Project,
    name: &str,
    cache: &Path,
    stop: &Stop,
    say: &mut dyn FnMut(&str),
) -> Result<Built, KernelError> {
    let catalogue = kernel::Catalogue::load(project.root())?;
    let wanted = catalogue.get(name)?;
    if let Some(built) = kernel::find(wanted, cache)? {
        return Ok(built);
    }
    say(&format!("building {name} once, for good: up to 10 minutes on 2 idle cores"));
    kernel::build(wanted, cache, stop, &mut |progress: Progress| say(&format!("{name}: {progress}")))
}
