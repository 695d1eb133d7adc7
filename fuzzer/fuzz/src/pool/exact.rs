//! Guests whose executions repeat exactly, made when they are first needed: that takes a boot.

use std::error::Error;

use fault_plan::FaultPlan;

use super::GuestPool;
use crate::execution::{ExecuteError, Execution, Runner as _};

/// Makes such guests.
pub type MakeExact = Box<dyn FnOnce() -> Result<GuestPool, Box<dyn Error + Send + Sync>> + Send>;

/// A pool's guests of this kind.
#[derive(Default)]
pub(super) enum Exact {
    /// There are none.
    #[default]
    None,
    /// There can be.
    Unmade(MakeExact),
    /// There are.
    Made(Box<GuestPool>),
}

impl Exact {
    /// Runs `plan` in one of them, if there are any.
    pub(super) fn run(&mut self, plan: &FaultPlan) -> Result<Option<Execution>, ExecuteError> {
        *self = match std::mem::take(self) {
            Self::Unmade(make) => match make() {
                Ok(pool) => Self::Made(Box::new(pool)),
                Err(error) => {
                    tracing::warn!("no guests that repeat exactly: {}", crate::chain(&*error));
                    Self::None
                }
            },
            made => made,
        };
        let Self::Made(pool) = self else { return Ok(None) };
        let execution = pool.run_fresh(plan);
        // The next one is for another crash, and has time.
        pool.discard();
        execution.map(Some)
    }
}
