//! One line for the user and one for `stats.jsonl`, every few seconds.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use libafl::{
    Error,
    monitors::{
        Monitor,
        stats::{ClientStats, ClientStatsManager, UserStats, UserStatsValue},
    },
};
use libafl_bolts::ClientId;
use serde::{Deserialize, Serialize};

use super::peers::Hub;

/// The name of LibAFL's event that asks for a line.
const HEARTBEAT: &str = "Client Heartbeat";

/// How often a line is written.
pub(super) const INTERVAL: Duration = Duration::from_secs(5);

/// A line of `stats.jsonl`. Counts are totals over all starts of the campaign, except where it says otherwise.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct StatsLine {
    /// Seconds of fuzzing in this start.
    pub seconds: f64,
    /// Executions.
    pub executions: u64,
    /// Executions per second in this start.
    pub executions_per_second: f64,
    /// Corpus entries.
    pub corpus: u64,
    /// Places in the kernel that ran.
    pub coverage: u64,
    /// Injection sites discovered.
    pub sites: u64,
    /// Those at which a fault fired.
    pub sites_failed: u64,
    /// Crashes with different titles.
    pub crashes: u64,
    /// Plans of this start that ran on the checkers' kernel after the explorers'.
    pub checked: u64,
    /// Of those, plans that did something else there.
    pub different: u64,
    /// Plans that still wait for that.
    pub unchecked: u64,
    /// Executions of this start whose plan has a fault.
    pub with_faults: u64,
    /// Those of them in which a fault fired.
    pub fired: u64,
    /// Guests started in this start.
    pub guests: u64,
    /// Executions lost to trouble of guest or host in this start.
    pub harness_errors: u64,
    /// Guests of this start replaced because something was left in use.
    pub leftovers: u64,
    /// Guests of this start replaced because the fault-free plan did something else in them than at first.
    pub drifted: u64,
    /// Calls by which the last control run of a guest was off, in a million of them; the most that a client has.
    pub control_off_ppm: u64,
    /// Resident memory of this process, in MiB; its guests' is not in it.
    pub resident_mib: u64,
    /// Memory that the guests' processes have of their own, in MiB.
    pub guests_mib: u64,
    /// Other hosts that are connected now. Not there when the campaign is to have none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peers: Option<usize>,
}

/// Writes the lines; LibAFL's heartbeat event says when.
pub(super) struct CampaignMonitor {
    file: File,
    progress: Box<dyn Write + Send>,
    start: Instant,
    start_executions: u64,
    /// When the last line was written.
    last: Option<Instant>,
    hub: Option<Arc<Hub>>,
}

impl std::fmt::Debug for CampaignMonitor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CampaignMonitor").field("start", &self.start).finish_non_exhaustive()
    }
}

impl CampaignMonitor {
    /// A monitor that appends to `stats` and shows its lines on `progress`. `executions` were made by earlier starts; `hub`
    /// knows of other hosts.
    ///
    /// # Errors
    ///
    /// The file cannot be written.
    pub(super) fn new(
        stats: &Path,
        progress: Box<dyn Write + Send>,
        executions: u64,
        hub: Option<Arc<Hub>>,
    ) -> io::Result<Self> {
        let file = OpenOptions::new().create(true).append(true).open(stats)?;
        Ok(Self { file, progress, start: Instant::now(), start_executions: executions, last: None, hub })
    }

    fn write(&mut self, line: &StatsLine) -> io::Result<()> {
        let mut text = serde_json::to_string(line).map_err(io::Error::other)?;
        text.push('\n');
        self.file.write_all(text.as_bytes())?;
        let checks = match line {
            StatsLine { checked: 0, unchecked: 0, .. } => String::new(),
            StatsLine { checked, different, unchecked, .. } => {
                format!("  checked {checked} ({different} differ, {unchecked} wait)")
            }
        };
        let peers = line.peers.map_or_else(String::new, |peers| format!("  peers {peers}"));
        // When nobody reads the progress any more, the campaign goes on nevertheless.
        let _ = writeln!(
            self.progress,
            "{:>6.0} s  {} executions  {:.1}/s  corpus {}  coverage {}  sites {} ({} failed)  crashes {}{checks}{peers}",
            line.seconds,
            line.executions,
            line.executions_per_second,
            line.corpus,
            line.coverage,
            line.sites,
            line.sites_failed,
            line.crashes
        );
        Ok(())
    }
}

impl CampaignMonitor {
    /// Whether there is something to say after a client's sign of life: every few seconds, and when the last client ends.
    fn is_due(&self, stats: &ClientStatsManager) -> bool {
        let clients = || stats.client_stats().values().filter(|client| client.get_user_stats("guests").is_some());
        let ended = clients().all(|client| number(client, "ended") > 0);
        ended || self.last.is_none_or(|last| last.elapsed() >= INTERVAL * 9 / 10)
    }
}

impl Monitor for CampaignMonitor {
    fn display(&mut self, stats: &mut ClientStatsManager, event: &str, _: ClientId) -> Result<(), Error> {
        if event != HEARTBEAT || !self.is_due(stats) {
            return Ok(());
        }
        self.last = Some(Instant::now());
        let executions = stats.global_stats().total_execs;
        // Counts of a client add up; what is known of the campaign is what the client says that spoke last.
        let sum = |name: &str| stats.client_stats().values().map(|client| number(client, name)).sum();
        let most = |name: &str| stats.client_stats().values().map(|client| number(client, name)).max().unwrap_or(0);
        let seconds = self.start.elapsed().as_secs_f64();
        #[expect(clippy::cast_precision_loss, reason = "a rate for people; counts stay below 2^52")]
        let executions_per_second = (executions - self.start_executions.min(executions)) as f64 / seconds.max(0.001);
        let line = StatsLine {
            seconds,
            executions,
            executions_per_second,
            corpus: most("corpus"),
            coverage: most("covered"),
            sites: most("sites"),
            sites_failed: most("sites_failed"),
            crashes: most("crashes"),
            checked: most("checked"),
            different: most("different"),
            unchecked: most("unchecked"),
            with_faults: sum("with_faults"),
            fired: sum("fired"),
            guests: sum("guests"),
            harness_errors: sum("harness_errors"),
            leftovers: sum("leftovers"),
            drifted: sum("drifted"),
            control_off_ppm: most("control_off_ppm"),
            guests_mib: sum("guest_kib") >> 10,
            resident_mib: resident_kib().unwrap_or(0) >> 10,
            peers: self.hub.as_ref().map(|hub| hub.peers()),
        };
        self.write(&line).map_err(|error| Error::unknown(format!("cannot write statistics: {error}")))
    }
}

/// Gives this process's resident memory, from `/proc/self/status` (`proc_pid_status()` in `fs/proc/array.c`, 6.12).
fn resident_kib() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix(" kB")?.parse().ok()
}

fn number(client: &ClientStats, name: &str) -> u64 {
    client.get_user_stats(name).map_or(0, value_of)
}

fn value_of(stats: &UserStats) -> u64 {
    match stats.value() {
        UserStatsValue::Number(number) | UserStatsValue::Ratio(number, _) => *number,
        UserStatsValue::String(_) | UserStatsValue::Float(_) | UserStatsValue::Percent(_) => 0,
    }
}
