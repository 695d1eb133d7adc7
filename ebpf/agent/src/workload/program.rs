//! A workload as a program: its steps made ready, and the results of one run of them.

use anyhow::{Context, Result};
use guest_protocol::{Setup, StepResult, WorkloadStep};

use super::steps::{self, PreparedStep, Workspace};
use crate::disk::Content;

/// Steps made ready, and one result for each of the last run.
struct Sequence {
    steps: Vec<Box<dyn PreparedStep>>,
    results: Vec<StepResult>,
}

impl Sequence {
    fn new(steps: &[WorkloadStep], disks: &[String]) -> Result<Self> {
        let results = Vec::with_capacity(steps.len());
        let steps = steps
            .iter()
            .zip(1..)
            .map(|(step, number)| steps::prepare(&step.step, number, disks))
            .collect::<Result<Vec<_>>>()?;
        Ok(Self { steps, results })
    }

    /// Runs them, and tells `enter` before each which it is, from 1, and 0 after the last.
    fn run(&mut self, workspace: &mut Workspace, mut enter: impl FnMut(u32)) {
        for (step, number) in self.steps.iter_mut().zip(1..) {
            enter(number);
            self.results.push(steps::run(step.as_mut(), workspace));
        }
        enter(0);
    }
}

/// The set-up and the workload of a target, and the steps that make its image.
pub(crate) struct Program {
    image: Sequence,
    setup: Sequence,
    steps: Sequence,
    workspace: Workspace,
}

impl Program {
    /// Makes the target's steps ready.
    ///
    /// # Errors
    ///
    /// Names the step that cannot be.
    pub(crate) fn new(setup: &Setup) -> Result<Self> {
        let disks = &setup.disks;
        let image = Sequence::new(&setup.image_steps, disks).context("in the image")?;
        let before = Sequence::new(&setup.setup_steps, disks).context("in the set-up")?;
        let steps = Sequence::new(&setup.steps, disks)?;
        Ok(Self { image, setup: before, steps, workspace: Workspace::new(disks)? })
    }

    /// Runs the steps that make the image, once. Returns one result for each.
    pub(crate) fn make_images(&mut self) -> Vec<StepResult> {
        self.image.run(&mut self.workspace, |_| {});
        self.clean_up();
        std::mem::take(&mut self.image.results)
    }

    /// Takes what a step has read of the disks.
    pub(crate) fn take_copies(&mut self) -> Option<Vec<Content>> {
        self.workspace.copies.take()
    }

    /// Forgets the last run.
    pub(super) fn rewind(&mut self) {
        self.setup.results.clear();
        self.steps.results.clear();
        self.workspace.mounted = false;
    }

    /// Runs the steps of the set-up.
    pub(super) fn set_up(&mut self, enter: impl FnMut(u32)) {
        self.setup.run(&mut self.workspace, enter);
    }

    /// Runs the workload's steps: their system calls and nothing else. Tells `enter` before each
    /// which it is, from 1, and 0 after the last.
    pub(super) fn run(&mut self, enter: impl FnMut(u32)) {
        self.steps.run(&mut self.workspace, enter);
    }

    /// Undoes, when nothing fails any more, what would keep the disk from being unmounted.
    pub(super) fn clean_up(&mut self) {
        self.workspace.undo();
    }

    /// One result for each step of the last run's set-up.
    pub(crate) fn setup_results(&self) -> &[StepResult] {
        &self.setup.results
    }

    /// One result for each step of the last run.
    pub(crate) fn results(&self) -> &[StepResult] {
        &self.steps.results
    }
}
