//! Minimising in a campaign's folder, over a fake runner.

use std::{cell::Cell, fs, sync::Arc};

use execution::{Attributed, Execution, Finding, Ran, Usage};
use fault_plan::{FaultPlan, Reproducer, Round};
use kernel_report::slug;

use super::*;
use crate::{
    crashes::{CrashMeta, Crashes},
    fake,
    kernels::Role,
    objective::CrashObjective,
};

const TITLE: &str = "KASAN in f";
const OTHER: &str = "BUG in g";

/// Guests in which a plan crashes when it fails at site 9, whatever else it does, and otherwise
/// when it fails at site 8.
struct Guests {
    runs: u32,
    crash: Finding,
}

impl Runner for Guests {
    fn run(&mut self, plan: &FaultPlan, how: How) -> Ran {
        assert!(
            matches!(how, How::Fresh | How::Traced) || how == How::Searched && self.crash.kind == FindingKind::Leak
        );
        self.runs += 1;
        let frame = execution::FrameReturn { function: "g".to_owned(), returned: "NULL".to_owned(), mark: None };
        let returns = if how == How::Traced { vec![frame] } else { Vec::new() };
        let traced = |fired| execution::Fired { returns: returns.clone(), ..fired };
        let fired = fake::all_fired(plan).map(traced).collect();
        let (text, stack) =
            if how == How::Searched { ("who allocated", vec!["g".to_owned()]) } else { ("a crash", vec![]) };
        let crash = Finding { text: text.to_owned(), stack, ..self.crash.clone() };
        let other = || fake::fails_at(plan, 8).then(|| fake::warning(OTHER));
        let findings: Vec<_> = fake::fails_at(plan, 9).then_some(crash).or_else(other).into_iter().collect();
        let history = plan.earlier.clone();
        Ok(Execution { findings, fired, history, ..fake::quiet() }).into()
    }

    fn finish(&mut self) -> Vec<Attributed> {
        Vec::new()
    }

    fn usage(&self) -> Usage {
        Usage::default()
    }
}

struct Campaign {
    folder: tempfile::TempDir,
    interrupted: Cell<bool>,
}

impl Campaign {
    fn file(&self, name: &str) -> String {
        self.file_of(TITLE, name)
    }

    fn file_of(&self, key: &str, name: &str) -> String {
        fs::read_to_string(self.folder.path().join("crashes").join(slug(key)).join(name)).unwrap()
    }

    fn meta(&self) -> CrashMeta {
        serde_json::from_str(&self.file("meta.json")).unwrap()
    }

    fn plan_of(&self, name: &str) -> FaultPlan {
        Reproducer::from_json(&self.file(name)).unwrap().plan
    }

    /// Does something with a start of the campaign: its crashes, objective and stage.
    fn start(&self, with: impl FnOnce(&CrashObjective, &MinimiseStage<'_>)) {
        let opened = Arc::new(fake::open(self.folder.path()));
        let known = fake::kernels().get(&opened, &fake::kernel("fake"), Role::Explorer).unwrap();
        let crashes = Arc::new(Crashes::restore(opened, Duration::ZERO, None).unwrap());
        let objective = CrashObjective::new(Arc::clone(&crashes), known);
        let interrupted = || self.interrupted.get();
        let triage = TriageStage::new(objective.clone(), crashes, None, Instant::now(), &interrupted);
        with(&objective, &MinimiseStage::new(triage));
    }
}

#[test]
fn a_crash_is_minimised_once_and_a_later_start_begins_anew_what_was_interrupted() {
    let campaign = Campaign { folder: tempfile::tempdir().unwrap(), interrupted: Cell::new(false) };
    let mut found = fake::plan(fake::caller(5), 1);
    found.faults.extend(fake::plan(fake::caller(9), 1).faults);
    found.earlier = vec![Round { faults: fake::plan(fake::caller(3), 1).faults, reset: true }];
    let mut guests = Guests { runs: 0, crash: fake::warning(TITLE) };
    campaign.start(|objective, stage| {
        let ran = guests.run(&found, How::Fresh).execution.unwrap();
        objective.note(&PlanInput(found.clone()), &ran).unwrap();
        stage.triage.triage(&mut guests, Duration::ZERO).unwrap();
        for _ in 0..3 {
            assert!(stage.step(&mut guests).unwrap());
        }
        assert_eq!(campaign.meta().minimized, None);
        campaign.interrupted.set(true);
        assert!(stage.step(&mut guests).is_err());
    });
    campaign.interrupted.set(false);
    let found_ms = campaign.meta().found_ms;
    guests.runs = 0;
    campaign.start(|_, stage| stage.finish(&mut guests).unwrap());
    let (meta, reproducer) = (campaign.meta(), campaign.plan_of("reproducer.json"));
    assert_eq!(meta.minimized, Some(MinimizedMeta { executions: guests.runs - 2, faults: [3, 1] }));
    assert_eq!(meta.fired[0].returns[0].returned, "NULL", "two more runs tell where the error went");
    assert_eq!((meta.tried, meta.reproduced, meta.found_ms), (TRIES, TRIES, found_ms));
    assert_eq!((reproducer.earlier.len(), reproducer.faults.len()), (0, 1));
    assert!(fake::fails_at(&reproducer, 9));
    assert_eq!((meta.fired.len(), meta.fired[0].fault), (1, 1), "they are those of the new plan");
    assert_eq!(campaign.plan_of("found.json"), found);
    let runs = guests.runs;
    campaign.start(|_, stage| stage.finish(&mut guests).unwrap());
    assert_eq!(guests.runs, runs, "nothing is left to do");
}

#[test]
fn a_slow_crash_waits_while_quick_ones_are_minimised() {
    let campaign = Campaign { folder: tempfile::tempdir().unwrap(), interrupted: Cell::new(false) };
    let mut guests = Guests { runs: 0, crash: fake::warning(TITLE) };
    campaign.start(|objective, stage| {
        let find = |plan: &FaultPlan, guests: &mut Guests| {
            let ran = guests.run(plan, How::Fresh).execution.unwrap();
            objective.note(&PlanInput(plan.clone()), &ran).unwrap();
            stage.triage.triage(guests, Duration::ZERO).unwrap();
        };
        find(&fake::plan(fake::caller(9), 1), &mut guests);
        assert!(stage.step(&mut guests).unwrap(), "it is under way");
        stage.work.borrow_mut().jobs[0].spent = QUICK;
        find(&fake::plan(fake::caller(8), 1), &mut guests);
        let other = || serde_json::from_str::<CrashMeta>(&campaign.file_of(OTHER, "meta.json")).unwrap();
        while other().minimized.is_none() {
            assert!(stage.step(&mut guests).unwrap());
            assert_eq!(campaign.meta().minimized, None);
        }
        stage.finish(&mut guests).unwrap();
    });
    assert_eq!(campaign.meta().minimized.map(|minimized| minimized.faults), Some([1, 1]));
}

#[test]
fn a_leak_is_written_with_who_allocated_the_memory_when_its_plan_is_minimal() {
    let campaign = Campaign { folder: tempfile::tempdir().unwrap(), interrupted: Cell::new(false) };
    let mut guests = Guests { runs: 0, crash: Finding { kind: FindingKind::Leak, ..fake::warning(TITLE) } };
    let found = fake::plan(fake::caller(9), 1);
    campaign.start(|objective, stage| {
        let ran = guests.run(&found, How::Fresh).execution.unwrap();
        objective.note(&PlanInput(found.clone()), &ran).unwrap();
        stage.triage.triage(&mut guests, Duration::ZERO).unwrap();
        assert_eq!((campaign.file("report.txt").as_str(), campaign.meta().stack.len()), ("a crash", 0));
        stage.finish(&mut guests).unwrap();
    });
    let (report, meta) = (campaign.file("report.txt"), campaign.meta());
    assert_eq!((report.as_str(), meta.stack.as_slice()), ("who allocated", &["g".to_owned()][..]));
    assert_eq!((meta.kind, meta.reproduced, meta.fired[0].returns.len()), (FindingKind::Leak, TRIES, 1));
}
