//! The campaign's own stages, beside LibAFL's mutational one.

mod first_failure;
mod triage;

pub(crate) use self::{first_failure::FirstFailureStage, triage::TriageStage};
