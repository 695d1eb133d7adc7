//! A workload as a program: its steps made ready, and the results of one run of them.

use anyhow::Result;
use guest_protocol::{Step, StepResult};

use super::steps::{self, PreparedStep, Workspace};

/// Steps made ready, and one result for each of the last run.
pub(crate) struct Program {
    steps: Vec<Box<dyn PreparedStep>>,
    workspace: Workspace,
    results: Vec<StepResult>,
}

impl Program {
    /// Makes `steps` ready.
    ///
    /// # Errors
    ///
    /// Names the step that cannot be.
    pub(crate) fn new(steps: &[Step]) -> Result<Self> {
        let steps = steps.iter().map(steps::prepare).collect::<Result<Vec<_>>>()?;
        let results = Vec::with_capacity(steps.len());
        Ok(Self { steps, workspace: Workspace::new()?, results })
    }

    /// Forgets the last run.
    pub(super) fn rewind(&mut self) {
        self.results.clear();
        self.workspace.mounted = false;
    }

    /// Runs the steps: their system calls and nothing else. Tells `enter` before each which it is,
    /// from 1, and 0 after the last.
    pub(super) fn run(&mut self, mut enter: impl FnMut(u32)) {
        for (step, number) in self.steps.iter_mut().zip(1..) {
            enter(number);
            self.results.push(steps::run(step.as_mut(), &mut self.workspace));
        }
        enter(0);
    }

    /// One result for each step of the last run.
    pub(crate) fn results(&self) -> &[StepResult] {
        &self.results
    }
}
