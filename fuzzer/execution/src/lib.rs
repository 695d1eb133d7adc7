//! The seam between the search and whatever runs plans.
//!
//! ```text
//! target, plan ──▶ Runner::run ──▶ Ran { execution, late }
//!                                         └─ findings
//! ```
//!
//! The search knows this crate and no guest; the guests know this crate and no search.

mod arguments;
mod execution;
mod finding;
mod function_groups;
mod returns;
mod runner;
mod stop;
mod target;

pub use self::{
    arguments::{Form, NamedArgument, words},
    execution::{Coverage, Execution, Fate, Fired},
    finding::{Finding, FindingKind},
    function_groups::{FunctionGroups, TargetFunction},
    returns::{CallEnd, FrameReturn, Mark, ReturnType, UNSEEN, where_it_went},
    runner::{Attributed, How, Ran, RunError, Runner, Usage},
    stop::Stop,
    target::{DefinitionError, DiskKind, ImageRecipe, ImageSource, MEMORY_MIB, Oracle, Target, TargetError},
};

/// Gives the error and its sources on one line, each after a colon.
#[must_use]
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}
