//! `fuzz --target NAME`: a campaign.

use std::{
    io::{self, Write},
    net::{SocketAddr, TcpListener},
    num::NonZeroUsize,
    path::PathBuf,
    sync::{Arc, OnceLock},
    thread,
    time::{SystemTime, UNIX_EPOCH},
};

use campaign::{self, CampaignFolder, CampaignKernel, CampaignOptions, Client, ClientSetup, PeerOptions, Role};
use execution::{Stop, Target, chain};
use files::cache;
use guests::{
    kernel,
    prepare::{PrepareError, Wanted, prepare},
    prepared::Prepared,
    process::allow_many_files,
    project::Project,
    runner::GuestRunner,
};

use super::coverage::by_folder;
use crate::{
    exit::{Answer, CommandError},
    options::FuzzOptions,
    views::{
        progress::Progress,
        summary::{self, Ended, IdleCheckers},
    },
};

/// Of so many guests one checks, the others explore.
const GUESTS_FOR_A_CHECKER: usize = 2;

/// Runs a campaign, or goes on with the one in the folder.
///
/// # Errors
///
/// The environment, the target or the folder; see [`CommandError`].
pub fn fuzz(
    options: &FuzzOptions,
    stop: &Stop,
    out: &mut dyn Write,
    progress: &Progress,
) -> Result<Answer, CommandError> {
    let ended = campaign(options, stop, progress)?;
    let covered = by_folder(&ended.folder).unwrap_or_else(|error| {
        tracing::warn!("no coverage by folder: {}", chain(&error));
        Vec::new()
    });
    if options.json {
        let mut summary = serde_json::to_value(&ended.summary).map_err(io::Error::other)?;
        summary["coverage_by_folder"] = serde_json::to_value(covered).map_err(io::Error::other)?;
        writeln!(out, "{summary}")?;
    } else {
        summary::write(&ended, &covered, out)?;
    }
    Ok(Answer::Yes)
}

/// Runs the campaign. Requests `stop` when it fails.
///
/// # Errors
///
/// As [`fuzz`].
pub fn campaign(options: &FuzzOptions, stop: &Stop, progress: &Progress) -> Result<Ended, CommandError> {
    allow_many_files();
    let target = Arc::new(Target::find(&Project::find()?.corpus(), &options.target)?);
    let guests = Guests::of(options, &target)?;
    let (campaign, folder) = begin(options, Arc::clone(&target), &guests.kernel, stop, progress)?;
    let wanted = |kernel: &str| Wanted {
        kernel: Some(kernel.to_owned()),
        accel: options.guest.accel,
        ..Wanted::new(Arc::clone(&target))
    };
    let (explorer, checker) = (wanted(&guests.explorer), wanted(&guests.kernel));
    // Whoever comes first prepares the checkers' kernel; the others wait for it.
    let prepared = OnceLock::new();
    let checking = || {
        let prepared: &Result<_, Arc<PrepareError>> =
            prepared.get_or_init(|| prepare(&checker, stop, progress).map_err(Arc::new));
        prepared.clone()
    };
    let summary = thread::scope(|scope| {
        // Both kernels get ready at once, unless one is to be built: exploring does not wait for
        // the one that checks.
        if guests.checkers > 0 && guests.is_built()? {
            scope.spawn(checking);
        }
        // Then nobody waits for the other one any more.
        let end = || stop.request();
        let exploring = prepare(&explorer, stop, progress).inspect_err(|_| end())?;
        let mut clients = Vec::new();
        for _ in 0..guests.explorers {
            let exploring = Arc::clone(&exploring);
            clients.push(Client { role: Role::Explorer, start: Box::new(move || Ok(client_setup(&exploring))) });
        }
        for _ in 0..guests.checkers {
            clients.push(Client { role: Role::Checker, start: Box::new(move || Ok(client_setup(&checking()?))) });
        }
        campaign::run(campaign, clients).map_err(CommandError::from).inspect_err(|_| end())
    })?;
    let idle = guests.checkers > 0 && !matches!(prepared.get(), Some(Ok(_)));
    let idle =
        idle.then(|| IdleCheckers { built: Guests::has(&guests.kernel).unwrap_or(false), kernel: guests.kernel });
    Ok(Ended { summary, folder, idle })
}

/// Opens the campaign's folder and the port for other hosts, before anything takes long. Returns
/// the campaign's options, and the folder.
fn begin(
    options: &FuzzOptions,
    target: Arc<Target>,
    kernel: &str,
    stop: &Stop,
    progress: &Progress,
) -> Result<(CampaignOptions, PathBuf), CommandError> {
    let listener = options.listen.map(listen).transpose()?;
    let path = options.out.clone().unwrap_or_else(|| PathBuf::from("campaigns").join(&target.name));
    let (folder, earlier) = CampaignFolder::open(&path, &target.name, kernel)?;
    match &earlier {
        Some(earlier) => progress.say(&format!(
            "going on with the campaign in {} ({} executions so far); Ctrl-C ends it",
            path.display(),
            earlier.executions
        )),
        None => progress.say(&format!("new campaign in {}; Ctrl-C ends it", path.display())),
    }
    let digest = earlier.as_ref().and_then(|earlier| earlier.target_digest.as_ref());
    if digest.is_some_and(|digest| *digest != target.digest()) {
        tracing::warn!(
            "the target {} has changed since this campaign ran last: its plans may do something else by now; a new \
             --out begins anew",
            target.name
        );
    }
    let campaign = CampaignOptions {
        target,
        folder: Arc::new(folder),
        earlier,
        stop: stop.clone(),
        time: options.time,
        seed: options.seed.unwrap_or_else(seed_from_clock),
        progress: Box::new(progress.writer()),
        peers: PeerOptions { listener, join: options.join.clone() },
    };
    Ok((campaign, path))
}

/// Listens for campaigns on other hosts.
fn listen(address: SocketAddr) -> Result<TcpListener, CommandError> {
    let failed = |source| CommandError::Listen { address, source };
    let listener = TcpListener::bind(address).map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    if address.ip().is_loopback() {
        tracing::info!("other hosts can join at {address}");
    } else {
        tracing::warn!(
            "other hosts can join at {address}, without a password and unencrypted: whoever reaches that address can read \
             this campaign's plans and crashes, have plans run in its guests, and add crashes to its folder"
        );
    }
    Ok(listener)
}

fn client_setup(prepared: &Arc<Prepared>) -> ClientSetup<GuestRunner> {
    let meta = &prepared.kernel.meta;
    let (name, build_id) = (meta.name.clone(), meta.build_id.clone());
    let kernel = CampaignKernel { name, build_id, call_sites: Arc::clone(&prepared.call_sites) };
    ClientSetup { kernel, runner: GuestRunner::new(prepared) }
}

/// Which guests a campaign has.
#[derive(Debug, PartialEq, Eq)]
struct Guests {
    /// The kernel that judges.
    kernel: String,
    /// The kernel that explores; the same one where there are no checkers.
    explorer: String,
    explorers: usize,
    checkers: usize,
}

impl Guests {
    /// Which guests run `target`.
    fn of(options: &FuzzOptions, target: &Target) -> Result<Self, CommandError> {
        let catalogue = kernel::Catalogue::load(Project::find()?.root())?;
        let kernel = options.guest.kernel.clone().unwrap_or_else(|| target.kernel.clone());
        let explorer = catalogue.get(&kernel)?.explorer.clone().filter(|_| options.guest.kernel.is_none());
        let guests = options.vms.map_or_else(cores, NonZeroUsize::get);
        Ok(Self::new(kernel, explorer, guests))
    }

    /// Says whether the cache has all of their kernels.
    fn is_built(&self) -> Result<bool, CommandError> {
        Ok(Self::has(&self.kernel)? && Self::has(&self.explorer)?)
    }

    /// Says whether the cache has the kernel called `name`.
    fn has(name: &str) -> Result<bool, CommandError> {
        let catalogue = kernel::Catalogue::load(Project::find()?.root())?;
        Ok(kernel::find(catalogue.get(name)?, &cache::directory()?)?.is_some())
    }

    /// A kernel that is asked for is the only one, and so is the target's with a single guest.
    fn new(kernel: String, explorer: Option<String>, guests: usize) -> Self {
        match explorer {
            Some(explorer) if guests > 1 => {
                let checkers = guests / GUESTS_FOR_A_CHECKER;
                Self { kernel, explorer, explorers: guests - checkers, checkers }
            }
            _ => Self { explorer: kernel.clone(), kernel, explorers: guests, checkers: 0 },
        }
    }
}

fn cores() -> usize {
    thread::available_parallelism().map_or(1, NonZeroUsize::get)
}

fn seed_from_clock() -> u64 {
    let nanoseconds = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
    u64::try_from(nanoseconds & u128::from(u64::MAX)).unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_guests_are_an_explorer_and_a_checker() {
        let guests = |explorer: Option<&str>, guests| {
            let guests = Guests::new("check".to_owned(), explorer.map(str::to_owned), guests);
            (guests.explorer, guests.explorers, guests.checkers)
        };
        assert_eq!(guests(Some("lean"), 2), ("lean".to_owned(), 1, 1));
        assert_eq!(guests(Some("lean"), 7), ("lean".to_owned(), 4, 3));
        assert_eq!(guests(Some("lean"), 1), ("check".to_owned(), 1, 0));
        assert_eq!(guests(None, 4), ("check".to_owned(), 4, 0));
    }
}
