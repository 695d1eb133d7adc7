//! Starting processes that die with the host.

use std::{
    io,
    os::{fd::RawFd, unix::process::CommandExt},
    process::{Child, Command},
    sync::LazyLock,
    thread,
};

use crossbeam::channel::{Sender, bounded};
use nix::{
    errno::Errno,
    fcntl::{FcntlArg, FdFlag, fcntl},
    sys::{prctl::set_pdeathsig, signal::Signal},
    unistd::{Pid, getpid, getppid},
};

type Order = (Command, Sender<io::Result<Child>>);

/// The thread that starts all processes. A process is killed when the *thread* that started it ends
/// (`PR_SET_PDEATHSIG`), so it is one that never does.
static STARTER: LazyLock<Result<Sender<Order>, String>> = LazyLock::new(|| {
    let (sender, orders) = bounded::<Order>(0);
    let run = move || {
        for (mut command, reply) in orders {
            // The one who asked waits for the answer; if it is gone nevertheless, so is its process.
            if let Err(unsent) = reply.send(command.spawn())
                && let Ok(mut child) = unsent.into_inner()
            {
                end(&mut child);
            }
        }
    };
    thread::Builder::new().name("guest-starter".to_owned()).spawn(run).map_err(|error| error.to_string())?;
    Ok(sender)
});

/// Starts `command` in a process group of its own (a Ctrl-C at the terminal is for the host alone), with the
/// descriptors `inherited` left open, and killed when the host is gone, however that came about.
pub(super) fn start(mut command: Command, inherited: Vec<RawFd>) -> io::Result<Child> {
    let host = getpid();
    command.process_group(0);
    // SAFETY: the closure makes system calls only, allocates nothing and takes no lock, as the child of a process
    // with threads must not.
    unsafe { command.pre_exec(move || prepare(host, &inherited)) };
    let starter = STARTER.as_ref().map_err(|reason| io::Error::other(reason.clone()))?;
    let (sender, reply) = bounded(1);
    let gone = || io::Error::other("the thread that starts processes is gone");
    starter.send((command, sender)).map_err(|_| gone())?;
    reply.recv().map_err(|_| gone())?
}

fn prepare(host: Pid, inherited: &[RawFd]) -> io::Result<()> {
    set_pdeathsig(Signal::SIGKILL)?;
    // The host may have died before the line above.
    if getppid() != host {
        return Err(Errno::ESRCH.into());
    }
    for descriptor in inherited {
        // SAFETY: the descriptor was open in the parent when it started the child, and the child is its copy.
        let descriptor = unsafe { std::os::fd::BorrowedFd::borrow_raw(*descriptor) };
        fcntl(descriptor, FcntlArg::F_SETFD(FdFlag::empty()))?;
    }
    Ok(())
}

/// Kills the process and waits for its end. Returns how it ended, or ended before.
pub(super) fn end(child: &mut Child) -> String {
    // Killing a process that has ended but was not waited for does nothing.
    let ended = child.kill().and_then(|()| child.wait());
    ended.map_or_else(|error| error.to_string(), |status| status.to_string())
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        os::fd::AsRawFd,
        process::Stdio,
        thread,
        time::{Duration, Instant},
    };

    use super::*;
    use crate::guest::memory::MemoryFile;

    #[test]
    fn a_process_outlives_the_thread_that_asked_for_it() {
        let mut command = Command::new("sleep");
        command.arg("60");
        let mut child = thread::spawn(|| start(command, Vec::new()).unwrap()).join().unwrap();
        thread::sleep(Duration::from_millis(50));
        assert!(child.try_wait().unwrap().is_none());
        assert!(end(&mut child).contains("signal: 9"));
    }

    #[test]
    fn it_has_the_descriptors_it_should_have() {
        let memory = MemoryFile::holding("test memory", b"inherited").unwrap();
        let run = |descriptors| {
            let mut command = Command::new("cat");
            command.arg(memory.inherited_path()).stdout(Stdio::piped()).stderr(Stdio::null());
            let output = start(command, descriptors).unwrap().wait_with_output().unwrap();
            output.status.success().then_some(output.stdout)
        };
        assert_eq!(run(vec![memory.file().as_raw_fd()]).unwrap(), b"inherited");
        assert_eq!(run(Vec::new()), None);
    }

    #[test]
    fn a_missing_program_is_an_error() {
        let error = start(Command::new("/nonexistent/qemu"), Vec::new()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }

    /// The host of this test is a copy of the test program that starts a process and is killed.
    #[test]
    fn a_process_dies_with_a_killed_host() {
        const ROLE: &str = "GUEST_PROCESS_TEST_HOST";
        if std::env::var_os(ROLE).is_some() {
            let mut command = Command::new("sleep");
            command.arg("60");
            let mut child = start(command, Vec::new()).unwrap();
            fs::write(std::env::var_os(ROLE).unwrap(), child.id().to_string()).unwrap();
            child.wait().unwrap();
            return;
        }
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut host = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "guest::process::tests::a_process_dies_with_a_killed_host"])
            .env(ROLE, file.path())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let until = Instant::now() + Duration::from_secs(10);
        let mut pid = String::new();
        while pid.is_empty() && Instant::now() < until {
            thread::sleep(Duration::from_millis(10));
            pid = fs::read_to_string(file.path()).unwrap();
        }
        host.kill().unwrap();
        host.wait().unwrap();
        assert!(!pid.is_empty(), "the host has started its process");
        // Whoever adopts it may take its time to reap it: a zombie is dead as well.
        let alive = || {
            fs::read_to_string(format!("/proc/{pid}/stat"))
                .is_ok_and(|stat| stat.contains("(sleep)") && !stat.contains(") Z "))
        };
        while alive() && Instant::now() < until {
            thread::sleep(Duration::from_millis(10));
        }
        assert!(!alive());
    }
}
