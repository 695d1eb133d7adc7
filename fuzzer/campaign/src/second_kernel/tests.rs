//! In what order plans are checked on the other kernel.

use execution::Finding;
use fault_plan::{FaultPlan, Round};

use super::{queued::Reported, *};
use crate::fake::{self, seed, warning};

fn plan(occurrence: u32) -> PlanInput {
    let mut plan = seed("fake", "should_failslab");
    plan.0.faults[0].occurrence = occurrence;
    plan
}

#[test]
fn a_crash_that_is_easy_to_make_does_not_keep_others_from_being_checked() {
    let checks = fake::queue();
    let quiet = fake::quiet();
    let crashed = |title: &str| Execution { findings: vec![warning(title)], ..quiet.clone() };
    for occurrence in 1..=20 {
        checks.offer(&plan(occurrence), &crashed("WARNING in f"), false).unwrap();
    }
    checks.offer(&plan(21), &quiet, true).unwrap();
    checks.offer(&plan(22), &crashed("BUG in g"), false).unwrap();
    let occurrence = |check: QueuedPlan| check.plan.0.faults[0].occurrence;
    assert_eq!(checks.take(Duration::from_secs(60)).map(occurrence), Some(21));
    assert!(checks.take(Duration::from_secs(60)).is_none(), "crashes are not that old");
    let order: Vec<u32> = std::iter::from_fn(|| checks.take(Duration::ZERO)).map(occurrence).collect();
    assert_eq!(order, [1, 2, 22]);
}

#[test]
fn what_both_kernels_report_in_one_function_is_one_crash() {
    let crashed = |title: &str| Execution { findings: vec![warning(title)], ..fake::quiet() };
    let checks = fake::queue();
    checks.offer(&plan(1), &crashed("general protection fault in f"), false).unwrap();
    let check = checks.take(Duration::ZERO).unwrap();
    let judged = "KASAN: slab-use-after-free Read in f";
    assert_eq!(check.same_crash(&crashed(judged)), Some(("general protection fault in f", judged)));
    assert_eq!(check.same_crash(&crashed("KASAN: slab-use-after-free Read in g")), None);
    assert_eq!(check.same_crash(&crashed("general protection fault in f")), None, "it has the same key");
}

#[test]
fn a_sequence_is_checked_once_and_may_end_in_an_earlier_round() {
    let checks = fake::queue();
    let hung = Execution { findings: vec![warning("INFO: task hung in f")], ..fake::quiet() };
    for occurrence in 1..=3 {
        checks.offer(&plan(occurrence), &hung, false).unwrap();
    }
    let earlier = vec![Round { faults: plan(4).0.faults, reset: true }];
    let sequence = PlanInput(FaultPlan { earlier, ..plan(5).0 });
    let (_, both) = plan_of(2, 1);
    for _ in 0..2 {
        checks.offer_sequence(&sequence, &Execution { findings: hung.findings.clone(), ..both.clone() }).unwrap();
    }
    let mut waiting: Vec<_> = std::iter::from_fn(|| checks.take(Duration::ZERO)).collect();
    let is_sequence = |queued: &QueuedPlan| queued.plan == sequence;
    assert_eq!(waiting.iter().map(is_sequence).collect::<Vec<_>>(), [false, false, true]);
    let check = waiting.pop().unwrap();
    let (_, one) = plan_of(1, 1);
    let locked = Execution { findings: vec![warning("WARNING: lock held in f")], ..one.clone() };
    assert_eq!(check.same_crash(&locked), Some(("INFO: task hung in f", "WARNING: lock held in f")));
    assert!(!check.is_unfired(&locked), "the second round did not run");
    assert!(check.is_unfired(&Execution { rounds: vec![fake::quiet()], ..one }), "it ran");
    checks.checked(&check, &locked).unwrap();
    assert_eq!((checks.counts().checked, checks.counts().different), (1, 0));
}

/// Makes the queue in the journal of this folder.
fn queue_in(folder: &std::path::Path) -> SecondKernelQueue {
    SecondKernelQueue::restore(Journal::open(&folder.join("queue.jsonl")).unwrap()).unwrap()
}

/// Makes a plan with so many faults, and an execution in which all of them fired.
fn plan_of(faults: usize, occurrence: u32) -> (PlanInput, Execution) {
    let fault = plan(occurrence).0.faults.remove(0);
    let plan = PlanInput(FaultPlan { faults: vec![fault; faults], ..plan(1).0 });
    let fired = |fault| fake::fired(fault, 1);
    (plan, Execution { fired: (0..faults).map(fired).collect(), ..fake::quiet() })
}

#[test]
fn what_waits_or_is_with_a_checker_survives_and_what_was_checked_is_gone() {
    let folder = tempfile::tempdir().unwrap();
    let queue = queue_in(folder.path());
    let (_, quiet) = plan_of(1, 1);
    for occurrence in 1..=4 {
        queue.offer(&plan(occurrence), &quiet, true).unwrap();
    }
    let first = queue.take(Duration::ZERO).unwrap();
    queue.checked(&first, &quiet).unwrap();
    let taken = queue.take(Duration::ZERO).unwrap();
    drop(queue);
    let later = queue_in(folder.path());
    let waiting: Vec<_> = std::iter::from_fn(|| later.take(Duration::ZERO)).map(|queued| queued.plan).collect();
    assert_eq!(waiting, [taken.plan, plan(3), plan(4)]);
}

#[test]
fn the_worst_is_forgotten_and_may_be_offered_again() {
    let queue = fake::queue();
    let (bad, seen) = plan_of(3, 1);
    queue.offer(&bad, &seen, true).unwrap();
    for occurrence in 1..=u32::try_from(queue::MOST_WAITING).unwrap() {
        let (plan, seen) = plan_of(1, occurrence);
        queue.offer(&plan, &seen, true).unwrap();
    }
    assert_eq!(queue.counts().waiting, queue::MOST_WAITING as u64);
    assert_eq!(queue.take(Duration::ZERO).unwrap().plan, plan(1), "the oldest is not dropped");
    queue.offer(&bad, &seen, true).unwrap();
    let last = std::iter::from_fn(|| queue.take(Duration::ZERO)).last().unwrap();
    assert_eq!(last.plan, bad, "it was forgotten, and is there again");
}

#[test]
fn a_plan_that_no_guest_got_through_waits_again_and_not_for_ever() {
    let queue = fake::queue();
    let (plan, seen) = plan_of(1, 1);
    queue.offer(&plan, &seen, true).unwrap();
    for _ in 0..MOST_PUT_BACK {
        let taken = queue.take(Duration::ZERO).expect("it waits");
        queue.put_back(taken).unwrap();
    }
    assert!(queue.take(Duration::ZERO).is_none());
    queue.offer(&plan, &seen, true).unwrap();
    assert!(queue.take(Duration::ZERO).is_some(), "it was not checked: it may be offered again");
}

#[test]
fn a_plan_whose_faults_did_not_fire_was_not_checked() {
    let queue = fake::queue();
    let (plan, seen) = plan_of(2, 1);
    queue.offer(&plan, &seen, true).unwrap();
    let taken = queue.take(Duration::ZERO).unwrap();
    queue.checked(&taken, &plan_of(1, 1).1).unwrap();
    let counts = queue.counts();
    assert_eq!((counts.checked, counts.unfired, counts.waiting), (0, 1, 0));
}

#[test]
fn a_function_that_one_kernel_made_part_of_its_caller_is_the_same() {
    let is_same = |ours: (&str, &[&str]), theirs: (&str, &[&str])| {
        let reported = |(words, stack): (&str, &[&str])| Reported {
            key: format!("access: {words}"),
            title: format!("KASAN: {words}"),
            stack: stack.iter().map(|function| (*function).to_owned()).collect(),
            by_oracle: false,
        };
        reported(ours).is_same(&reported(theirs))
    };
    let lean = ("null pointer in caller", &["caller", "outer"][..]);
    assert!(is_same(lean, ("null pointer in inlined", &["inlined", "caller", "outer"])));
    assert!(!is_same(lean, ("double-free in inlined", &["inlined", "caller", "outer"])), "another defect");
    assert!(!is_same(lean, ("null pointer in other", &["other", "outer"])));
    assert!(is_same(("lock held", &[]), ("lock held in f", &[])) && !is_same(("lock held", &[]), ("other in f", &[])));
}

#[test]
fn a_leftover_is_the_same_as_one_of_its_kind_and_as_no_report() {
    let leftover = |key: &str| Reported::of(&Finding::leftover(key, format!("{key} in f"), ""));
    assert!(leftover("device left open: f").is_same(&leftover("device left open: g")), "inlined otherwise");
    assert!(!leftover("device left open: f").is_same(&leftover("mount left: f")));
    assert!(!leftover("device left open: f").is_same(&Reported::of(&warning("KASAN: use-after-free in f"))));
}
