//! The LibAFL state of a client.

use libafl::{
    Error, HasNamedMetadata,
    corpus::{InMemoryCorpus, InMemoryOnDiskCorpus},
    feedbacks::{MapFeedbackMetadata, StateInitializer},
    state::StdState,
};
use libafl_bolts::rands::StdRand;

use crate::{folder::CampaignFolder, input::PlanInput, kernels::KnownKernel, observers::COVERAGE_MAP};

/// The state of a client.
pub(super) type State = StdState<InMemoryOnDiskCorpus<PlanInput>, PlanInput, StdRand, InMemoryCorpus<PlanInput>>;

/// Makes a state that knows nothing of what was covered before: a plan of an earlier start is kept
/// for what it covers beyond the plans that are loaded before it.
///
/// # Errors
///
/// The corpus folder cannot be used.
pub(super) fn new_state<F: StateInitializer<State>, O: StateInitializer<State>>(
    seed: u64,
    folder: &CampaignFolder,
    known: &KnownKernel,
    feedback: &mut F,
    objective: &mut O,
) -> Result<State, Error> {
    let corpus = InMemoryOnDiskCorpus::with_meta_format_and_prefix(folder.corpus(), None, None, false)?;
    let mut state = StdState::new(StdRand::with_seed(seed), corpus, InMemoryCorpus::new(), feedback, objective)?;
    state
        .add_named_metadata(COVERAGE_MAP, MapFeedbackMetadata::with_history_map(vec![0_u8; known.kernel.map_len()], 0));
    Ok(state)
}
