//! The commands. Results go to `out`, progress to standard error.

mod cache;
mod coverage;
mod doctor;
mod fuzz;
mod kernels;
mod replay;
mod report;
mod targets;

pub use self::{
    cache::{cache_list, cache_prune},
    coverage::coverage,
    doctor::doctor,
    fuzz::{campaign, fuzz},
    kernels::{kernel_build, kernel_list},
    replay::replay,
    report::report,
    targets::targets,
};
