//! Crashes that are another one.

use std::collections::BTreeSet;

use libafl::Error;

use super::{Crash, Crashes, Known, Taken};

impl Crashes {
    /// Takes in that the crash with the key `explored` has the key `judged` on the kernel that
    /// judges, as soon as both are on disk, if they were found on different kernels.
    ///
    /// # Errors
    ///
    /// The folder cannot be written.
    pub(crate) fn same(&self, explored: &str, judged: &str) -> Result<(), Error> {
        let mut known = self.known();
        known.same.insert(explored.to_owned(), judged.to_owned());
        self.join(&mut known, explored)
    }

    /// Takes in that the reproducer that was `taken` made these crashes `instead`, each time. The
    /// crash is the first of them that is known and no other's.
    ///
    /// # Errors
    ///
    /// The folder cannot be written.
    pub(crate) fn only_makes(&self, taken: &Taken, instead: &BTreeSet<String>) -> Result<(), Error> {
        let mut known = self.known();
        let is_own = |key: &&String| known.crashes.get(*key).is_some_and(|crash| crash.same_as.is_none());
        let Some(other) = instead.iter().find(is_own).cloned() else { return Ok(()) };
        let Some(crash) = known.still(taken).filter(|crash| crash.same_as.is_none()) else { return Ok(()) };
        tracing::info!(taken.title, "its plan makes \"{other}\" each time: taken for that one");
        self.is_same(&taken.key, crash, other)
    }

    /// Writes which crash the one with the key `explored` is, if that is known and both are there.
    pub(super) fn join(&self, known: &mut Known, explored: &str) -> Result<(), Error> {
        let Some(judged) = known.same.get(explored).cloned() else { return Ok(()) };
        let Some((kernel, None)) = known.crashes.get(&judged).map(|crash| (crash.kernel.clone(), &crash.same_as))
        else {
            return Ok(());
        };
        let Some(crash) = known.crashes.get_mut(explored) else { return Ok(()) };
        if crash.kernel == kernel || crash.same_as.is_some() {
            return Ok(());
        }
        tracing::info!(key = explored, "the same as \"{judged}\"");
        self.is_same(explored, crash, judged)
    }

    fn is_same(&self, key: &str, crash: &mut Crash, other: String) -> Result<(), Error> {
        crash.same_as = Some(other.clone());
        self.write_meta(key, |meta| meta.same_as = Some(other))
    }
}
