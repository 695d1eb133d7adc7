//! Guests that are booted and know no target yet: most targets on a kernel begin with the same one,
//! so that it boots once for all of them.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use execution::Stop;
use guest_protocol::{FromAgent, Hello, PROTOCOL_VERSION, Ready, ToAgent};
use serde_json::json;

use super::{
    About, GuestConfig, GuestError,
    config::Birth,
    machine::{Machine, Wake},
    memory::MemoryFile,
    pauses::again,
    saved,
    store::{Saved, Store},
};

/// A guest whose agent waits for its target.
pub(super) struct Booted {
    machine: Machine,
    /// Its memory, which it writes to.
    memory: MemoryFile,
    /// Its disks, as far as they are not in its memory.
    disks: Vec<MemoryFile>,
    hello: Hello,
    /// From the start of QEMU to `hello`.
    boot_time: Duration,
    /// Text that it printed before it was saved, if it was.
    console: String,
}

impl Booted {
    /// A guest that boots now.
    pub(super) fn boot(config: &GuestConfig, stop: &Stop) -> Result<Self, GuestError> {
        let started = Instant::now();
        let memory = MemoryFile::new("guest memory", config.memory_bytes())?;
        let disks = config.disks.files().into_iter().map(|bytes| MemoryFile::new("disk", bytes));
        let disks = disks.collect::<Result<Vec<_>, _>>()?;
        let mut machine = Machine::start(config, Birth::Boot, &memory, &disks, &[], None)?;
        let hello = match answer(&mut machine, config, "booting", stop)? {
            FromAgent::Hello(hello) if hello.protocol == PROTOCOL_VERSION => hello,
            FromAgent::Hello(hello) => {
                return Err(GuestError::Protocol { found: hello.protocol, expected: PROTOCOL_VERSION });
            }
            FromAgent::Refused(reason) => return Err(GuestError::Refused(reason)),
            other => return Err(GuestError::unexpected(&other, "hello")),
        };
        Ok(Self { machine, memory, disks, hello, boot_time: started.elapsed(), console: String::new() })
    }

    /// A guest that continues a booted one from the folder `cache`, which is booted now and put
    /// there unless there is one.
    pub(super) fn cached(config: &GuestConfig, cache: &Path, stop: &Stop) -> Result<Self, GuestError> {
        let store = Store::booted(cache, config)?;
        let resume = |saved: &Saved| Self::resume(config, saved, stop);
        let make = || again(stop, || Self::boot(config, stop)?.save(Ready::default(), Duration::ZERO, config, stop));
        Ok(store.cached(config.counter_khz(), stop, resume, make)?.1)
    }

    fn resume(config: &GuestConfig, saved: &Saved, stop: &Stop) -> Result<Self, GuestError> {
        let memory = saved.memory.copied("guest memory")?;
        let (mut machine, disks) = saved::resume(config, Birth::Resume, &memory, saved, None, stop)?;
        machine.command("cont", &json!({}))?;
        let About { hello, boot_time, console, .. } = saved.about.clone();
        Ok(Self { machine, memory, disks, hello, boot_time, console })
    }

    /// Sends the agent a message. Gives its answer, and the time that it took.
    pub(super) fn ask(
        &mut self,
        message: &ToAgent,
        config: &GuestConfig,
        stop: &Stop,
    ) -> Result<(FromAgent, Duration), GuestError> {
        let started = Instant::now();
        self.machine.send(message)?;
        Ok((answer(&mut self.machine, config, "preparing the target", stop)?, started.elapsed()))
    }

    /// Saves the guest, whose agent gave the answer `ready` after `setup_time`, and ends it.
    pub(super) fn save(
        mut self,
        ready: Ready,
        setup_time: Duration,
        config: &GuestConfig,
        stop: &Stop,
    ) -> Result<Saved, GuestError> {
        let state = saved::save(&mut self.machine, stop)?;
        let sequence = self.machine.sequence();
        let console = self.console + &self.machine.console().all();
        self.machine.kill();
        let counter_khz = config.counter_khz();
        let Self { hello, boot_time, memory, disks, .. } = self;
        let about = About { hello, ready, boot_time, setup_time, console, sequence, counter_khz };
        Ok(Saved { about, memory, disks, state })
    }
}

fn answer(
    machine: &mut Machine,
    config: &GuestConfig,
    during: &'static str,
    stop: &Stop,
) -> Result<FromAgent, GuestError> {
    let (allowed, waited) = (config.boot_deadline(), machine.waited());
    match machine.receive_within(stop, allowed, waited)? {
        Wake::Message(message) => Ok(message),
        Wake::Ended => {
            machine.settle();
            Err(GuestError::BootPanic { during, console: machine.console().last_lines(40) })
        }
        Wake::Deadline => {
            let console = machine.console().last_lines(40);
            Err(GuestError::BootTimeout { during, after: allowed, console })
        }
    }
}
