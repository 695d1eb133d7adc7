//! Whose text is it: says which execution a guest's text, answer or death belongs to.
//!
//! ```text
//!            request               plan in place               end of the request
//!  waiting ───────────▶ requested ───────────────▶ running ─────────────────────▶ waiting
//!     │                     │                         │
//!     └── the execution ────┘                         └── this execution
//!         before
//! ```
//!
//! - *request*: the host puts the plan into the window. The agent may still put the disk back for
//!   it, and its kernel may still do what the execution before has caused.
//! - *plan in place*: the agent has lowered the plan. Two facts tell of it: the log of fired faults
//!   has a new generation and says which kernel message was the last one before, and the report
//!   quotes the kernel's log up to then.
//! - *end of the request*: a report, a refusal, a death, the deadline, or trouble of guest or host.
//!   A refusal and word of a leftover say that no plan was put in place.
//!
//! Whatever belongs to the execution before is *late*: it goes to the last plan that ran in that
//! guest, or to the fault-free one where none has. A guest in which something came to light late is
//! no place to judge another plan by. What that plan's own text reports goes to it as late, too,
//! and the plan runs again. Where no fact tells whether the plan was in place, as of a QEMU that
//! was killed, text is late: the plan runs again, and then shows whether it was its own.
//!
//! An execution that leaves something in use may be followed by rounds in that state. Such a round
//! is a request like any other: its own text is its own, what comes before its plan is in place is
//! late, and what was left before it is no finding of its own. With every finding goes the guest's
//! history: the rounds before the plan that it is given to.
//!
//! All of it is a function of facts: no guest is needed to test it.

use std::time::Duration;

use execution::{Attributed, Fate, Finding, FindingKind, Fired, How, Oracle, TargetFunction};
use fault_plan::FaultPlan;
use guest_protocol::{FiredFault, Leftover, LeftoverKind, WorkloadStep};
use kcov_parser::Symbols;
use kernel_report::{KernelReport, ReportKind, silent_hang};

use super::{
    endless::waits,
    fired,
    history::History,
    leftover::left,
    reported::{Executed, Own, reported},
    text::{bytes_until, death, reports},
};
use crate::qemu::{End, FiredLog, GuestError, Observed};

/// A guest that was asked for something for so long is watched: see [`Observed::starved`].
const WATCHED: Duration = Duration::from_secs(1);

/// A hang is no finding when the guest waited for a processor of the host for more than one part in
/// this many of the time: its clock goes on meanwhile, and detectors and deadlines see a kernel
/// that stands still.
const STARVED: u32 = 2;

/// A request, as the host made it.
#[derive(Clone, Copy)]
pub(super) struct Request<'a> {
    pub(super) plan: &'a FaultPlan,
    pub(super) how: How,
    /// True when the plan runs in the state that the execution before left.
    pub(super) keep: bool,
    /// True when the plan is put in place; false only in measurements.
    pub(super) inject: bool,
    pub(super) deadline: Duration,
    /// The workload.
    pub(super) steps: &'a [WorkloadStep],
    /// The functions of the guest's kernel.
    pub(super) symbols: &'a Symbols,
    /// The functions that may fail.
    pub(super) functions: &'a [TargetFunction],
    /// The oracles that judge.
    pub(super) oracles: &'a [Oracle],
}

impl Request<'_> {
    /// Gives what is found of a guest that does not answer and says nothing. Where no plan was put
    /// in place the log tells no step.
    fn hang(&self, target: &str, stack: &str, log: Option<&FiredLog>) -> Finding {
        let number = log.filter(|_| self.inject).map_or(0, |log| log.step);
        if let Some(found) = waits(self.plan, &self.fired(log), number) {
            return found;
        }
        let index = usize::try_from(number).ok().and_then(|number| number.checked_sub(1));
        let step = index.and_then(|index| self.steps.get(index)).map(|step| (number, step.kind()));
        silent_hang(target, self.deadline, stack, step).into()
    }

    /// Gives the faults that fired, as `log` tells them. Measurements put no plan in place.
    fn fired(&self, log: Option<&FiredLog>) -> Vec<Fired> {
        log.filter(|_| self.inject).map(|log| self.named(&log.fired)).unwrap_or_default()
    }

    /// Gives these faults with all their names.
    fn named(&self, fired: &[FiredFault]) -> Vec<Fired> {
        let words = |fired: &FiredFault| self.words(fired.fault, &fired.shown, &fired.text);
        fired.iter().map(|fired| fired::named(fired, words(fired), self.symbols)).collect()
    }

    /// Tells the arguments of a call that failed, of which the guest noted this.
    fn words(&self, fault: u32, shown: &[Option<u64>], text: &str) -> String {
        let fault = self.plan.faults.get(fault as usize);
        let function = fault.and_then(|fault| self.functions.iter().find(|known| known.name == fault.function));
        function.map_or_else(String::new, |function| execution::words(&function.arguments, shown, text))
    }
}

/// Outcome of a request, for its own plan and for the execution before.
#[derive(Debug)]
pub(super) struct Judgement {
    pub(super) verdict: Verdict,
    pub(super) late: Vec<Attributed>,
}

/// Outcome of a request for its own plan.
#[derive(Debug)]
pub(super) enum Verdict {
    /// The plan ran.
    Ran(Box<Own>),
    /// This kernel cannot run the plan; the reason.
    Refused(String),
    /// An effect of an earlier execution came to light: the guest is none to judge this plan by.
    Spoilt,
    /// Guest or host failed.
    Trouble(GuestError),
}

/// The last execution of a guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Previous {
    pub(super) plan: FaultPlan,
    pub(super) how: How,
    pub(super) fired: Vec<Fired>,
    /// What its report, and those before it in a state that was kept, said to be left.
    leftovers: Vec<Leftover>,
    /// Number of rounds of the guest before it.
    at: u64,
}

impl Previous {
    fn doing(&self) -> (&FaultPlan, &[Fired]) {
        (&self.plan, &self.fired)
    }
}

/// The policy for one guest after the other.
#[derive(Debug)]
pub(super) struct Attribution {
    target: String,
    /// The last execution of the guest at hand, after which it went on.
    previous: Option<Previous>,
    /// The rounds of the guest at hand.
    history: History,
}

/// The facts of a request, divided between the execution before and this one.
struct Divided {
    before: String,
    own: String,
    /// End of the execution before, if it came to light only now.
    late_end: Option<LateEnd>,
}

enum LateEnd {
    Died { stack: Option<String> },
    Left(String),
}

impl Attribution {
    pub(super) fn new(target: &str) -> Self {
        Self { target: target.to_owned(), previous: None, history: History::default() }
    }

    /// Takes in that there is a fresh guest.
    pub(super) fn fresh_guest(&mut self) {
        self.previous = None;
        self.history = History::default();
    }

    pub(super) fn previous(&self) -> Option<&Previous> {
        self.previous.as_ref()
    }

    /// Has the guest's text from now on belong to `previous` again, after a control run that shows
    /// nothing.
    pub(super) fn restore(&mut self, previous: Option<Previous>) {
        self.previous = previous.or_else(|| self.previous.take());
    }

    /// Judges a request by the facts that the host saw.
    pub(super) fn judge(&mut self, request: &Request<'_>, mut observed: Observed) -> Judgement {
        let Divided { before, own, late_end } = divide(&mut observed, request.inject);
        if let Some(judgement) = self.late(request, &observed, (before, own.clone()), late_end) {
            return judgement;
        }
        let mut verdict = self.own(request, observed, own);
        match &mut verdict {
            Verdict::Ran(own) => {
                let at = self.history.run(&request.plan.faults, request.keep);
                if !own.findings.is_empty() {
                    own.history = self.history.before(at);
                }
                self.previous = self.stays(request, own, at);
            }
            Verdict::Refused(_) => {}
            // That guest goes, and what it prints from now on is for nobody.
            Verdict::Spoilt | Verdict::Trouble(_) => self.previous = None,
        }
        Judgement { verdict, late: Vec::new() }
    }

    /// Gives the execution `own` as the one that what comes later belongs to, unless its guest
    /// goes: what that prints from now on is for nobody.
    fn stays(&self, request: &Request<'_>, own: &Own, at: u64) -> Option<Previous> {
        if !matches!(own.guest, Fate::Alive | Fate::Unclean) {
            return None;
        }
        let (plan, how, fired) = (request.plan.clone(), request.how, own.fired.clone());
        let mut leftovers = self.left_before(request).to_vec();
        leftovers.extend(own.report.iter().flat_map(|report| report.leftovers.iter().cloned()));
        Some(Previous { plan, how, fired, leftovers, at })
    }

    /// Gives what was left before the request, in a state that is kept.
    fn left_before(&self, request: &Request<'_>) -> &[Leftover] {
        self.previous.as_ref().filter(|_| request.keep).map_or(&[], |previous| &previous.leftovers)
    }

    /// Judges text that a guest has printed since its last execution, when it is about to go.
    pub(super) fn last_words(&mut self, text: String) -> Option<Attributed> {
        self.previous.as_ref()?;
        let mut found = reports(&text);
        found.retain(|report| report.kind != ReportKind::Hang);
        (!found.is_empty()).then(|| self.attribute(findings(found), text))
    }

    /// Judges what belongs to the execution before; nothing when nothing does.
    ///
    /// A hang in a guest that had nothing to do tells nothing: nobody watched whether the host let
    /// it run. A guest that was asked for something is watched, and may still put its disk back.
    fn late(
        &mut self,
        request: &Request<'_>,
        observed: &Observed,
        (before, own): (String, String),
        end: Option<LateEnd>,
    ) -> Option<Judgement> {
        let mut found = reports(&before);
        let (mut leftover, mut watched) = (None, false);
        match end {
            Some(LateEnd::Died { stack }) => {
                if let Some(stack) = stack.filter(|_| found.is_empty()) {
                    found.push(silent_hang(&self.target, request.deadline, &stack, None));
                }
                watched = observed.wall > WATCHED.max(observed.starved * STARVED);
                if found.is_empty() {
                    self.previous = None;
                    return Some(Judgement { verdict: Verdict::Trouble(GuestError::Lost), late: Vec::new() });
                }
            }
            Some(LateEnd::Left(text)) => {
                let (plan, fired) = self.previous.as_ref().map_or((request.plan, &[][..]), Previous::doing);
                leftover = Some(left(&Leftover { kind: LeftoverKind::Device, text }, plan, fired, &[]));
            }
            None if found.is_empty() => return None,
            None => {}
        }
        let seen: Vec<_> = found.iter().map(|report| report.key.clone()).collect();
        found.retain(|report| report.kind != ReportKind::Hang || watched);
        let mut earlier = findings(found);
        if earlier.is_empty() {
            earlier.extend(leftover);
        }
        let mut late = Vec::new();
        if !earlier.is_empty() {
            late.push(self.attribute(earlier, before));
        }
        late.extend(spoilt(request, observed, own, &seen).map(|own| {
            let at = self.history.run(&request.plan.faults, request.keep);
            Attributed { history: self.history.before(at), ..own }
        }));
        self.previous = None;
        Some(Judgement { verdict: Verdict::Spoilt, late })
    }

    /// Gives findings to the execution before, whose fired faults its own report has told.
    fn attribute(&mut self, findings: Vec<Finding>, console: String) -> Attributed {
        let previous = self.previous.take();
        let history = previous.as_ref().map_or_else(Vec::new, |previous| self.history.before(previous.at));
        let (plan, how, fired) = previous.map_or_else(
            || (FaultPlan::fault_free(&self.target), How::Warm, Vec::new()),
            |Previous { plan, how, fired, .. }| (plan, how, fired),
        );
        Attributed { plan, how, fired, findings, console, history }
    }

    /// Judges what belongs to the plan of the request.
    fn own(&self, request: &Request<'_>, observed: Observed, text: String) -> Verdict {
        let Observed { end, log, wall, starved, .. } = observed;
        let too_busy = |found: &[Finding]| is_starved(found, wall, starved);
        let trouble = || Verdict::Trouble(GuestError::Starved { wall, waited: starved });
        let dead = |found: Vec<Finding>, log: Option<FiredLog>| {
            if too_busy(&found) {
                return trouble();
            }
            Verdict::Ran(Box::new(Own {
                findings: found,
                guest: Fate::Dead,
                fired: request.fired(log.as_ref()),
                report: None,
                console: text.clone(),
                wall,
                history: Vec::new(),
            }))
        };
        match end {
            End::Reported(report) => {
                let fired = request.named(&report.fired);
                let executed = Executed { plan: request.plan, workload: request.steps, oracles: request.oracles };
                let own = reported(executed, report, fired, self.left_before(request), text.clone(), wall);
                if too_busy(&own.findings) { trouble() } else { Verdict::Ran(Box::new(own)) }
            }
            End::Refused(reason) => Verdict::Refused(reason),
            End::Died | End::DeadBefore => match reports(&text) {
                found if found.is_empty() => Verdict::Trouble(death(&text)),
                found => dead(findings(found), log),
            },
            End::Hung { stack } => match reports(&text) {
                found if found.is_empty() => dead(vec![request.hang(&self.target, &stack, log.as_ref())], log),
                found => dead(findings(found), log),
            },
            End::Lost(error) => Verdict::Trouble(error),
            End::Unclean(_) => Verdict::Spoilt,
        }
    }
}

/// Divides the text and the end of a request.
fn divide(observed: &mut Observed, inject: bool) -> Divided {
    let (mut before, mut own) = (std::mem::take(&mut observed.before), std::mem::take(&mut observed.console));
    // Without a plan in place the log's generation stays. Measurements put none there.
    let log = observed.log.as_ref().filter(|_| inject);
    let not_in_place = log.is_some_and(|log| Some(log.generation) == observed.generation_before);
    let in_place = |own: &str| log.map_or(0, |log| bytes_until(log.seen_us, own));
    let (of_before, late_end) = match &observed.end {
        End::Reported(_) => (in_place(&own), None),
        End::Died | End::Hung { .. } if !not_in_place => (in_place(&own), None),
        // The text may be cut short when the user stops.
        End::Lost(GuestError::Stopped) => (0, None),
        End::Refused(_) | End::Lost(_) => (own.len(), None),
        End::Unclean(leftover) => (own.len(), Some(LateEnd::Left(leftover.clone()))),
        End::DeadBefore | End::Died => (own.len(), Some(LateEnd::Died { stack: None })),
        End::Hung { stack } => (own.len(), Some(LateEnd::Died { stack: Some(stack.clone()) })),
    };
    before.extend(own.drain(..of_before));
    if let End::Reported(report) = &observed.end {
        before.push_str(&report.log_before);
    }
    Divided { before, own, late_end }
}

/// Gives to the plan of the request what its own text reports, in a guest that something late has
/// spoilt. Keys that were `seen` late are those of one report, in two texts.
fn spoilt(request: &Request<'_>, observed: &Observed, own: String, seen: &[String]) -> Option<Attributed> {
    let mut found = reports(&own);
    found.retain(|report| report.kind != ReportKind::Hang && !seen.contains(&report.key));
    (!found.is_empty()).then(|| Attributed {
        plan: request.plan.clone(),
        how: request.how,
        fired: request.fired(observed.log.as_ref()),
        findings: findings(found),
        console: own,
        history: Vec::new(),
    })
}

fn findings(found: Vec<KernelReport>) -> Vec<Finding> {
    found.into_iter().map(Finding::from).collect()
}

/// Says whether nothing but hangs was `found`, in an execution of the time `wall`, and the host may
/// be their cause: the guest waited for a processor for the time `starved`.
fn is_starved(found: &[Finding], wall: Duration, starved: Duration) -> bool {
    let hangs = |finding: &Finding| !finding.is_report() || finding.kind == FindingKind::Hang;
    let hangs = found.iter().any(Finding::is_report) && found.iter().all(hangs);
    hangs && starved * STARVED > wall
}

#[cfg(test)]
mod tests;
