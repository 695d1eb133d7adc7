//! The crashes of a campaign, shared by its clients: one title is reported once.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak},
    time::{Duration, Instant},
};

use fault_plan::{REPRODUCER_VERSION, Reproducer};
use libafl::Error;

use super::{
    CampaignKernel,
    crash::{Crash, CrashMeta},
    folder::{CampaignFolder, FolderError},
    input::PlanInput,
    peers::{CrashNews, Hub, News},
};
use execution::{Attributed, Execution, Finding, Fired};
use fault_plan::FaultPlan;
use kernel_report::KernelReport;

/// How many plans are tried as the reproducer of one crash.
const MOST_CANDIDATES: u32 = 4;
/// The most crashes of other hosts: each is a folder, and is tried in fresh guests.
const MOST_FOREIGN: usize = 500;

/// The execution that findings are of, as far as a crash is written of it.
#[derive(Debug)]
pub(super) struct Cause<'a> {
    pub(super) plan: &'a FaultPlan,
    pub(super) fired: &'a [Fired],
    pub(super) findings: &'a [Finding],
    pub(super) console: &'a str,
}

impl<'a> Cause<'a> {
    pub(super) fn of(plan: &'a FaultPlan, execution: &'a Execution) -> Self {
        let Execution { fired, findings, console, .. } = execution;
        Self { plan, fired, findings, console }
    }

    pub(super) fn of_late(late: &'a Attributed) -> Self {
        let Attributed { plan, fired, findings, console, .. } = late;
        Self { plan, fired, findings, console }
    }
}

/// What is known of a crash's reproducer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    /// It was not tried yet; so many others were, in vain.
    Untried(u32),
    /// It made the crash again.
    Reproduced,
    /// It did not, and so many with it.
    Doubtful(u32),
}

/// A crash whose reproducer is yet to be tried.
#[derive(Debug)]
pub(super) struct Untried {
    pub(super) title: String,
    pub(super) plan: PlanInput,
    /// Whether another host found it.
    pub(super) foreign: bool,
    /// Since when this start of the campaign knows it.
    since: Instant,
    /// Name of the kernel that it was found on.
    kernel: String,
}

#[derive(Debug, Default)]
struct Known {
    titles: BTreeMap<String, Standing>,
    /// What each one's folder has: the plan, and the kernel that it was found on.
    found: BTreeMap<String, (PlanInput, String)>,
    /// Those of them that other hosts have found, and this one has not written.
    foreign: BTreeSet<String>,
    untried: Vec<Untried>,
    /// Titles of crashes that have another title on the kernel that judges.
    same: BTreeSet<String>,
    /// Those that were tried, but not exactly.
    inexact: Vec<Untried>,
}

/// The crashes that the campaign has. They are on disk before they count.
#[derive(Debug)]
pub(super) struct Crashes {
    folder: Arc<CampaignFolder>,
    /// Fuzzing of earlier starts.
    before: Duration,
    start: Instant,
    known: Mutex<Known>,
    /// Who tells other hosts of them, where there are any.
    hub: OnceLock<Weak<Hub>>,
}

impl Crashes {
    /// The crashes in `folder`, in which earlier starts have fuzzed for the time `before`.
    ///
    /// # Errors
    ///
    /// One of them is damaged.
    pub(super) fn restore(folder: Arc<CampaignFolder>, before: Duration) -> Result<Self, FolderError> {
        let mut known = Known::default();
        for (meta, reproducer) in folder.crashes()? {
            let standing = match (meta.tried, meta.reproduced) {
                (0, _) => Standing::Untried(0),
                (_, 0) if meta.exact != Some(true) => Standing::Doubtful(1),
                _ => Standing::Reproduced,
            };
            known.titles.insert(meta.title.clone(), standing);
            if meta.origin.is_some() {
                known.foreign.insert(meta.title.clone());
            }
            if meta.same_as.is_some() {
                known.same.insert(meta.title.clone());
            }
            let (plan, kernel) = (PlanInput(reproducer.plan), reproducer.kernel);
            let crash =
                Untried { title: meta.title, plan, foreign: meta.origin.is_some(), since: Instant::now(), kernel };
            known.found.insert(crash.title.clone(), (crash.plan.clone(), crash.kernel.clone()));
            match (meta.tried, meta.exact) {
                (0, _) => known.untried.push(crash),
                (_, None) => known.inexact.push(crash),
                _ => {}
            }
        }
        Ok(Self { folder, before, start: Instant::now(), known: Mutex::new(known), hub: OnceLock::new() })
    }

    /// From now on `hub` is told of those that this campaign finds.
    pub(super) fn tell(&self, hub: Weak<Hub>) {
        // Only one hub is ever made.
        let _ = self.hub.set(hub);
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many there are, each once.
    pub(super) fn len(&self) -> usize {
        let known = self.known();
        known.titles.len() - known.same.len()
    }

    /// Writes the crashes of `cause` on `kernel`, those whose titles are new or whose reproducers are no
    /// good. Returns whether there is one.
    ///
    /// # Errors
    ///
    /// The folder cannot be written.
    pub(super) fn note(&self, kernel: &CampaignKernel, cause: &Cause<'_>) -> Result<bool, Error> {
        let mut found = false;
        let plan = PlanInput(cause.plan.clone());
        for report in cause.findings.iter().filter_map(Finding::report) {
            let title = &report.title;
            // Held while the crash is written: nobody else may write the same one.
            let mut known = self.known();
            let Some(before) = known.wanted(title) else { continue };
            let found_ms = u64::try_from((self.before + self.start.elapsed()).as_millis()).unwrap_or(u64::MAX);
            let crash = Crash { report, kernel, cause, found_ms };
            self.folder.write_crash(&crash).map_err(|error| Error::unknown(execution::chain(&error)))?;
            tracing::info!(title, "{}", if before == 0 { "new crash" } else { "another plan for a known crash" });
            let (title, kernel_name) = (title.clone(), kernel.name.clone());
            let crash =
                Untried { title, plan: plan.clone(), foreign: false, since: Instant::now(), kernel: kernel_name };
            known.take_in(crash, before);
            found = true;
            drop(known);
            self.announce(kernel, &plan, report);
        }
        Ok(found)
    }

    fn announce(&self, kernel: &CampaignKernel, plan: &PlanInput, report: &KernelReport) {
        let Some(hub) = self.hub.get().and_then(Weak::upgrade) else { return };
        let reproducer = Reproducer {
            reproducer_version: REPRODUCER_VERSION,
            title: report.title.clone(),
            kernel: kernel.name.clone(),
            kernel_build_id: kernel.build_id.clone(),
            plan: plan.0.clone(),
        };
        hub.add_own(News::Crash(CrashNews { host: hub.host().to_owned(), kind: report.kind, reproducer }));
    }

    /// Writes a crash that another host found, unless there is one of that title: what this host has seen for itself says
    /// more. Its reproducer is tried like one of this host, if the kernel that it was found on runs here.
    ///
    /// # Errors
    ///
    /// The folder cannot be written.
    pub(super) fn note_foreign(&self, crash: &CrashNews) -> Result<(), Error> {
        let (title, host) = (&crash.reproducer.title, &crash.host);
        let mut known = self.known();
        let Some(before) = known.wanted(title) else { return Ok(()) };
        let again = known.foreign.contains(title);
        if !again && known.titles.contains_key(title) {
            return Ok(());
        }
        if !again && known.foreign.len() >= MOST_FOREIGN {
            tracing::debug!(title, host, "there are {MOST_FOREIGN} crashes of other hosts: left out");
            return Ok(());
        }
        let disk = |error| Error::unknown(execution::chain(&error));
        if self.folder.is_anothers(title).map_err(disk)? {
            tracing::warn!(title, host, "a crash of another host whose folder would take the place of another one's");
            return Ok(());
        }
        self.folder.write_foreign_crash(crash).map_err(disk)?;
        tracing::info!(title, host, "{}", if again { "another plan of another host" } else { "crash of another host" });
        let (plan, kernel) = (PlanInput(crash.reproducer.plan.clone()), crash.reproducer.kernel.clone());
        known.take_in(Untried { title: title.clone(), plan, foreign: true, since: Instant::now(), kernel }, before);
        Ok(())
    }

    /// Takes a crash whose reproducer was not tried yet on `kernel`, where it was found, and which has been known for the time
    /// `age`; those of other hosts last.
    pub(super) fn take_untried(&self, kernel: &CampaignKernel, age: Duration) -> Option<Untried> {
        let mut known = self.known();
        let last = |foreign| {
            let wanted = |untried: &Untried| {
                untried.kernel == kernel.name && untried.foreign == foreign && untried.since.elapsed() >= age
            };
            known.untried.iter().rposition(wanted)
        };
        let at = last(false).or_else(|| last(true))?;
        Some(known.untried.remove(at))
    }

    /// Puts back what was taken and not tried after all.
    pub(super) fn put_back(&self, untried: Untried) {
        self.known().untried.push(untried);
    }

    /// Takes in that the reproducer was `tried` so often and made the crash again `reproduced` times.
    ///
    /// # Errors
    ///
    /// The folder cannot be written.
    pub(super) fn tried(&self, crash: Untried, tried: u32, reproduced: u32) -> Result<(), Error> {
        let title = &crash.title;
        let mut known = self.known();
        self.write_meta(title, |meta| (meta.tried, meta.reproduced) = (tried, reproduced))?;
        let before = if let Some(Standing::Untried(before)) = known.titles.get(title) { *before } else { 0 };
        let standing = if reproduced > 0 { Standing::Reproduced } else { Standing::Doubtful(before + 1) };
        known.titles.insert(title.clone(), standing);
        known.inexact.push(crash);
        Ok(())
    }

    /// Takes a crash whose reproducer was tried, but not exactly, on `kernel`.
    pub(super) fn take_inexact(&self, kernel: &CampaignKernel) -> Option<Untried> {
        let mut known = self.known();
        let at = known.inexact.iter().position(|crash| crash.kernel == kernel.name)?;
        Some(known.inexact.remove(at))
    }

    /// Takes in whether the reproducer made the crash again in a guest that repeats exactly, unless there is another one now.
    ///
    /// # Errors
    ///
    /// The folder cannot be written.
    pub(super) fn tried_exactly(&self, crash: &Untried, again: bool) -> Result<(), Error> {
        let title = &crash.title;
        let mut known = self.known();
        if known.found.get(title).is_none_or(|(plan, _)| *plan != crash.plan) {
            return Ok(());
        }
        self.write_meta(title, |meta| meta.exact = Some(again))?;
        if again {
            known.titles.insert(title.clone(), Standing::Reproduced);
        }
        Ok(())
    }

    /// Takes in that the crash called `explored` is called `judged` on the kernel that judges, if both are on disk, and were found
    /// on different kernels.
    ///
    /// # Errors
    ///
    /// The folder cannot be written.
    pub(super) fn same(&self, explored: &str, judged: &str) -> Result<(), Error> {
        let mut known = self.known();
        let kernel = |title| known.found.get(title).map(|(_, kernel)| kernel);
        let differ = kernel(explored).zip(kernel(judged)).is_some_and(|(explored, judged)| explored != judged);
        if !differ || known.same.contains(judged) || !known.same.insert(explored.to_owned()) {
            return Ok(());
        }
        tracing::info!(title = explored, "the same as \"{judged}\"");
        self.write_meta(explored, |meta| meta.same_as = Some(judged.to_owned()))
    }

    fn write_meta(&self, title: &str, change: impl FnOnce(&mut CrashMeta)) -> Result<(), Error> {
        self.folder.change_meta(title, change).map_err(|error| Error::unknown(execution::chain(&error)))
    }
}

impl Known {
    /// Takes in a crash that was written just now; so many plans were tried for it in vain.
    fn take_in(&mut self, crash: Untried, before: u32) {
        let title = &crash.title;
        if crash.foreign {
            self.foreign.insert(title.clone());
        } else {
            self.foreign.remove(title);
        }
        // What is known of an earlier plan is not in the folder any more.
        self.same.remove(title);
        self.inexact.retain(|inexact| inexact.title != *title);
        self.titles.insert(title.clone(), Standing::Untried(before));
        self.found.insert(title.clone(), (crash.plan.clone(), crash.kernel.clone()));
        self.untried.push(crash);
    }

    /// How many plans were tried in vain for a crash for which another one is welcome; nothing where none is.
    fn wanted(&self, title: &str) -> Option<u32> {
        match self.titles.get(title) {
            None => Some(0),
            Some(Standing::Doubtful(tried)) if *tried < MOST_CANDIDATES => Some(*tried),
            Some(_) => None,
        }
    }
}
