//! Reproducers without the fuzzer: a C program that makes a crash by the kernel's own interfaces,
//! or one that takes the steps while a script of bpftrace's makes calls fail.
//!
//! ```text
//! plan ─ our guest ─▶ faults that fired, in their order
//!          │ for each: the program without it in a guest without agent, traced
//!          ▼
//!        by_hooks: settings of the kernel's hooks ─▶ repro.c ──────────┬─ three fresh guests
//!          │ they cannot say it                                        │
//!          └▶ by_script: calls inside functions ─▶ repro.bt, steps.c ──┘
//! ```
//!
//! The calls are counted where they will be counted: in a guest without agent that runs the program
//! itself. So what the agent does differently moves no occurrence.

mod arming;
mod by_hooks;
mod by_script;
mod frames;
mod head;
mod hits;
mod program;
mod script;
mod steps;
mod tables;
mod trace;

use std::{collections::BTreeSet, fmt, fs, sync::Arc};

use campaign::{PROGRAM, SCRIPT, SLOTS, STEPS};
use execution::{Finding, FindingKind, Fired, How, Runner, Stop, Target};
use fault_plan::FaultPlan;
use guest_protocol::WorkloadStep;
use guests::{
    bare::{self, BareError, BareGuests, BareRun, Program, Script},
    prepared::Prepared,
    runner::GuestRunner,
};

use self::{
    hits::Hit,
    program::{By, Content},
    trace::event,
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

/// The outcome of making a reproducer in one of the ways.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It made the crash in so many of so many fresh guests.
    Verified {
        /// Its files: name and text, the one that says how to run it first.
        files: Vec<(&'static str, String)>,
        /// Guests in which the crash came.
        again: u32,
        /// Guests in which it was tried.
        tried: u32,
    },
    /// There is none, for this reason.
    Not(String),
}

/// The reproducers of a crash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Made {
    /// By the kernel's own hooks: `repro.c`.
    pub c: Outcome,
    /// By bpftrace: `repro.bt` and `steps.c`. None where the hooks say it, and where neither can.
    pub bt: Option<Outcome>,
}

impl fmt::Display for Outcome {
    /// Writes `2 of 3`, or the reason.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Verified { again, tried, .. } => write!(f, "{again} of {tried}"),
            Self::Not(reason) => f.write_str(reason),
        }
    }
}

impl Outcome {
    fn files(&self) -> Option<&[(&'static str, String)]> {
        match self {
            Self::Verified { files, .. } => Some(files),
            Self::Not(_) => None,
        }
    }
}

impl Made {
    /// Gives the files that made the crash, each with its name; none where there is nothing.
    #[must_use]
    pub fn files(&self) -> &[(&'static str, String)] {
        self.c.files().or_else(|| self.bt.as_ref()?.files()).unwrap_or_default()
    }

    /// Says how often they did so, or why there is nothing.
    #[must_use]
    pub fn outcome(&self) -> String {
        match (&self.c, &self.bt) {
            (c, None) => c.to_string(),
            (_, Some(bt @ Outcome::Verified { .. })) => bt.to_string(),
            (c, Some(bt)) => format!("{c}; for bpftrace: {bt}"),
        }
    }
}

/// Makes reproducers for a crash and verifies them. Tells `say` what it is at.
///
/// # Errors
///
/// The environment lacks something, or the user wants to stop.
pub fn make(crash: Crash<'_>, prepared: &Arc<Prepared>, stop: &Stop, say: &dyn Fn(&str)) -> Result<Made, CommandError> {
    let mut maker = Maker { crash, prepared, stop, say, hung_in: None };
    let fired = match maker.fired() {
        Ok((fired, hung_in)) => {
            maker.hung_in = hung_in;
            fired
        }
        Err(Trouble::Unsaid(reason)) => return Ok(Made { c: Outcome::Not(reason), bt: None }),
        Err(Trouble::Failed(error)) => return Err(*error),
    };
    let c = outcome(maker.by_hooks(&fired))?;
    let bt = match &c {
        Outcome::Verified { .. } => None,
        Outcome::Not(_) => Some(outcome(maker.by_script(&fired))?),
    };
    Ok(Made { c, bt })
}

fn outcome(made: Result<Outcome, Trouble>) -> Result<Outcome, CommandError> {
    match made {
        Ok(made) => Ok(made),
        Err(Trouble::Unsaid(reason)) => Ok(Outcome::Not(reason)),
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
    /// The kind of the step that does not return, of a hang of which the kernel says nothing.
    hung_in: Option<String>,
}

impl Maker<'_> {
    /// Replays the plan. Gives the faults that fired before the crash, and the step that does not
    /// return.
    fn fired(&self) -> Result<(Vec<Fired>, Option<String>), Trouble> {
        if let Some(step) = self.content(By::Names, &[], false).unknown_step() {
            return unsaid(format!("the step {step} is no system call"));
        }
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
        let hung_in = kernel_report::hung_step(&finding.text).map(str::to_owned);
        Ok((execution.fired, hung_in))
    }

    fn target(&self) -> &Target {
        &self.prepared.target
    }

    fn guests(&self) -> Result<BareGuests<'_>, Trouble> {
        Ok(BareGuests::new(self.prepared.template().config())?)
    }

    fn content<'c>(&'c self, by: By<'c>, head: &'c [String], marks: bool) -> Content<'c> {
        let rounds = self.crash.plan.earlier.iter().map(|round| round.reset).chain([false]).collect();
        Content { target: self.target(), rounds, by, head, marks }
    }

    /// Compiles a program for guests without agent; with `hits`, the calls of their functions are
    /// recorded.
    fn program(&self, text: &str, hits: &[Hit], script: Option<Script>) -> Result<Program, Trouble> {
        let disks = self.target().disk_paths();
        let image = (!disks.is_empty()).then(|| "/dev/vda".to_owned());
        let functions: BTreeSet<&str> =
            hits.iter().flat_map(|hit| [hit.fault.function.as_str(), hit.hook.function()]).collect();
        Ok(Program {
            executable: bare::compile(text).map_err(BareError::from)?,
            arguments: image.into_iter().chain(disks).collect(),
            events: functions.into_iter().map(|function| event(function, self.symbol(function))).collect(),
            module: self.module()?,
            script,
        })
    }

    /// The name that the kernel has for a function: the compiler appends to names.
    fn symbol<'n>(&'n self, function: &'n str) -> &'n str {
        self.prepared.symbols.only(function).unwrap_or(function)
    }

    /// Reads the kernel's module of slots, where it has one.
    fn module(&self) -> Result<Option<Vec<u8>>, Trouble> {
        let Some(path) = &self.prepared.kernel.slots else { return Ok(None) };
        let read = fs::read(path).map_err(|source| BareError::Host { what: "module of slots", source });
        Ok(Some(read?))
    }

    fn run(&self, guests: &BareGuests<'_>, program: &Program) -> Result<BareRun, Trouble> {
        let run = guests.run(program, self.stop)?;
        tracing::debug!(console = run.console, "a guest without agent");
        Ok(run)
    }

    /// Tries a reproducer, called `name`, in fresh guests. Gives the number of those in which the
    /// crash came.
    fn verify(&self, guests: &BareGuests<'_>, name: &str, program: &Program) -> Result<u32, Trouble> {
        let (mut again, mut seen) = (0, BTreeSet::new());
        for number in 1..=GUESTS {
            (self.say)(&format!("trying {name} in guest {number} of {GUESTS}"));
            let run = self.run(guests, program)?;
            let came = self.came(&run);
            again += u32::from(came);
            if !came {
                seen.insert(seen_instead(&run, &self.prepared.reports(&run.console)));
            }
        }
        if again == 0 {
            let seen: Vec<_> = seen.into_iter().collect();
            return unsaid(format!("{name} was tried in {GUESTS} guests in vain: {}", seen.join("; ")));
        }
        Ok(again)
    }

    /// Says whether the crash came in a run.
    fn came(&self, run: &BareRun) -> bool {
        let reported = self.prepared.reports(&run.console);
        let left = LEFT
            .iter()
            .any(|(words, keys)| keys.iter().any(|key| self.crash.key.starts_with(key)) && run.console.contains(words));
        let hangs = reported.is_empty() && self.hangs(run);
        left || hangs || reported.iter().any(|report| report.has_key(self.crash.key))
    }

    /// Says whether a guest that did not end was in the step that never returns.
    fn hangs(&self, run: &BareRun) -> bool {
        let under_way = step_under_way(run, &self.target().steps);
        under_way.is_some() && under_way == self.hung_in.as_deref()
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

/// Says in a few words what a run without the crash showed.
fn seen_instead(run: &BareRun, reported: &[Finding]) -> String {
    if let Some(report) = reported.first() {
        return format!("\"{}\" came instead", report.title);
    }
    let said = run.console.lines().rev().find_map(|line| {
        // bpftrace's own.
        if line.starts_with("ERROR: ") {
            return Some(line);
        }
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
