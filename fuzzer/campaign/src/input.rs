//! The fault plan as LibAFL's input.

use std::{fs, path::Path};

use execution::{Execution, Fate};
use fault_plan::{FaultPlan, Round};
use libafl::{Error, corpus::CorpusId, inputs::Input};
use libafl_bolts::HasLen;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use files::cache::write_file;

/// A fault plan. On disk it is the plan's JSON, named by its content.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PlanInput(pub FaultPlan);

impl PlanInput {
    /// The workload of `target` twice, on the disk that it left the first time, without faults.
    pub(crate) fn twice(target: &str) -> Self {
        Self(FaultPlan { earlier: vec![Round::default()], ..FaultPlan::fault_free(target) })
    }

    /// Gives the plan without the faults that did not fire in `execution`: they did nothing there.
    /// Where none is known to have fired in a guest that died, all stay.
    pub(crate) fn fired_only(&self, execution: &Execution) -> Self {
        if execution.fired.is_empty() && execution.guest == Fate::Dead {
            return self.clone();
        }
        Self(self.0.keeping(|index| execution.fired.iter().any(|fired| fired.fault == index)))
    }
}

impl Input for PlanInput {
    /// Writes the plan. A file that is there is this plan, as its name says: each client of a
    /// campaign keeps the plans of the others.
    fn to_file<P: AsRef<Path>>(&self, path: P) -> Result<(), Error> {
        let path = path.as_ref();
        if path.exists() {
            return Ok(());
        }
        write_file(path, self.0.to_json().as_bytes())
            .map_err(|error| Error::unknown(format!("cannot write {}: {error}", path.display())))
    }

    fn from_file<P: AsRef<Path>>(path: P) -> Result<Self, Error> {
        let path = path.as_ref();
        let refuse = |reason: String| Error::serialize(format!("{}: {reason}", path.display()));
        let text = fs::read_to_string(path).map_err(|error| refuse(error.to_string()))?;
        FaultPlan::from_json(&text).map(Self).map_err(|error| refuse(execution::chain(&error)))
    }

    fn generate_name(&self, _id: Option<CorpusId>) -> String {
        format!("{}.json", hex::encode(&Sha256::digest(self.0.to_json())[..8]))
    }
}

impl HasLen for PlanInput {
    /// Counts the faults, and one for each run of the workload: the fault-free plan has length 1.
    fn len(&self) -> usize {
        self.0.all_faults().count() + self.0.rounds().count()
    }
}

#[cfg(test)]
mod tests {
    use fault_plan::{CallPath, Errno, Fault, InjectedError};

    use super::*;

    /// LibAFL tries a buffer of some size and then makes one that is large enough, if that was all
    /// that was wrong.
    #[test]
    fn a_buffer_too_small_for_a_plan_is_just_that() {
        let call_path = || CallPath(vec!["...".to_owned(), "open_ctree".to_owned()]);
        let fault = |error| Fault::new("should_failslab", call_path(), 300, error);
        let errors = [InjectedError::Errno(Errno::ENOMEM), InjectedError::Null, InjectedError::True];
        let plan = PlanInput(FaultPlan { faults: errors.map(fault).into(), ..FaultPlan::fault_free("test") });
        let whole = postcard::to_stdvec(&plan).unwrap();
        assert_eq!(postcard::from_bytes::<PlanInput>(&whole).unwrap(), plan);
        let mut buffer = vec![0; whole.len()];
        assert_eq!(postcard::to_slice(&plan, &mut buffer).unwrap(), whole);
        for bytes in 0..whole.len() {
            let refused = postcard::to_slice(&plan, &mut buffer[..bytes]).unwrap_err();
            assert_eq!(refused, postcard::Error::SerializeBufferFull, "{bytes} bytes");
        }
    }
}
