//! The campaign's own stages, beside LibAFL's mutational one.

mod first_failure;
mod minimise;
mod sequence;
mod triage;

pub(crate) use self::{
    first_failure::FirstFailureStage, minimise::MinimiseStage, sequence::MOST_EARLIER_ROUNDS, triage::TriageStage,
};
