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

    /// Runs the steps: their system calls and nothing else.
    pub(super) fn run(&mut self) {
        for step in &mut self.steps {
            self.results.push(steps::run(step.as_mut(), &mut self.workspace));
        }
    }

    /// One result for each step of the last run.
    pub(crate) fn results(&self) -> &[StepResult] {
        &self.results
    }
}
