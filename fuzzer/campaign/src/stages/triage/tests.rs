//! Triage of what only a sequence makes again, over a fake runner.

use std::{cell::Cell, fs};

use execution::{Attributed, Fate, Usage};
use fault_plan::{FaultPlan, Reproducer, Round};
use kernel_report::slug;

use super::*;
use crate::{fake, kernels::Role};

const TITLE: &str = "KASAN in f";

/// Guests in which a plan crashes only when a round before it has failed at site 5.
#[derive(Default)]
struct Guests {
    runs: u32,
    rounds: usize,
    /// Another crash that each of these runs makes.
    instead: Option<&'static str>,
}

impl Runner for Guests {
    fn run(&mut self, plan: &FaultPlan, how: How) -> Ran {
        assert_eq!(how, How::Fresh);
        self.runs += 1;
        self.rounds += plan.earlier.len() + 1;
        let fails_at_5 = |round: &Round| fake::fails_at(&FaultPlan { faults: round.faults.clone(), ..plan.clone() }, 5);
        let crashes = fake::fails_at(plan, 9) && plan.earlier.iter().any(fails_at_5);
        let own = crashes.then_some(TITLE);
        let findings = own.into_iter().chain(self.instead).map(fake::warning).collect();
        Ok(Execution { findings, guest: Fate::Retired, ..fake::quiet() }).into()
    }

    fn finish(&mut self) -> Vec<Attributed> {
        Vec::new()
    }

    fn usage(&self) -> Usage {
        Usage::default()
    }
}

fn round(site: u64) -> Round {
    Round { faults: fake::plan(fake::caller(site), 1).faults, reset: true }
}

struct Triaged {
    folder: tempfile::TempDir,
    crashes: Arc<Crashes>,
    guests: Guests,
    /// The sequences that the checkers' kernel is to run.
    offered: Vec<PlanInput>,
}

/// Notes a late report of a plan with this history, and has it tried.
fn triaged(history: Vec<Round>) -> Triaged {
    triaged_while(history, |_| true)
}

/// Has it tried as long as it `has_time`, which is told how often that was asked before.
fn triaged_while(history: Vec<Round>, has_time: fn(u32) -> bool) -> Triaged {
    triaged_in(Guests::default(), history, has_time)
}

/// Has it tried in these guests.
fn triaged_in(mut guests: Guests, history: Vec<Round>, has_time: fn(u32) -> bool) -> Triaged {
    let folder = tempfile::tempdir().unwrap();
    let opened = Arc::new(fake::open(folder.path()));
    let known = fake::kernels().get(&opened, &fake::kernel("fake"), Role::Explorer).unwrap();
    let crashes = Arc::new(Crashes::restore(opened, Duration::ZERO, None).unwrap());
    let objective = CrashObjective::new(Arc::clone(&crashes), known);
    let late = Attributed {
        plan: fake::plan(fake::caller(9), 1),
        how: How::Warm,
        fired: Vec::new(),
        findings: vec![fake::warning(TITLE)],
        console: String::new(),
        history,
    };
    objective.note_late(&[late]).unwrap();
    let queue = fake::queue();
    let stage = TriageStage::new(objective, Arc::clone(&crashes), Some(&queue), Instant::now(), &|| false);
    let asked = Cell::new(0);
    let has_time = || has_time(asked.replace(asked.get() + 1));
    stage.triage_while(&mut guests, Duration::ZERO, has_time).unwrap();
    let offered = std::iter::from_fn(|| queue.take(Duration::ZERO)).map(|queued| queued.plan).collect();
    Triaged { folder, crashes, guests, offered }
}

impl Triaged {
    fn file(&self, name: &str) -> Option<String> {
        fs::read_to_string(self.folder.path().join("crashes").join(slug(TITLE)).join(name)).ok()
    }

    fn tries(&self) -> (u64, u64) {
        let meta: serde_json::Value = serde_json::from_str(&self.file("meta.json").unwrap()).unwrap();
        (meta["tried"].as_u64().unwrap(), meta["reproduced"].as_u64().unwrap())
    }
}

#[test]
fn the_shortest_sequence_that_makes_a_late_report_becomes_its_reproducer() {
    let triaged = triaged([1, 5, 2, 3].map(round).into());
    let reproducer = Reproducer::from_json(&triaged.file("reproducer.json").unwrap()).unwrap();
    assert_eq!(reproducer.plan.earlier, [1, 5, 2, 3].map(round), "one and two rounds did not do");
    assert_eq!(triaged.offered, [PlanInput(reproducer.plan)], "the other kernel may see it in an earlier round");
    assert_eq!(triaged.tries(), (3, 3));
    assert_eq!(triaged.guests.runs, TRIES + 3 + TRIES - 1);
    assert!(triaged.crashes.take_untried(&fake::kernel("fake"), Duration::ZERO).is_none());
}

#[test]
fn a_history_without_the_cause_is_tried_and_kept() {
    let history = vec![round(1); 100];
    let triaged = triaged(history.clone());
    assert_eq!((triaged.tries(), triaged.guests.rounds), ((3, 0), 3 + 127 + 7 + 40 + 2));
    let whole = FaultPlan::from_json(&triaged.file("history.json").unwrap()).unwrap();
    assert_eq!((whole.earlier, whole.faults), (history, fake::plan(fake::caller(9), 1).faults));
}

#[test]
fn longer_sequences_are_tried_while_there_is_time() {
    let triaged = triaged_while([1, 5, 2, 3].map(round).into(), |asked| asked < 3);
    assert_eq!((triaged.tries(), triaged.guests.runs), ((3, 0), TRIES + 2), "those of one and two rounds");
    assert!(triaged.file("history.json").is_some(), "the rest is there for whoever has time");
}

#[test]
fn a_crash_whose_plan_makes_another_one_each_time_is_that_one() {
    let guests = || Guests { instead: Some("BUG in g"), ..Guests::default() };
    let same = |triaged: &Triaged| {
        let meta: serde_json::Value = serde_json::from_str(&triaged.file("meta.json").unwrap()).unwrap();
        meta["same_as"].clone()
    };
    let never = triaged_in(guests(), Vec::new(), |_| true);
    assert_eq!((never.tries(), same(&never)), ((3, 0), "BUG in g".into()));
    let made = triaged_in(guests(), [round(5)].into(), |_| true);
    assert_eq!((made.tries(), same(&made)), ((3, 3), serde_json::Value::Null), "a sequence makes it");
}

#[test]
fn without_a_history_there_is_nothing_more_to_try() {
    let triaged = triaged(Vec::new());
    assert_eq!((triaged.guests.runs, triaged.file("history.json")), (TRIES, None));
    assert!(triaged.offered.is_empty());
}
