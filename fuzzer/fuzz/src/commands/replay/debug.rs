//! A replay that gdb stops.
//!
//! ```text
//! exact run ──▶ the how many-th failure is it? ──▶ script ─┐
//!               the same exact run, in a guest that waits ─┴▶ gdb
//! ```
//!
//! Exact runs repeat, so what one shows holds in the next. The guest's time stands still while gdb
//! holds it, and so do the kernel's watchdogs and the agent's; the host's deadline is put off.

use std::{
    fs,
    io::{self, IsTerminal, Write},
    path::Path,
    process::Command,
    thread,
    time::Duration,
};

use crossbeam::channel::{Receiver, bounded};
use execution::{Execution, How, Runner as _};
use fault_plan::{Fault, FaultPlan};
use guests::{prepared::Prepared, qemu::Debugger, runner::GuestRunner};

use super::script::{self, script};
use crate::{
    exit::{Answer, CommandError},
    options::GdbStop,
    terminal,
    views::{progress::Progress, replay::Run},
};

/// Time that a run may take while somebody looks at it: a year.
const PATIENCE: Duration = Duration::from_secs(365 * 24 * 3600);

/// A replay that gdb stops.
pub(super) struct Debugged<'a> {
    /// The guests, which repeat exactly.
    pub(super) prepared: &'a std::sync::Arc<Prepared>,
    /// The moment.
    pub(super) at: GdbStop,
    /// The fault, from 1.
    pub(super) fault: Option<u32>,
    /// The call among those that match, from 1.
    pub(super) hit: Option<u32>,
}

impl Debugged<'_> {
    /// Runs `plan`, of which `first` is an exact run, in a guest that gdb stops. Another run that
    /// is needed before is one of `runner`.
    ///
    /// The answer is no when nothing fires where gdb is to stop.
    pub(super) fn run(
        &self,
        runner: &mut GuestRunner,
        (plan, first): (&FaultPlan, &Execution),
        out: &mut dyn Write,
        progress: &Progress,
    ) -> Result<Answer, CommandError> {
        let count = plan.all_faults().count();
        if let Some(fault) = self.fault.filter(|fault| *fault as usize > count) {
            return Err(CommandError::Input(format!("--fault {fault}: the plan has {count} faults")));
        }
        let mut plan = plan.clone();
        let named = self.fault.map(|fault| fault as usize - 1);
        let last = order(&plan, first).last().map(|(fault, _)| *fault);
        let Some(fault) = named.or(last) else {
            if self.at == GdbStop::Crash {
                return self.hold(&plan, None, out, progress);
            }
            progress.say("no fault fires in an exact run: there is nothing to stop at");
            return Ok(Answer::No);
        };
        let (stopped_at, failures) = match self.hit {
            None => (fault, order(&plan, first)),
            Some(hit) => {
                let added = add_hit(&mut plan, fault, hit);
                (added, order(&plan, &runner.run(&plan, How::Fresh).execution?))
            }
        };
        let Some(position) = failures.iter().position(|(fault, _)| *fault == stopped_at) else {
            let call = self.hit.map_or_else(String::new, |hit| format!(", and none at call {hit}"));
            progress.say(&format!("fault {} does not fire in an exact run{call}", fault + 1));
            return Ok(Answer::No);
        };
        if let Some((several, _)) = failures[..position].iter().find(|(_, times)| *times > 1) {
            return Err(CommandError::Input(format!(
                "fault {} fires several times before: gdb can stop only at it, with --fault {}",
                several + 1,
                several + 1
            )));
        }
        self.hold(&plan, Some((stopped_at, position)), out, progress)
    }

    /// Runs `plan` in a guest that waits for gdb, which is to stop at the fault of that index, the
    /// failure of that position.
    fn hold(
        &self,
        plan: &FaultPlan,
        fault: Option<(usize, usize)>,
        out: &mut dyn Write,
        progress: &Progress,
    ) -> Result<Answer, CommandError> {
        let folder = tempfile::Builder::new().prefix("fuzz-gdb-").tempdir()?;
        let (socket, file) = (folder.path().join("socket"), folder.path().join("stop.gdb"));
        let named = fault.and_then(|(fault, position)| Some((plan.all_faults().nth(fault)?, position)));
        let stop = script::Stop {
            at: self.at,
            failure: named.and_then(|(_, position)| u32::try_from(position + 1).ok()),
            function: named.map_or("", |(fault, _)| &fault.function),
            error: named.map_or_else(String::new, |(fault, _)| fault.error.to_string()),
            hit: self.hit,
        };
        let symbols = &self.prepared.symbols;
        let text = script(&stop, &self.prepared.kernel.vmlinux, &socket, |name| symbols.only(name).is_some());
        fs::write(&file, text)?;
        let (waits, waiting) = bounded(1);
        let mut runner = GuestRunner::new(self.prepared);
        runner.deadline = PATIENCE;
        runner.debugger = Some(Debugger { socket, waits });
        let execution = thread::scope(|scope| {
            let gdb = scope.spawn(|| attend(&waiting, &file, progress));
            let execution = runner.run(plan, How::Fresh).execution;
            // Nobody waits for a guest that could not be started.
            runner.debugger = None;
            if execution.is_err() {
                runner.discard();
            }
            // What is left of the guest can be looked at until gdb ends.
            let _ = gdb.join();
            execution
        })?;
        let steps = &self.prepared.target.steps;
        writeln!(out, "the run that gdb stopped:")?;
        Run { number: 1, of: 1, asked: plan, plan, steps, execution: &execution }.write_text(out)?;
        Ok(Answer::Yes)
    }
}

/// Gives the faults that fired, by index, in the order in which they did, and how many times.
fn order(plan: &FaultPlan, execution: &Execution) -> Vec<(usize, u32)> {
    let mut ends = Vec::new();
    for faults in plan.earlier.iter().map(|round| &round.faults).chain([&plan.faults]) {
        ends.push(ends.last().unwrap_or(&0) + faults.len());
    }
    let mut fired: Vec<_> = execution.fired.iter().collect();
    fired.sort_by_key(|fired| (ends.partition_point(|end| *end <= fired.fault), fired.sequence));
    fired.iter().map(|fired| (fired.fault, fired.times)).collect()
}

/// Adds to `plan` a fault at call `hit` of those that the fault of that index matches, behind those
/// of its round. The others count on as before. Gives its index.
fn add_hit(plan: &mut FaultPlan, fault: usize, hit: u32) -> usize {
    let mut end = 0;
    for faults in plan.earlier.iter_mut().map(|round| &mut round.faults).chain([&mut plan.faults]) {
        let start = end;
        end += faults.len();
        if let Some(found) = fault.checked_sub(start).and_then(|index| faults.get(index)).cloned() {
            if found.occurrence == hit {
                return fault;
            }
            faults.push(Fault { occurrence: hit, times: 1, ..found });
            return end;
        }
    }
    fault
}

/// Runs gdb at the terminal when the guest waits, or says how that is done.
fn attend(waiting: &Receiver<()>, file: &Path, progress: &Progress) {
    if waiting.recv().is_err() {
        return;
    }
    let command = format!("gdb -x {}", file.display());
    if io::stdin().is_terminal() {
        let _lent = terminal::lend();
        match Command::new("gdb").arg("-x").arg(file).status() {
            Ok(_) => return progress.say("gdb has ended; the guest runs on to its end, or until Ctrl-C"),
            Err(error) => progress.say(&format!("gdb cannot be started: {error}")),
        }
    }
    progress.say(&format!("the guest waits; at another terminal: {command}"));
}

#[cfg(test)]
mod tests {
    use fault_plan::{CallPath, Errno, InjectedError, Round};

    use super::*;

    #[test]
    fn another_call_is_added_to_the_faults_round() {
        let fault = |occurrence| Fault::new("f", CallPath::default(), occurrence, InjectedError::Errno(Errno::ENOMEM));
        let earlier = vec![Round { faults: vec![fault(1), fault(4)], reset: false }];
        let mut plan = FaultPlan { earlier, faults: vec![fault(7)], ..FaultPlan::fault_free("t") };
        assert_eq!(add_hit(&mut plan, 1, 3), 2);
        assert_eq!(plan.earlier[0].faults, [fault(1), fault(4), fault(3)]);
        assert_eq!(add_hit(&mut plan, 3, 2), 4);
        assert_eq!(plan.faults, [fault(7), fault(2)]);
        assert_eq!(add_hit(&mut plan, 3, 7), 3, "it is that fault's own call");
    }
}
