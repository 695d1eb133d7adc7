//! Guests without agent: a kernel, a program that it runs, and what it prints.
//!
//! ```text
//! BareGuests, Program ─▶ initramfs: init, program, bpftrace ─▶ QEMU ─▶ console text, a trace
//! ```
//!
//! They prove what a reproducer does by itself: there is no BPF but that of its script, no window,
//! and nobody asks anything of the guest. It ends by itself, or at a deadline. A script and a trace
//! are there where they are asked for.

mod compiler;

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
    process::Stdio,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

pub use compiler::{CompileError, compile};
use crossbeam::{
    channel::{at, bounded},
    select,
};
use execution::Stop;
use guest_protocol::{CHECKER_LINKER, SLOTS_FILE};
use thiserror::Error;

use crate::{
    initramfs::Files,
    packed::packed,
    process,
    qemu::{GuestConfig, disk_node, printable},
};

/// Process 1 of these guests, in C.
const INIT: &str = include_str!("init.c");
/// Most bytes of a console that are kept.
const CONSOLE_BYTES: u64 = 16 << 20;
/// Room for a trace, in bytes.
const TRACE_BYTES: u64 = 64 << 20;
/// Most time that a guest may take from its start to its end, while the host runs it.
const DEADLINE: Duration = Duration::from_secs(120);
/// Most time that bpftrace may take more.
const BPFTRACE_DEADLINE: Duration = Duration::from_secs(120);
/// Memory in MiB that bpftrace takes more: its libraries have 200 MiB, which are there twice while
/// the kernel unpacks them.
const BPFTRACE_MIB: u32 = 640;
/// Name of the task that is bpftrace.
pub const BPFTRACE_TASK: &str = CHECKER_LINKER;
/// Time between two looks at a guest that runs.
const LOOK: Duration = Duration::from_secs(1);

/// Why a guest did not run the program.
#[derive(Debug, Error)]
pub enum BareError {
    /// A program cannot be compiled.
    #[error(transparent)]
    Compile(#[from] CompileError),
    /// QEMU cannot be started.
    #[error("cannot start {qemu}")]
    Start {
        /// The program.
        qemu: PathBuf,
        /// Underlying error.
        source: io::Error,
    },
    /// Something of the host.
    #[error("cannot use the {what} of a guest without agent")]
    Host {
        /// The thing.
        what: &'static str,
        /// Underlying error.
        source: io::Error,
    },
    /// The user wants to stop.
    #[error("stopped")]
    Stopped,
}

/// A program that a guest runs.
#[derive(Clone, Debug)]
pub struct Program {
    /// The static executable.
    pub executable: Vec<u8>,
    /// Its arguments. The image of [`GuestConfig::disks`] is `/dev/vda`.
    pub arguments: Vec<String>,
    /// Kprobe events of `Documentation/trace/kprobetrace.rst` (6.12), one a line, that are recorded
    /// with their call traces while it runs; empty for none.
    pub events: String,
    /// The kernel's module of slots, which the program may load; none where there is none.
    pub module: Option<Vec<u8>>,
    /// The script under which bpftrace runs it; none to run it alone.
    pub script: Option<Script>,
}

/// A script of bpftrace's.
#[derive(Clone, Debug)]
pub struct Script {
    /// Its text.
    pub text: String,
    /// The program that runs it.
    pub bpftrace: Arc<Bpftrace>,
}

/// This machine's bpftrace and its libraries.
#[derive(Debug)]
pub struct Bpftrace(BTreeMap<String, Vec<u8>>);

impl Bpftrace {
    /// Finds it.
    ///
    /// # Errors
    ///
    /// It is not here: what to do.
    pub fn find() -> Result<Self, String> {
        packed("bpftrace", "bpftrace").map(Self)
    }
}

impl Program {
    /// Gives the words of the command that process 1 runs.
    fn command(&self) -> Vec<String> {
        let own = ["/init", "/program"].into_iter().map(str::to_owned).chain(self.arguments.iter().cloned());
        if self.script.is_none() {
            return own.collect();
        }
        let linker = format!("/bpftrace/{CHECKER_LINKER}");
        let words = [&linker, "--library-path", "/bpftrace", "/bpftrace/bpftrace", "--unsafe", "-c"];
        let command = own.collect::<Vec<_>>().join(" ");
        words.into_iter().map(str::to_owned).chain([command, "/repro.bt".to_owned()]).collect()
    }
}

/// The outcome of a run.
#[derive(Clone, Debug)]
pub struct BareRun {
    /// Text of the console: the kernel's and the program's.
    pub console: String,
    /// The recorded events, as `/sys/kernel/tracing/trace` has them; empty when none were asked
    /// for.
    pub trace: String,
    /// True when the guest did not end by itself.
    pub hung: bool,
}

/// Guests of one kernel, which run one program each.
#[derive(Debug)]
pub struct BareGuests<'a> {
    config: &'a GuestConfig,
    init: Vec<u8>,
}

impl<'a> BareGuests<'a> {
    /// Makes guests with the kernel of `config`. Its initramfs and disk are not looked at but for
    /// the image, which the guests can only read.
    ///
    /// # Errors
    ///
    /// There is no compiler.
    pub fn new(config: &'a GuestConfig) -> Result<Self, BareError> {
        Ok(Self { config, init: compile(INIT)? })
    }

    /// Runs `program` in a fresh guest.
    ///
    /// # Errors
    ///
    /// The host lacks something, or the user wants to stop.
    pub fn run(&self, program: &Program, stop: &Stop) -> Result<BareRun, BareError> {
        let host = |what| move |source| BareError::Host { what, source };
        let folder = tempfile::tempdir().map_err(host("temporary folder"))?;
        let initramfs = folder.path().join("initramfs");
        let mut files = Files::new();
        files.program("init", &self.init).program("program", &program.executable);
        let command: String = program.command().iter().map(|word| format!("{word}\n")).collect();
        files.file("command", command.as_bytes()).file("events", program.events.as_bytes());
        if let Some(module) = &program.module {
            files.file(SLOTS_FILE, module);
        }
        if let Some(Script { text, bpftrace }) = &program.script {
            files
                .directory("bin")
                .directory("bpftrace")
                .program("bin/sh", &self.init)
                .file("repro.bt", text.as_bytes());
            for (name, content) in &bpftrace.0 {
                files.program(&format!("bpftrace/{name}"), content);
            }
        }
        std::fs::write(&initramfs, files.archive()).map_err(host("initramfs"))?;
        let empty = |name: String, what, bytes| {
            let path = folder.path().join(name);
            File::create(&path).and_then(|file| file.set_len(bytes)).map(|()| path).map_err(host(what))
        };
        let disks = (0..).zip(self.config.disks.files());
        let disks = disks.map(|(number, bytes)| empty(format!("disk{number}"), "disk", bytes));
        let disks = disks.collect::<Result<Vec<_>, _>>()?;
        let events = !program.events.is_empty();
        let trace = events.then(|| empty("trace".to_owned(), "trace", TRACE_BYTES)).transpose()?;
        let (mut memory_mib, mut deadline) = (self.config.memory_mib, DEADLINE);
        if program.script.is_some() {
            memory_mib += BPFTRACE_MIB;
            deadline += BPFTRACE_DEADLINE;
        }
        let arguments = qemu_arguments(self.config, memory_mib, &initramfs, &disks, trace.as_deref());
        let (console, hung) = watch(self.config, arguments, deadline, stop)?;
        let trace = match trace {
            Some(trace) => text(&std::fs::read(trace).map_err(host("trace"))?),
            None => String::new(),
        };
        Ok(BareRun { console, trace, hung })
    }
}

/// Runs QEMU with these arguments to its end, or the deadline. Gives the console's text, and
/// whether it was the deadline.
fn watch(
    config: &GuestConfig,
    arguments: Vec<OsString>,
    deadline: Duration,
    stop: &Stop,
) -> Result<(String, bool), BareError> {
    let host = |what| move |source| BareError::Host { what, source };
    let mut command = process::setpriv_command(&config.qemu);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let start = |source| BareError::Start { qemu: config.qemu.clone(), source };
    let mut child = process::start_by_setpriv(command, Vec::new()).map_err(start)?;
    let stdout = child.stdout.take().ok_or_else(|| host("console")(io::Error::other("no output")))?;
    let (sender, ended) = bounded(1);
    let reader = thread::spawn(move || {
        let mut bytes = Vec::new();
        // What was read before an error is the console.
        let _ = stdout.take(CONSOLE_BYTES).read_to_end(&mut bytes);
        let _ = sender.send(());
        bytes
    });
    let started = Instant::now();
    let hung = loop {
        select! {
            recv(ended) -> _ => break Ok(false),
            recv(stop.receiver()) -> _ => break Err(BareError::Stopped),
            // A guest that the host does not run is not slow.
            recv(at(Instant::now() + LOOK)) -> _ => {
                if started.elapsed() >= deadline + process::waited(child.id()) {
                    break Ok(true);
                }
            }
        }
    };
    process::end(&mut child).map_err(host("process"))?;
    let console = reader.join().unwrap_or_default();
    Ok((text(&console), hung?))
}

/// Gives bytes as text without control characters, up to the first zero.
fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    printable(&bytes[..end])
}

fn qemu_arguments(
    config: &GuestConfig,
    memory_mib: u32,
    initramfs: &Path,
    disks: &[PathBuf],
    trace: Option<&Path>,
) -> Vec<OsString> {
    let mut words: Vec<OsString> = Vec::new();
    let mut add = |option: &str, value: String| words.extend([option.into(), value.into()]);
    add("-machine", format!("pc,accel={}", config.accel));
    add("-cpu", config.processor().to_owned());
    add("-smp", "1".to_owned());
    // The trace needs room of its own.
    add("-m", format!("{}M", memory_mib + 128));
    add("-serial", "stdio".to_owned());
    add("-monitor", "none".to_owned());
    add("-display", "none".to_owned());
    add("-net", "none".to_owned());
    add("-kernel", config.vmlinux.to_string_lossy().into_owned());
    add("-initrd", initramfs.to_string_lossy().into_owned());
    let mut line = config.kernel_command_line(config.counter_khz());
    let image = config.disks.image.as_deref().map(|path| (path, true));
    let disks = disks.iter().map(PathBuf::as_path).chain(trace).map(|path| (path, false));
    for ((path, read_only), letter) in image.into_iter().chain(disks).zip('a'..) {
        add("-blockdev", disk_node(&format!("vd{letter}"), path, read_only));
        add("-device", format!("virtio-blk-pci,drive=vd{letter}"));
        if Some(path) == trace {
            line.push_str(&format!(" trace=/dev/vd{letter}"));
        }
    }
    add("-append", line);
    words.extend(["-nodefaults", "-no-user-config", "-no-reboot"].map(Into::into));
    words
}
