//! The crashes of a campaign, shared by its clients: a title is one crash.
//!
//! ```text
//! objective ─────── note ────────▶ ┌─────────┐ ─ take ──▶ triage
//! peers ─────────── note_foreign ▶ │ crashes │ ◀ tried ── triage
//! second kernel ─── same ────────▶ └─────────┘ ─ news ──▶ peers, by a channel
//! ```

mod crash;
mod evidence;
mod folder;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use crossbeam::channel::Sender;
use fault_plan::{FaultPlan, REPRODUCER_VERSION, Reproducer, Round};
use libafl::Error;

use self::crash::{Crash, Next};
pub(crate) use self::evidence::{Cause, CrashNews};
pub use self::folder::{CrashFault, CrashMeta};
use crate::{
    folder::{CampaignFolder, FolderError},
    input::PlanInput,
    kernels::CampaignKernel,
};
use execution::Finding;

/// The most crashes of other hosts: each is a folder, and is tried in fresh guests.
const MOST_FOREIGN: usize = 500;

/// A crash whose reproducer somebody tries.
#[derive(Debug)]
pub(crate) struct Taken {
    pub(crate) title: String,
    pub(crate) plan: PlanInput,
    /// The rounds of the guest before the plan's last one, when it was found.
    pub(crate) history: Arc<[Round]>,
    /// True when another host found it.
    pub(crate) foreign: bool,
}

#[derive(Debug, Default)]
struct Known {
    crashes: BTreeMap<String, Crash>,
    /// Number of positions in queues that were given out.
    queued: u64,
}

/// The crashes that the campaign has. They are on disk before they count.
#[derive(Debug)]
pub(crate) struct Crashes {
    folder: Arc<CampaignFolder>,
    /// Fuzzing of earlier starts.
    before: Duration,
    start: Instant,
    known: Mutex<Known>,
    news: Option<Sender<CrashNews>>,
}

impl Crashes {
    /// Restores the crashes in `folder`, in which earlier starts have fuzzed for the time `before`.
    /// Those that this start finds are sent to `news`.
    ///
    /// # Errors
    ///
    /// One of them is damaged.
    pub(crate) fn restore(
        folder: Arc<CampaignFolder>,
        before: Duration,
        news: Option<Sender<CrashNews>>,
    ) -> Result<Self, FolderError> {
        let mut known = Known::default();
        for (meta, reproducer) in folder.crashes()? {
            let (plan, foreign) = (PlanInput(reproducer.plan), meta.origin.is_some());
            let mut crash = Crash::new(plan, &reproducer.kernel, foreign, 0, known.next_position());
            crash.restore(meta.tried, meta.reproduced, meta.exact);
            crash.same_as = meta.same_as;
            crash.history = folder.history(&meta.title)?.into();
            known.crashes.insert(meta.title, crash);
        }
        Ok(Self { folder, before, start: Instant::now(), known: Mutex::new(known), news })
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts them; those that are the same as another one do not count.
    pub(crate) fn len(&self) -> usize {
        self.known().crashes.values().filter(|crash| crash.same_as.is_none()).count()
    }

    /// Writes the crashes of `cause` on `kernel`: those whose titles are new or whose reproducers
    /// are no good. Returns whether there is one.
    ///
    /// # Errors
    ///
    /// The folder cannot be written.
    pub(crate) fn note(&self, kernel: &CampaignKernel, cause: &Cause<'_>) -> Result<bool, Error> {
        let mut found = false;
        for finding in cause.findings {
            found |= self.note_finding(kernel, cause, finding)?;
        }
        Ok(found)
    }

    fn note_finding(&self, kernel: &CampaignKernel, cause: &Cause<'_>, finding: &Finding) -> Result<bool, Error> {
        let title = &finding.title;
        // Held while the crash is written: nobody else may write the same one.
        let mut known = self.known();
        let Some(in_vain) = known.wanted(title) else { return Ok(false) };
        let found_ms = u64::try_from((self.before + self.start.elapsed()).as_millis()).unwrap_or(u64::MAX);
        let reproducer = reproducer(kernel, title, cause.plan);
        self.folder.write_crash(finding, &reproducer, cause, found_ms).map_err(disk)?;
        tracing::info!(title, "{}", if in_vain == 0 { "new crash" } else { "another plan for a known crash" });
        let plan = PlanInput(cause.plan.clone());
        let mut crash = Crash::new(plan, &kernel.name, false, in_vain, known.next_position());
        crash.history = cause.history.into();
        // The next plan's record knows nothing of the one before.
        known.crashes.insert(title.clone(), crash);
        drop(known);
        if let Some(news) = &self.news {
            // Nobody listens any more when the campaign ends.
            let _ = news.send(CrashNews { kind: finding.kind, reproducer });
        }
        Ok(true)
    }

    /// Writes a crash that `host` found, unless there is one of that title: what this host has seen
    /// for itself says more. Its reproducer is tried like one of this host, if the kernel that it
    /// was found on runs here.
    ///
    /// # Errors
    ///
    /// The folder cannot be written.
    pub(crate) fn note_foreign(&self, host: &str, crash: &CrashNews) -> Result<(), Error> {
        let title = &crash.reproducer.title;
        let mut known = self.known();
        let Some(in_vain) = known.wanted(title) else { return Ok(()) };
        let again = known.crashes.get(title).map(|crash| crash.foreign);
        if again == Some(false) {
            return Ok(());
        }
        if again.is_none() && known.crashes.values().filter(|crash| crash.foreign).count() >= MOST_FOREIGN {
            tracing::debug!(title, host, "there are {MOST_FOREIGN} crashes of other hosts: left out");
            return Ok(());
        }
        if self.folder.is_anothers(title).map_err(disk)? {
            tracing::warn!(title, host, "a crash of another host whose folder would take the place of another one's");
            return Ok(());
        }
        self.folder.write_foreign_crash(host, crash).map_err(disk)?;
        let what = if again.is_some() { "another plan of another host" } else { "crash of another host" };
        tracing::info!(title, host, "{what}");
        let (plan, kernel) = (PlanInput(crash.reproducer.plan.clone()), &crash.reproducer.kernel);
        let crash = Crash::new(plan, kernel, true, in_vain, known.next_position());
        known.crashes.insert(title.clone(), crash);
        Ok(())
    }

    /// Takes the crash that was found last of those on `kernel` whose reproducers were not tried
    /// yet and have been known for the time `age`; those of other hosts come last.
    pub(crate) fn take_untried(&self, kernel: &CampaignKernel, age: Duration) -> Option<Taken> {
        let mut known = self.known();
        let waiting = known.crashes.iter().filter(|(_, crash)| crash.since.elapsed() >= age);
        let waiting = waiting.filter_map(|(title, crash)| {
            Some(((!crash.foreign, crash.waits_for(Next::Fresh, kernel)?), title.clone()))
        });
        let title = waiting.max()?.1;
        known.take(title)
    }

    /// Puts back a crash that was taken and not tried after all.
    pub(crate) fn put_back(&self, taken: &Taken) {
        let mut known = self.known();
        let queued = known.next_position();
        if let Some(crash) = known.crashes.get_mut(&taken.title) {
            crash.put_back(queued);
        }
    }

    /// Takes in that a crash, whose plan did not make it again, is made by the sequence of `cause`.
    /// Writes that in its place.
    ///
    /// # Errors
    ///
    /// The folder cannot be written.
    pub(crate) fn is_made_by(&self, kernel: &CampaignKernel, taken: &Taken, cause: &Cause<'_>) -> Result<(), Error> {
        let title = &taken.title;
        let mut known = self.known();
        let Some(crash) = known.crashes.get_mut(title).filter(|crash| crash.plan == taken.plan) else { return Ok(()) };
        let Some(finding) = cause.findings.iter().find(|finding| finding.has_key(title)) else { return Ok(()) };
        let found_ms = self.folder.found_ms(title).map_err(disk)?.unwrap_or_default();
        self.folder.write_crash(finding, &reproducer(kernel, title, cause.plan), cause, found_ms).map_err(disk)?;
        crash.is_made_by(PlanInput(cause.plan.clone()));
        Ok(())
    }

    /// Takes in that the reproducer was `tried` so often and made the crash again `reproduced`
    /// times.
    ///
    /// # Errors
    ///
    /// The folder cannot be written.
    pub(crate) fn tried(&self, taken: &Taken, tried: u32, reproduced: u32) -> Result<(), Error> {
        let mut known = self.known();
        self.write_meta(&taken.title, |meta| (meta.tried, meta.reproduced) = (tried, reproduced))?;
        let queued = known.next_position();
        if let Some(crash) = known.crashes.get_mut(&taken.title) {
            crash.tried(reproduced, queued);
        }
        Ok(())
    }

    /// Takes the crash on `kernel` that has waited longest for an exact run.
    pub(crate) fn take_inexact(&self, kernel: &CampaignKernel) -> Option<Taken> {
        let mut known = self.known();
        let waiting = known
            .crashes
            .iter()
            .filter_map(|(title, crash)| Some((crash.waits_for(Next::Exact, kernel)?, title.clone())));
        let title = waiting.min()?.1;
        known.take(title)
    }

    /// Takes in whether the reproducer made the crash again in a guest that repeats exactly, unless
    /// another plan stands for the crash by now.
    ///
    /// # Errors
    ///
    /// The folder cannot be written.
    pub(crate) fn tried_exactly(&self, taken: &Taken, again: bool) -> Result<(), Error> {
        let mut known = self.known();
        let Some(crash) = known.crashes.get_mut(&taken.title).filter(|crash| crash.plan == taken.plan) else {
            return Ok(());
        };
        self.write_meta(&taken.title, |meta| meta.exact = Some(again))?;
        crash.tried_exactly(again);
        Ok(())
    }

    /// Takes in that the crash called `explored` is called `judged` on the kernel that judges, if
    /// both are on disk, and were found on different kernels.
    ///
    /// # Errors
    ///
    /// The folder cannot be written.
    pub(crate) fn same(&self, explored: &str, judged: &str) -> Result<(), Error> {
        let mut known = self.known();
        let Some((kernel, None)) = known.crashes.get(judged).map(|crash| (crash.kernel.clone(), &crash.same_as)) else {
            return Ok(());
        };
        let Some(crash) = known.crashes.get_mut(explored) else { return Ok(()) };
        if crash.kernel == kernel || crash.same_as.is_some() {
            return Ok(());
        }
        crash.same_as = Some(judged.to_owned());
        tracing::info!(title = explored, "the same as \"{judged}\"");
        self.write_meta(explored, |meta| meta.same_as = Some(judged.to_owned()))
    }

    fn write_meta(&self, title: &str, change: impl FnOnce(&mut CrashMeta)) -> Result<(), Error> {
        self.folder.change_meta(title, change).map_err(disk)
    }
}

impl Known {
    fn next_position(&mut self) -> u64 {
        self.queued += 1;
        self.queued
    }

    /// Says how many plans were tried in vain for a crash for which another one is wanted; gives
    /// nothing where none is.
    fn wanted(&self, title: &str) -> Option<u32> {
        self.crashes.get(title).map_or(Some(0), Crash::wants_another_plan)
    }

    fn take(&mut self, title: String) -> Option<Taken> {
        let crash = self.crashes.get_mut(&title)?;
        crash.take();
        let (plan, history) = (crash.plan.clone(), Arc::clone(&crash.history));
        Some(Taken { title, plan, history, foreign: crash.foreign })
    }
}

fn reproducer(kernel: &CampaignKernel, title: &str, plan: &FaultPlan) -> Reproducer {
    Reproducer {
        reproducer_version: REPRODUCER_VERSION,
        title: title.to_owned(),
        kernel: kernel.name.clone(),
        kernel_build_id: kernel.build_id.clone(),
        plan: plan.clone(),
        // The folder adds it.
        target: None,
    }
}

fn disk(error: FolderError) -> Error {
    Error::unknown(execution::chain(&error))
}

#[cfg(test)]
mod tests;
