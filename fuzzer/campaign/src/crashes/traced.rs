//! What closer looks tell of a crash: where the errors of its faults went, and who allocated the
//! memory that it leaks.

use execution::{Finding, Fired};
use libafl::Error;

use super::Crashes;
use crate::error::ends_search;

impl Crashes {
    /// Takes in what the callers of the faults returned in a traced run of the crash's plan, where
    /// these are the faults that the crash is written with.
    ///
    /// # Errors
    ///
    /// The folder cannot be written.
    pub(crate) fn traced(&self, key: &str, fired: &[Fired]) -> Result<(), Error> {
        let _known = self.known();
        self.write_meta(key, |meta| {
            for written in &mut meta.fired {
                let same = |fired: &&Fired| fired.fault + 1 == written.fault && fired.call_path == written.call_path;
                if let Some(fired) = fired.iter().find(same) {
                    written.returns.clone_from(&fired.returns);
                }
            }
        })
    }

    /// Takes in what a search of its guest's memory has added to the evidence of a leak.
    ///
    /// # Errors
    ///
    /// The folder cannot be written.
    pub(crate) fn searched(&self, key: &str, found: &Finding) -> Result<(), Error> {
        let _known = self.known();
        self.folder.change_report(key, found).map_err(ends_search)
    }
}
