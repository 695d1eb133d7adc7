//! The channel to the host: messages in the shared window, a byte over virtio-serial that says that
//! one is there.

use std::{
    ffi::c_void,
    fs::{self, File, OpenOptions},
    hint,
    io::{ErrorKind, Read, Write},
    num::NonZeroUsize,
    path::PathBuf,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use guest_protocol::{
    DOORBELL, Direction, FromAgent, PORT_NAME, ToAgent, WINDOW_BYTES, WINDOW_GUEST_ADDRESS, Window, WindowError,
};
use nix::{
    sys::{
        mman::{MapFlags, ProtFlags, mmap},
        time::TimeSpec,
    },
    time::{ClockId, ClockNanosleepFlags, clock_gettime, clock_nanosleep},
};

const PORTS: &str = "/sys/class/virtio-ports";
/// The driver learns of its ports from the host some time after boot.
const PORT_DEADLINE: Duration = Duration::from_secs(30);
/// Turns of a loop that take some 50 ms of the host's time under emulation, and the least of the
/// guest's time until it goes on.
const SETTLE_TURNS: u32 = 6_000_000;
const SETTLE: Duration = Duration::from_millis(60);
/// It goes on when its clock is at a multiple of this, and so much later: between two ticks of the
/// kernel's timer (`TICK_NSEC` is 4 ms), which has other threads run.
const SETTLE_STEP: Duration = Duration::from_millis(50);
const SETTLE_AFTER: Duration = Duration::from_millis(1);
/// Pause between two looks at something that the host has to do first.
const PAUSE: Duration = Duration::from_millis(2);

/// The window and its doorbell.
pub(crate) struct Channel {
    window: Window,
    port: File,
    /// Messages taken from the host.
    received: u32,
    /// Messages given to the host.
    sent: u32,
}

impl Channel {
    /// Maps the window and opens the port.
    pub(crate) fn open() -> Result<Self> {
        let window = map_window()?;
        let path = find_port()?;
        let port = OpenOptions::new().read(true).write(true).open(&path);
        let port = port.with_context(|| format!("cannot open the port {}", path.display()))?;
        Ok(Self { window, port, received: 0, sent: 0 })
    }

    /// Waits for the host's next message.
    pub(crate) fn receive(&mut self) -> Result<ToAgent> {
        loop {
            self.wait_for_ring()?;
            if let Some(message) = self.take()? {
                return Ok(message);
            }
        }
    }

    fn wait_for_ring(&mut self) -> Result<()> {
        let mut byte = [0_u8];
        loop {
            match self.port.read(&mut byte) {
                // Nobody holds the other end yet.
                Ok(0) => thread::sleep(PAUSE),
                Ok(_) if byte[0] == DOORBELL => return Ok(()),
                Ok(_) => bail!("the doorbell rang with {:#04x} instead of {DOORBELL:#04x}", byte[0]),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error).context("cannot read the doorbell"),
            }
        }
    }

    /// Waits for the host's next message, for which it does not ring.
    pub(crate) fn receive_awake(&mut self) -> Result<ToAgent> {
        loop {
            if self.window.has(Direction::Request, self.received + 1)
                && let Some(message) = self.take()?
            {
                settle()?;
                return Ok(message);
            }
            hint::spin_loop();
        }
    }

    /// The next message; none while the last one taken is still there.
    fn take(&mut self) -> Result<Option<ToAgent>> {
        let expected = self.received + 1;
        let message = match self.window.take(Direction::Request, expected) {
            Ok(message) => message,
            Err(WindowError::Sequence { found, .. }) if found < expected => return Ok(None),
            Err(error) => return Err(error).context("no usable request in the window"),
        };
        self.received = expected;
        ToAgent::decode(&message).map(Some).context("cannot read the request")
    }

    /// Sends `message` and rings.
    pub(crate) fn send(&mut self, message: &FromAgent) -> Result<()> {
        let bytes = message.encode().context("cannot encode the reply")?;
        let number = self.sent + 1;
        self.window.put(Direction::Reply, number, &bytes).context("cannot put the reply into the window")?;
        self.sent = number;
        self.port.write_all(&[DOORBELL]).context("cannot ring the host")
    }
}

/// Lets the guest's processor run until QEMU's other threads have nothing left to do that the start
/// of a clone makes them do, and then sleeps until a moment that does not depend on when the
/// request was seen, nor on how long that took.
fn settle() -> Result<()> {
    let now = Duration::from(clock_gettime(ClockId::CLOCK_MONOTONIC)?);
    // Not `spin_loop`, at which QEMU's translator leaves the translated code each time.
    for turn in 0..SETTLE_TURNS {
        hint::black_box(turn);
    }
    let until = TimeSpec::from(settled(now));
    clock_nanosleep(ClockId::CLOCK_MONOTONIC, ClockNanosleepFlags::TIMER_ABSTIME, &until)?;
    Ok(())
}

/// When a guest goes on that has seen its request at the time `seen`. That time differs by some
/// hundred nanoseconds from clone to clone; the answer does not.
fn settled(seen: Duration) -> Duration {
    let steps = (seen + SETTLE).as_nanos().div_ceil(SETTLE_STEP.as_nanos());
    SETTLE_STEP * u32::try_from(steps).unwrap_or(u32::MAX) + SETTLE_AFTER
}

/// Maps the host's file, which lies where no memory of the kernel is.
fn map_window() -> Result<Window> {
    let memory = OpenOptions::new().read(true).write(true).open("/dev/mem");
    let memory = memory.context("cannot open /dev/mem, which needs CONFIG_DEVMEM")?;
    let length = NonZeroUsize::new(WINDOW_BYTES).context("the window has no size")?;
    let address = i64::try_from(WINDOW_GUEST_ADDRESS).context("the window lies beyond the address space")?;
    let access = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
    // SAFETY: the mapping is fresh, so it overlaps nothing of ours; what it shows is no memory of
    // any process.
    let base = unsafe { mmap(None, length, access, MapFlags::MAP_SHARED, &memory, address) };
    let base = base.with_context(|| format!("cannot map the window at {WINDOW_GUEST_ADDRESS:#x}"))?;
    // SAFETY: `WINDOW_BYTES` bytes were mapped readable and writable, are never unmapped, and only
    // the window uses them.
    Ok(unsafe { Window::new(base.cast::<c_void>().as_ptr().cast()) })
}

fn find_port() -> Result<PathBuf> {
    let deadline = Instant::now() + PORT_DEADLINE;
    loop {
        if let Ok(ports) = fs::read_dir(PORTS) {
            for port in ports {
                let port = port.with_context(|| format!("cannot list {PORTS}"))?;
                let name = fs::read_to_string(port.path().join("name")).unwrap_or_default();
                let path = PathBuf::from("/dev").join(port.file_name());
                if name.trim_end() == PORT_NAME && path.exists() {
                    return Ok(path);
                }
            }
        }
        if Instant::now() >= deadline {
            bail!("no virtio-serial port is called {PORT_NAME} after {} s", PORT_DEADLINE.as_secs());
        }
        thread::sleep(PAUSE);
    }
}

#[cfg(test)]
mod tests {
    use std::os::{fd::OwnedFd, unix::net::UnixStream};

    use guest_protocol::{Contract, Setup};

    use super::*;

    #[test]
    fn guests_that_see_their_request_at_about_the_same_time_go_on_at_the_same_time() {
        let at = |nanoseconds| settled(Duration::from_nanos(nanoseconds));
        assert_eq!(at(13_841_757_806), Duration::from_millis(13_951));
        assert_eq!(at(13_841_757_970), at(13_841_757_806));
        assert_eq!(at(0), Duration::from_millis(101));
        assert_eq!(at(40_000_000), Duration::from_millis(101));
    }

    #[test]
    fn a_ring_for_a_message_taken_before_is_none() {
        let mut memory = vec![0_u8; WINDOW_BYTES];
        let base = memory.as_mut_ptr();
        // SAFETY: `memory` outlives both windows and is not used otherwise meanwhile.
        let (window, mut hosts) = unsafe { (Window::new(base), Window::new(base)) };
        let (port, mut host) = UnixStream::pair().unwrap();
        let mut channel = Channel { window, port: File::from(OwnedFd::from(port)), received: 0, sent: 0 };
        let message = |name: &str| {
            let functions =
                vec![Contract { function: name.to_owned(), error_type: None, never: Vec::new(), shown: Vec::new() }];
            ToAgent::Setup(Setup { functions, ..Setup::default() })
        };
        // One ring too many, and one before its message.
        host.write_all(&[DOORBELL; 3]).unwrap();
        hosts.put(Direction::Request, 1, &message("a").encode().unwrap()).unwrap();
        assert_eq!(channel.receive().unwrap(), message("a"));
        let late = thread::spawn(move || {
            thread::sleep(Duration::from_millis(50));
            hosts.put(Direction::Request, 2, &message("b").encode().unwrap()).unwrap();
            host.write_all(&[DOORBELL]).unwrap();
        });
        assert_eq!(channel.receive().unwrap(), message("b"));
        late.join().unwrap();
    }
}
