//! Running the build's commands: everything they print goes to a log, and is watched on its way
//! there.

use std::{
    collections::VecDeque,
    fs::File,
    io::{self, BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

use super::KernelError;
use crate::process;
use execution::Stop;

/// Lines of the log that an error shows.
const TAIL_LINES: usize = 20;
/// Interval at which [`Log::run`] calls back, and looks whether to stop, when nothing is printed.
const TICK: Duration = Duration::from_millis(100);

/// The log of one build.
pub(super) struct Log {
    path: PathBuf,
    file: File,
}

impl Log {
    /// Starts the log anew.
    pub(super) fn create(path: PathBuf) -> Result<Self, KernelError> {
        let file = File::create(&path).map_err(|source| failed("create the log", &path, source))?;
        Ok(Self { path, file })
    }

    /// Runs `command` to its end. `watch` sees every line that it prints, and `None` when it prints
    /// nothing for a while. The command and what it started do not outlive this call. When this
    /// process is killed, the command is too, and what it started ends when it next prints, as
    /// nobody reads that.
    ///
    /// # Errors
    ///
    /// The command cannot be run or fails (the error has the end of what it printed), or the user
    /// asks to stop.
    pub(super) fn run(
        &mut self,
        step: &'static str,
        mut command: Command,
        stop: &Stop,
        mut watch: impl FnMut(Option<&str>),
    ) -> Result<(), KernelError> {
        let io = |source| failed("run commands and log to", &self.path, source);
        let (reader, writer) = io::pipe().map_err(io)?;
        command.stdin(Stdio::null()).stdout(writer.try_clone().map_err(io)?).stderr(writer);
        let mut running = Running(process::start(command, Vec::new()).map_err(io)?);
        let (send, lines) = mpsc::channel();
        let reading = thread::spawn(move || {
            for line in BufReader::new(reader).split(b'\n') {
                if line.map_or(true, |line| send.send(line).is_err()) {
                    return;
                }
            }
        });
        let mut tail = VecDeque::new();
        loop {
            if stop.is_requested() {
                return Err(KernelError::Stopped);
            }
            let line = match lines.recv_timeout(TICK) {
                Ok(line) => line,
                Err(mpsc::RecvTimeoutError::Timeout) => {
                    watch(None);
                    continue;
                }
                Err(mpsc::RecvTimeoutError::Disconnected) => break,
            };
            let line = String::from_utf8_lossy(&line);
            writeln!(self.file, "{line}").map_err(io)?;
            watch(Some(&line));
            tail.push_back(line.into_owned());
            if tail.len() > TAIL_LINES {
                tail.pop_front();
            }
        }
        // The thread has sent all and ends; it cannot panic.
        let _ = reading.join();
        let status = running.0.wait().map_err(io)?;
        if status.success() {
            return Ok(());
        }
        let tail = Vec::from(tail).join("\n");
        Err(KernelError::Failed { step, status: status.to_string(), log: self.path.clone(), tail })
    }
}

/// A command that ends, with all that it started, when this is dropped.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = process::end(&mut self.0);
    }
}

pub(super) fn failed(action: &'static str, path: &Path, source: io::Error) -> KernelError {
    KernelError::Cache { action, path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use std::{fs, time::Instant};

    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn both_streams_are_watched_and_logged() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let mut seen = Vec::new();
        let mut log = Log::create(path.clone()).unwrap();
        log.run("talking", shell("echo out; echo err >&2"), &Stop::new(), |line| seen.extend(line.map(str::to_owned)))
            .unwrap();
        seen.sort();
        assert_eq!(seen, ["err", "out"]);
        assert_eq!(fs::read_to_string(path).unwrap().lines().count(), 2);
    }

    #[test]
    fn a_failure_shows_the_end_of_the_log_and_where_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let mut log = Log::create(path.clone()).unwrap();
        let error = log.run("counting", shell("seq 100; exit 7"), &Stop::new(), |_| {}).unwrap_err().to_string();
        assert!(error.starts_with("counting failed (exit status: 7)"), "{error}");
        assert!(error.contains(&path.display().to_string()), "{error}");
        assert!(error.ends_with("\n99\n100") && error.contains("\n81\n") && !error.contains("\n80\n"), "{error}");
    }

    #[test]
    fn a_request_to_stop_ends_the_command_and_what_it_started() {
        let folder = tempfile::tempdir().unwrap();
        let mut log = Log::create(folder.path().join("log")).unwrap();
        let stop = Stop::new();
        let mut started = String::new();
        let result = log.run("waiting", shell("sleep 60 & echo $!; wait"), &stop, |line| {
            started.extend(line);
            stop.request();
        });
        assert!(matches!(result, Err(KernelError::Stopped)));
        let state = || fs::read_to_string(format!("/proc/{started}/stat")).unwrap_or_default();
        // A zombie that nobody has reaped yet is dead as well.
        let until = Instant::now() + Duration::from_secs(10);
        while state().contains("(sleep)") && !state().contains(") Z ") {
            assert!(!started.is_empty() && Instant::now() < until, "{}", state());
            thread::sleep(Duration::from_millis(10));
        }
    }

    #[test]
    fn a_log_that_cannot_be_written_ends_the_command() {
        let full = Path::new("/dev/full");
        let mut log = Log { path: full.to_owned(), file: File::options().write(true).open(full).unwrap() };
        let begin = Instant::now();
        let error = log.run("talking", shell("echo; sleep 60"), &Stop::new(), |_| {}).unwrap_err();
        assert!(error.to_string().contains("/dev/full"), "{error}");
        assert!(begin.elapsed() < Duration::from_secs(30), "it was not waited for");
    }
}
