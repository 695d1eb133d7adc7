//! A QEMU process and the four streams between it and the host.

use std::{
    io::{self, Write},
    net::Shutdown,
    os::{fd::AsRawFd, unix::net::UnixStream},
    process::{Child, Stdio},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use crossbeam::{
    channel::{RecvTimeoutError, at},
    select,
};
use guest_protocol::{DOORBELL, Direction, FromAgent, MemoryRange, ToAgent, WindowError};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use execution::Stop;

use super::{
    Debugger, FiredLog, GuestConfig, GuestError, Returns,
    config::{Birth, Plumbing},
    console::Console,
    fired::LOG_BYTES,
    launch::{bind_to_one_processor, console_pipe},
    memory::{MappedWindow, MemoryFile},
    physical::{Physical, Trace},
    process, qmp,
    qmp::Event,
    returns::RETURNS_BYTES,
    watch::{Streams, Watched, watch},
};

/// Name in errors of the host's access to a guest's memory. Yama can forbid a process to look into
/// another one of its user (`Documentation/admin-guide/LSM/Yama.rst`, Linux 6.12).
const MEMORY_VIEW: &str = "view of the memory (is kernel.yama.ptrace_scope above 1?)";

/// Time that QEMU may take to answer a command.
const QMP_DEADLINE: Duration = Duration::from_secs(20);

/// A console that was quiet for this long after the guest's end has said all.
const QUIET: Duration = Duration::from_millis(20);

/// Time that a console may take to become quiet.
const QUIET_DEADLINE: Duration = Duration::from_millis(500);

/// Time that an interrupted kernel may take to print its place.
const INTERRUPT_DEADLINE: Duration = Duration::from_secs(2);

/// A QEMU process, the guest in it, and the messages with the guest's agent.
pub(super) struct Machine {
    child: Child,
    watched: Option<Watched>,
    console_text: Arc<Console>,
    stderr_text: Arc<Console>,
    doorbell: UnixStream,
    qmp: UnixStream,
    window: MappedWindow,
    /// The guest's memory, while there is a process that has it.
    memory: Option<Physical>,
    sequence: Sequence,
    command_id: u64,
    ended: bool,
}

/// The numbers of the next messages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Sequence {
    pub(super) request: u32,
    pub(super) reply: u32,
}

/// Outcome of waiting for a guest.
#[derive(Debug)]
pub(super) enum Wake {
    /// It sent this.
    Message(FromAgent),
    /// It stopped by itself.
    Ended,
    /// Nothing, in the time it had.
    Deadline,
}

enum Notice {
    Ring,
    Event(Event),
    Deadline,
}

impl Machine {
    /// Starts a QEMU on `memory` and `disks`, with the files `inherited`. A `debugger` can hold it.
    pub(super) fn start(
        config: &GuestConfig,
        birth: Birth,
        memory: &MemoryFile,
        disks: &[MemoryFile],
        inherited: &[&dyn AsRawFd],
        debugger: Option<&Debugger>,
    ) -> Result<Self, GuestError> {
        let pair = || UnixStream::pair().map_err(|source| GuestError::Host { what: "socket", source });
        let ((doorbell, guest_doorbell), (qmp, guest_qmp)) = (pair()?, pair()?);
        let (console, guest_console) = console_pipe().map_err(|source| GuestError::Host { what: "pipe", source })?;
        let window = MappedWindow::new()?;
        let boots = birth == Birth::Boot && !config.initramfs.is_empty();
        let initramfs = boots.then(|| MemoryFile::holding("initramfs", &config.initramfs)).transpose()?;
        let plumbing = Plumbing {
            memory: memory.inherited_path(),
            window: window.file().inherited_path(),
            disks: disks.iter().map(MemoryFile::inherited_path).collect(),
            initramfs: initramfs.as_ref().map(MemoryFile::inherited_path),
            doorbell: guest_doorbell.as_raw_fd(),
            qmp: guest_qmp.as_raw_fd(),
            console: guest_console.as_raw_fd(),
            gdb: debugger.map(Debugger::device),
        };
        let mut open: Vec<_> = inherited.iter().map(|file| file.as_raw_fd()).collect();
        open.extend([plumbing.doorbell, plumbing.qmp, plumbing.console]);
        let files = [memory, window.file()].into_iter().chain(&initramfs).chain(disks);
        open.extend(files.map(|file| file.file().as_raw_fd()));
        let mut command = process::setpriv_command(&config.qemu);
        command.args(config.qemu_arguments(&plumbing, birth));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        if config.exact {
            bind_to_one_processor(&mut command).map_err(|source| GuestError::Host { what: "processor", source })?;
        }
        let mut child = process::start_by_setpriv(command, open)
            .map_err(|source| GuestError::Start { qemu: config.qemu.clone(), source })?;
        // The streams end with the process only if nobody else holds their other ends.
        drop((guest_doorbell, guest_qmp, guest_console));
        let streams =
            child.stderr.take().ok_or_else(|| io::Error::other("no standard error")).and_then(|stderr| {
                Ok(Streams { console, stderr, doorbell: doorbell.try_clone()?, qmp: qmp.try_clone()? })
            });
        let watched = match streams.and_then(watch) {
            Ok(watched) => watched,
            Err(source) => {
                let _ = process::end(&mut child);
                return Err(GuestError::Host { what: "watcher", source });
            }
        };
        let sequence = Sequence { request: 1, reply: 1 };
        let (console_text, stderr_text) = (Arc::clone(&watched.console), Arc::clone(&watched.stderr));
        let mut machine = Self {
            child,
            watched: Some(watched),
            console_text,
            stderr_text,
            doorbell,
            qmp,
            window,
            memory: None,
            sequence,
            command_id: 0,
            ended: false,
        };
        // QEMU has mapped the guest's memory once it answers.
        machine.command("qmp_capabilities", &json!({}))?;
        let physical = Physical::of(machine.pid(), memory, config.memory_bytes());
        machine.memory = Some(physical.map_err(|source| GuestError::Host { what: MEMORY_VIEW, source })?);
        Ok(machine)
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(super) fn sequence(&self) -> Sequence {
        self.sequence
    }

    /// Continues the numbers of the guest that this one is a clone of.
    pub(super) fn continue_from(&mut self, sequence: Sequence) {
        self.sequence = sequence;
    }

    /// All that the guest has printed.
    pub(super) fn console(&self) -> &Console {
        &self.console_text
    }

    /// Puts a message to the agent into the window.
    pub(super) fn put(&mut self, message: &ToAgent) -> Result<(), GuestError> {
        let bytes = message.encode()?;
        let number = self.sequence.request;
        self.window.window().put(Direction::Request, number, &bytes)?;
        self.sequence.request = number.wrapping_add(1);
        Ok(())
    }

    /// Sends a message to the agent.
    pub(super) fn send(&mut self, message: &ToAgent) -> Result<(), GuestError> {
        self.put(message)?;
        if self.doorbell.write_all(&[DOORBELL]).is_err() {
            return Err(self.lost());
        }
        Ok(())
    }

    /// Waits for the agent's next message until `until`.
    pub(super) fn receive(&mut self, stop: &Stop, until: Instant) -> Result<Wake, GuestError> {
        loop {
            match self.notice(stop, until)? {
                Notice::Ring => {}
                Notice::Event(Event::Ended) => return Ok(Wake::Ended),
                Notice::Event(_) => continue,
                Notice::Deadline => return Ok(Wake::Deadline),
            }
            let number = self.sequence.reply;
            match self.window.window().take(Direction::Reply, number) {
                Ok(bytes) => {
                    self.sequence.reply = number.wrapping_add(1);
                    return Ok(Wake::Message(FromAgent::decode(&bytes)?));
                }
                // It rang more than once for an earlier message.
                Err(WindowError::Sequence { found, .. }) if found < number => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Waits until a state is saved or loaded.
    pub(super) fn migrated(&mut self, command: &'static str, stop: &Stop) -> Result<(), GuestError> {
        let until = Instant::now() + QMP_DEADLINE;
        loop {
            let reason = match self.notice(stop, until)? {
                Notice::Event(Event::Migrated) => return Ok(()),
                Notice::Event(Event::MigrationFailed) => "the state could not be transferred",
                Notice::Event(Event::Ended) => "the guest stopped",
                Notice::Deadline => "no end within 20 s",
                Notice::Ring => continue,
            };
            return Err(GuestError::Qmp { command, reason: reason.to_owned() });
        }
    }

    /// Gives the time that the process's threads have been ready to run without being run. Gives 0
    /// when the host does not say.
    pub(super) fn waited(&self) -> Duration {
        process::waited(self.child.id())
    }

    /// Says whether the guest has stopped by itself. Forgets rings that nobody waited for.
    pub(super) fn has_ended(&mut self) -> bool {
        if let Some(watched) = &self.watched {
            while watched.rings.try_recv().is_ok() {}
            self.ended |= watched.events.try_iter().any(|event| event == Event::Ended);
        }
        self.ended
    }

    /// The next thing that happens. A message comes before the guest's end.
    fn notice(&mut self, stop: &Stop, until: Instant) -> Result<Notice, GuestError> {
        let Some(watched) = &self.watched else { return Err(GuestError::Dead) };
        loop {
            if watched.rings.try_recv().is_ok() {
                return Ok(Notice::Ring);
            }
            if self.ended {
                return Ok(Notice::Event(Event::Ended));
            }
            let event = select! {
                recv(watched.rings) -> ring => {
                    if ring.is_ok() {
                        return Ok(Notice::Ring);
                    }
                    watched.events.recv()
                }
                recv(watched.events) -> event => event,
                recv(stop.receiver()) -> _ => return Err(GuestError::Stopped),
                recv(at(until)) -> _ => return Ok(Notice::Deadline),
            };
            match event {
                Ok(Event::Ended) => self.ended = true,
                Ok(event) => return Ok(Notice::Event(event)),
                Err(_) => return Err(self.lost()),
            }
        }
    }

    /// Gives the monitor a command and waits for its answer.
    pub(super) fn command(&mut self, command: &'static str, arguments: &Value) -> Result<Value, GuestError> {
        self.command_id += 1;
        let id = self.command_id;
        if self.qmp.write_all(qmp::command(id, command, arguments).as_bytes()).is_err() {
            return Err(self.lost());
        }
        let until = Instant::now() + QMP_DEADLINE;
        loop {
            let Some(watched) = &self.watched else { return Err(GuestError::Dead) };
            match watched.replies.recv_deadline(until) {
                Ok((answered, result)) if answered == id => {
                    return result.map_err(|reason| GuestError::Qmp { command, reason });
                }
                Ok(_) => {}
                Err(RecvTimeoutError::Timeout) => {
                    return Err(GuestError::Qmp { command, reason: "no answer within 20 s".to_owned() });
                }
                Err(RecvTimeoutError::Disconnected) => return Err(self.lost()),
            }
        }
    }

    /// Waits until the console has been quiet for a moment, but not for long.
    pub(super) fn settle(&self) {
        let until = Instant::now() + QUIET_DEADLINE;
        let mut mark = self.console_text.mark();
        while Instant::now() < until {
            thread::sleep(QUIET);
            let now = self.console_text.mark();
            if now == mark {
                return;
            }
            mark = now;
        }
    }

    /// Makes the kernel panic where it is, by an interrupt that it cannot switch off
    /// (`unknown_nmi_panic`), so that it says where that is. Whether it did.
    pub(super) fn interrupt(&mut self, stop: &Stop) -> Result<bool, GuestError> {
        self.command("inject-nmi", &json!({}))?;
        let until = Instant::now() + INTERRUPT_DEADLINE;
        loop {
            match self.receive(stop, until)? {
                Wake::Message(_) => {}
                Wake::Ended => return Ok(true),
                Wake::Deadline => return Ok(false),
            }
        }
    }

    /// The log of fired faults at the guest-physical `address`; nothing where there is none.
    pub(super) fn fired_log(&self, address: u64) -> Option<FiredLog> {
        FiredLog::parse(&self.piece::<LOG_BYTES>(address)?)
    }

    /// The values that traced calls returned, at `address`; nothing when they cannot be read.
    pub(super) fn returns(&self, address: u64) -> Option<Returns> {
        Returns::parse(&self.piece::<RETURNS_BYTES>(address)?)
    }

    /// A piece of the guest's memory.
    fn piece<const BYTES: usize>(&self, address: u64) -> Option<[u8; BYTES]> {
        let mut piece = [0; BYTES];
        let range = MemoryRange { address, bytes: BYTES as u64 };
        match self.memory.as_ref()?.read(&[range], &mut piece) {
            Ok(()) => Some(piece),
            Err(error) => {
                tracing::debug!(%error, "what the agent logs cannot be read");
                None
            }
        }
    }

    /// Reads the coverage trace that is in the pieces `ranges` of the guest's memory.
    pub(super) fn read_trace(&self, ranges: &[MemoryRange], trace: &mut Trace) -> Result<(), GuestError> {
        let memory = self.memory.as_ref().ok_or(GuestError::Dead)?;
        trace.read(memory, ranges).map_err(|source| GuestError::Host { what: MEMORY_VIEW, source })
    }

    /// The error for a process that ended by itself. It is reaped.
    fn lost(&mut self) -> GuestError {
        let status = match self.child.try_wait() {
            Ok(Some(status)) => Ok(status),
            // Its streams are gone, so it is about to end.
            _ => {
                thread::sleep(QUIET);
                process::end(&mut self.child)
            }
        };
        match status {
            Ok(status) => GuestError::QemuDied { status, stderr: self.stderr_text.last_lines(20) },
            Err(source) => GuestError::Host { what: "end of qemu", source },
        }
    }

    /// Ends the process and the watcher.
    pub(super) fn kill(&mut self) {
        if let Some(watched) = self.watched.take() {
            self.memory = None;
            let _ = process::end(&mut self.child);
            // The monitor's stream has ended with the process, unless a process that QEMU started
            // still holds it.
            if let Err(error) = self.qmp.shutdown(Shutdown::Both) {
                tracing::debug!(%error, "a guest's monitor is gone already");
            }
            if watched.thread.join().is_err() {
                tracing::error!("the thread that watched a guest has panicked");
            }
        }
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.kill();
    }
}
