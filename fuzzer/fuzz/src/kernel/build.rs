//! Building a kernel: source archive to published folder.

use std::{
    env,
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use sha2::{Digest, Sha256};

use super::{
    Built, Kernel, KernelError, Meta, Progress, fragment,
    make::{Log, failed},
    meter::Meter,
    open, place,
    tools::{check_commands, compiler, installed},
};
use crate::{cache, guest::Stop, hex::hex, text_file::TextFile};

/// Objects of what runs at each call of a probed function, of the probes and of the helpers that the BPF programs call.
const INJECTOR: [&str; 6] = ["bpf_trace", "ftrace", "helpers", "kprobes", "maccess", "trace_kprobe"];

/// Objects of what all of the kernel uses: data structures, checksums, texts, its log, btrfs's numbers on disk, the switch to another
/// thread, the allocator of per-CPU memory, the lists of pages in use, the disk that is memory. What runs in them depends on what they
/// hold and not on what fails, and what does fail in them shows in their callers. kernfs, whose objects have names of others too, is
/// left out by a patch, the allocators of slabs and pages by the kernel itself.
const COMMON: [&str; 15] = [
    "accessors",
    "bitmap",
    "brd",
    "crc32",
    "idr",
    "percpu",
    "percpu_counter",
    "printk",
    "printk_ringbuffer",
    "process_64",
    "radix-tree",
    "swap",
    "vsprintf",
    "workingset",
    "xarray",
];

/// The objects that report no coverage.
pub(super) fn uncovered() -> impl Iterator<Item = &'static str> {
    INJECTOR.into_iter().chain(COMMON)
}

/// Variables of the user's that a kernel's Makefile would obey.
const FOREIGN_VARIABLES: [&str; 12] = [
    "ARCH",
    "CROSS_COMPILE",
    "KAFLAGS",
    "KBUILD_OUTPUT",
    "KCFLAGS",
    "KCONFIG_CONFIG",
    "KCPPFLAGS",
    "LLVM",
    "LOCALVERSION",
    "MAKEFLAGS",
    "MAKELEVEL",
    "MFLAGS",
];

/// Builds `kernel`, or gives the one that the cache folder `cache` has already. `progress` hears of every step, and
/// every few seconds while compiling.
///
/// Two builds of the same kernel at once are one build: the second waits and takes the first one's result. A build
/// that is killed leaves nothing but a temporary folder, which the next build removes.
///
/// # Errors
///
/// The machine lacks a command or the source, the configuration cannot be had as asked, a command fails, the cache
/// cannot be written, or the user asks to stop.
pub fn build(
    kernel: &Kernel,
    cache: &Path,
    stop: &Stop,
    progress: &mut dyn FnMut(Progress),
) -> Result<Built, KernelError> {
    let key = kernel.cache_key()?;
    let destination = place(kernel, &key, cache);
    if let Some(built) = open(kernel, &destination)? {
        return Ok(built);
    }
    check_commands()?;
    let kernels = cache.join("kernels");
    fs::create_dir_all(&kernels).map_err(|source| failed("create", &kernels, source))?;
    let _lock = lock(&beside(&destination, ".lock"), stop, progress)?;
    if let Some(built) = open(kernel, &destination)? {
        return Ok(built);
    }

    let name = destination.file_name().unwrap_or_default().to_string_lossy();
    remove_leftovers(&kernels, &name);
    let work = kernels.join(format!("{LEFTOVER}{name}-{}", std::process::id()));
    fs::create_dir(&work).map_err(|source| failed("create", &work, source))?;
    let log = Log::create(beside(&destination, ".log"))?;
    let published = Tree { kernel, source: work.join("source"), cache, stop, log }.build(&key, &destination, progress);
    discard(&work);
    published?;
    open(kernel, &destination)?
        .ok_or_else(|| KernelError::Damaged { path: destination, reason: "it vanished".to_owned() })
}

/// Takes the lock file `path`, waiting for whoever has it.
fn lock(path: &Path, stop: &Stop, progress: &mut dyn FnMut(Progress)) -> Result<File, KernelError> {
    let mut told = false;
    loop {
        if let Some(lock) = cache::try_lock(path).map_err(|source| failed("take the lock", path, source))? {
            return Ok(lock);
        }
        if stop.is_requested() {
            return Err(KernelError::Stopped);
        }
        if !told {
            progress(Progress::Waiting);
            told = true;
        }
        thread::sleep(LOCK_POLL);
    }
}

/// How often a build that waits for another one looks whether that has ended.
const LOCK_POLL: Duration = Duration::from_millis(100);

/// What the names of temporary folders start with.
const LEFTOVER: &str = ".build-";

/// Removes what killed builds left: every temporary folder whose lock nobody holds, or which the caller holds because
/// it builds `own`.
fn remove_leftovers(kernels: &Path, own: &str) {
    let Ok(entries) = fs::read_dir(kernels) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let kernel = name.to_str().and_then(|name| name.strip_prefix(LEFTOVER)?.rsplit_once('-'));
        let Some((kernel, _process)) = kernel else { continue };
        let lock = (kernel != own).then(|| cache::try_lock(&kernels.join(format!("{kernel}.lock"))));
        if matches!(lock, None | Some(Ok(Some(_)))) {
            // A leftover costs only disk space.
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// Removes a folder of many thousand files, which can take minutes, without anybody waiting for it. What does not get
/// removed now, the next build removes.
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

/// A kernel tree that is being built.
struct Tree<'a> {
    kernel: &'a Kernel,
    source: PathBuf,
    cache: &'a Path,
    stop: &'a Stop,
    log: Log,
}

impl Tree<'_> {
    /// The folder of the build's output. In the source folder itself, because Kbuild then uses relative paths only
    /// and the compiler's cache serves the next tree too, wherever it is.
    fn out(&self) -> PathBuf {
        self.source.join("out")
    }

    /// All of it, until the kernel is at `destination`.
    fn build(&mut self, key: &str, destination: &Path, progress: &mut dyn FnMut(Progress)) -> Result<(), KernelError> {
        let begin = Instant::now();
        self.unpack(progress)?;
        self.configure(progress)?;
        let objects = self.compile(progress)?;
        let meta = Meta {
            name: self.kernel.name.clone(),
            release: self.release()?,
            build_id: build_id(&self.out().join("vmlinux"))?,
            key: key.to_owned(),
            compiler: compiler()?,
            source: format!("{} {}", self.kernel.package, self.kernel.version),
            objects,
            seconds: begin.elapsed().as_secs(),
        };
        self.publish(&meta, destination)
    }

    fn unpack(&mut self, progress: &mut dyn FnMut(Progress)) -> Result<(), KernelError> {
        progress(Progress::Step("checking the source's checksum"));
        self.verify()?;
        progress(Progress::Step("unpacking the source"));
        fs::create_dir(&self.source).map_err(|source| failed("create", &self.source, source))?;
        let mut tar = Command::new("tar");
        tar.args(["--extract", "--strip-components=1", "--use-compress-program=xz -T0 -d"])
            .arg(format!("--directory={}", self.source.display()))
            .arg(format!("--file={}", self.kernel.source.display()));
        self.log.run("unpacking the source", tar, self.stop, |_| {})?;

        progress(Progress::Step("applying patches"));
        let selftest = self.source.join("drivers/fuzz_selftest");
        fs::create_dir(&selftest).map_err(|source| failed("create", &selftest, source))?;
        for (name, text) in &self.kernel.selftest {
            write(&selftest.join(name), text)?;
        }
        for (name, text) in &self.kernel.patches {
            let file = self.source.join("../current.patch");
            write(&file, text)?;
            let mut patch = Command::new("patch");
            patch.args(["-p1", "--forward", "--batch", "--fuzz=0", "--input"]).arg(&file).current_dir(&self.source);
            self.log.run("applying patches", patch, self.stop, |_| {}).map_err(|error| name_patch(error, name))?;
        }
        Ok(())
    }

    fn verify(&self) -> Result<(), KernelError> {
        let Kernel { name, source: path, package, version, sha256, .. } = self.kernel;
        let mut file = match File::open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let (package, version) = (package.clone(), version.clone());
                return Err(KernelError::NoSource { name: name.clone(), path: path.clone(), package, version });
            }
            other => other.map_err(|source| failed("read", path, source))?,
        };
        let mut hash = Sha256::new();
        io::copy(&mut file, &mut hash).map_err(|source| failed("read", path, source))?;
        let found = hex(&hash.finalize());
        if found == *sha256 {
            return Ok(());
        }
        let (expected, package) = (sha256.clone(), format!("{package} {version}"));
        Err(KernelError::WrongSource { path: path.clone(), found, expected, package })
    }

    fn configure(&mut self, progress: &mut dyn FnMut(Progress)) -> Result<(), KernelError> {
        progress(Progress::Step("configuring"));
        let fragment = self.source.join("../fragment.config");
        write(&fragment, &self.kernel.config)?;
        let mut make = self.make("allnoconfig");
        make.env("KCONFIG_ALLCONFIG", &fragment);
        self.log.run("configuring", make, self.stop, |_| {})?;
        let config = TextFile::read(&self.out().join(".config"))?;
        let options = fragment::unmet(&self.kernel.config, &config.text)
            .map_err(|bad| config.invalid_line(bad.line, bad.reason))?;
        if options.is_empty() { Ok(()) } else { Err(KernelError::Unmet { name: self.kernel.name.clone(), options }) }
    }

    /// Returns how many objects it compiled.
    fn compile(&mut self, progress: &mut dyn FnMut(Progress)) -> Result<u32, KernelError> {
        let make = self.make("vmlinux");
        let mut meter = Meter::new(self.kernel.objects);
        progress(meter.progress());
        self.log.run("compiling", make, self.stop, |line| {
            if meter.line(line) {
                progress(meter.progress());
            }
        })?;
        self.strip()?;
        Ok(meter.done)
    }

    /// Removes the debug information, which is several times the kernel: pahole has made the kernel's types (BTF) of it.
    fn strip(&mut self) -> Result<(), KernelError> {
        let mut strip = Command::new("strip");
        strip.arg("--strip-debug").arg(self.out().join("vmlinux"));
        self.log.run("removing debug information", strip, self.stop, |_| {})
    }

    fn make(&self, goal: &str) -> Command {
        let mut make = Command::new("make");
        let jobs = thread::available_parallelism().map_or(1, usize::from);
        make.current_dir(&self.source).args([format!("-j{jobs}"), "O=out".to_owned(), goal.to_owned()]);
        // Nothing of the place, the time, the user or tools that it does not use may get into the kernel.
        make.args(["KBUILD_BUILD_TIMESTAMP=1970-01-01", "KBUILD_BUILD_USER=fuzz", "KBUILD_BUILD_HOST=fuzz"]);
        make.args(["KBUILD_BUILD_VERSION=1", "RUSTC=false"]);
        // What probes and BPF programs run at each call is none of the workload: left in, it doubles the KCOV trace. What is
        // common is two fifths of the rest.
        make.args(uncovered().map(|object| format!("KCOV_INSTRUMENT_{object}.o=n")));
        for variable in FOREIGN_VARIABLES {
            make.env_remove(variable);
        }
        make.env("LC_ALL", "C");
        if installed("ccache") {
            make.args(["CC=ccache gcc", "HOSTCC=ccache gcc"]);
            // Depend mode spares a miss, the case of every first build, a second run of the preprocessor.
            make.envs([("CCACHE_NOHASHDIR", "1"), ("CCACHE_DEPEND", "1")]).env("CCACHE_BASEDIR", &self.source);
            if env::var_os("CCACHE_DIR").is_none() {
                make.env("CCACHE_DIR", self.cache.join("ccache"));
            }
        }
        make
    }

    fn release(&self) -> Result<String, KernelError> {
        let path = self.out().join("include/config/kernel.release");
        let release = fs::read_to_string(&path).map_err(|source| failed("read", &path, source))?;
        Ok(release.trim().to_owned())
    }

    fn publish(&self, meta: &Meta, destination: &Path) -> Result<(), KernelError> {
        let prepared = self.source.join("../finished");
        fs::create_dir(&prepared).map_err(|source| failed("create", &prepared, source))?;
        for (from, to) in [("vmlinux", "vmlinux"), (".config", "config")] {
            let path = self.out().join(from);
            fs::rename(&path, prepared.join(to)).map_err(|source| failed("take", &path, source))?;
        }
        let text = serde_json::to_string_pretty(meta)
            .map_err(|error| failed("write meta.json to", &prepared, io::Error::other(error)))?;
        write(&prepared.join("meta.json"), &(text + "\n"))?;
        cache::publish_directory(&prepared, destination).map_err(|source| failed("publish", destination, source))
    }
}

fn write(path: &Path, text: &str) -> Result<(), KernelError> {
    fs::write(path, text).map_err(|source| failed("write", path, source))
}

fn name_patch(error: KernelError, name: &str) -> KernelError {
    match error {
        KernelError::Failed { step, status, log, tail } => {
            KernelError::Failed { step, status: format!("{name}, {status}"), log, tail }
        }
        other => other,
    }
}

/// The GNU build id of the kernel `vmlinux`, in hexadecimal.
fn build_id(vmlinux: &Path) -> Result<String, KernelError> {
    let bytes = fs::read(vmlinux).map_err(|source| failed("read", vmlinux, source))?;
    let id = kcov_parser::build_id(&bytes).filter(|id| !id.is_empty());
    id.ok_or_else(|| KernelError::Vmlinux { path: vmlinux.to_owned(), reason: "it has no GNU build id".to_owned() })
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

    #[test]
    fn a_source_that_is_missing_or_another_one_is_refused_with_the_way_out() {
        let folder = tempfile::tempdir().unwrap();
        let archive = folder.path().join("linux.tar.xz");
        let kernel = Kernel {
            name: "small".into(),
            package: "linux-source-6.12".into(),
            version: "6.12.1-1".into(),
            source: archive.clone(),
            sha256: "0".repeat(64),
            config: String::new(),
            patches: Vec::new(),
            selftest: std::collections::BTreeMap::new(),
            options: String::new(),
            explorer: None,
            objects: 1,
        };
        let log = Log::create(folder.path().join("log")).unwrap();
        let (source, stop) = (folder.path().join("source"), Stop::new());
        let tree = Tree { kernel: &kernel, source, cache: folder.path(), stop: &stop, log };
        let missing = tree.verify().unwrap_err().to_string();
        assert!(missing.ends_with("apt-get install --no-install-recommends linux-source-6.12=6.12.1-1"), "{missing}");
        fs::write(&archive, "abc").unwrap();
        let other = tree.verify().unwrap_err().to_string();
        assert!(other.contains("ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"), "{other}");
        assert!(other.contains("linux-source-6.12 6.12.1-1"), "{other}");
    }

    #[test]
    fn who_waits_for_another_build_can_be_stopped() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        let held = cache::try_lock(&path).unwrap();
        let stop = Stop::new();
        let mut told = Vec::new();
        let waited = lock(&path, &stop, &mut |progress| {
            told.push(progress);
            stop.request();
        });
        assert!(matches!(waited, Err(KernelError::Stopped)));
        assert_eq!(told, [Progress::Waiting]);
        drop(held);
        // A process that another test starts may have it for a moment more.
        assert!(lock(&path, &Stop::new(), &mut |_| ()).is_ok());
    }

    #[test]
    fn the_build_id_of_a_file_that_is_no_kernel_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("vmlinux");
        fs::write(&path, "text").unwrap();
        assert!(matches!(build_id(&path), Err(KernelError::Vmlinux { .. })));
    }
}
