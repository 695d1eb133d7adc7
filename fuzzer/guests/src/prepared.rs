//! A prepared target. A kernel is prepared once; any number of runners, one for each client of a
//! campaign, share what was read of it and the guest that theirs are clones of.

use std::sync::{Arc, Mutex, PoisonError};

use execution::{Finding, Stop, Target};
use kcov_parser::{CallSites, Symbols};

use crate::{
    kernel::{Built, Checks},
    qemu::Template,
    sites::Sites,
};

/// A target with all that is needed to run it.
pub struct Prepared {
    /// The target.
    pub target: Arc<Target>,
    /// The kernel.
    pub kernel: Built,
    /// Places in the kernel's code that can report coverage.
    pub call_sites: Arc<CallSites>,
    /// The kernel's functions.
    pub symbols: Arc<Symbols>,
    pub(crate) checks: Arc<Checks>,
    pub(crate) sites: Sites,
    pub(crate) stop: Stop,
    pub(crate) template: Template,
    /// Guests that repeat exactly.
    pub(crate) exact: OtherGuests,
    /// Guests with kmemleak.
    pub(crate) searched: OtherGuests,
}

impl Prepared {
    /// Gives the guest that all others are clones of.
    #[must_use]
    pub fn template(&self) -> &Template {
        &self.template
    }

    /// Finds the kernel's reports in console text. The keys of checks say what is checked.
    #[must_use]
    pub fn reports(&self, console: &str) -> Vec<Finding> {
        let mut findings: Vec<Finding> = kernel_report::reports(console).into_iter().map(Finding::from).collect();
        findings.iter_mut().for_each(|finding| self.checks.name(finding));
        findings
    }
}

type Make = Box<dyn FnOnce() -> Result<Arc<Prepared>, String> + Send>;

/// The same target and kernel with guests of another kind.
pub(crate) struct OtherGuests(Mutex<State>);

enum State {
    /// They can be made, which takes a boot.
    Unmade(Make),
    /// They are there, or the reason why there are none.
    Made(Result<Arc<Prepared>, String>),
}

impl OtherGuests {
    /// There are none, for this reason.
    pub(crate) fn none(reason: &str) -> Self {
        Self(Mutex::new(State::Made(Err(reason.to_owned()))))
    }

    /// They are made by `make` when they are first needed.
    pub(crate) fn made_by(make: impl FnOnce() -> Result<Arc<Prepared>, String> + Send + 'static) -> Self {
        Self(Mutex::new(State::Unmade(Box::new(make))))
    }

    /// Gives them. The first call makes them; others wait for it.
    pub(crate) fn get(&self) -> Result<Arc<Prepared>, String> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let undone = State::Made(Err("making them has failed before".to_owned()));
        let made = match std::mem::replace(&mut *state, undone) {
            State::Unmade(make) => make(),
            State::Made(made) => made,
        };
        *state = State::Made(made.clone());
        made
    }
}
