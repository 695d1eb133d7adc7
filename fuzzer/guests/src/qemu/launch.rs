//! Resources of the host that a QEMU process needs at its start.

use std::{
    io::{self, PipeReader, PipeWriter},
    os::unix::process::CommandExt,
    process::Command,
};

use nix::{
    fcntl::{FcntlArg, fcntl},
    sched::{CpuSet, sched_getcpu, sched_setaffinity},
    unistd::Pid,
};

/// Size of a console's pipe, in bytes: the most that a user may have
/// (`/proc/sys/fs/pipe-max-size`).
const CONSOLE_PIPE_BYTES: i32 = 1 << 20;

/// Has all threads of `command` run on the processor that this one runs on. QEMU 7.2's main thread
/// lets the time of an idle guest jump to its next timer, and if it does so while the processor's
/// thread is about to halt, it jumps too far (`icount_start_warp_timer()` in `softmmu/icount.c`
/// sees a count that is not up to date): they must not run at the same time.
pub(super) fn bind_to_one_processor(command: &mut Command) -> io::Result<()> {
    let mut processors = CpuSet::new();
    processors.set(sched_getcpu()?)?;
    // SAFETY: the closure makes one system call, allocates nothing and takes no lock, as the child
    // of a process with threads must not.
    unsafe { command.pre_exec(move || Ok(sched_setaffinity(Pid::from_raw(0), &processors)?)) };
    Ok(())
}

/// A pipe with room for all that a kernel prints before the host gets to read it: one that is full
/// would have the guest wait for the host, and its time go on meanwhile.
pub(super) fn console_pipe() -> io::Result<(PipeReader, PipeWriter)> {
    let (reader, writer) = io::pipe()?;
    if let Err(errno) = fcntl(&writer, FcntlArg::F_SETPIPE_SZ(CONSOLE_PIPE_BYTES)) {
        tracing::debug!(%errno, "a console's pipe has its usual size");
    }
    Ok((reader, writer))
}
