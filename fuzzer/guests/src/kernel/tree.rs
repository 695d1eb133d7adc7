//! A kernel's source, from archive to published folder.

use std::{
    env, fs, io,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::Instant,
};

use super::{
    DEBUG, Kernel, KernelError, Meta, PLACES, Progress, SLOTS,
    checks::{self, Checks},
    fragment,
    make::{Log, failed},
    meter::Meter,
    source::{Archive, Source, leave_out},
    tools::{compiler, installed},
};
use execution::Stop;
use files::{TextFile, cache};
use serde::Serialize;

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

/// Folder of the module `slots` in a kernel tree.
const SLOTS_FOLDER: &str = "fuzz_slots";

/// A kernel tree that is being built.
pub(super) struct Tree<'a> {
    pub(super) kernel: &'a Kernel,
    pub(super) archive: &'a Archive,
    pub(super) source: PathBuf,
    pub(super) cache: &'a Path,
    pub(super) stop: &'a Stop,
    pub(super) log: Log,
}

impl Tree<'_> {
    /// The folder of the build's output. In the source folder itself, because Kbuild then uses
    /// relative paths only and the compiler's cache serves the next tree too, wherever it is.
    fn out(&self) -> PathBuf {
        self.source.join("out")
    }

    /// All of it, until the kernel is at `destination`.
    pub(super) fn build(
        &mut self,
        key: &str,
        destination: &Path,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<(), KernelError> {
        let begin = Instant::now();
        self.unpack(progress)?;
        self.configure(progress)?;
        let objects = self.compile(progress)?;
        self.make_slots(progress)?;
        self.find_places(progress)?;
        self.split_debug(progress)?;
        let meta = Meta {
            name: self.kernel.name.clone(),
            release: self.release()?,
            build_id: build_id(&self.out().join("vmlinux"))?,
            key: key.to_owned(),
            compiler: compiler()?,
            source: format!("{} {}", self.kernel.source.package, self.archive.version),
            objects,
            seconds: begin.elapsed().as_secs(),
        };
        self.publish(&meta, destination)
    }

    fn unpack(&mut self, progress: &mut dyn FnMut(Progress)) -> Result<(), KernelError> {
        progress(Progress::Step("unpacking the source"));
        fs::create_dir(&self.source).map_err(|source| failed("create", &self.source, source))?;
        let mut tar = Command::new("tar");
        tar.args(["--extract", "--strip-components=1", "--use-compress-program=xz -T0 -d"])
            .arg(format!("--directory={}", self.source.display()))
            .arg(format!("--file={}", self.archive.path.display()));
        self.log.run("unpacking the source", tar, self.stop, |_| {})?;
        self.change(progress).map_err(|error| name_substitute(error, &self.kernel.source, &self.archive.version))
    }

    /// Makes the changes that the catalogue names.
    fn change(&mut self, progress: &mut dyn FnMut(Progress)) -> Result<(), KernelError> {
        progress(Progress::Step("applying patches"));
        for (folder, files) in [("drivers/fuzz_selftest", &self.kernel.selftest), (SLOTS_FOLDER, &self.kernel.slots)] {
            let folder = self.source.join(folder);
            fs::create_dir(&folder).map_err(|source| failed("create", &folder, source))?;
            for (name, text) in files {
                write(&folder.join(name), text)?;
            }
        }
        for (name, text) in &self.kernel.source.patches {
            let file = self.source.join("../current.patch");
            write(&file, text)?;
            let mut patch = Command::new("patch");
            patch.args(["-p1", "--forward", "--batch", "--fuzz=0", "--input"]).arg(&file).current_dir(&self.source);
            self.log.run("applying patches", patch, self.stop, |_| {}).map_err(|error| name_patch(error, name))?;
        }
        leave_out(&self.kernel.source, &self.archive.version, &self.source)
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
        Ok(meter.done)
    }

    /// Makes the module whose slots take functions off the kernel's list, if the kernel can load
    /// modules.
    fn make_slots(&mut self, progress: &mut dyn FnMut(Progress)) -> Result<(), KernelError> {
        let config = TextFile::read(&self.out().join(".config"))?;
        if !config.text.lines().any(|line| line == "CONFIG_MODULES=y") {
            return Ok(());
        }
        progress(Progress::Step("making the module for functions off the kernel's list"));
        let prepare = self.make("modules_prepare");
        self.log.run("preparing for modules", prepare, self.stop, |_| {})?;
        let folder = self.source.join(SLOTS_FOLDER);
        let mut make = self.make("modules");
        // Without the kernel's own modules there is no table of symbols, and the module needs none.
        make.arg(format!("M={}", folder.display())).arg("KBUILD_MODPOST_WARN=1");
        self.log.run("making a module", make, self.stop, |_| {})?;
        self.strip(&folder.join(SLOTS))
    }

    /// Writes down where in the source each place is that can report coverage, as only the debug
    /// information tells that.
    fn find_places(&self, progress: &mut dyn FnMut(Progress)) -> Result<(), KernelError> {
        progress(Progress::Step("finding coverage in the source"));
        let vmlinux = self.out().join("vmlinux");
        let bytes = fs::read(&vmlinux).map_err(|source| failed("read", &vmlinux, source))?;
        let places = kcov_parser::Places::from_elf(&bytes)
            .map_err(|error| KernelError::Vmlinux { path: vmlinux, reason: error.to_string() })?;
        write(&self.out().join(PLACES), &places.to_text())
    }

    /// Moves the kernel's debug information, which is several times the kernel, to a file of its
    /// own: pahole has made the kernel's types (BTF) of it.
    fn split_debug(&mut self, progress: &mut dyn FnMut(Progress)) -> Result<(), KernelError> {
        progress(Progress::Step("keeping the debug information"));
        let mut keep = Command::new("objcopy");
        keep.args(["--only-keep-debug", "--compress-debug-sections=zlib", "vmlinux", DEBUG]).current_dir(self.out());
        self.log.run("keeping the debug information", keep, self.stop, |_| {})?;
        let mut strip = Command::new("objcopy");
        strip.arg("--strip-debug").arg(format!("--add-gnu-debuglink={DEBUG}")).arg("vmlinux").current_dir(self.out());
        self.log.run("removing debug information", strip, self.stop, |_| {})
    }

    /// Removes the debug information of `file`.
    fn strip(&mut self, file: &Path) -> Result<(), KernelError> {
        let mut strip = Command::new("strip");
        strip.arg("--strip-debug").arg(file);
        self.log.run("removing debug information", strip, self.stop, |_| {})
    }

    fn make(&self, goal: &str) -> Command {
        let mut make = Command::new("make");
        let jobs = thread::available_parallelism().map_or(1, usize::from);
        make.current_dir(&self.source).args([format!("-j{jobs}"), "O=out".to_owned(), goal.to_owned()]);
        // Nothing of the place, the time, the user or tools that it does not use may get into the
        // kernel.
        make.args(["KBUILD_BUILD_TIMESTAMP=1970-01-01", "KBUILD_BUILD_USER=fuzz", "KBUILD_BUILD_HOST=fuzz"]);
        make.args(["KBUILD_BUILD_VERSION=1", "RUSTC=false"]);
        for variable in FOREIGN_VARIABLES {
            make.env_remove(variable);
        }
        make.env("LC_ALL", "C");
        if installed("ccache") {
            make.args(["CC=ccache gcc", "HOSTCC=ccache gcc"]);
            // Depend mode spares a miss, the case of every first build, a second run of the
            // preprocessor.
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
        let out = self.out();
        let slots = self.source.join(SLOTS_FOLDER).join(SLOTS);
        let files = [
            (out.join("vmlinux"), "vmlinux"),
            (out.join(".config"), "config"),
            (out.join(PLACES), PLACES),
            (out.join(DEBUG), DEBUG),
            (slots.clone(), SLOTS),
        ];
        for (path, to) in files {
            if path != slots || path.exists() {
                fs::rename(&path, prepared.join(to)).map_err(|source| failed("take", &path, source))?;
            }
        }
        write_json(&prepared.join(checks::FILE), &Checks::find(&prepared.join("vmlinux"), &self.source)?)?;
        write_json(&prepared.join("meta.json"), meta)?;
        cache::publish_directory(&prepared, destination).map_err(|source| failed("publish", destination, source))
    }
}

fn write(path: &Path, text: &str) -> Result<(), KernelError> {
    fs::write(path, text).map_err(|source| failed("write", path, source))
}

fn write_json(path: &Path, value: &impl Serialize) -> Result<(), KernelError> {
    let text = serde_json::to_string_pretty(value).map_err(|error| failed("write", path, io::Error::other(error)))?;
    write(path, &(text + "\n"))
}

fn name_patch(error: KernelError, name: &str) -> KernelError {
    match error {
        KernelError::Failed { step, status, log, tail } => {
            KernelError::Failed { step, status: format!("{name}, {status}"), log, tail }
        }
        other => other,
    }
}

/// Says that the version `found` was unpacked and not the one that the catalogue names, where a
/// change to it failed: then the catalogue is right, and the machine lacks its source.
fn name_substitute(error: KernelError, source: &Source, found: &str) -> KernelError {
    if source.version == found || !matches!(error, KernelError::Failed { .. } | KernelError::Entry { .. }) {
        return error;
    }
    let Source { package, version: wanted, archive: path, .. } = source.clone();
    KernelError::Substitute { package, wanted, found: found.to_owned(), path, source: Box::new(error) }
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
    fn a_change_that_a_substitute_does_not_take_is_no_wrong_input() {
        let source = Source {
            name: "small".into(),
            package: "linux-source-6.12".into(),
            version: "6.12.1-1".into(),
            archive: "/usr/src/linux-source-6.12.tar.xz".into(),
            sha256: String::new(),
            patches: Vec::new(),
            uninstrumented: Vec::new(),
        };
        let refused = || KernelError::Entry { entry: "source small".to_owned(), reason: "odd".to_owned() };
        assert!(name_substitute(refused(), &source, "6.12.1-1").is_input());
        let error = name_substitute(refused(), &source, "6.12.2-1");
        assert!(!error.is_input());
        let expected = "linux-source-6.12 6.12.1-1 is no longer in the package archive, and 6.12.2-1 does not take its \
                        place: put the archive of 6.12.1-1 at /usr/src/linux-source-6.12.tar.xz, or have \
                        kernels/kernels.toml name another version: source small: odd";
        assert_eq!(execution::chain(&error), expected);
        assert!(matches!(name_substitute(KernelError::Stopped, &source, "6.12.2-1"), KernelError::Stopped));
    }

    #[test]
    fn the_build_id_of_a_file_that_is_no_kernel_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("vmlinux");
        fs::write(&path, "text").unwrap();
        assert!(matches!(build_id(&path), Err(KernelError::Vmlinux { .. })));
    }
}
