//! A guest that is booted and prepared once, and of which any number of clones continue.

use std::{
    os::fd::AsRawFd,
    path::Path,
    process, thread,
    time::{Duration, Instant},
};

use guest_protocol::{FromAgent, Hello, PROTOCOL_VERSION, Ready, Setup, ToAgent};
use serde_json::json;

use execution::Stop;

use super::{
    About, Guest, GuestConfig, GuestError,
    config::Birth,
    machine::{Machine, Wake},
    memory::MemoryFile,
    pauses::again,
    run::Addresses,
    store::{Saved, Store},
};

/// Time that writing a guest's state may take after QEMU is done.
const SAVE_DEADLINE: Duration = Duration::from_secs(20);

/// A booted, prepared and saved guest. Threads may share it.
#[derive(Debug)]
pub struct Template {
    /// Facts about it.
    pub about: About,
    config: GuestConfig,
    /// The guest's memory. Clones map it privately; nobody writes to it any more.
    memory: MemoryFile,
    /// The state of its devices and processor.
    state: MemoryFile,
    stop: Stop,
}

impl Template {
    /// The template in the folder `cache`, or one that is prepared now, after calling `booting`,
    /// and put there. Trouble with the cache costs only the time to boot.
    ///
    /// # Errors
    ///
    /// The guest cannot be had, or does not get ready in time: see [`GuestError`].
    pub fn cached(
        config: GuestConfig,
        setup: &Setup,
        cache: &Path,
        stop: &Stop,
        booting: &mut dyn FnMut(),
    ) -> Result<Self, GuestError> {
        config.check()?;
        let store = Store::new(cache, &config, setup)?;
        let _lock = store.lock().inspect_err(|error| tracing::warn!(%error, "saved guests cannot be locked"));
        let useless = match store.load(config.counter_khz()) {
            Ok(Some(Saved { about, memory, state })) => {
                let template = Self { about, config: config.clone(), memory, state, stop: stop.clone() };
                match again(stop, || template.spawn()) {
                    Ok(_) => return Ok(template),
                    Err(GuestError::Stopped) => return Err(GuestError::Stopped),
                    Err(error) => Some(execution::chain(&error)),
                }
            }
            Ok(None) => None,
            Err(useless) => Some(useless.to_string()),
        };
        if let Some(reason) = useless {
            tracing::warn!(reason, "the guest in the cache is of no use, making it anew");
            if let Err(error) = store.forget() {
                tracing::warn!(%error, "it cannot be removed");
            }
        }
        booting();
        let template = again(stop, || Self::prepare(config.clone(), setup, stop))?;
        match store.keep(&template.about, &template.memory, &template.state) {
            // From the file, its pages are shared with all other guests on this machine that are
            // its clones.
            Ok(Saved { about, memory, state }) => Ok(Self { about, memory, state, ..template }),
            Err(error) => {
                tracing::warn!(%error, "the guest cannot be kept in the cache, the next start boots again");
                Ok(template)
            }
        }
    }

    /// Boots a guest, has its agent prepare the target, saves it, and ends it. A request to `stop`
    /// ends this and all that the template's guests do.
    ///
    /// # Errors
    ///
    /// The guest cannot be had, or does not get ready in time: see [`GuestError`].
    pub fn prepare(config: GuestConfig, setup: &Setup, stop: &Stop) -> Result<Self, GuestError> {
        config.check()?;
        let started = Instant::now();
        let memory = MemoryFile::new("guest memory", config.memory_bytes())?;
        let state = MemoryFile::growing("guest state")?;
        let (mut machine, hello) = boot(&config, &memory, stop)?;
        let boot_time = started.elapsed();
        machine.send(&ToAgent::Setup(Setup { awake: config.exact, ..setup.clone() }))?;
        let ready = match answer(&mut machine, &config, "preparing the target", stop)? {
            FromAgent::Ready(ready) => ready,
            FromAgent::Refused(reason) => return Err(GuestError::Refused(reason)),
            other => return Err(GuestError::unexpected(&other, "ready")),
        };
        let setup_time = started.elapsed().saturating_sub(boot_time);
        save(&mut machine, &state, stop)?;
        let sequence = machine.sequence();
        let console = machine.console().all();
        machine.kill();
        tracing::debug!(?boot_time, ?setup_time, release = %hello.kernel_release, "a guest is ready to be cloned");
        let counter_khz = config.counter_khz();
        let about = About { hello, ready, boot_time, setup_time, console, sequence, counter_khz };
        Ok(Self { about, config, memory, state, stop: stop.clone() })
    }

    /// A guest that continues where the template was saved, with memory and window of its own, once
    /// it gets its first request.
    ///
    /// # Errors
    ///
    /// QEMU does not start or does not load the state.
    pub fn spawn(&self) -> Result<Guest, GuestError> {
        let state = self.state.open_again().map_err(|source| GuestError::Host { what: "saved guest state", source })?;
        let mut machine = Machine::start(&self.config, Birth::Clone, &self.memory, &[&state])?;
        ignore_shared_memory(&mut machine)?;
        let command = "migrate-incoming";
        machine.command(command, &json!({ "uri": format!("fd:{}", state.as_raw_fd()) }))?;
        machine.migrated(command, &self.stop)?;
        machine.continue_from(self.about.sequence);
        let Ready { fired_log_address, returns_address, traces, .. } = &self.about.ready;
        let addresses = Addresses { fired_log: *fired_log_address, returns: *returns_address, traces: traces.clone() };
        Ok(Guest::new(machine, addresses, self.config.exact, self.stop.clone()))
    }

    /// Gives the guest's configuration.
    #[must_use]
    pub fn config(&self) -> &GuestConfig {
        &self.config
    }
}

/// Boots a guest until its agent is up.
fn boot(config: &GuestConfig, memory: &MemoryFile, stop: &Stop) -> Result<(Machine, Hello), GuestError> {
    let mut machine = Machine::start(config, Birth::Boot, memory, &[])?;
    match answer(&mut machine, config, "booting", stop)? {
        FromAgent::Hello(hello) if hello.protocol == PROTOCOL_VERSION => Ok((machine, hello)),
        FromAgent::Hello(hello) => Err(GuestError::Protocol { found: hello.protocol, expected: PROTOCOL_VERSION }),
        FromAgent::Refused(reason) => Err(GuestError::Refused(reason)),
        other => Err(GuestError::unexpected(&other, "hello")),
    }
}

fn answer(
    machine: &mut Machine,
    config: &GuestConfig,
    during: &'static str,
    stop: &Stop,
) -> Result<FromAgent, GuestError> {
    let wake = machine.receive(stop, Instant::now() + config.boot_deadline())?;
    match wake {
        Wake::Message(message) => Ok(message),
        Wake::Ended => {
            machine.settle();
            Err(GuestError::BootPanic { during, console: machine.console().last_lines(40) })
        }
        Wake::Deadline => {
            let console = machine.console().last_lines(40);
            Err(GuestError::BootTimeout { during, after: config.boot_deadline(), console })
        }
    }
}

/// Saves all of the guest but its memory and window, which are files.
fn save(machine: &mut Machine, state: &MemoryFile, stop: &Stop) -> Result<(), GuestError> {
    machine.command("stop", &json!({}))?;
    ignore_shared_memory(machine)?;
    // QEMU 7.2 saves to a program's standard input, to a socket, or to a descriptor passed over the
    // monitor's socket.
    let command = "migrate";
    let done = MemoryFile::growing("end of guest state")?;
    let (host, to, end) = (process::id(), state.file().as_raw_fd(), done.file().as_raw_fd());
    let uri = format!("exec:cat >/proc/{host}/fd/{to} && echo >/proc/{host}/fd/{end}");
    machine.command(command, &json!({ "uri": uri }))?;
    machine.migrated(command, stop)?;
    // QEMU has written everything, but the program that takes it may not have.
    let until = Instant::now() + SAVE_DEADLINE;
    let is_done = || done.file().metadata().is_ok_and(|metadata| metadata.len() > 0);
    while !is_done() {
        if Instant::now() >= until {
            return Err(GuestError::Qmp { command, reason: "the state was not written within 20 s".to_owned() });
        }
        thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

fn ignore_shared_memory(machine: &mut Machine) -> Result<(), GuestError> {
    let capabilities = ["x-ignore-shared", "events"].map(|name| json!({ "capability": name, "state": true }));
    machine.command("migrate-set-capabilities", &json!({ "capabilities": capabilities })).map(drop)
}
