//! Attribution without a guest: single rules by example, and all orders of events by property.

mod property;

use std::sync::LazyLock;

use fault_plan::{CallPath, Errno, Fault, InjectedError};
use guest_protocol::{FiredFault, LOG_LOST, Report};

use super::*;

const WARNING: &str = "WARNING: CPU: 0 PID: 7 at fs/x.c:1 late_work+0x1/0x2\n";
const SOFT_LOCKUP: &str = "watchdog: BUG: soft lockup - CPU#0 stuck for 11s! [agent:1]\n\
    RIP: 0010:selftest_request_wait+0x1/0x2\nKernel panic - not syncing: softlockup: hung tasks\n";
const WALL: Duration = Duration::from_secs(20);

fn plan(number: u32) -> FaultPlan {
    let error = InjectedError::Errno(Errno::ENOMEM);
    let fault = Fault::new("should_failslab", CallPath::default(), number, error);
    FaultPlan { faults: vec![fault], ..FaultPlan::fault_free("test") }
}

fn log(generation: u32) -> Option<FiredLog> {
    let fired = FiredFault { sequence: 1, site: u64::from(generation), step: 1, times: 1, ..FiredFault::default() };
    Some(FiredLog { generation, seen_us: 0, step: 0, fired: vec![fired] })
}

/// A log whose plan was in place after the kernel's message of the time `seen_us`.
fn log_until(seen_us: u64) -> Option<FiredLog> {
    log(6).map(|log| FiredLog { seen_us, ..log })
}

static NO_SYMBOLS: LazyLock<Symbols> = LazyLock::new(Symbols::default);

fn request(plan: &FaultPlan) -> Request<'_> {
    Request {
        plan,
        how: How::Warm,
        inject: true,
        keep: false,
        deadline: WALL,
        steps: &[],
        symbols: &NO_SYMBOLS,
        functions: &[],
        oracles: Oracle::ALL,
    }
}

/// A quiet request that ended so.
fn observed(end: End) -> Observed {
    let (before, console) = (String::new(), String::new());
    Observed {
        end,
        before,
        console,
        generation_before: Some(4),
        log: None,
        returns: None,
        wall: WALL,
        starved: Duration::ZERO,
    }
}

fn report(log_before: &str, log: &str) -> End {
    let (log_before, log) = (log_before.to_owned(), log.to_owned());
    End::Reported(Box::new(Report { log_before, log, ..Report::default() }))
}

/// An attribution whose guest has run the plan number 1.
fn after_one() -> Attribution {
    let mut attribution = Attribution::new("test");
    let fired = FiredFault { sequence: 1, site: 1, step: 1, times: 1, ..FiredFault::default() };
    let end = End::Reported(Box::new(Report { fired: vec![fired], ..Report::default() }));
    let judgement = attribution.judge(&request(&plan(1)), observed(end));
    assert!(matches!(judgement.verdict, Verdict::Ran(own) if own.guest == Fate::Alive));
    attribution
}

fn titles(findings: &[Finding]) -> Vec<&str> {
    findings.iter().map(|finding| finding.title.as_str()).collect()
}

/// Gives each plan with its late titles.
fn found(late: &[Attributed]) -> Vec<(FaultPlan, Vec<&str>)> {
    late.iter().map(|late| (late.plan.clone(), titles(&late.findings))).collect()
}

#[test]
fn text_before_the_plan_was_in_place_is_the_execution_befores() {
    let log_before = format!("brd: of no weight\n\n{WARNING}Call Trace:\n");
    let console = format!("[    2.000000] {WARNING}[    2.000001] Call Trace:\n[    3.000000] own\n");
    let mut attribution = after_one();
    let observed = Observed { console, log: log_until(2_000_001), ..observed(report(&log_before, "")) };
    let judgement = attribution.judge(&request(&plan(2)), observed);
    assert!(matches!(judgement.verdict, Verdict::Spoilt));
    assert_eq!(found(&judgement.late), [(plan(1), vec!["WARNING in late_work"])]);
    assert_eq!(attribution.previous(), None, "that guest is done with");
}

#[test]
fn a_death_before_the_plan_was_in_place_is_the_execution_befores() {
    let hung = || End::Hung { stack: "RIP: 0010:stuck+0x1/0x2\n".to_owned() };
    for (end, console, title) in [
        (End::Died, WARNING, "WARNING in late_work"),
        (hung(), "", "hang in stuck"),
        (End::DeadBefore, WARNING, "WARNING in late_work"),
    ] {
        let observed = Observed { console: console.to_owned(), log: log(4), ..observed(end) };
        let judgement = after_one().judge(&request(&plan(2)), observed);
        assert_eq!(found(&judgement.late), [(plan(1), vec![title])]);
        assert_eq!(judgement.late[0].fired[0].site, 1, "its report has told");
    }
    for (end, log) in [(End::Died, log(6)), (hung(), log(6)), (End::Died, None)] {
        let fired = usize::from(log.is_some());
        let observed = Observed { console: WARNING.to_owned(), log, ..observed(end) };
        let judgement = after_one().judge(&request(&plan(2)), observed);
        assert!(judgement.late.is_empty(), "it is this one's own, or not known");
        let Verdict::Ran(own) = judgement.verdict else { panic!("{:?}", judgement.verdict) };
        assert_eq!(
            (own.guest, own.fired.len(), titles(&own.findings)),
            (Fate::Dead, fired, vec!["WARNING in late_work"])
        );
    }
}

#[test]
fn late_text_of_a_guest_that_dies_is_told_by_the_kernels_time() {
    let own = WARNING.replace("x.c:1 late_work", "x.c:2 own_work");
    let console = format!("[    2.000000] {WARNING}[    3.000000] {own}");
    let judged = |seen_us| {
        let observed = Observed { console: console.clone(), log: log_until(seen_us), ..observed(End::Died) };
        after_one().judge(&request(&plan(2)), observed)
    };
    let judgement = judged(2_000_000);
    let late = [(plan(1), vec!["WARNING in late_work"]), (plan(2), vec!["WARNING in own_work"])];
    assert_eq!((found(&judgement.late), judgement.late[1].fired[0].site), (late.to_vec(), 6));
    assert!(matches!(judgement.verdict, Verdict::Spoilt), "the plan runs again, without the other's effects");
    let judgement = judged(1_999_999);
    assert!(judgement.late.is_empty() && matches!(judgement.verdict, Verdict::Ran(_)), "all of it is its own");
}

#[test]
fn a_leftover_that_shows_late_is_the_execution_befores_unless_its_kernel_said_more() {
    let unclean = || End::Unclean("a disk that is held".to_owned());
    let judgement = after_one().judge(&request(&plan(2)), observed(unclean()));
    let [finding] = &judgement.late[0].findings[..] else { panic!("{judgement:?}") };
    assert_eq!((finding.key.as_str(), finding.kind), ("device left open: ?", FindingKind::Leftover));
    assert!(finding.text.contains("a disk that is held"), "{}", finding.text);
    let said = Observed { console: WARNING.to_owned(), ..observed(unclean()) };
    let judgement = after_one().judge(&request(&plan(2)), said);
    assert_eq!(found(&judgement.late), [(plan(1), vec!["WARNING in late_work"])]);
}

#[test]
fn a_taint_by_a_warning_that_only_announces_an_error_is_no_finding_and_costs_no_guest() {
    let judged = |log: &str| {
        let leftovers = vec![Leftover { kind: LeftoverKind::Taint, text: "0x200".to_owned() }];
        let end = End::Reported(Box::new(Report { leftovers, log: log.to_owned(), ..Report::default() }));
        let Verdict::Ran(own) = after_one().judge(&request(&plan(2)), observed(end)).verdict else { panic!("it ran") };
        (own.guest, own.findings.len())
    };
    assert_eq!(judged(""), (Fate::Unclean, 1));
    assert_eq!(judged("BTRFS: Transaction aborted (error -28)\n"), (Fate::Alive, 0));
}

#[test]
fn a_state_that_is_kept_has_new_leftovers_and_late_text_of_its_own() {
    let leftover = |kind, text: &str| Leftover { kind, text: text.to_owned() };
    let device = || leftover(LeftoverKind::Device, "a disk that is held");
    let reported = |leftovers| observed(End::Reported(Box::new(Report { leftovers, ..Report::default() })));
    let mut attribution = after_one();
    let mut next = |number, keep, leftovers| {
        let plan = plan(number);
        let judgement = attribution.judge(&Request { keep, ..request(&plan) }, reported(leftovers));
        let Verdict::Ran(own) = judgement.verdict else { panic!("{:?}", judgement.verdict) };
        let history = own.history.iter().map(|round| (round.faults[0].occurrence, round.reset)).collect::<Vec<_>>();
        (own.guest, own.findings.into_iter().map(|finding| finding.key).collect::<Vec<_>>(), history)
    };
    let found = vec!["device left open".to_owned()];
    assert_eq!(next(2, false, vec![device()]), (Fate::Unclean, found, vec![(1, true)]));
    assert_eq!(next(3, true, vec![device()]), (Fate::Unclean, vec![], vec![]), "it was left before");
    let found = vec!["mount left".to_owned()];
    let history = vec![(1, true), (2, false), (3, false)];
    assert_eq!(
        next(4, true, vec![device(), leftover(LeftoverKind::Mount, "a mount")]),
        (Fate::Unclean, found, history)
    );
    let plan = plan(5);
    let request = Request { keep: true, ..request(&plan) };
    let late = &attribution.judge(&request, observed(report(WARNING, ""))).late[0];
    assert_eq!((late.plan.faults[0].occurrence, late.history.len()), (4, 3), "of the round before, in that state");
}

#[test]
fn without_injection_nothing_fired_and_no_generation_tells() {
    let plan = plan(2);
    let request = Request { inject: false, ..request(&plan) };
    let observed = Observed { console: WARNING.to_owned(), log: log(4), ..observed(End::Died) };
    let Judgement { verdict: Verdict::Ran(own), late } = after_one().judge(&request, observed) else {
        panic!("it is its own")
    };
    assert!(late.is_empty());
    assert_eq!((own.fired.len(), titles(&own.findings)), (0, vec!["WARNING in late_work"]));
}

#[test]
fn a_refusal_leaves_the_execution_before_in_charge() {
    let mut attribution = after_one();
    let judgement = attribution.judge(&request(&plan(2)), observed(End::Refused("no".to_owned())));
    assert!(matches!(judgement.verdict, Verdict::Refused(_)));
    let late = attribution.last_words(WARNING.to_owned()).unwrap();
    assert_eq!((late.plan, titles(&late.findings)), (plan(1), vec!["WARNING in late_work"]));
}

#[test]
fn a_guest_that_has_run_nothing_blames_the_fault_free_plan() {
    let mut attribution = Attribution::new("test");
    let observed = Observed { before: WARNING.to_owned(), ..observed(report("", "")) };
    let late = &attribution.judge(&request(&plan(1)), observed).late[0];
    assert_eq!((&late.plan, &late.fired), (&FaultPlan::fault_free("test"), &Vec::new()));
}

#[test]
fn a_hang_in_a_guest_that_was_not_let_run_is_the_hosts_however_it_was_noticed() {
    let (half, more) = (WALL / 2, WALL / 2 + Duration::from_millis(1));
    let ends = [
        (End::Died, SOFT_LOCKUP.to_owned()),
        (report("", SOFT_LOCKUP), SOFT_LOCKUP.to_owned()),
        (End::Hung { stack: String::new() }, String::new()),
    ];
    for (end, console) in ends {
        let text = format!("{end:?}");
        let judged = |starved| {
            let end = match &end {
                End::Reported(report) => End::Reported(report.clone()),
                End::Hung { stack } => End::Hung { stack: stack.clone() },
                _ => End::Died,
            };
            let observed = Observed { console: console.clone(), log: log(6), starved, ..observed(end) };
            after_one().judge(&request(&plan(2)), observed).verdict
        };
        assert!(matches!(judged(more), Verdict::Trouble(GuestError::Starved { .. })), "{text}");
        let Verdict::Ran(own) = judged(half) else { panic!("{text}") };
        assert!(matches!(own.findings[..], [Finding { kind: FindingKind::Hang, .. }]), "{text}: {:?}", own.findings);
    }
    let console = format!("{WARNING}{SOFT_LOCKUP}");
    let observed = Observed { console, log: log(6), starved: more, ..observed(End::Died) };
    let verdict = after_one().judge(&request(&plan(2)), observed).verdict;
    assert!(matches!(verdict, Verdict::Ran(_)), "a warning is no matter of time");
}

#[test]
fn a_hang_before_the_plan_counts_only_where_the_guest_was_watched() {
    for (wall, counts) in [(WALL, true), (WATCHED, false)] {
        let console = SOFT_LOCKUP.to_owned();
        let observed = Observed { console, log: log(4), wall, ..observed(End::Died) };
        let judgement = after_one().judge(&request(&plan(2)), observed);
        assert!(matches!(judgement.verdict, Verdict::Spoilt));
        assert_eq!(judgement.late.len(), usize::from(counts), "{wall:?}");
    }
}

#[test]
fn the_console_counts_where_the_log_lost_records() {
    let lost = format!("{LOG_LOST}nothing to see\n");
    let observed = Observed { console: WARNING.to_owned(), ..observed(report("", &lost)) };
    let Verdict::Ran(own) = after_one().judge(&request(&plan(2)), observed).verdict else { panic!("it ran") };
    assert_eq!((own.guest, titles(&own.findings)), (Fate::Retired, vec!["WARNING in late_work"]));
}

#[test]
fn an_agents_death_is_trouble() {
    let console = "Kernel panic - not syncing: Attempted to kill init! exitcode=0x00000100\n".to_owned();
    let observed = Observed { console, log: log(6), ..observed(End::Died) };
    let verdict = after_one().judge(&request(&plan(2)), observed).verdict;
    assert!(matches!(verdict, Verdict::Trouble(GuestError::Lost)), "{verdict:?}");
}
