//! Reproducers without the fuzzer: a C program that makes a crash by the kernel's own interfaces.
//!
//! ```text
//! plan ─ our guest ─▶ faults that fired, in their order
//!                      │ for each: the program without it in a guest without agent, traced
//!                      ▼
//!                     settings of the kernel's hooks ─▶ repro.c ─ three fresh guests ─▶ k of 3, or why not
//! ```
//!
//! The calls are counted where they will be counted: in a guest without agent that runs the program
//! itself. So what the agent does differently moves no occurrence.

mod arming;
mod hits;
mod program;
mod steps;
mod trace;

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use execution::{DiskKind, Finding, FindingKind, How, ImageRecipe, Runner, Stop, Target};
use fault_plan::{FaultPlan, base_name};
use guest_protocol::WorkloadStep;
use guests::{
    bare::{self, BareError, BareGuests, BareRun, Program},
    prepared::Prepared,
    runner::GuestRunner,
};

use self::{
    arming::{Arming, Counts, Hook, Wanted, arm, play},
    hits::{Hit, hits, hook},
    program::{Content, image_command},
    trace::{Call, calls, event},
};
use crate::exit::CommandError;

/// Fresh guests in which a reproducer has to show itself.
const GUESTS: u32 = 3;
/// The words by which the program says what is left in use, and the keys that this is.
const LEFT: [(&str, &[&str]); 2] = [
    ("repro: LEFT: /dev/", &["device left open", "file system state left"]),
    ("repro: LEFT: a mount", &["mount left"]),
];
/// The crash that is to be made.
#[derive(Clone, Copy, Debug)]
pub struct Crash<'a> {
    /// Its plan.
    pub plan: &'a FaultPlan,
    /// Its key, or its title in older files.
    pub key: &'a str,
    /// Its title.
    pub title: &'a str,
}

/// The outcome of making a reproducer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Made {
    /// The program made the crash in so many of so many fresh guests.
    Verified {
        /// Text of the program.
        text: String,
        /// Guests in which the crash came.
        again: u32,
        /// Guests in which it was tried.
        tried: u32,
    },
    /// There is none, for this reason.
    Not(String),
}

/// Makes the C program for a crash and verifies it. Tells `say` what it is at.
///
/// # Errors
///
/// The environment lacks something, or the user wants to stop.
pub fn in_c(crash: Crash<'_>, prepared: &Arc<Prepared>, stop: &Stop, say: &dyn Fn(&str)) -> Result<Made, CommandError> {
    let maker = Maker { crash, prepared, stop, say };
    match maker.make() {
        Ok(made) => Ok(made),
        Err(Trouble::Unsaid(reason)) => Ok(Made::Not(reason)),
        Err(Trouble::Failed(error)) => Err(*error),
    }
}

/// Why making a reproducer ends early.
enum Trouble {
    /// The kernel's interfaces cannot say it, or it does not come.
    Unsaid(String),
    Failed(Box<CommandError>),
}

impl<E: Into<CommandError>> From<E> for Trouble {
    fn from(error: E) -> Self {
        Self::Failed(Box::new(error.into()))
    }
}

fn unsaid<T>(reason: impl Into<String>) -> Result<T, Trouble> {
    Err(Trouble::Unsaid(reason.into()))
}

struct Maker<'a> {
    crash: Crash<'a>,
    prepared: &'a Arc<Prepared>,
    stop: &'a Stop,
    say: &'a dyn Fn(&str),
}

impl Maker<'_> {
    fn make(&self) -> Result<Made, Trouble> {
        self.check(&self.prepared.target)?;
        (self.say)("replaying the plan, to see which faults fire");
        let mut runner = GuestRunner::new(self.prepared);
        let mut execution = runner.run(self.crash.plan, How::Fresh).execution?;
        for _ in 1..GUESTS {
            if execution.has_key(self.crash.key) {
                break;
            }
            execution = runner.run(self.crash.plan, How::Fresh).execution?;
        }
        let Some(finding) = execution.findings.iter().find(|finding| finding.has_key(self.crash.key)) else {
            return unsaid(format!("the crash did not come again in {GUESTS} guests with the agent"));
        };
        if !is_on_console(finding) {
            return unsaid(format!("only an oracle of the fuzzer's sees it: {}", finding.title));
        }
        let hits = hits(self.crash.plan, &self.prepared.target, &execution.fired)?;
        let guests = BareGuests::new(self.prepared.template().config())?;
        let mut armings: Vec<Arming> = Vec::new();
        for (number, hit) in (1..).zip(&hits) {
            (self.say)(&format!("counting the calls before fault {number} of {}", hits.len()));
            let program = self.program(&self.content(&armings, &[], true).text(), &hits)?;
            let run = self.run(&guests, &program)?;
            self.add(&mut armings, &hits[..number - 1], hit, &calls(&run.trace))?;
        }
        self.verify(&guests, &hits, &armings)
    }

    /// Says what can be said without a guest against a reproducer.
    fn check(&self, target: &Target) -> Result<(), Trouble> {
        if let Some(step) = self.content(&[], &[], false).unknown_step() {
            return unsaid(format!("the step {step} is no system call"));
        }
        self.crash.plan.all_faults().try_for_each(|fault| hook(fault, target).map(drop))
    }

    fn content<'c>(&'c self, armings: &'c [Arming], head: &'c [String], marks: bool) -> Content<'c> {
        let rounds = self.crash.plan.earlier.iter().map(|round| round.reset).chain([false]).collect();
        Content { target: &self.prepared.target, rounds, armings, head, marks }
    }

    /// Compiles a program for guests without agent; with `hits`, the calls of their functions are
    /// recorded.
    fn program(&self, text: &str, hits: &[Hit]) -> Result<Program, Trouble> {
        let disks = self.prepared.target.disk_paths();
        let image = (!disks.is_empty()).then(|| "/dev/vda".to_owned());
        let functions: BTreeSet<&str> =
            hits.iter().flat_map(|hit| [hit.fault.function.as_str(), hit.hook.function()]).collect();
        Ok(Program {
            executable: bare::compile(text).map_err(BareError::from)?,
            arguments: image.into_iter().chain(disks).collect(),
            events: functions.into_iter().map(event).collect(),
        })
    }

    fn run(&self, guests: &BareGuests<'_>, program: &Program) -> Result<BareRun, Trouble> {
        let run = guests.run(program, self.stop)?;
        tracing::debug!(console = run.console, "a guest without agent");
        Ok(run)
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
        let only = |name: &str| self.prepared.symbols.count(base_name(name)) == 1;
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

    /// Tries the program in fresh guests.
    fn verify(&self, guests: &BareGuests<'_>, hits: &[Hit], armings: &[Arming]) -> Result<Made, Trouble> {
        let head = self.head(hits, 0, 0);
        let program = self.program(&self.content(armings, &head, false).text(), &[])?;
        let (mut again, mut seen) = (0, BTreeSet::new());
        for number in 1..=GUESTS {
            (self.say)(&format!("trying repro.c in guest {number} of {GUESTS}"));
            let run = self.run(guests, &program)?;
            let came = self.came(&run);
            again += u32::from(came);
            if !came {
                seen.insert(seen_instead(&run, &self.prepared.reports(&run.console)));
            }
        }
        if again == 0 {
            let seen: Vec<_> = seen.into_iter().collect();
            return unsaid(format!("repro.c was tried in {GUESTS} guests in vain: {}", seen.join("; ")));
        }
        let text = self.content(armings, &self.head(hits, again, GUESTS), false).text();
        Ok(Made::Verified { text, again, tried: GUESTS })
    }

    /// Says whether the crash came in a run.
    fn came(&self, run: &BareRun) -> bool {
        let reported = self.prepared.reports(&run.console);
        let left = LEFT
            .iter()
            .any(|(words, keys)| keys.iter().any(|key| self.crash.key.starts_with(key)) && run.console.contains(words));
        left || self.hangs(run) || reported.iter().any(|report| report.has_key(self.crash.key))
    }

    /// Says whether a guest that did not end was in the step that never returns.
    fn hangs(&self, run: &BareRun) -> bool {
        step_under_way(run, &self.prepared.target.steps).is_some_and(|kind| {
            kernel_report::silent_hang("", Duration::ZERO, "", Some((1, kind))).key == self.crash.key
        })
    }

    /// The comment at the program's head.
    fn head(&self, hits: &[Hit], again: u32, tried: u32) -> Vec<String> {
        let Prepared { target, kernel, .. } = &**self.prepared;
        let mut lines = vec![self.crash.title.to_owned(), String::new()];
        lines.push(format!("Kernel {} ({}), {}.", kernel.meta.release, kernel.meta.source, kernel.meta.name));
        lines.push(format!("It came in {again} of {tried} fresh guests that ran nothing but this program."));
        lines.push(String::new());
        lines.push("These calls are made to fail, on purpose, by the kernel's own fault injection:".to_owned());
        for hit in hits {
            let Hit { fault, fired, place, .. } = hit;
            let (round, step) = place;
            let round = if self.crash.plan.earlier.is_empty() { String::new() } else { format!("round {round}, ") };
            let kind = target.steps.get(*step as usize - 1).map_or("?", |step| step.kind());
            lines.push(if hit.is_stand_in() {
                format!("  {round}step {step} ({kind}): {} fails for want of memory", fault.function)
            } else {
                format!("  {round}step {step} ({kind}): {} returns {}", fault.function, fault.error)
            });
            lines.extend(fired.call_path.iter().map(|caller| format!("    {caller}")));
        }
        lines.push(String::new());
        lines.push(
            "The kernel needs CONFIG_FAULT_INJECTION_DEBUG_FS, CONFIG_FAULT_INJECTION_STACKTRACE_FILTER,".to_owned(),
        );
        let hooks: BTreeSet<_> = hits.iter().map(|hit| configuration(&hit.hook)).collect();
        lines.push(format!("CONFIG_KALLSYMS and {}.", hooks.into_iter().collect::<Vec<_>>().join(", ")));
        lines.push("Run it as root, once after a boot: a hook's count of calls cannot be set back.".to_owned());
        lines.push(String::new());
        lines.push("  mount -t debugfs none /sys/kernel/debug".to_owned());
        lines.push("  cc -static repro.c -o repro".to_owned());
        match &target.image {
            None => lines.push("  ./repro".to_owned()),
            Some(image) => {
                lines.extend(image_command(image).into_iter().map(|line| format!("  {line}")));
                let names = target.disk_paths().join(" ");
                lines.push(format!("  ./repro disk.img {names}     # LOST: what is on these disks"));
                lines.push(disks_of_this_size(image));
            }
        }
        lines
    }
}

/// Says how to come by disks of an image's size.
fn disks_of_this_size(image: &ImageRecipe) -> String {
    let (count, mib) = (image.disks, image.size_mib);
    match image.kind {
        DiskKind::Memory => {
            format!("RAM disks of this size: boot with brd.rd_nr={count} brd.rd_size={}.", u64::from(mib) << 10)
        }
        DiskKind::Virtio => {
            format!("Virtio disks of this size: files of {mib} MiB, QEMU's -drive if=virtio,file=FILE.")
        }
    }
}

/// Gives the kind of the step that a guest did not come out of. None for one that ended, and for
/// one that was setting up or cleaning up.
fn step_under_way(run: &BareRun, steps: &[WorkloadStep]) -> Option<&'static str> {
    if !run.hung {
        return None;
    }
    let ended = run.console.lines().rev().filter_map(|line| line.strip_prefix("repro: ")).find_map(|line| {
        if line.starts_with("clean-up") {
            return Some(None);
        }
        let ended = line.starts_with("round ").then_some(0);
        let step = || line.strip_prefix("step ")?.split_once(',')?.0.parse().ok().filter(|step| *step > 0);
        ended.or_else(step).map(Some)
    })?;
    steps.get(ended?).map(WorkloadStep::kind)
}

/// Says whether the console of a guest without agent shows the finding.
fn is_on_console(finding: &Finding) -> bool {
    use FindingKind::{Bug, Hang, Kasan, Kmemleak, Lockdep, Panic, Ubsan, Warning};
    let left = || LEFT.iter().flat_map(|(_, keys)| *keys).any(|key| finding.key.starts_with(key));
    matches!(finding.kind, Kasan | Bug | Warning | Lockdep | Hang | Kmemleak | Ubsan | Panic) || left()
}

/// The settings of a step.
fn of(armings: &[Arming], place: (u32, u32)) -> Vec<Arming> {
    armings.iter().filter(|arming| arming.place == place).cloned().collect()
}

fn configuration(hook: &Hook) -> &'static str {
    match hook {
        Hook::Slab => "CONFIG_FAILSLAB",
        Hook::Page => "CONFIG_FAIL_PAGE_ALLOC",
        Hook::Bio => "CONFIG_FAIL_MAKE_REQUEST",
        Hook::Function(..) => "CONFIG_FAIL_FUNCTION",
    }
}

/// Says in a few words what a run without the crash showed.
fn seen_instead(run: &BareRun, reported: &[Finding]) -> String {
    if let Some(report) = reported.first() {
        return format!("\"{}\" came instead", report.title);
    }
    let said = run.console.lines().rev().find_map(|line| {
        let line = line.strip_prefix("repro: ")?;
        (line.contains("DID NOT FAIL") || line.contains("CONFIG_") || line.contains("as planned")).then_some(line)
    });
    match (said, run.hung) {
        (_, true) => "the guest did not end".to_owned(),
        (Some(said), _) => said.to_owned(),
        (None, _) => "the program did not come to its end, and the kernel reported nothing".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use guest_protocol::Step;

    use super::*;

    #[test]
    fn a_guest_hangs_in_the_step_after_the_last_that_ended() {
        let steps = [Step::Sync {}, Step::Umount {}].map(WorkloadStep::from);
        let in_step = |console: &str, hung| {
            let run = BareRun { console: console.to_owned(), trace: String::new(), hung };
            (step_under_way(&run, &steps), step_under_way(&run, &[]))
        };
        let (setup, first) = ("repro: step 0, mkdir: ok, 0\n", "repro: round 1\n");
        let second = format!("{first}[1.0] a word of the kernel\nrepro: step 1, sync: ok, 0\nrepro: fault 1: f\n");
        let last = format!("{second}repro: step 2, umount: Device or resource busy\n");
        let cleaned = format!("{last}repro: clean-up\nrepro: LEFT: a mount cannot be undone: busy\n");
        assert_eq!(in_step("", true), (None, None));
        assert_eq!(in_step(setup, true).0, None);
        assert_eq!(in_step(first, true), (Some("sync"), None));
        assert_eq!(in_step(&second, true).0, Some("umount"));
        assert_eq!(in_step(&second, false), (None, None), "it ended");
        assert_eq!(in_step(&last, true).0, None);
        assert_eq!(in_step(&cleaned, true).0, None, "it cleans up");
        assert_eq!(in_step(&format!("{cleaned}{setup}"), true).0, None, "the next round is set up");
        assert_eq!(in_step(&format!("{cleaned}{setup}repro: round 2\n"), true).0, Some("sync"));
    }
}
