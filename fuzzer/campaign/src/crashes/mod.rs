//! The crashes of a campaign, shared by its clients: a key is one crash.
//!
//! ```text
//! objective ─────── note ────────▶ ┌─────────┐ ─ take ──▶ triage
//! peers ─────────── note_foreign ▶ │ crashes │ ◀ tried ── triage
//! second kernel ─── same ────────▶ └─────────┘ ─ news ──▶ peers, by a channel
//! ```

mod crash;
mod evidence;
mod folder;
mod program;
mod same;
mod traced;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard},
    time::{Duration, Instant},
};

use crossbeam::channel::Sender;
use fault_plan::{FaultPlan, REPRODUCER_VERSION, Reproducer, Round};
use libafl::Error;

use self::crash::{Crash, Next};
pub(crate) use self::evidence::{Cause, CrashNews};
pub use self::{
    folder::{CrashFault, CrashMeta, CrashRepro, META, MinimizedMeta, PROGRAM, REPRODUCER, SCRIPT, SLOTS, STEPS},
    program::{lock_around, write_programs},
};
use crate::{
    error::ends_search,
    folder::{CampaignFolder, FolderError},
    input::PlanInput,
    kernels::CampaignKernel,
    mutex::locked,
};
use execution::Finding;

/// The most crashes of other hosts: each is a folder, and is tried in fresh guests.
const MOST_FOREIGN: usize = 500;

/// A crash whose reproducer somebody tries.
#[derive(Debug)]
pub(crate) struct Taken {
    pub(crate) key: String,
    pub(crate) title: String,
    pub(crate) plan: PlanInput,
    kernel: String,
    /// The rounds of the guest before the plan's last one, when it was found.
    pub(crate) history: Arc<[Round]>,
    /// True when another host found it.
    pub(crate) foreign: bool,
    /// Tries at the last triage in which the plan made it again.
    pub(crate) reproduced: u32,
}

#[derive(Debug, Default)]
struct Known {
    /// By key.
    crashes: BTreeMap<String, Crash>,
    /// Number of positions in queues that were given out.
    queued: u64,
    /// Keys on the explorers' kernel, and what the same crash's is on the one that judges. Either
    /// may be yet to come, or get another plan.
    same: BTreeMap<String, String>,
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
            let mut crash = Crash::new(&meta.title, plan, &reproducer.kernel, foreign, 0, known.next_position());
            crash.restore(meta.tried, meta.reproduced, meta.minimized.is_some(), meta.exact);
            crash.same_as = meta.same_as;
            crash.by_title = meta.key == meta.title;
            crash.history = folder.history(&meta.key)?.into();
            known.crashes.insert(meta.key, crash);
        }
        Ok(Self { folder, before, start: Instant::now(), known: Mutex::new(known), news })
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        locked(&self.known)
    }

    /// Counts them; those that are the same as another one do not count.
    pub(crate) fn len(&self) -> usize {
        self.known().crashes.values().filter(|crash| crash.same_as.is_none()).count()
    }

    /// Writes the crashes of `cause` on `kernel`: those whose keys are new or whose reproducers
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
        let key = known.key_of(finding);
        let judged =
            known.crashes.get(&key).and_then(|crash| crash.wants_judgement(&kernel.name, self.folder.kernel()));
        let Some(in_vain) = known.wanted(&key).or(judged) else { return Ok(false) };
        let found_ms = u64::try_from((self.before + self.start.elapsed()).as_millis()).unwrap_or(u64::MAX);
        let reproducer = reproducer(kernel, &key, title, &cause.plan);
        self.folder.write_crash(finding, &reproducer, cause, found_ms).map_err(ends_search)?;
        let what = match judged {
            Some(_) => "a crash is seen on the target's kernel too",
            None if in_vain == 0 => "new crash",
            None => "another plan for a known crash",
        };
        tracing::info!(title, key, "{what}");
        let plan = PlanInput(cause.plan.clone());
        let mut crash = Crash::new(title, plan, &kernel.name, false, in_vain, known.next_position());
        crash.history = cause.history.into();
        crash.judged = judged.is_some() || known.crashes.get(&key).is_some_and(|before| before.judged);
        // The next plan's record knows nothing of the one before.
        known.crashes.insert(key.clone(), crash);
        let pairs = known.same.iter().filter(|(explored, judged)| key == **explored || key == **judged);
        let pairs: Vec<String> = pairs.map(|(explored, _)| explored.clone()).collect();
        pairs.iter().try_for_each(|explored| self.join(&mut known, explored))?;
        drop(known);
        if let Some(news) = &self.news {
            // Nobody listens any more when the campaign ends.
            let _ = news.send(CrashNews { kind: finding.kind, reproducer });
        }
        Ok(true)
    }

    /// Writes a crash that `host` found, unless there is one of that key: what this host has seen
    /// for itself says more. Its reproducer is tried like one of this host, if the kernel that it
    /// was found on runs here.
    ///
    /// # Errors
    ///
    /// The folder cannot be written.
    pub(crate) fn note_foreign(&self, host: &str, crash: &CrashNews) -> Result<(), Error> {
        let (key, title) = (crash.reproducer.identity(), &crash.reproducer.title);
        let mut known = self.known();
        let Some(in_vain) = known.wanted(key) else { return Ok(()) };
        let again = known.crashes.get(key).map(|crash| crash.foreign);
        if again == Some(false) {
            return Ok(());
        }
        if again.is_none() && known.crashes.values().filter(|crash| crash.foreign).count() >= MOST_FOREIGN {
            tracing::debug!(title, host, "there are {MOST_FOREIGN} crashes of other hosts: left out");
            return Ok(());
        }
        if self.folder.is_anothers(key).map_err(ends_search)? {
            tracing::warn!(title, host, "a crash of another host whose folder would take the place of another one's");
            return Ok(());
        }
        self.folder.write_foreign_crash(host, crash).map_err(ends_search)?;
        let what = if again.is_some() { "another plan of another host" } else { "crash of another host" };
        tracing::info!(title, key, host, "{what}");
        let (plan, kernel) = (PlanInput(crash.reproducer.plan.clone()), &crash.reproducer.kernel);
        let crash = Crash::new(title, plan, kernel, true, in_vain, known.next_position());
        known.crashes.insert(key.to_owned(), crash);
        Ok(())
    }

    /// Takes the crash that was found last of those on `kernel` whose reproducers were not tried
    /// yet and have been known for the time `age`; those of other hosts come last.
    pub(crate) fn take_untried(&self, kernel: &CampaignKernel, age: Duration) -> Option<Taken> {
        let mut known = self.known();
        let waiting = known.crashes.iter().filter(|(_, crash)| crash.since.elapsed() >= age);
        let waiting = waiting
            .filter_map(|(key, crash)| Some(((!crash.foreign, crash.waits_for(Next::Fresh, kernel)?), key.clone())));
        let key = waiting.max()?.1;
        known.take(key)
    }

    /// Puts back a crash that was taken and not tried after all.
    pub(crate) fn put_back(&self, taken: &Taken) {
        let mut known = self.known();
        let queued = known.next_position();
        if let Some(crash) = known.still(taken) {
            crash.put_back(queued);
        }
    }

    /// Takes the crash on `kernel` that has waited longest to be minimised.
    pub(crate) fn take_unminimised(&self, kernel: &CampaignKernel) -> Option<Taken> {
        self.take_next(Next::Minimal, kernel)
    }

    /// Takes in how minimising the plan of a crash has ended: with the simpler one of a cause,
    /// which was tried so often and made it again so often, or without. Writes that, unless another
    /// plan or kernel stands for the crash by now.
    ///
    /// # Errors
    ///
    /// The folder cannot be written.
    pub(crate) fn minimised(
        &self,
        kernel: &CampaignKernel,
        taken: &Taken,
        minimized: MinimizedMeta,
        simpler: Option<(&Cause<'_>, u32, u32)>,
    ) -> Result<(), Error> {
        let key = &taken.key;
        let mut known = self.known();
        let queued = known.next_position();
        let Some(crash) = known.still(taken) else { return Ok(()) };
        let found = simpler.and_then(|simpler| Some((simpler, simpler.0.findings.iter().find(|of| of.has_key(key))?)));
        let Some(((cause, tried, reproduced), finding)) = found else {
            self.write_meta(key, |meta| meta.minimized = Some(minimized))?;
            crash.is_minimal(None, queued);
            return Ok(());
        };
        let reproducer = reproducer(kernel, key, &finding.title, &cause.plan);
        let outcome = (minimized, tried, reproduced);
        self.folder.write_minimised(finding, &reproducer, cause, outcome).map_err(ends_search)?;
        crash.is_minimal(Some((PlanInput(cause.plan.clone()), reproduced)), queued);
        Ok(())
    }

    /// Takes in that a crash, whose plan did not make it again, is made by the sequence of `cause`.
    /// Writes that in its place.
    ///
    /// # Errors
    ///
    /// The folder cannot be written.
    pub(crate) fn is_made_by(&self, kernel: &CampaignKernel, taken: &Taken, cause: &Cause<'_>) -> Result<(), Error> {
        let key = &taken.key;
        let mut known = self.known();
        let Some(crash) = known.still(taken) else { return Ok(()) };
        let Some(finding) = cause.findings.iter().find(|finding| finding.has_key(key)) else { return Ok(()) };
        let found_ms = self.folder.found_ms(key).map_err(ends_search)?.unwrap_or_default();
        let reproducer = reproducer(kernel, key, &finding.title, &cause.plan);
        self.folder.write_crash(finding, &reproducer, cause, found_ms).map_err(ends_search)?;
        crash.is_made_by(PlanInput(cause.plan.clone()));
        Ok(())
    }

    /// Takes in that the reproducer was `tried` so often and made the crash again `reproduced`
    /// times, unless another plan or kernel stands for the crash by now.
    ///
    /// # Errors
    ///
    /// The folder cannot be written.
    pub(crate) fn tried(&self, taken: &Taken, tried: u32, reproduced: u32) -> Result<(), Error> {
        let mut known = self.known();
        let queued = known.next_position();
        let Some(crash) = known.still(taken) else { return Ok(()) };
        self.write_meta(&taken.key, |meta| (meta.tried, meta.reproduced) = (tried, reproduced))?;
        crash.tried(reproduced, queued);
        Ok(())
    }

    /// Takes the crash on `kernel` that has waited longest for an exact run.
    pub(crate) fn take_inexact(&self, kernel: &CampaignKernel) -> Option<Taken> {
        self.take_next(Next::Exact, kernel)
    }

    fn take_next(&self, step: Next, kernel: &CampaignKernel) -> Option<Taken> {
        let mut known = self.known();
        let waiting =
            known.crashes.iter().filter_map(|(key, crash)| Some((crash.waits_for(step, kernel)?, key.clone())));
        let key = waiting.min()?.1;
        known.take(key)
    }

    /// Takes in whether the reproducer made the crash again in a guest that repeats exactly, unless
    /// another plan or kernel stands for the crash by now.
    ///
    /// # Errors
    ///
    /// The folder cannot be written.
    pub(crate) fn tried_exactly(&self, taken: &Taken, again: bool) -> Result<(), Error> {
        let mut known = self.known();
        let Some(crash) = known.still(taken) else { return Ok(()) };
        self.write_meta(&taken.key, |meta| meta.exact = Some(again))?;
        crash.tried_exactly(again);
        Ok(())
    }

    fn write_meta(&self, key: &str, change: impl FnOnce(&mut CrashMeta)) -> Result<(), Error> {
        self.folder.change_meta(key, change).map_err(ends_search)
    }
}

impl Known {
    fn next_position(&mut self) -> u64 {
        self.queued += 1;
        self.queued
    }

    /// Says how many plans were tried in vain for a crash for which another one is wanted; gives
    /// nothing where none is.
    fn wanted(&self, key: &str) -> Option<u32> {
        self.crashes.get(key).map_or(Some(0), Crash::wants_another_plan)
    }

    /// Gives the key under which a finding is known or will be. A crash that an older version found
    /// is known by its title. Of several causes that a finding may have, one that is known is the
    /// likeliest: each point was failed alone before.
    fn key_of(&self, finding: &Finding) -> String {
        let mut keys = [&finding.key].into_iter().chain(&finding.also);
        let older =
            || Some(&finding.title).filter(|title| self.crashes.get(*title).is_some_and(|crash| crash.by_title));
        let known = keys.find(|key| self.crashes.contains_key(*key)).or_else(older);
        known.unwrap_or(&finding.key).clone()
    }

    /// Gives the crash that was taken, if the plan and the kernel that stand for it are still
    /// those.
    fn still(&mut self, taken: &Taken) -> Option<&mut Crash> {
        let crash = self.crashes.get_mut(&taken.key)?;
        (crash.plan == taken.plan && crash.kernel == taken.kernel).then_some(crash)
    }

    fn take(&mut self, key: String) -> Option<Taken> {
        let crash = self.crashes.get_mut(&key)?;
        crash.take();
        let (title, kernel) = (crash.title.clone(), crash.kernel.clone());
        let (plan, history) = (crash.plan.clone(), Arc::clone(&crash.history));
        let (foreign, reproduced) = (crash.foreign, crash.reproduced);
        Some(Taken { key, title, kernel, plan, history, foreign, reproduced })
    }
}

fn reproducer(kernel: &CampaignKernel, key: &str, title: &str, plan: &FaultPlan) -> Reproducer {
    Reproducer {
        reproducer_version: REPRODUCER_VERSION,
        key: key.to_owned(),
        title: title.to_owned(),
        kernel: kernel.name.clone(),
        kernel_build_id: kernel.build_id.clone(),
        plan: plan.clone(),
        // The folder adds it.
        target: None,
    }
}

#[cfg(test)]
mod tests;
