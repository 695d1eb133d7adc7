//! Fault plans: the input of the fuzzer, one execution's worth of calls that must fail.
//!
//! A [`FaultPlan`] names [`Fault`]s; a fault names an injectable function, a [`CallPath`] pattern,
//! an occurrence and the [`InjectedError`] to return. Everything is a name: a plan says nothing
//! about addresses and survives a rebuild of the kernel. This crate does no I/O.

mod align;
mod call_path;
mod condition;
mod errno;
mod error_type;
mod fault;
mod plan;
mod relax;
mod reproducer;
mod scope;
mod serial;
mod shrink;

pub use align::{Alignment, Names, Point, align, aligned};
pub use call_path::{CallPath, ELLIPSIS, MAX_CALL_PATH, base_name};
pub use condition::{ArgumentCondition, CallerCondition, Condition, ConditionError, MAX_ARGUMENTS, Operand, Operator};
pub use errno::Errno;
pub use error_type::{ErrorType, InjectableFunction, InjectedError};
pub use fault::{FOR_EVER, Fault, MAX_FAULT_CONDITIONS, retain_faults};
pub use plan::{FaultPlan, MAX_FAULTS, MAX_ROUNDS, PLAN_VERSION, PlanError, Round, faults_in};
pub use relax::Relaxer;
pub use reproducer::{REPRODUCER_VERSION, Reproducer, one_line, shell_word};
pub use scope::Scope;
pub use serial::Times;
pub use shrink::{Shown, Shrink, parts, size};
