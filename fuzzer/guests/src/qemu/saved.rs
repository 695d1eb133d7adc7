//! Saving a guest, and continuing a saved one.

use std::{
    os::fd::AsRawFd,
    process, thread,
    time::{Duration, Instant},
};

use execution::Stop;
use serde_json::json;

use super::{Debugger, GuestConfig, GuestError, config::Birth, machine::Machine, memory::MemoryFile, store::Saved};

/// Time that writing a guest's state may take after QEMU is done.
const SAVE_DEADLINE: Duration = Duration::from_secs(20);

/// Gives a guest that continues `saved` on the memory `memory`, once it is told to, and its disks,
/// which it writes to: copies of what was saved. A `debugger` can hold it.
pub(super) fn resume(
    config: &GuestConfig,
    birth: Birth,
    memory: &MemoryFile,
    saved: &Saved,
    debugger: Option<&Debugger>,
    stop: &Stop,
) -> Result<(Machine, Vec<MemoryFile>), GuestError> {
    let state = saved.state.open_again().map_err(|source| GuestError::Host { what: "saved guest state", source })?;
    let disks = saved.disks.iter().map(|disk| disk.copied("disk")).collect::<Result<Vec<_>, _>>()?;
    let mut machine = Machine::start(config, birth, memory, &disks, &[&state], debugger)?;
    ignore_shared_memory(&mut machine)?;
    let command = "migrate-incoming";
    machine.command(command, &json!({ "uri": format!("fd:{}", state.as_raw_fd()) }))?;
    machine.migrated(command, stop)?;
    machine.continue_from(saved.about.sequence);
    Ok((machine, disks))
}

/// Stops a guest. Gives all of it but its memory, its disks and its window, which are files.
pub(super) fn save(machine: &mut Machine, stop: &Stop) -> Result<MemoryFile, GuestError> {
    let state = MemoryFile::growing("guest state")?;
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
    Ok(state)
}

fn ignore_shared_memory(machine: &mut Machine) -> Result<(), GuestError> {
    let capabilities = ["x-ignore-shared", "events"].map(|name| json!({ "capability": name, "state": true }));
    machine.command("migrate-set-capabilities", &json!({ "capabilities": capabilities })).map(drop)
}
