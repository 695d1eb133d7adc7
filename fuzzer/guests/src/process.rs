//! Starting processes that die with the host.

use std::{
    ffi::OsStr,
    fs, io,
    os::{
        fd::{BorrowedFd, RawFd},
        unix::process::CommandExt,
    },
    process::{Child, Command, ExitStatus},
    sync::LazyLock,
    thread,
    time::Duration,
};

use crossbeam::channel::{Sender, bounded};
use nix::{
    errno::Errno,
    fcntl::{FcntlArg, FdFlag, fcntl},
    sched::{CpuSet, sched_getaffinity, sched_setaffinity},
    sys::{
        prctl::set_pdeathsig,
        resource::{Resource, getrlimit, setrlimit},
        signal::{SigSet, Signal, killpg},
        wait::{Id, WaitPidFlag, waitid},
    },
    unistd::{Pid, getpid, getppid},
};

type Order = (Command, Vec<RawFd>, Sender<io::Result<Child>>);

/// The thread that starts all processes. A process is killed when the *thread* that started it ends
/// (`PR_SET_PDEATHSIG`), so it is one that never does.
static STARTER: LazyLock<Result<Sender<Order>, String>> = LazyLock::new(|| {
    let (sender, orders) = bounded::<Order>(0);
    let run = move || {
        for (mut command, inherited, reply) in orders {
            // The caller waits for the answer. If it is gone nevertheless, its process ends too.
            if let Err(unsent) = reply.send(spawn(&mut command, &inherited))
                && let Ok(mut child) = unsent.into_inner()
            {
                let _ = end(&mut child);
            }
        }
    };
    thread::Builder::new().name("starter".to_owned()).spawn(run).map_err(|error| error.to_string())?;
    Ok(sender)
});

/// Starts `command`, with the descriptors `inherited` left open. One thread does this for all
/// guests, so that none of them gets another one's.
fn spawn(command: &mut Command, inherited: &[RawFd]) -> io::Result<Child> {
    let keep = |descriptor: RawFd, flags| {
        // SAFETY: the caller waits for the process, and has the descriptor open meanwhile.
        let descriptor = unsafe { BorrowedFd::borrow_raw(descriptor) };
        fcntl(descriptor, FcntlArg::F_SETFD(flags))
    };
    let kept = inherited.iter().try_for_each(|descriptor| keep(*descriptor, FdFlag::empty()).map(drop));
    let child = kept.map_err(io::Error::from).and_then(|()| command.spawn());
    for descriptor in inherited {
        if let Err(errno) = keep(*descriptor, FdFlag::FD_CLOEXEC) {
            tracing::warn!(%errno, "other processes get a descriptor that is none of theirs");
        }
    }
    child
}

/// Starts `command` in a process group of its own (a Ctrl-C at the terminal is for the host alone),
/// with no signal blocked, with the descriptors `inherited` left open, and killed when the host is
/// gone, however that came about.
pub(crate) fn start(mut command: Command, inherited: Vec<RawFd>) -> io::Result<Child> {
    let host = getpid();
    // SAFETY: the closure makes system calls only, allocates nothing and takes no lock, as the
    // child of a process with threads must not.
    unsafe { command.pre_exec(move || prepare(host)) };
    order(command, inherited)
}

/// Makes a command that runs `program`, to be completed and given to [`start_by_setpriv`].
/// `setpriv` is of util-linux (2.33), which every Debian has.
pub(crate) fn setpriv_command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new("setpriv");
    // The host may have died before it was this process's death that it is bound to.
    command.args(["--pdeathsig", "KILL", "sh", "-c", r#"[ "$PPID" = "$0" ] && exec "$@""#]);
    command.arg(getpid().to_string()).arg(program);
    command
}

/// Starts a `command` made by [`setpriv_command`] as [`start`] does, but for the signals that this
/// thread has blocked. It takes the same time however much memory the host has: nothing of it is
/// copied to the child, as is done where code of the host's runs there.
pub(crate) fn start_by_setpriv(command: Command, inherited: Vec<RawFd>) -> io::Result<Child> {
    order(command, inherited)
}

/// Has the thread that starts all processes start `command`.
fn order(mut command: Command, inherited: Vec<RawFd>) -> io::Result<Child> {
    command.process_group(0);
    let starter = STARTER.as_ref().map_err(|reason| io::Error::other(reason.clone()))?;
    let (sender, reply) = bounded(1);
    let gone = || io::Error::other("the thread that starts processes is gone");
    starter.send((command, inherited, sender)).map_err(|_| gone())?;
    reply.recv().map_err(|_| gone())?
}

fn prepare(host: Pid) -> io::Result<()> {
    set_pdeathsig(Signal::SIGKILL)?;
    // The host may have died before the line above.
    if getppid() != host {
        return Err(Errno::ESRCH.into());
    }
    // The host's threads block the signals that one of them waits for.
    SigSet::empty().thread_set_mask()?;
    Ok(())
}

/// Lets this process have as many files open as the system allows it. A guest takes some ten of
/// them, so that the usual 1024 are too few for a hundred guests.
pub fn allow_many_files() {
    let allowed =
        getrlimit(Resource::RLIMIT_NOFILE).and_then(|(_, most)| setrlimit(Resource::RLIMIT_NOFILE, most, most));
    if let Err(errno) = allowed {
        tracing::debug!(%errno, "no more files than usual can be open");
    }
}

/// Kills the process and its group, and waits for its end. Returns how it ended, or ended before.
///
/// # Errors
///
/// The process cannot be waited for.
pub(crate) fn end(child: &mut Child) -> io::Result<ExitStatus> {
    let leader = Pid::from_raw(child.id().cast_signed());
    let look = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
    // Once it was waited for, its number can be somebody else's.
    if waitid(Id::Pid(leader), look).is_ok() {
        // A group that has just ended cannot be killed and need not be.
        let _ = killpg(leader, Signal::SIGKILL);
    }
    // Killing a process that has ended but was not waited for does nothing.
    child.kill().and_then(|()| child.wait())
}

/// The processors that this process may run on, by number.
pub fn processors() -> io::Result<Vec<usize>> {
    let allowed = sched_getaffinity(Pid::from_raw(0))?;
    Ok((0..CpuSet::count()).filter(|processor| allowed.is_set(*processor) == Ok(true)).collect())
}

/// Has the threads of the process `pid` run on `processor` alone.
pub fn bind(pid: u32, processor: usize) -> io::Result<()> {
    let mut processors = CpuSet::new();
    processors.set(processor)?;
    for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
        let id = thread?.file_name().to_string_lossy().parse().map_err(io::Error::other)?;
        sched_setaffinity(Pid::from_raw(id), &processors)?;
    }
    Ok(())
}

/// Sums the time that the threads of the process `pid` have been ready to run without being run.
/// Gives 0 when the host's kernel does not say. Reads the second field of
/// `/proc/PID/task/TID/schedstat`, nanoseconds on a run queue
/// (`Documentation/scheduler/sched-stats.rst`, Linux 6.12).
pub(crate) fn waited(pid: u32) -> Duration {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let of_task = |task: fs::DirEntry| {
        let text = fs::read_to_string(task.path().join("schedstat")).ok()?;
        text.split_ascii_whitespace().nth(1)?.parse::<u64>().ok()
    };
    Duration::from_nanos(tasks.filter_map(of_task).sum())
}

/// Resident memory of a process, shared pages included.
pub fn resident_kib(pid: u32) -> Option<u64> {
    kib_in(&fs::read_to_string(format!("/proc/{pid}/status")).ok()?, "VmRSS:")
}

/// Memory use of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    /// Memory in KiB, in which a page of several processes counts for each of them in part.
    pub proportional_kib: u64,
    /// Memory in KiB that the process shares with no other.
    pub private_kib: u64,
}

/// The memory that the process `pid` uses, from `/proc/PID/smaps_rollup` (Linux 4.14).
pub fn memory(pid: u32) -> io::Result<Memory> {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    let kib = |name: &str| kib_in(&text, name).ok_or_else(|| io::Error::other(format!("no {name} in smaps_rollup")));
    let private_kib = kib("Private_Clean:")? + kib("Private_Dirty:")?;
    Ok(Memory { proportional_kib: kib("Pss:")?, private_kib })
}

/// The number in the line `NAME   NUMBER kB`.
fn kib_in(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim().strip_suffix(" kB")?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read, Write},
        os::fd::AsRawFd,
        process::Stdio,
        time::Instant,
    };

    use super::*;

    type Start = fn(Command, Vec<RawFd>) -> io::Result<Child>;

    #[test]
    fn a_process_outlives_the_thread_that_asked_for_it() {
        let mut command = Command::new("sleep");
        command.arg("60");
        let mut child = thread::spawn(|| start(command, Vec::new()).unwrap()).join().unwrap();
        thread::sleep(Duration::from_millis(50));
        assert!(child.try_wait().unwrap().is_none());
        assert!(end(&mut child).unwrap().to_string().contains("signal: 9"));
    }

    #[test]
    fn it_has_the_descriptors_it_should_have() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(b"inherited").unwrap();
        let file = file.reopen().unwrap();
        let run = |descriptors: &[RawFd]| {
            let ways: [(Command, Start); 2] =
                [(Command::new("cat"), start), (setpriv_command("cat"), start_by_setpriv)];
            ways.map(|(mut command, start)| {
                command.arg(format!("/proc/self/fd/{}", file.as_raw_fd())).stdout(Stdio::piped()).stderr(Stdio::null());
                let output = start(command, descriptors.to_vec()).unwrap().wait_with_output().unwrap();
                output.status.success().then_some(output.stdout)
            })
        };
        let inherited = Some(b"inherited".to_vec());
        assert_eq!(run(&[file.as_raw_fd()]), [inherited.clone(), inherited]);
        assert_eq!(run(&[]), [None, None]);
    }

    #[test]
    fn its_whole_group_ends() {
        let mut command = Command::new("sh");
        command.args(["-c", "sleep 60 & echo; wait"]).stdout(Stdio::piped());
        let mut child = start(command, Vec::new()).unwrap();
        let mut said = child.stdout.take().unwrap();
        said.read_exact(&mut [0]).unwrap();
        end(&mut child).unwrap();
        // Only when both have ended has the pipe no writer.
        assert_eq!(said.read(&mut [0]).unwrap(), 0);
        assert!(end(&mut child).unwrap().to_string().contains("signal: 9"), "nothing happens the second time");
    }

    #[test]
    fn a_missing_program_is_an_error() {
        let error = start(Command::new("/nonexistent/qemu"), Vec::new()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }

    /// The host of this test is a copy of the test program that starts two processes and is killed.
    #[test]
    fn processes_die_with_a_killed_host() {
        const ROLE: &str = "PROCESS_TEST_HOST";
        if std::env::var_os(ROLE).is_some() {
            SigSet::all().thread_block().unwrap();
            let ways: [(Command, Start); 2] =
                [(Command::new("sleep"), start), (setpriv_command("sleep"), start_by_setpriv)];
            let [mut child, by_setpriv] = ways.map(|(mut command, start)| {
                command.arg("60");
                start(command, Vec::new()).unwrap()
            });
            fs::write(std::env::var_os(ROLE).unwrap(), format!("{} {} .", child.id(), by_setpriv.id())).unwrap();
            child.wait().unwrap();
            return;
        }
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut host = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "process::tests::processes_die_with_a_killed_host"])
            .env(ROLE, file.path())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let until = Instant::now() + Duration::from_secs(10);
        let mut started = String::new();
        while !started.ends_with('.') && Instant::now() < until {
            thread::sleep(Duration::from_millis(10));
            started = fs::read_to_string(file.path()).unwrap();
        }
        let pids: Vec<&str> = started.trim_end_matches('.').split_ascii_whitespace().collect();
        assert_eq!(pids.len(), 2, "the host has started its processes: {started}");
        // Whoever adopts it may take its time to reap it: a zombie is dead as well.
        let alive = |pid: &str| {
            fs::read_to_string(format!("/proc/{pid}/stat"))
                .is_ok_and(|stat| stat.contains("(sleep)") && !stat.contains(") Z "))
        };
        while !pids.iter().all(|pid| alive(pid)) && Instant::now() < until {
            thread::sleep(Duration::from_millis(10));
        }
        assert!(pids.iter().all(|pid| alive(pid)));
        let status = fs::read_to_string(format!("/proc/{}/status", pids[0])).unwrap_or_default();
        host.kill().unwrap();
        host.wait().unwrap();
        assert!(status.contains("SigBlk:\t0000000000000000\n"), "the host's blocked signals are not its: {status}");
        while pids.iter().any(|pid| alive(pid)) && Instant::now() < until {
            thread::sleep(Duration::from_millis(10));
        }
        assert!(!pids.iter().any(|pid| alive(pid)));
    }

    #[test]
    fn memory_is_told() {
        let own = memory(std::process::id()).unwrap();
        assert!(own.private_kib > 0 && own.proportional_kib >= own.private_kib, "{own:?}");
        assert!(resident_kib(std::process::id()).unwrap() >= own.private_kib);
        assert!(memory(u32::MAX).is_err());
    }

    #[test]
    fn a_process_that_is_not_run_waits() {
        let mut children: Vec<Child> = Vec::new();
        // More of them than processors: some are always ready and not run.
        for _ in 0..2 * thread::available_parallelism().unwrap().get() {
            let mut command = Command::new("sh");
            command.args(["-c", "while :; do :; done"]);
            children.push(start(command, Vec::new()).unwrap());
        }
        let until = Instant::now() + Duration::from_secs(10);
        let total = |children: &[Child]| children.iter().map(|child| waited(child.id())).sum::<Duration>();
        while total(&children) < Duration::from_millis(50) && Instant::now() < until {
            thread::sleep(Duration::from_millis(10));
        }
        let total = total(&children);
        children.iter_mut().for_each(|child| drop(end(child)));
        assert!(total >= Duration::from_millis(50), "{total:?}");
        assert_eq!(waited(u32::MAX), Duration::ZERO);
    }
}
