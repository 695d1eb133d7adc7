//! Running the build's commands: everything they print goes to a log, and is watched on its way there.

use std::{
    collections::VecDeque,
    fs::File,
    io::{self, BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

use super::KernelError;

/// Lines of the log that an error shows.
const TAIL_LINES: usize = 20;
/// How often [`Log::run`] calls back when nothing is printed.
const TICK: Duration = Duration::from_secs(3);

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

    /// Runs `command` to its end. `watch` sees every line that it prints, and `None` when it prints nothing for a
    /// while. The command does not outlive this process.
    ///
    /// # Errors
    ///
    /// The command cannot be run or fails: the error has the end of what it printed.
    pub(super) fn run(
        &mut self,
        step: &'static str,
        command: &Command,
        mut watch: impl FnMut(Option<&str>),
    ) -> Result<(), KernelError> {
        let io = |source| failed("run commands and log to", &self.path, source);
        let (reader, writer) = io::pipe().map_err(io)?;
        let mut bound = bound_to_this_process(command);
        bound.stdin(Stdio::null()).stdout(writer.try_clone().map_err(io)?).stderr(writer);
        let mut child = bound.spawn().map_err(io)?;
        // It holds the pipe's writing ends, which must be closed here for the pipe to end with the child.
        drop(bound);

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
        let status = child.wait().map_err(io)?;
        if status.success() {
            return Ok(());
        }
        let tail = Vec::from(tail).join("\n");
        Err(KernelError::Failed { step, status: status.to_string(), log: self.path.clone(), tail })
    }
}

/// `command`, told by the kernel to end when the thread that started it does: a killed build leaves no compiler
/// running.
fn bound_to_this_process(command: &Command) -> Command {
    let mut bound = Command::new("setpriv");
    bound.args(["--pdeathsig", "TERM", "--"]).arg(command.get_program()).args(command.get_args());
    if let Some(directory) = command.get_current_dir() {
        bound.current_dir(directory);
    }
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => bound.env(name, value),
            None => bound.env_remove(name),
        };
    }
    bound
}

pub(super) fn failed(action: &'static str, path: &Path, source: io::Error) -> KernelError {
    KernelError::Cache { action, path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
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
        log.run("talking", &shell("echo out; echo err >&2"), |line| seen.extend(line.map(str::to_owned))).unwrap();
        seen.sort();
        assert_eq!(seen, ["err", "out"]);
        assert_eq!(std::fs::read_to_string(path).unwrap().lines().count(), 2);
    }

    #[test]
    fn a_failure_shows_the_end_of_the_log_and_where_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let mut log = Log::create(path.clone()).unwrap();
        let error = log.run("counting", &shell("seq 100; exit 7"), |_| {}).unwrap_err().to_string();
        assert!(error.starts_with("counting failed (exit status: 7)"), "{error}");
        assert!(error.contains(&path.display().to_string()), "{error}");
        assert!(error.ends_with("\n99\n100") && error.contains("\n81\n") && !error.contains("\n80\n"), "{error}");
    }
}
