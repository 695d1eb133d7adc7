//! The commands. Results go to `out`, progress to standard error.

mod cache;
mod coverage;
mod doctor;
mod export;
mod fuzz;
mod kernels;
mod minimize;
mod replay;
mod report;
mod targets;

pub use self::{
    cache::{cache_list, cache_prune},
    coverage::coverage,
    doctor::doctor,
    export::export,
    fuzz::{campaign, fuzz},
    kernels::{kernel_build, kernel_list},
    minimize::minimize,
    replay::replay,
    report::report,
    targets::targets,
};
