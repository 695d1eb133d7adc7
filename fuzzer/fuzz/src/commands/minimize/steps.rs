//! Fewer steps of the workload: a smaller target on which the plan still makes its crash.
//!
//! Every try boots a guest for the steps that are left, which takes seconds. So there are few: only
//! the steps in which faults fired, then those up to the last of them, then parts left out.

use std::{collections::HashSet, sync::Arc};

use campaign::CONFIRMATIONS;
use execution::{Execution, How, RunError, Runner, Stop, Target};
use fault_plan::{FaultPlan, parts};
use guests::{
    prepare::{PrepareError, Wanted, prepare},
    prepared::Prepared,
    progress::{Silent, Task},
    runner::GuestRunner,
};

use crate::exit::CommandError;

/// The most tries, the confirmation not counted.
const MOST_TRIES: u32 = 10;

/// A crash of a plan, and how guests for it are made.
pub(super) struct Steps<'a> {
    pub(super) wanted: &'a Wanted,
    pub(super) target: &'a Arc<Target>,
    pub(super) plan: &'a FaultPlan,
    pub(super) key: &'a str,
    pub(super) runs: u32,
    pub(super) stop: &'a Stop,
}

impl Steps<'_> {
    /// Gives the plan on the target with the fewest steps of those tried; nothing where it takes
    /// all of them. The `execution` is one of the plan that made the crash.
    pub(super) fn fewest(
        &self,
        execution: &Execution,
        task: &dyn Task,
    ) -> Result<Option<(FaultPlan, Arc<Target>)>, CommandError> {
        let count = self.target.steps.len();
        let fired: Vec<usize> = execution.fired.iter().map(|fired| fired.step as usize).collect();
        let mut kept: Vec<usize> = (1..=count).collect();
        let (mut tried, mut tries, mut best) = (HashSet::from([kept.clone()]), 0, None);
        while tries < MOST_TRIES {
            let Some(next) = candidates(&kept, &fired).find(|next| !tried.contains(next)) else { break };
            tried.insert(next.clone());
            let Some((target, plan)) = with_steps(self.target, self.plan, &next) else { continue };
            tries += 1;
            task.update(&format!("{tries} runs, {count} steps → {}", kept.len()), None);
            let Some(prepared) = self.prepared(target)? else { continue };
            if self.comes(&prepared, &plan, self.runs)? {
                best = Some((prepared, plan));
                kept = next;
            }
        }
        let Some((prepared, plan)) = best else { return Ok(None) };
        let confirmed = self.comes(&prepared, &plan, CONFIRMATIONS)?;
        task.note(&format!("{tries} runs, {count} steps → {}", if confirmed { kept.len() } else { count }));
        Ok(confirmed.then(|| (plan, Arc::clone(&prepared.target))))
    }

    /// Prepares guests that no later start needs. There are none where such steps do not run.
    fn prepared(&self, target: Target) -> Result<Option<Arc<Prepared>>, CommandError> {
        let wanted = Wanted { target: Arc::new(target).into(), kept: false, ..self.wanted.clone() };
        match prepare(&wanted, self.stop, &Silent) {
            Ok(prepared) => Ok(Some(prepared)),
            Err(PrepareError::Guest(error)) if !self.stop.is_requested() => {
                tracing::debug!("no guest with fewer steps: {}", execution::chain(&error));
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Says whether the crash comes in each of so many fresh guests.
    fn comes(&self, prepared: &Arc<Prepared>, plan: &FaultPlan, runs: u32) -> Result<bool, CommandError> {
        let mut runner = GuestRunner::new(prepared);
        for _ in 0..runs {
            match runner.run(plan, How::Fresh).execution {
                Ok(execution) if execution.has_key(self.key) => {}
                Err(RunError::Stopped) => return Err(RunError::Stopped.into()),
                Ok(_) | Err(_) => return Ok(false),
            }
        }
        Ok(true)
    }
}

/// Gives fewer steps than those `kept`, by number from 1. Those stay in which faults `fired`.
fn candidates(kept: &[usize], fired: &[usize]) -> impl Iterator<Item = Vec<usize>> {
    let only = kept.iter().copied().filter(|step| fired.contains(step)).collect();
    let last = fired.iter().max().copied().unwrap_or_default();
    let until_last = kept.iter().copied().filter(|step| *step <= last).collect();
    let (free, stay): (Vec<usize>, Vec<usize>) = kept.iter().partition(|step| !fired.contains(step));
    let without = move |part: std::ops::Range<usize>| {
        let mut steps: Vec<usize> = free[..part.start].iter().chain(&free[part.end..]).chain(&stay).copied().collect();
        steps.sort_unstable();
        steps
    };
    let count = kept.iter().filter(|step| !fired.contains(step)).count();
    let parts = parts(count).map(without);
    [only, until_last].into_iter().chain(parts).filter(|steps: &Vec<usize>| !steps.is_empty())
}

/// Gives `target` with only these steps, by number from 1, and `plan` for it; nothing where a fault
/// asks for a step that is not among them.
fn with_steps(target: &Target, plan: &FaultPlan, kept: &[usize]) -> Option<(Target, FaultPlan)> {
    let mut plan = plan.clone();
    for fault in plan.all_faults_mut() {
        if let Some(step) = &mut fault.step {
            let position = kept.iter().position(|kept| *kept == *step as usize)?;
            *step = u32::try_from(position + 1).ok()?;
        }
    }
    let mut target = target.clone();
    target.steps = kept.iter().filter_map(|step| target.steps.get(step - 1).cloned()).collect();
    Some((target, plan))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use execution::FunctionGroups;

    use super::*;

    fn target() -> Target {
        let folder = tempfile::tempdir().unwrap();
        let steps = ["a", "b", "c", "d"].map(|name| format!("{{ trigger = {{ name = '{name}' }} }}")).join(", ");
        let text = format!(
            "description = 'd'\nkernel = 'k'\nsteps = [{steps}]\nfunctions = [{{ name = 'f', errors = ['EIO'] }}]\n"
        );
        fs::write(folder.path().join("target.toml"), text).unwrap();
        Target::load(folder.path(), &FunctionGroups::default()).unwrap()
    }

    #[test]
    fn steps_in_which_faults_fired_stay() {
        let all: Vec<_> = candidates(&[1, 2, 3, 4], &[3]).collect();
        assert_eq!(all[..3], [vec![3], vec![1, 2, 3], vec![3, 4]]);
        assert!(all.iter().all(|steps| steps.contains(&3)));
        assert_eq!(candidates(&[2], &[2]).collect::<Vec<_>>(), [vec![2], vec![2]], "nothing is left to leave out");
    }

    #[test]
    fn a_plan_follows_its_steps() {
        let plan = FaultPlan::from_json(
            r#"{ "version": 1, "target": "t", "faults": [
                { "function": "f", "occurrence": 1, "error": "EIO", "step": 3 },
                { "function": "f", "occurrence": 1, "error": "EIO" } ] }"#,
        )
        .unwrap();
        let target = target();
        let (smaller, moved) = with_steps(&target, &plan, &[1, 3]).unwrap();
        assert_eq!(smaller.steps, [target.steps[0].clone(), target.steps[2].clone()]);
        assert_eq!(moved.faults.iter().map(|fault| fault.step).collect::<Vec<_>>(), [Some(2), None]);
        assert!(with_steps(&target, &plan, &[1, 2]).is_none());
        assert_ne!(smaller.digest(), target.digest());
    }
}
