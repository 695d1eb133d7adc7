//! A campaign: LibAFL's loop over fault plans.
//!
//! Its clients are threads, each with a guest of its own; LibAFL's broker passes on what they find.
//! Explorers search. Checkers run, on a kernel that sees more, what the explorers came across.
//!
//! ```text
//! seeds, corpus ─▶ scheduler ─▶ stages: triage, first failures, mutations
//!                                  │ plan
//!                                  ▼
//!                              executor ─▶ Runner (guests)
//!                                  │ execution, late effects, failure
//!                                  ▼
//!                observers ─▶ objective (new crash title)    ─▶ crashes
//!                         └─▶ feedbacks (coverage, new sites) ─▶ corpus
//!                                  └─ each execution, with the verdict ─▶ second kernel
//! ```

mod aftermath;
mod clients;
mod crashes;
mod error;
mod executor;
mod feedbacks;
mod folder;
mod input;
mod kernels;
mod matrix;
mod minimise;
mod mutators;
mod mutex;
mod objective;
mod observers;
mod peers;
mod plans;
mod recent;
mod relax;
mod second_kernel;
mod stages;
mod statistics;

use std::{
    io::Write,
    sync::{Arc, Mutex, atomic::AtomicU64},
    thread::{self, Scope, ScopedJoinHandle},
    time::{Duration, Instant},
};

use crossbeam::channel::unbounded;
use execution::{Runner, Stop, Target};

use self::{
    clients::{Broker, Connection, Lifecycle, Shared, run_client, time_before},
    crashes::Crashes,
    kernels::Kernels,
    peers::Hub,
    plans::first_plans,
    second_kernel::SecondKernelQueue,
    statistics::CampaignMonitor,
};
pub use self::{
    clients::{Client, ClientSetup, StartClient},
    crashes::{
        CrashFault, CrashMeta, CrashRepro, META, MinimizedMeta, PROGRAM, REPRODUCER, SCRIPT, SLOTS, STEPS, lock_around,
        write_programs,
    },
    error::{CampaignError, StartError},
    folder::{CampaignFile, CampaignFolder, FolderError},
    input::PlanInput,
    kernels::{CampaignKernel, Role},
    matrix::{Cell, Point},
    minimise::{CONFIRMATIONS, Demand, Minimized, Minimizer},
    peers::{PeerOptions, join_address, listen_address},
    relax::{KnownPoints, Relaxed, run_relaxed, unfired},
    statistics::{OverClients, STATISTICS, Shown, StatisticRow, Statistics, StatsLine, Summary},
};

/// The options of a campaign.
pub struct CampaignOptions {
    /// The target that is fuzzed.
    pub target: Arc<Target>,
    /// The campaign's folder, opened and locked.
    pub folder: Arc<CampaignFolder>,
    /// The totals that an earlier start left.
    pub earlier: Option<CampaignFile>,
    /// Ends the campaign when requested. The campaign requests it itself when a client is still
    /// starting while all others have ended.
    pub stop: Stop,
    /// The time to fuzz; without it until stopped.
    pub time: Option<Duration>,
    /// Seed of the random generators.
    pub seed: u64,
    /// The output for progress lines.
    pub progress: Box<dyn Write + Send>,
    /// Other hosts.
    pub peers: PeerOptions,
}

/// Runs a campaign until its time is up, it is stopped, or something breaks. The first of the
/// `clients` explores.
///
/// # Errors
///
/// See [`CampaignError`]. Everything reported until then is on disk.
pub fn run<R: Runner>(options: CampaignOptions, clients: Vec<Client<'_, R>>) -> Result<Summary, CampaignError> {
    let CampaignOptions { target, folder, earlier, stop, time, seed, progress, peers } = options;
    folder.define(&target);
    let count = |role| clients.iter().filter(|client| client.role == role).count();
    let (news, found) = unbounded();
    let news = peers.is_some().then_some(news);
    let crashes = Arc::new(Crashes::restore(Arc::clone(&folder), time_before(earlier.as_ref()), news)?);
    let before = time_before(earlier.as_ref());
    let waiting = (count(Role::Checker) > 0).then(|| folder.open_queue()).transpose()?;
    let shared = Shared {
        plans: first_plans(&target, &folder)?,
        kernels: Kernels::new(Arc::clone(&target), before),
        target,
        folder,
        crashes,
        second_kernel: waiting.map(SecondKernelQueue::restore).transpose().map_err(FolderError::from)?,
        lifecycle: Arc::new(Lifecycle::new(stop, time)),
        turns: Arc::new(AtomicU64::new(0)),
        explorers: count(Role::Explorer),
        seed,
        earlier,
        start: Instant::now(),
        reports: Mutex::default(),
    };
    let hub = peers.is_some().then(|| open_hub(&shared)).transpose()?;
    let statistics = shared.folder.path().join("stats.jsonl");
    let connected = hub.as_ref().map(|hub| hub.peers());
    let monitor = CampaignMonitor::new(&statistics, progress, shared.executions_before(), connected);
    let mut broker = Broker::new(monitor.map_err(CampaignError::Statistics)?)?;
    let clients = clients.into_iter().map(|client| Ok((client, broker.connect()?)));
    let clients = clients.collect::<Result<Vec<_>, CampaignError>>()?;
    let to_hub = hub.as_ref().map(|_| broker.connect()).transpose()?;
    let results = thread::scope(|scope| {
        let exchanging = hub.as_ref().zip(to_hub).map(|(hub, connection)| {
            let thread = peers::start(hub, scope, &shared, (connection, found), peers);
            thread.map_err(CampaignError::Thread).inspect_err(|_| shared.lifecycle.fail())
        });
        let mut threads = Vec::new();
        let started = start_clients(scope, clients, &shared, &mut threads);
        let brokered = broker.run(threads.len(), &shared.lifecycle);
        let mut results = vec![started];
        results.extend(threads.into_iter().map(|thread| thread.join().unwrap_or(Err(CampaignError::Panic))));
        results.push(brokered);
        let end = |thread: ScopedJoinHandle<'_, ()>| thread.join().map_err(|_| CampaignError::Panic);
        results.extend(exchanging.map(|exchanging| exchanging.and_then(end)));
        results.extend(hub.as_ref().map(|hub| hub.close().map_err(CampaignError::Search)));
        results
    });
    results.into_iter().collect::<Result<(), _>>()?;
    Ok(shared.summary()?)
}

/// A client's thread.
type ClientThread<'scope> = ScopedJoinHandle<'scope, Result<(), CampaignError>>;

/// Starts a thread for each of the `clients`, and adds it to `threads`. When one cannot be started,
/// the others end as well.
fn start_clients<'scope, R: Runner + 'scope>(
    scope: &'scope Scope<'scope, '_>,
    clients: Vec<(Client<'scope, R>, Connection)>,
    shared: &'scope Shared,
    threads: &mut Vec<ClientThread<'scope>>,
) -> Result<(), CampaignError> {
    for (number, (client, connection)) in clients.into_iter().enumerate() {
        let live = move || run_client(number, client, connection, shared);
        let thread = thread::Builder::new().spawn_scoped(scope, live);
        threads.push(thread.map_err(CampaignError::Thread).inspect_err(|_| shared.lifecycle.fail())?);
    }
    Ok(())
}

/// Opens the hub that connects the campaign to other hosts.
fn open_hub(shared: &Shared) -> Result<Arc<Hub>, CampaignError> {
    let (target, crashes) = (Arc::clone(&shared.target), Arc::clone(&shared.crashes));
    Hub::open(target, crashes, Arc::clone(&shared.lifecycle), &shared.folder, &shared.plans)
}

#[cfg(test)]
mod fake;
#[cfg(test)]
mod tests;
