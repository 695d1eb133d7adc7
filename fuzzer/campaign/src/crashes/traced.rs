//! Where the errors of a crash's faults went.

use execution::Fired;
use libafl::Error;

use super::Crashes;

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
}
