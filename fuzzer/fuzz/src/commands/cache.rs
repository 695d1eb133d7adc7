//! `fuzz cache list` and `fuzz cache prune`: what the cache has, what of it is of no use, and
//! removing that.

use std::{
    collections::BTreeSet,
    fmt, fs,
    io::{self, Write},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use clap::ValueEnum as _;
use serde::{Deserialize, Serialize};

use files::cache::{self, remove_lock, try_lock};
use guests::{
    kernel::{self, Catalogue},
    project::Project,
};

use crate::{
    exit::{Answer, CommandError},
    options::{Kind, PruneOptions},
};

/// Lists what is in the cache, with sizes on disk.
///
/// # Errors
///
/// `kernels.toml` is refused, or the cache is damaged.
pub fn cache_list(json: bool, out: &mut dyn Write) -> Result<Answer, CommandError> {
    let (cache, named) = (cache::directory()?, Named::of_project()?);
    let items = items(&cache, &named);
    for item in &items {
        if json {
            writeln!(out, "{}", serde_json::to_string(item).map_err(io::Error::other)?)?;
        } else {
            writeln!(out, "{item}")?;
        }
    }
    if !json {
        let options = PruneOptions::default();
        let sum =
            |chosen: &dyn Fn(&Item) -> bool| items.iter().filter(|item| chosen(item)).map(|item| item.bytes).sum();
        let (all, stale) = (Size(sum(&|_| true)), Size(sum(&|item| options.selects(item))));
        writeln!(out, "{all} in {}; fuzz cache prune frees {stale}", cache.display())?;
    }
    Ok(Answer::Yes)
}

/// Removes what is of no use from the cache, and says what that was.
///
/// # Errors
///
/// `kernels.toml` is refused, or the cache is damaged or cannot be written.
pub fn cache_prune(options: &PruneOptions, out: &mut dyn Write) -> Result<Answer, CommandError> {
    let (cache, named) = (cache::directory()?, Named::of_project()?);
    let pruned = prune(&items(&cache, &named), options, out);
    if !options.dry_run {
        let templates = cache.join("templates");
        remove_locks(&templates).map_err(|source| CommandError::Prune { path: templates, more: 0, source })?;
    }
    pruned.map(|()| Answer::Yes)
}

impl PruneOptions {
    fn selects(&self, item: &Item) -> bool {
        let useless = matches!(item.state, State::Unnamed | State::Killed);
        !self.keep.contains(&item.kind) && item.state != State::Used && (useless || self.all)
    }
}

fn prune(items: &[Item], options: &PruneOptions, out: &mut dyn Write) -> Result<(), CommandError> {
    let (mut freed, mut failed) = (0, Vec::new());
    for item in items.iter().filter(|item| options.selects(item)) {
        match item.remove(options.dry_run) {
            Ok(true) => {
                freed += item.bytes;
                writeln!(out, "{item}")?;
            }
            Ok(false) => {}
            Err(source) => failed.push((item.path.clone(), source)),
        }
    }
    let verb = if options.dry_run { "would be" } else { "are" };
    writeln!(out, "{} {verb} freed", Size(freed))?;
    let more = failed.len().saturating_sub(1);
    match failed.into_iter().next() {
        Some((path, source)) => Err(CommandError::Prune { path, more, source }),
        None => Ok(()),
    }
}

/// Removes from the folder `templates` the lock files of guests that are not there, unless somebody
/// has them. A guest that is used or made is locked by a file of its own, and every change of its
/// parts makes another guest of it.
fn remove_locks(templates: &Path) -> io::Result<()> {
    for (name, path) in entries(templates) {
        let Some(key) = name.strip_suffix(".lock") else { continue };
        let is_gone = || !templates.join(key).exists() && !templates.join(format!(".{key}")).exists();
        // It may be made until the lock is taken.
        if is_gone()
            && let Some(lock) = try_lock(&path)?
            && is_gone()
        {
            remove_lock(&path, lock)?;
        }
    }
    Ok(())
}

/// Entries of the cache that the checkout's `kernels.toml` names.
#[derive(Default)]
struct Named {
    kernels: BTreeSet<PathBuf>,
    /// GNU build ids of those kernels that are built.
    build_ids: BTreeSet<String>,
    sources: Vec<kernel::Source>,
}

impl Named {
    fn of_project() -> Result<Self, CommandError> {
        let catalogue = Catalogue::load(Project::find()?.root())?;
        let listed = kernel::list(&catalogue, &cache::directory()?)?;
        Ok(Self {
            kernels: listed.iter().map(|listed| listed.dir.clone()).collect(),
            build_ids: listed.iter().filter_map(|listed| Some(listed.built.as_ref()?.meta.build_id.clone())).collect(),
            sources: catalogue.sources().cloned().collect(),
        })
    }
}

/// One thing in the cache.
#[derive(Clone, Debug, Serialize)]
struct Item {
    kind: Kind,
    path: PathBuf,
    /// Size on disk.
    bytes: u64,
    state: State,
    /// The file that is locked by whoever makes it or uses it.
    #[serde(skip)]
    lock: Option<PathBuf>,
}

impl Item {
    /// Removes it, unless somebody has begun to use it since it was looked at. Returns whether it
    /// is gone, or would be.
    fn remove(&self, dry_run: bool) -> io::Result<bool> {
        let lock = self.lock.as_deref().map(try_lock).transpose()?;
        if matches!(lock, Some(None)) {
            return Ok(false);
        }
        if dry_run {
            return Ok(true);
        }
        let removed = if self.path.is_dir() { fs::remove_dir_all(&self.path) } else { fs::remove_file(&self.path) };
        match removed {
            // A build removes its own folder, which takes a while.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
            other => other.map(|()| true),
        }
    }
}

/// Use of an entry of the cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum State {
    /// It may be needed again.
    Useful,
    /// A process uses it now.
    Used,
    /// The checkout's `kernels.toml` does not name it, or not its kernel.
    Unnamed,
    /// The process that made it was killed.
    Killed,
}

impl fmt::Display for Item {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match self.state {
            State::Useful => "",
            State::Used => "  in use",
            State::Unnamed => "  not named by kernels.toml",
            State::Killed => "  left by a killed process",
        };
        let kind = self.kind.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default();
        let name = self.path.file_name().unwrap_or_default().to_string_lossy();
        write!(f, "{kind:<9} {:>10}  {name}{state}", Size(self.bytes).to_string())
    }
}

/// A number of bytes for people.
struct Size(u64);

impl fmt::Display for Size {
    #[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mib = self.0 as f64 / f64::from(1 << 20);
        if mib < 1024.0 { write!(f, "{mib:.1} MiB") } else { write!(f, "{:.1} GiB", mib / 1024.0) }
    }
}

/// All that the folder `cache` has, by kind and name.
fn items(cache: &Path, named: &Named) -> Vec<Item> {
    let open = open_files();
    let mut items: Vec<Item> = entries(cache)
        .flat_map(|(name, path)| match name.as_str() {
            "kernels" | "templates" | "images" | "sources" => entries(&path)
                .filter_map(|(name, entry)| {
                    let (kind, lock) = classify(&path, &name)?;
                    Some(item(kind, entry, lock.map(|lock| path.join(lock + ".lock")), named, &open))
                })
                .collect(),
            "ccache" => vec![item(Kind::Ccache, path, None, named, &open)],
            _ if name.starts_with('.') && path.is_dir() => {
                // scripts/setup holds this lock while it unpacks QEMU.
                vec![item(Kind::Leftover, path, Some(cache.join("setup.lock")), named, &open)]
            }
            _ if path.is_dir() => vec![item(Kind::Tool, path, None, named, &open)],
            _ => Vec::new(),
        })
        .collect();
    share_use(&mut items);
    items.sort_by(|one, other| (one.kind, &one.path).cmp(&(other.kind, &other.path)));
    items
}

/// Classifies the entry `name` of the cache's folder `folder`, and gives the name of its lock
/// without `.lock`. Gives nothing for an entry that is only told with others, such as a log. The
/// names are those in the heads of `kernel`, `kernel::source`, `image` and `guest::store`.
fn classify(folder: &Path, name: &str) -> Option<(Kind, Option<String>)> {
    let folder = folder.file_name()?.to_str()?;
    let own = |kind, lock: &str| Some((kind, Some(lock.to_owned())));
    // `.PREFIX-LOCK-PID`
    let killed = |prefix| name.strip_prefix(prefix).and_then(|rest: &str| Some(rest.rsplit_once('-')?.0));
    match folder {
        "kernels" if let Some(lock) = killed(kernel::BUILD_LEFTOVER) => own(Kind::Leftover, lock),
        "sources" if let Some(lock) = killed(kernel::FETCH_LEFTOVER) => own(Kind::Leftover, lock),
        "templates" if let Some(lock) = name.strip_prefix('.') => own(Kind::Leftover, lock),
        _ if name.ends_with(".lock") || name.ends_with(".log") => None,
        "kernels" => own(Kind::Kernel, name),
        "templates" => own(Kind::Template, name),
        "sources" => own(Kind::Source, name.split('_').next()?),
        "images" if name.ends_with(".tmp") => own(Kind::Leftover, name.split('.').next()?),
        "images" => own(Kind::Image, name.strip_suffix(".raw")?),
        _ => None,
    }
}

fn item(kind: Kind, path: PathBuf, lock: Option<PathBuf>, named: &Named, open: &[PathBuf]) -> Item {
    let held = lock.as_deref().is_some_and(|lock| lock.exists() && matches!(try_lock(lock), Ok(None)));
    let used = held || open.iter().any(|file| file.starts_with(&path));
    let is_named = match kind {
        Kind::Kernel => named.kernels.contains(&path),
        Kind::Template => template_kernel(&path).is_some_and(|kernel| named.build_ids.contains(&kernel)),
        Kind::Source => named.sources.iter().any(|source| source.is_in(&path)),
        _ => true,
    };
    let state = match kind {
        _ if used => State::Used,
        Kind::Leftover => State::Killed,
        _ if is_named => State::Useful,
        _ => State::Unnamed,
    };
    Item { kind, bytes: size(&path), path, state, lock }
}

/// Marks what entries in use need as used too: the compiler's cache by a build, a kernel by a guest
/// that runs it. Every new guest opens its disk image and QEMU by their paths, and between guests
/// no process has them open: images and programs are used while anything runs.
fn share_use(items: &mut [Item]) {
    let used = |item: &&Item| item.state == State::Used;
    let guests: Vec<_> = items.iter().filter(used).filter_map(|item| template_kernel(&item.path)).collect();
    let building =
        items.iter().filter(used).any(|item| item.path.parent().is_some_and(|path| path.ends_with("kernels")));
    let running = items.iter().filter(used).any(|item| matches!(item.kind, Kind::Template | Kind::Kernel));
    for item in items {
        let needed = match item.kind {
            Kind::Ccache => building,
            Kind::Kernel => kernel_build_id(&item.path).is_some_and(|id| guests.contains(&id)),
            Kind::Image | Kind::Tool => running,
            _ => false,
        };
        if needed {
            item.state = State::Used;
        }
    }
}

/// Build id of the kernel that the template in `folder` runs.
fn template_kernel(folder: &Path) -> Option<String> {
    #[derive(Deserialize)]
    struct Meta {
        about: About,
    }
    #[derive(Deserialize)]
    struct About {
        hello: Hello,
    }
    #[derive(Deserialize)]
    struct Hello {
        kernel_build_id: String,
    }
    let meta: Meta = serde_json::from_slice(&fs::read(folder.join("meta.json")).ok()?).ok()?;
    Some(meta.about.hello.kernel_build_id)
}

fn kernel_build_id(folder: &Path) -> Option<String> {
    Some(kernel::read_meta(folder).ok()?.build_id)
}

/// The files that processes have open or run, as far as this user may know.
fn open_files() -> Vec<PathBuf> {
    let processes = entries(Path::new("/proc")).filter(|(name, _)| name.bytes().all(|byte| byte.is_ascii_digit()));
    let links = processes.flat_map(|(_, process)| {
        let files = entries(&process.join("fd")).map(|(_, file)| file);
        files.chain([process.join("exe"), process.join("cwd")]).collect::<Vec<_>>()
    });
    links.filter_map(|link| fs::read_link(link).ok()).filter(|file| file.is_absolute()).collect()
}

/// Names and paths of what is in the folder; nothing when it cannot be read.
fn entries(folder: &Path) -> impl Iterator<Item = (String, PathBuf)> + use<> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter_map(|entry| Some((entry.file_name().into_string().ok()?, entry.path())))
}

/// Bytes on disk of a file or of all that is in a folder. Images and guests have holes.
fn size(path: &Path) -> u64 {
    let Ok(metadata) = fs::symlink_metadata(path) else { return 0 };
    let below = if metadata.is_dir() { entries(path).map(|(_, entry)| size(&entry)).sum() } else { 0 };
    metadata.blocks() * 512 + below
}

#[cfg(test)]
mod tests;
