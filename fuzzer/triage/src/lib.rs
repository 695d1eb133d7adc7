//! Triage: what a campaign found, ranked, and the forms in which people and programs read it.
//!
//! ```text
//! campaign's folder ─ read ─▶ crashes ─ impact, chance, alarm ─▶ rank ─▶ Report ─ formats ─▶ text …
//!                               ▲
//! kernels of the cache ─ Kernels ┘  lines of source, release, configuration
//! ```
//!
//! A folder is read as it is: the campaign may run, and what is missing or damaged becomes a gap
//! that the report shows. Nothing here starts a guest or sends anything.

mod alarm;
mod chance;
mod coverage;
mod faults;
#[cfg(test)]
mod fixture;
mod folder;
pub mod formats;
mod impact;
mod kernels;
mod meta;
mod model;
mod rank;
mod subsystem;
mod way;

pub use self::{
    chance::Chance,
    coverage::{CoveredPlace, by_file, with_source},
    folder::{ReportError, read},
    impact::Impact,
    kernels::{Kernels, KnownKernel, NoKernels},
    model::{
        Caller, Campaign, Crash, CrashKernel, FileCoverage, FunctionCoverage, Growth, Guilty, KernelCoverage,
        LineCoverage, MatrixCount, Minimized, NamedFault, REPORT_VERSION, Ran, Report, Standalone, Standing, duration,
    },
    subsystem::{file, subsystem},
};
