//! One line for the user and one for `stats.jsonl`, every few seconds.

use std::{
    fmt,
    fs::{self, File, OpenOptions},
    io::{self, Write},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use libafl::{
    Error,
    monitors::{Monitor, stats::ClientStatsManager},
};
use libafl_bolts::ClientId;

use super::{line::StatsLine, table::Statistics};

/// The name of LibAFL's event that asks for a line.
const HEARTBEAT: &str = "Client Heartbeat";

/// Interval at which a line is written.
pub(crate) const INTERVAL: Duration = Duration::from_secs(5);

/// The monitor that writes the lines; LibAFL's heartbeat event says when.
pub(crate) struct CampaignMonitor {
    file: File,
    progress: Box<dyn Write + Send>,
    start: Instant,
    start_executions: u64,
    /// The moment when the last line was written.
    last: Option<Instant>,
    /// The number of hosts that are connected, in a campaign that is to have some.
    peers: Option<Arc<AtomicUsize>>,
}

impl fmt::Debug for CampaignMonitor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CampaignMonitor").field("start", &self.start).finish_non_exhaustive()
    }
}

impl CampaignMonitor {
    /// Makes a monitor that appends to `stats` and shows its lines on `progress`. `executions` were
    /// made by earlier starts; `peers` is the number of hosts that are connected.
    ///
    /// # Errors
    ///
    /// The file cannot be written.
    pub(crate) fn new(
        stats: &Path,
        progress: Box<dyn Write + Send>,
        executions: u64,
        peers: Option<Arc<AtomicUsize>>,
    ) -> io::Result<Self> {
        let file = OpenOptions::new().create(true).append(true).open(stats)?;
        Ok(Self { file, progress, start: Instant::now(), start_executions: executions, last: None, peers })
    }

    fn write(&mut self, line: &StatsLine) -> io::Result<()> {
        let mut text = serde_json::to_string(line).map_err(io::Error::other)?;
        text.push('\n');
        self.file.write_all(text.as_bytes())?;
        let Statistics { alone_left, judged_cells, judged_failed, .. } = line.statistics;
        let Statistics { checked, different, unfired, unchecked, .. } = line.statistics;
        let left = if alone_left > 0 { format!("  alone {alone_left} left") } else { String::new() };
        let checks = match judged_cells {
            0 => String::new(),
            _ => format!(
                "  judged {judged_failed} of {judged_cells}  checked {checked} \
                 ({different} differ, {unfired} unfired, {unchecked} wait)"
            ),
        };
        let peers = line.peers.map_or_else(String::new, |peers| format!("  peers {peers}"));
        // When nobody reads the progress any more, the campaign goes on nevertheless.
        let _ = writeln!(
            self.progress,
            "{:>6.0} s  {} executions  {:.1}/s  corpus {}  coverage {}  points {} ({} failed){left}  crashes {}{checks}{peers}",
            line.seconds,
            line.statistics.executions,
            line.executions_per_second,
            line.statistics.corpus,
            line.statistics.coverage,
            line.statistics.points,
            line.statistics.points_failed,
            line.statistics.crashes
        );
        Ok(())
    }

    /// Says whether a line is due after a client's sign of life: every few seconds, and when the
    /// last of the `clients` ends.
    fn is_due(&self, clients: &[Statistics]) -> bool {
        let ended = clients.iter().all(|client| client.ended > 0);
        ended || self.last.is_none_or(|last| last.elapsed() >= INTERVAL * 9 / 10)
    }
}

impl Monitor for CampaignMonitor {
    fn display(&mut self, stats: &mut ClientStatsManager, event: &str, sender: ClientId) -> Result<(), Error> {
        if event != HEARTBEAT {
            return Ok(());
        }
        let clients: Vec<_> = stats.client_stats().values().filter_map(Statistics::of).collect();
        if !self.is_due(&clients) {
            return Ok(());
        }
        self.last = Some(Instant::now());
        let mut statistics = Statistics::over(&clients, &Statistics::of(stats.get(sender)?).unwrap_or_default());
        // LibAFL knows of executions that no client has reported yet, and of those of earlier
        // starts.
        statistics.executions = stats.global_stats().total_execs;
        let seconds = self.start.elapsed().as_secs_f64();
        let executions = statistics.executions.saturating_sub(self.start_executions);
        #[expect(clippy::cast_precision_loss, reason = "a rate for people; counts stay below 2^52")]
        let executions_per_second = executions as f64 / seconds.max(0.001);
        let line = StatsLine {
            seconds,
            executions_per_second,
            guests_mib: statistics.guest_kib >> 10,
            statistics,
            resident_mib: resident_kib().unwrap_or(0) >> 10,
            peers: self.peers.as_ref().map(|peers| peers.load(Ordering::Relaxed)),
        };
        self.write(&line).map_err(|error| Error::unknown(format!("cannot write statistics: {error}")))
    }
}

/// Gives this process's resident memory, from `/proc/self/status` (`proc_pid_status()` in
/// `fs/proc/array.c`, 6.12).
pub(crate) fn resident_kib() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix(" kB")?.parse().ok()
}
