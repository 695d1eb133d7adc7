//! Building a kernel once, whoever asks for it.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use super::{
    Built, Kernel, KernelError, Progress,
    find::{find, open, place},
    lock::lock,
    make::{Log, failed},
    source,
    tools::check_commands,
    tree::Tree,
};
use execution::Stop;
use files::cache;

/// Builds `kernel`, or gives the one that the cache folder `cache` has already. `progress` hears of
/// every step, and every second while compiling.
///
/// Two builds of the same kernel at once are one build: the second waits and takes the first one's
/// result. A build that is killed leaves nothing but a temporary folder, which the next build
/// removes.
///
/// # Errors
///
/// The machine lacks a command or the source, the configuration cannot be had as asked, a command
/// fails, the cache cannot be written, or the user asks to stop.
pub fn build(
    kernel: &Kernel,
    cache: &Path,
    stop: &Stop,
    progress: &mut dyn FnMut(Progress),
) -> Result<Built, KernelError> {
    if let Some(built) = find(kernel, cache)? {
        return Ok(built);
    }
    check_commands()?;
    let archive = source::obtain(&kernel.source, cache, stop, progress)?;
    let key = kernel.cache_key(&archive.sha256)?;
    let destination = place(kernel, &key, cache);
    let kernels = cache.join("kernels");
    fs::create_dir_all(&kernels).map_err(|source| failed("create", &kernels, source))?;
    let _lock = lock(&beside(&destination, ".lock"), stop, progress)?;
    if let Some(built) = open(kernel, &destination)? {
        return Ok(built);
    }

    let name = destination.file_name().unwrap_or_default().to_string_lossy();
    remove_leftovers(&kernels, &name);
    let work = kernels.join(format!("{BUILD_LEFTOVER}{name}-{}", std::process::id()));
    fs::create_dir(&work).map_err(|source| failed("create", &work, source))?;
    let log = Log::create(beside(&destination, ".log"))?;
    let mut tree = Tree { kernel, archive: &archive, source: work.join("source"), cache, stop, log };
    let published = tree.build(&key, &destination, progress);
    discard(&work);
    published?;
    open(kernel, &destination)?
        .ok_or_else(|| KernelError::Damaged { path: destination, reason: "it vanished".to_owned() })
}

/// Prefix of the names of a build's temporary folders.
pub const BUILD_LEFTOVER: &str = ".build-";

/// Removes what killed builds left: every temporary folder whose lock nobody holds, or which the
/// caller holds because it builds `own`.
fn remove_leftovers(kernels: &Path, own: &str) {
    let Ok(entries) = fs::read_dir(kernels) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let kernel = name.to_str().and_then(|name| name.strip_prefix(BUILD_LEFTOVER)?.rsplit_once('-'));
        let Some((kernel, _process)) = kernel else { continue };
        let lock = (kernel != own).then(|| cache::try_lock(&kernels.join(format!("{kernel}.lock"))));
        if matches!(lock, None | Some(Ok(Some(_)))) {
            // A leftover costs only disk space.
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// Removes a folder of many thousand files, which can take minutes, without anybody waiting for it.
/// The next build removes what is left.
fn discard(work: &Path) {
    let mut shell = Command::new("sh");
    shell.args(["-c", r#"rm -rf "$1" >/dev/null 2>&1 </dev/null &"#, "sh"]).arg(work);
    let _ = shell.status();
}

fn beside(destination: &Path, suffix: &str) -> PathBuf {
    let mut name = destination.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leftovers_go_unless_somebody_is_still_building() {
        let folder = tempfile::tempdir().unwrap();
        for name in [".build-own-11-1", ".build-dead-22-2", ".build-busy-33-3", "own-11", "unrelated"] {
            fs::create_dir_all(folder.path().join(name).join("source")).unwrap();
        }
        let _busy = cache::lock(&folder.path().join("busy-33.lock"), || {}).unwrap();
        let _own = cache::lock(&folder.path().join("own-11.lock"), || {}).unwrap();
        remove_leftovers(folder.path(), "own-11");
        let mut left: Vec<_> = fs::read_dir(folder.path())
            .unwrap()
            .map(|entry| entry.unwrap())
            .filter(|entry| entry.path().is_dir())
            .map(|entry| entry.file_name().into_string().unwrap())
            .collect();
        left.sort();
        assert_eq!(left, [".build-busy-33-3", "own-11", "unrelated"]);
    }
}
