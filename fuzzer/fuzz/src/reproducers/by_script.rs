//! A crash by a script of bpftrace's: `repro.bt`, and `steps.c` for the steps.

use std::sync::Arc;

use execution::{Fired, Target};
use fault_plan::{Condition, Fault, faults_in};
use guests::bare::{Bpftrace, Script};

use super::{
    GUESTS, Maker, Outcome, SCRIPT, STEPS, Trouble,
    arming::Hook,
    frames::{Probe, Wanted},
    hits::{Hit, hits},
    program::By,
    script,
    trace::calls,
    unsaid,
};

impl Maker<'_> {
    /// Makes the script that fails the calls that `fired`, and verifies it.
    pub(super) fn by_script(&self, fired: &[Fired]) -> Result<Outcome, Trouble> {
        let target = self.target();
        let hits = hits(self.crash.plan, fired, |fault| function(fault, target))?;
        let bpftrace = match Bpftrace::find() {
            Ok(bpftrace) => Arc::new(bpftrace),
            Err(reason) => return unsaid(format!("bpftrace is not to be had: {reason}")),
        };
        let script = |text| Some(Script { text, bpftrace: Arc::clone(&bpftrace) });
        let guests = self.guests()?;
        let mut probes: Vec<Probe> = Vec::new();
        for (number, hit) in (1..).zip(&hits) {
            (self.say)(&format!("counting the calls before fault {number} of {} for bpftrace", hits.len()));
            let before = (!probes.is_empty()).then(|| script(script::text("", &probes))).flatten();
            let program = self.program(&self.content(By::Names, &[], true).text(), &hits, before)?;
            let run = self.run(&guests, &program)?;
            let steps = u32::try_from(target.steps.len()).unwrap_or(u32::MAX);
            let wanted = Wanted { hit, after: self.after(hit, &hits), never: never(&hit.fault, target), steps };
            let probe = wanted.probe(&calls(&run.trace), &|name| self.prepared.symbols.only(name))?;
            probes.push(probe);
        }
        let head = ["The steps of repro.bt, which says how to run it.".to_owned()];
        let steps = self.content(By::Names, &head, false).text();
        let text = |again| script::text(&self.head_of_script(&hits, again), &probes);
        let program = self.program(&steps, &[], script(text((0, 0))))?;
        let again = self.verify(&guests, SCRIPT, &program)?;
        let files = vec![(SCRIPT, text((again, GUESTS))), (STEPS, steps)];
        Ok(Outcome::Verified { files, again, tried: GUESTS })
    }

    /// Finds the fault that `hit` comes after, and its index.
    fn after<'h>(&self, hit: &Hit, hits: &'h [Hit]) -> Option<(usize, &'h Hit)> {
        let earlier = faults_in(&self.crash.plan.earlier[..hit.place.0 as usize - 1]);
        let fault = earlier + hit.fault.after? as usize - 1;
        hits.iter().enumerate().find(|(_, hit)| hit.fired.fault == fault)
    }
}

/// Says how bpftrace fails the call: as the function itself. The kernel lets it do so with those on
/// its list only.
fn function(fault: &Fault, target: &Target) -> Result<Hook, Trouble> {
    let name = &fault.function;
    if target.functions.iter().any(|function| function.name == *name && function.error_type.is_some()) {
        return unsaid(format!("{name} is not on the kernel's list of functions that may fail"));
    }
    Ok(Hook::Function(name.clone(), fault.error.return_value()))
}

fn never<'t>(fault: &Fault, target: &'t Target) -> &'t [Condition] {
    let function = target.functions.iter().find(|function| function.name == fault.function);
    function.map_or(&[], |function| &function.never)
}
