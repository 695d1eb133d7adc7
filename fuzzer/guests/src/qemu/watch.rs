//! The thread that watches one guest's streams.

use std::{
    io::{self, PipeReader, Read},
    os::{fd::AsFd, unix::net::UnixStream},
    process::ChildStderr,
    sync::Arc,
    thread::{self, JoinHandle},
};

use crossbeam::channel::{Receiver, Sender, bounded};
use nix::{
    errno::Errno,
    fcntl::{FcntlArg, OFlag, fcntl},
    poll::{PollFd, PollFlags, PollTimeout, poll},
};
use serde_json::Value;

use super::{
    console::Console,
    qmp::{Event, Line, Lines},
};

/// Number of bytes of a stream that are read before the next one has its turn.
const TURN_BYTES: usize = 1 << 20;

/// The host's ends of a guest's streams. The watcher sets them not to block.
pub(super) struct Streams {
    pub(super) console: PipeReader,
    pub(super) stderr: ChildStderr,
    pub(super) doorbell: UnixStream,
    pub(super) qmp: UnixStream,
}

/// The answer to a monitor command: its number, and what it returned or why it was refused.
pub(super) type Reply = (u64, Result<Value, String>);

/// Texts and events of a watched guest. The channels are disconnected once its process has ended
/// and all is read.
pub(super) struct Watched {
    pub(super) console: Arc<Console>,
    pub(super) stderr: Arc<Console>,
    /// The doorbell rang, once or more.
    pub(super) rings: Receiver<()>,
    pub(super) events: Receiver<Event>,
    pub(super) replies: Receiver<Reply>,
    pub(super) thread: JoinHandle<()>,
}

/// Starts to watch.
pub(super) fn watch(streams: Streams) -> io::Result<Watched> {
    for descriptor in [streams.console.as_fd(), streams.stderr.as_fd(), streams.doorbell.as_fd(), streams.qmp.as_fd()] {
        let flags = OFlag::from_bits_retain(fcntl(descriptor, FcntlArg::F_GETFL)?);
        fcntl(descriptor, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
    }
    let (console, stderr) = (Arc::new(Console::new()), Arc::new(Console::new()));
    let (rings, rung) = bounded(1);
    let (events, happened) = bounded(64);
    let (replies, replied) = bounded(16);
    let watcher = Watcher {
        streams,
        console: Arc::clone(&console),
        stderr: Arc::clone(&stderr),
        rings,
        events,
        replies,
        lines: Lines::default(),
    };
    let thread = thread::Builder::new().name("guest-watcher".to_owned()).spawn(move || watcher.run())?;
    Ok(Watched { console, stderr, rings: rung, events: happened, replies: replied, thread })
}

struct Watcher {
    streams: Streams,
    console: Arc<Console>,
    stderr: Arc<Console>,
    rings: Sender<()>,
    events: Sender<Event>,
    replies: Sender<Reply>,
    lines: Lines,
}

/// Which streams have not ended.
struct Open {
    console: bool,
    stderr: bool,
    doorbell: bool,
}

impl Watcher {
    /// Runs until the monitor's stream ends, which it does with the process.
    fn run(mut self) {
        let mut open = Open { console: true, stderr: true, doorbell: true };
        while let Some((doorbell, qmp)) = self.wait(&open) {
            // In this order: whoever learns that the guest rang, stopped or ended finds what it
            // printed before.
            open.console = open.console && drain(&mut self.streams.console, |bytes| self.console.append(bytes));
            open.stderr = open.stderr && drain(&mut self.streams.stderr, |bytes| self.stderr.append(bytes));
            if doorbell {
                // A full channel means that an earlier ring was not noticed yet: one is as good as
                // many.
                open.doorbell = drain(&mut self.streams.doorbell, |_| _ = self.rings.try_send(()));
            }
            if qmp && !self.read_monitor() {
                return;
            }
        }
    }

    /// Waits until something can be read. Returns whether it is the doorbell and whether it is the
    /// monitor; nothing when waiting is impossible.
    fn wait(&self, open: &Open) -> Option<(bool, bool)> {
        let mut descriptors = vec![PollFd::new(self.streams.qmp.as_fd(), PollFlags::POLLIN)];
        let others = [
            (open.doorbell, self.streams.doorbell.as_fd()),
            (open.console, self.streams.console.as_fd()),
            (open.stderr, self.streams.stderr.as_fd()),
        ];
        for (_, descriptor) in others.into_iter().filter(|(open, _)| *open) {
            descriptors.push(PollFd::new(descriptor, PollFlags::POLLIN));
        }
        loop {
            match poll(&mut descriptors, PollTimeout::NONE) {
                Ok(_) => break,
                Err(Errno::EINTR) => {}
                Err(errno) => {
                    tracing::error!(%errno, "a guest cannot be watched");
                    return None;
                }
            }
        }
        let ready = |index: usize| descriptors.get(index).is_some_and(|descriptor| descriptor.any() != Some(false));
        Some((open.doorbell && ready(1), ready(0)))
    }

    /// Reads what the monitor says. False at the end of the stream.
    fn read_monitor(&mut self) -> bool {
        let Self { streams, lines, events, replies, .. } = self;
        drain(&mut streams.qmp, |bytes| {
            for line in lines.push(bytes) {
                let lost = match Line::parse(&line) {
                    Line::Reply { id, result } => replies.try_send((id, result)).is_err(),
                    Line::Event(event) => events.try_send(event).is_err(),
                    Line::Other => false,
                };
                if lost {
                    tracing::debug!(line = %String::from_utf8_lossy(&line), "nobody listens to the guest's monitor");
                }
            }
        })
    }
}

/// Reads what there is. False at the end of the stream.
fn drain(stream: &mut impl Read, mut take: impl FnMut(&[u8])) -> bool {
    let mut buffer = [0; 16 << 10];
    let mut read = 0;
    while read < TURN_BYTES {
        match stream.read(&mut buffer) {
            Ok(0) => return false,
            Ok(bytes) => {
                take(&buffer[..bytes]);
                read += bytes;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return error.kind() == io::ErrorKind::WouldBlock,
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use std::{
        io::Write,
        process::{Child, Command, Stdio},
    };

    use crossbeam::channel::RecvTimeoutError;

    use super::*;
    use crate::qemu::console::Mark;

    struct Other {
        console: io::PipeWriter,
        doorbell: UnixStream,
        qmp: UnixStream,
        child: Child,
    }

    fn watched() -> (Watched, Other) {
        let (console, other_console) = io::pipe().unwrap();
        let (doorbell, other_doorbell) = UnixStream::pair().unwrap();
        let (qmp, other_qmp) = UnixStream::pair().unwrap();
        let mut child = Command::new("true").stderr(Stdio::piped()).spawn().unwrap();
        let stderr = child.stderr.take().unwrap();
        let watched = watch(Streams { console, stderr, doorbell, qmp }).unwrap();
        (watched, Other { console: other_console, doorbell: other_doorbell, qmp: other_qmp, child })
    }

    const PATIENCE: std::time::Duration = std::time::Duration::from_secs(10);

    #[test]
    fn what_was_printed_before_the_ring_is_there() {
        let (watched, mut other) = watched();
        for round in 0..200 {
            let mark = watched.console.mark();
            let line = format!("line {round}\n");
            other.console.write_all(line.as_bytes()).unwrap();
            other.doorbell.write_all(b"!").unwrap();
            watched.rings.recv_timeout(PATIENCE).unwrap();
            assert_eq!(watched.console.since(mark), line);
        }
        other.child.wait().unwrap();
    }

    #[test]
    fn many_rings_are_one_or_two() {
        let (watched, mut other) = watched();
        other.doorbell.write_all(&[b'!'; 10_000]).unwrap();
        watched.rings.recv_timeout(PATIENCE).unwrap();
        let mut more = 0;
        while watched.rings.recv_timeout(std::time::Duration::from_millis(50)).is_ok() {
            more += 1;
        }
        assert!(more <= 1, "{more} more");
        other.child.wait().unwrap();
    }

    #[test]
    fn the_end_of_the_process_is_seen_last() {
        let (watched, mut other) = watched();
        other.console.write_all(b"last words").unwrap();
        other.qmp.write_all(b"{\"event\": \"SHUTDOWN\"}\n{\"id\": 1, \"return\": 2}\n").unwrap();
        drop((other.console, other.doorbell, other.qmp));
        assert_eq!(watched.events.recv_timeout(PATIENCE), Ok(Event::Ended));
        assert_eq!(watched.replies.recv_timeout(PATIENCE), Ok((1, Ok(Value::from(2)))));
        assert_eq!(watched.events.recv_timeout(PATIENCE), Err(RecvTimeoutError::Disconnected));
        assert_eq!(watched.console.since(Mark::default()), "last words");
        watched.thread.join().unwrap();
        other.child.wait().unwrap();
    }
}
