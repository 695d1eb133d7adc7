//! The crashes of a campaign, shared by its clients: one title is reported once.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use libafl::Error;

use super::{
    CampaignKernel,
    crash::Crash,
    folder::{CampaignFolder, FolderError},
    input::PlanInput,
};
use crate::execution::Execution;

/// How many plans are tried as the reproducer of one crash.
const MOST_CANDIDATES: u32 = 4;

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

/// A crash whose reproducer was not tried yet.
#[derive(Debug)]
pub(super) struct Untried {
    pub(super) title: String,
    pub(super) plan: PlanInput,
    /// Name of the kernel that it was found on.
    kernel: String,
}

#[derive(Debug, Default)]
struct Known {
    titles: BTreeMap<String, Standing>,
    untried: Vec<Untried>,
}

/// The crashes that the campaign has. They are on disk before they count.
#[derive(Debug)]
pub(super) struct Crashes {
    folder: Arc<CampaignFolder>,
    known: Mutex<Known>,
}

impl Crashes {
    /// The crashes in `folder`.
    ///
    /// # Errors
    ///
    /// One of them is damaged.
    pub(super) fn restore(folder: Arc<CampaignFolder>) -> Result<Self, FolderError> {
        let mut known = Known::default();
        for (meta, reproducer) in folder.crashes()? {
            let standing = match (meta.tried, meta.reproduced) {
                (0, _) => Standing::Untried(0),
                (_, 0) => Standing::Doubtful(1),
                _ => Standing::Reproduced,
            };
            known.titles.insert(meta.title.clone(), standing);
            if meta.tried == 0 {
                let (plan, kernel) = (PlanInput(reproducer.plan), reproducer.kernel);
                known.untried.push(Untried { title: meta.title, plan, kernel });
            }
        }
        Ok(Self { folder, known: Mutex::new(known) })
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.known().titles.len()
    }

    /// Writes the crashes that `execution` on `kernel` ended in, those whose titles are new or whose reproducers are no
    /// good. Returns whether there is one.
    ///
    /// # Errors
    ///
    /// The folder cannot be written.
    pub(super) fn note(&self, kernel: &CampaignKernel, plan: &PlanInput, execution: &Execution) -> Result<bool, Error> {
        let mut found = false;
        for report in execution.reports() {
            let title = &report.title;
            // Held while the crash is written: nobody else may write the same one.
            let mut known = self.known();
            let Some(before) = known.wanted(title) else { continue };
            let crash = Crash { report, kernel, plan: &plan.0, execution };
            self.folder.write_crash(&crash).map_err(|error| Error::unknown(crate::chain(&error)))?;
            tracing::info!(title, "{}", if before == 0 { "new crash" } else { "another plan for a known crash" });
            known.titles.insert(title.clone(), Standing::Untried(before));
            known.untried.push(Untried { title: title.clone(), plan: plan.clone(), kernel: kernel.name.clone() });
            found = true;
        }
        Ok(found)
    }

    /// Takes a crash whose reproducer was not tried yet on `kernel`, where it was found.
    pub(super) fn take_untried(&self, kernel: &CampaignKernel) -> Option<Untried> {
        let mut known = self.known();
        let at = known.untried.iter().rposition(|untried| untried.kernel == kernel.name)?;
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
    pub(super) fn tried(&self, title: &str, tried: u32, reproduced: u32) -> Result<(), Error> {
        let mut known = self.known();
        self.folder.note_tries(title, tried, reproduced).map_err(|error| Error::unknown(crate::chain(&error)))?;
        let before = if let Some(Standing::Untried(before)) = known.titles.get(title) { *before } else { 0 };
        let standing = if reproduced > 0 { Standing::Reproduced } else { Standing::Doubtful(before + 1) };
        known.titles.insert(title.to_owned(), standing);
        Ok(())
    }
}

impl Known {
    /// How many plans were tried in vain for a crash for which another one is welcome; nothing where none is.
    fn wanted(&self, title: &str) -> Option<u32> {
        match self.titles.get(title) {
            None => Some(0),
            Some(Standing::Doubtful(tried)) if *tried < MOST_CANDIDATES => Some(*tried),
            Some(_) => None,
        }
    }
}
