//! Whatever order text, replies and deaths come in, a report goes to the plan that made it or is
//! marked as late; it is never lost and never counted twice.
//!
//! A model of a guest runs plans. Each plan makes its kernel report things at moments of the
//! model's choice, also long after its own end. The host's rules are those of the runner: a guest
//! that is spoilt, dead or not clean goes, and its plan runs again in a fresh one.

use std::{collections::BTreeMap, fmt::Write as _};

use proptest::prelude::*;

use fault_plan::Round;

use super::*;

/// The moment at which a report is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Moment {
    /// While its plan runs.
    Running,
    /// After its plan's reply, before the next request.
    Waiting,
    /// After the next request, before the next plan is in place.
    Requested,
}

/// The way in which an execution or the guest after it ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    /// The agent reports; its log has everything, or has lost records.
    Reported { log_lost: bool },
    /// The agent reports that something is left in use; the next plan runs in that state, or the
    /// guest goes.
    Left { kept: bool },
    /// The agent refuses the plan, which is not run.
    Refused,
    /// The kernel dies while the plan runs.
    Died,
    /// The kernel hangs while the plan runs.
    Hung,
    /// QEMU is killed while the plan runs.
    Killed,
    /// The kernel dies after the reply, before the next request.
    DiesWaiting,
    /// The kernel dies after the next request, before the next plan is in place.
    DiesRequested,
    /// The kernel hangs there.
    HangsRequested,
    /// The agent finds there that something is left in use.
    Unclean,
    /// QEMU is killed there.
    KilledRequested,
}

/// One plan of a history.
#[derive(Clone, Debug)]
struct Event {
    reports: Vec<Moment>,
    ending: Ending,
}

fn moment() -> impl Strategy<Value = Moment> {
    prop_oneof![Just(Moment::Running), Just(Moment::Waiting), Just(Moment::Requested)]
}

fn event() -> impl Strategy<Value = Event> {
    let ending = prop_oneof![
        6 => any::<bool>().prop_map(|log_lost| Ending::Reported { log_lost }),
        2 => any::<bool>().prop_map(|kept| Ending::Left { kept }),
        1 => Just(Ending::Refused),
        1 => Just(Ending::Died),
        1 => Just(Ending::Hung),
        1 => Just(Ending::Killed),
        1 => Just(Ending::DiesWaiting),
        1 => Just(Ending::DiesRequested),
        1 => Just(Ending::HangsRequested),
        1 => Just(Ending::Unclean),
        1 => Just(Ending::KilledRequested),
    ];
    (prop::collection::vec(moment(), 0..3), ending).prop_map(|(reports, ending)| Event { reports, ending })
}

/// The start of the keys of all reports of the model; the number of the plan follows. They have one
/// title.
const KEY: &str = "check: fs/work_";

/// A guest of the model: the text that its kernel has printed and nobody has looked at yet.
#[derive(Default)]
struct Model {
    generation: u32,
    /// Console text since the last request's end, and text that comes after the next request.
    waiting: String,
    requested: String,
    /// The kernel's clock.
    time_us: u64,
    /// Reports that the host has been given the text of. None of them may be lost.
    shown: BTreeMap<String, u32>,
    /// Ending of the guest after the next request, before the plan is in place.
    doom: Option<Ending>,
    dead: bool,
}

/// Gives the number of the plan that made the report of this key.
fn maker(key: &str) -> u32 {
    key.trim_start_matches(KEY).split('_').next().unwrap().parse().unwrap()
}

/// Gives the text of a report of the plan's attempt number `attempt`.
fn report_text(plan: u32, attempt: u32, number: usize) -> String {
    let file = format!("fs/work_{plan}_{attempt}_{number}.c");
    format!("WARNING: CPU: 0 PID: 7 at {file}:1 f+0x1/0x2\nCall Trace:\n f+0x1/0x2\n---[ end trace 0 ]---\n")
}

impl Model {
    /// Gives console text as the kernel prints it: each line has a time.
    fn timed(&mut self, text: &str) -> String {
        text.lines().fold(String::new(), |mut all, line| {
            self.time_us += 1;
            let _ = writeln!(all, "[    0.{:06}] {line}", self.time_us);
            all
        })
    }

    /// Takes in that the host is given `text`.
    fn show(&mut self, text: &str) {
        for report in kernel_report::reports(text) {
            let maker = maker(&report.key);
            self.shown.insert(report.key, maker);
        }
    }

    /// Runs the plan `number`, and gives what the host sees of it.
    fn run(&mut self, number: u32, attempt: u32, event: &Event) -> Observed {
        let before = std::mem::take(&mut self.waiting);
        let generation_before = (!self.dead).then_some(self.generation);
        let timed_before = self.timed(&before);
        let seen = |end, console: String, log| Observed {
            end,
            before: timed_before.clone(),
            console,
            generation_before,
            log,
            returns: None,
            wall: WALL,
            starved: Duration::ZERO,
        };
        if self.dead {
            return seen(End::DeadBefore, String::new(), log(self.generation));
        }
        let requested = std::mem::take(&mut self.requested);
        let timed_requested = self.timed(&requested);
        // The host cannot read the console of a process that is killed just then.
        if self.doom != Some(Ending::KilledRequested) {
            self.show(&requested);
        }
        match self.doom.take() {
            Some(Ending::DiesRequested) => return seen(End::Died, timed_requested, log(self.generation)),
            Some(Ending::HangsRequested) => {
                return seen(End::Hung { stack: String::new() }, timed_requested, log(self.generation));
            }
            Some(Ending::Unclean) => return seen(End::Unclean("a disk".to_owned()), timed_requested, None),
            // The host cannot read the memory of a process that is gone.
            Some(_) => return seen(End::Lost(GuestError::Lost), String::new(), None),
            None => {}
        }
        if event.ending == Ending::Refused {
            return seen(End::Refused("no".to_owned()), timed_requested, None);
        }
        self.generation += 2;
        let text = |moment| {
            let printed = event.reports.iter().enumerate().filter(|(_, at)| **at == moment);
            printed.map(|(index, _)| report_text(number, attempt, index)).collect::<String>()
        };
        let own = text(Moment::Running);
        self.show(&own);
        let in_place = log(self.generation).map(|log| FiredLog { seen_us: self.time_us, ..log });
        let console = format!("{timed_requested}{}", self.timed(&own));
        match event.ending {
            Ending::Died => return seen(End::Died, console, in_place),
            Ending::Hung => return seen(End::Hung { stack: String::new() }, console, in_place),
            Ending::Killed => return seen(End::Lost(GuestError::Lost), console, None),
            _ => {}
        }
        self.waiting = text(Moment::Waiting);
        self.requested = text(Moment::Requested);
        match event.ending {
            Ending::DiesWaiting => self.dead = true,
            Ending::Reported { .. } | Ending::Left { .. } => {}
            doom => self.doom = Some(doom),
        }
        seen(reported(number, event.ending, &format!("{before}{requested}"), own), console, in_place)
    }
}

/// The report of plan `number`, with the kernel's log before it and its `own`.
fn reported(number: u32, ending: Ending, before: &str, own: String) -> End {
    let lost = ending == Ending::Reported { log_lost: true };
    let mut end = report(before, &if lost { LOG_LOST.to_owned() } else { own });
    if let (End::Reported(report), Ending::Left { .. }) = (&mut end, ending) {
        report.leftovers = vec![Leftover { kind: LeftoverKind::Device, text: format!("left by {number}") }];
    }
    end
}

/// The findings of a history: how often each key was given to each plan.
#[derive(Debug, Default)]
struct Found(BTreeMap<String, Vec<u32>>);

impl Found {
    fn add(&mut self, plan: &FaultPlan, findings: &[Finding]) {
        let number = plan.faults.first().map_or(0, |fault| fault.occurrence);
        for key in findings.iter().map(|finding| &finding.key).filter(|key| key.starts_with(KEY)) {
            self.0.entry(key.clone()).or_default().push(number);
        }
    }

    /// Takes in late findings of a guest whose QEMU was killed while the plan `running` ran.
    /// Nothing tells whether that was in place, and its own reports may be marked as late.
    fn add_unknown(&mut self, plan: &FaultPlan, findings: &[Finding], running: u32) {
        let (own, earlier): (Vec<_>, Vec<_>) =
            findings.iter().cloned().partition(|finding| finding.key.starts_with(&format!("{KEY}{running}_")));
        self.add(plan, &earlier);
        self.add(&super::plan(running), &own);
    }
}

/// Gives the numbers of the plans of these rounds.
fn numbers(rounds: &[Round]) -> Vec<u32> {
    rounds.iter().map(|round| round.faults[0].occurrence).collect()
}

/// Checks the history of late findings, in a guest that has run the plans `ran`.
fn check_history(late: &Attributed, ran: &[u32]) {
    let number = late.plan.faults.first().map(|fault| fault.occurrence);
    let before = number.and_then(|number| ran.iter().position(|other| *other == number)).unwrap_or(0);
    let expected = if number.is_some_and(|number| !ran.contains(&number)) { ran } else { &ran[..before] };
    assert_eq!(numbers(&late.history), expected, "{late:?}");
}

/// Runs a history as the runner does. Gives the findings, and the keys of all reports that the
/// host was given the text of.
fn run(events: &[Event]) -> (Found, BTreeMap<String, u32>) {
    let mut attribution = Attribution::new("test");
    let (mut model, mut found, mut shown) = (Model::default(), Found::default(), BTreeMap::new());
    // The plans that the guest at hand has run, and whether the next one runs in its state.
    let (mut ran, mut keep) = (Vec::new(), false);
    for (number, event) in (1..).zip(events) {
        let own = plan(number);
        // A plan that is spoilt runs again in a fresh guest, where nothing came before.
        for attempt in 0..2 {
            let before = model.waiting.clone();
            let observed = model.run(number, attempt, event);
            model.show(&before);
            let Judgement { verdict, late } = attribution.judge(&Request { keep, ..request(&own) }, observed);
            for late in &late {
                check_history(late, &ran);
                match event.ending {
                    Ending::Killed => found.add_unknown(&late.plan, &late.findings, number),
                    _ => found.add(&late.plan, &late.findings),
                }
            }
            let goes = match &verdict {
                Verdict::Ran(own_part) => {
                    found.add(&own, &own_part.findings);
                    let expected = if own_part.findings.is_empty() { &[][..] } else { &ran };
                    assert_eq!(numbers(&own_part.history), expected);
                    ran.push(number);
                    keep = own_part.guest == Fate::Unclean && matches!(event.ending, Ending::Left { kept: true });
                    own_part.guest != Fate::Alive && !keep
                }
                Verdict::Refused(_) => false,
                Verdict::Spoilt | Verdict::Trouble(_) => true,
            };
            if goes {
                let unclean = matches!(&verdict, Verdict::Ran(own) if own.guest == Fate::Unclean);
                assert!(unclean || attribution.previous().is_none(), "text of a guest that goes is for nobody");
                // The runner looks once more at the text of one that is only not clean.
                let unread = std::mem::take(&mut model.waiting);
                if attribution.previous().is_some() {
                    model.show(&unread);
                    let unread = model.timed(&unread);
                    attribution.last_words(unread).iter().for_each(|late| found.add(&late.plan, &late.findings));
                }
                (ran, keep) = (Vec::new(), false);
                shown.append(&mut std::mem::take(&mut model).shown);
                attribution.fresh_guest();
            }
            if !matches!(verdict, Verdict::Spoilt) {
                break;
            }
        }
    }
    // The runner is done with a guest that is well, and looks at its text once more.
    let unread = std::mem::take(&mut model.waiting);
    model.show(&unread);
    let unread = model.timed(&unread);
    attribution.last_words(unread).iter().for_each(|late| found.add(&late.plan, &late.findings));
    shown.append(&mut model.shown);
    (found, shown)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn a_report_goes_to_its_plan_once(events in prop::collection::vec(event(), 1..8)) {
        let (found, shown) = run(&events);
        let expected: BTreeMap<_, _> = shown.into_iter().map(|(key, maker)| (key, vec![maker])).collect();
        prop_assert_eq!(found.0, expected);
    }
}
