//! A crash by the kernel's own hooks: `repro.c`.

use std::collections::BTreeSet;

use execution::Fired;
use fault_plan::base_name;

use super::{
    GUESTS, Maker, Outcome, PROGRAM, SLOTS, Trouble,
    arming::{Arming, Counts, Wanted, arm, play},
    hits::{Hit, OffList, hits, hook, off_list, once},
    program::By,
    trace::{Call, calls},
    unsaid,
};

/// Source of the module with room for functions.
const SLOTS_TEXT: &str = include_str!("../../../../kernels/slots/slots.c");

impl Maker<'_> {
    /// Makes the program by which the kernel's hooks fail the calls that `fired`, and verifies it.
    /// Where functions are not on the kernel's list, allocations within them are tried first, which
    /// need no module.
    pub(super) fn by_hooks(&self, fired: &[Fired]) -> Result<Outcome, Trouble> {
        once(self.crash.plan, fired)?;
        let unlisted = self.crash.plan.all_faults().any(|fault| off_list(&fault.function, self.target()).is_some());
        match self.by_hooks_and(OffList::StandIn, fired) {
            Err(Trouble::Unsaid(_)) if unlisted && self.prepared.kernel.slots.is_some() => {
                self.by_hooks_and(OffList::Listed, fired)
            }
            outcome => outcome,
        }
    }

    fn by_hooks_and(&self, way: OffList, fired: &[Fired]) -> Result<Outcome, Trouble> {
        let hits = hits(self.crash.plan, fired, |fault| hook(fault, self.target(), way))?;
        let guests = self.guests()?;
        let mut armings: Vec<Arming> = Vec::new();
        for (number, hit) in (1..).zip(&hits) {
            (self.say)(&format!("counting the calls before fault {number} of {}", hits.len()));
            let program = self.program(&self.content(By::Hooks(&armings), &[], true).text(), &hits, None)?;
            let run = self.run(&guests, &program)?;
            self.add(&mut armings, &hits[..number - 1], hit, &calls(&run.trace))?;
        }
        let text =
            |again, tried| self.content(By::Hooks(&armings), &self.head_of_hooks(&hits, (again, tried)), false).text();
        let program = self.program(&text(0, 0), &[], None)?;
        let again = self.verify(&guests, PROGRAM, &program)?;
        let mut files = vec![(PROGRAM, text(again, GUESTS))];
        if hits.iter().any(|hit| self.is_listed(hit)) {
            files.push((SLOTS, SLOTS_TEXT.to_owned()));
        }
        Ok(Outcome::Verified { files, again, tried: GUESTS })
    }

    /// Says whether a module puts the function of a hit on the kernel's list.
    pub(super) fn is_listed(&self, hit: &Hit) -> bool {
        !hit.is_stand_in() && off_list(&hit.fault.function, self.target()).is_some()
    }

    /// Adds the settings for the fault `hit` to those of the faults `before`, with which `calls`
    /// were recorded.
    fn add(&self, armings: &mut Vec<Arming>, before: &[Hit], hit: &Hit, calls: &[Call]) -> Result<(), Trouble> {
        let Some(target) = hit.target(calls) else {
            let (number, function) = (hit.fired.fault + 1, &hit.fault.function);
            return unsaid(if hit.is_stand_in() {
                format!(
                    "{function} is not on the kernel's list of functions that may fail, and no allocation was seen in it"
                )
            } else {
                format!("fault {number} is not reached without the agent")
            });
        };
        let in_step: Vec<usize> = (0..calls.len()).filter(|index| calls[*index].place == hit.place).collect();
        let step: Vec<&Call> = in_step.iter().map(|index| &calls[*index]).collect();
        let mut counts = Counts::new();
        for place in before.iter().map(|hit| hit.place).collect::<BTreeSet<_>>() {
            if place < hit.place {
                let calls: Vec<&Call> = calls.iter().filter(|call| call.place == place).collect();
                play(&calls, &of(armings, place), &mut counts);
            }
        }
        let failed = play(&step, &of(armings, hit.place), &mut counts.clone());
        let mut wanted: Vec<Wanted> = before
            .iter()
            .filter(|before| before.place == hit.place)
            .zip(&failed)
            .map(|(before, call)| Wanted { hook: before.hook.clone(), call: *call })
            .collect();
        let call = in_step.iter().position(|index| *index == target).unwrap_or_default();
        wanted.push(Wanted { hook: hit.hook.clone(), call });
        wanted.sort_by_key(|wanted| wanted.call);
        let only = |name: &str| self.prepared.symbols.only(base_name(name)).is_some();
        let Some(found) = arm(hit.place, &step, &wanted, &only, &counts) else {
            return unsaid(format!(
                "{} faults in step {} have no order that the kernel's hooks can tell: a hook has one filter and one count",
                wanted.len(),
                hit.place.1
            ));
        };
        armings.retain(|arming| arming.place != hit.place);
        armings.extend(found);
        Ok(())
    }
}

/// The settings of a step.
fn of(armings: &[Arming], place: (u32, u32)) -> Vec<Arming> {
    armings.iter().filter(|arming| arming.place == place).cloned().collect()
}
