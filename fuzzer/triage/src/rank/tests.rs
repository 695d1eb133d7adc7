//! The order of crashes.

use super::*;
use crate::model::NamedFault;

fn fault(function: &str, caller: &str, chance: Chance) -> NamedFault {
    NamedFault {
        number: 1,
        function: function.to_owned(),
        error: Some("ENOMEM".to_owned()),
        caller: Some(caller.to_owned()),
        call_path: Vec::new(),
        occurrence: Some(1),
        times: None,
        sequence: 1,
        round: None,
        step: None,
        scope: "workload".to_owned(),
        arguments: String::new(),
        chance,
        chance_reason: "so it is".to_owned(),
    }
}

fn crash(key: &str, kind: &str, impact: Impact, faults: Vec<NamedFault>) -> Crash {
    let chance = faults.iter().map(|fault| fault.chance).max().unwrap_or(Chance::Possible);
    Crash {
        rank: 0,
        standing: Standing::Finding,
        reasons: Vec::new(),
        impact,
        chance,
        key: key.to_owned(),
        title: key.to_owned(),
        kind: kind.to_owned(),
        folder: "crashes/a".into(),
        plan_faults: faults.len(),
        faults,
        plan_rounds: 1,
        plan: None,
        minimized: None,
        program: None,
        guilty: None,
        found_s: Some(1.0),
        tried: 3,
        reproduced: 3,
        exact: None,
        kernels: Vec::new(),
        same_as: None,
        origin: None,
        steps: Vec::new(),
        disk: None,
        report: String::new(),
        gaps: Vec::new(),
    }
}

fn sorted(mut crashes: Vec<Crash>) -> Vec<Crash> {
    sort(&mut crashes);
    crashes
}

#[test]
fn damage_then_likelihood_then_faults_then_replays_decide() {
    use Chance::{Ordinary, Rare};
    let one = |chance| vec![fault("a", "f", chance)];
    let two = |chance| vec![fault("b", "g", chance), fault("c", "h", chance)];
    let crashes = sorted(vec![
        crash("warning", "warning", Impact::Warning, one(Ordinary)),
        crash("rare", "bug", Impact::NullPointer, one(Rare)),
        Crash { standing: Standing::Alarm, ..crash("alarm", "warning", Impact::InvalidFree, one(Ordinary)) },
        crash("two", "bug", Impact::NullPointer, two(Ordinary)),
        Crash { reproduced: 0, ..crash("not again", "bug", Impact::NullPointer, one(Ordinary)) },
        crash("likely", "bug", Impact::NullPointer, one(Ordinary)),
        crash("free", "kasan", Impact::InvalidFree, two(Rare)),
    ]);
    let keys: Vec<_> = crashes.iter().map(|crash| crash.key.as_str()).collect();
    assert_eq!(keys, ["free", "likely", "not again", "two", "rare", "warning", "alarm"]);
    assert_eq!(crashes.iter().map(|crash| crash.rank).collect::<Vec<_>>(), [1, 2, 3, 4, 5, 6, 7]);
}

#[test]
fn a_crash_with_the_faults_of_another_follows_from_it() {
    let bdi = || fault("should_failslab", "super_setup_bdi", Chance::Rare);
    let other = || fault("should_failslab", "getname_kernel", Chance::Rare);
    let crashes = sorted(vec![
        crash("left open: b", "leftover", Impact::Leak, vec![bdi(), other()]),
        crash("left open: a", "leftover", Impact::Leak, vec![bdi()]),
        crash("read", "kasan", Impact::UseAfterFreeRead, vec![bdi(), other()]),
        crash("unrelated", "bug", Impact::Death, vec![other()]),
    ]);
    let told: Vec<_> =
        crashes.iter().map(|crash| (crash.key.as_str(), crash.standing, crash.reasons.first().cloned())).collect();
    let follows = |what: &str| Some(format!("it {what} the crash of rank 3, whose faults fired here too"));
    assert_eq!(
        told,
        [
            // Of two causes the one with the first key is told.
            ("read", Standing::Finding, follows("may follow from")),
            ("unrelated", Standing::Finding, None),
            ("left open: a", Standing::Finding, None),
            ("left open: b", Standing::Same, follows("is most likely")),
        ]
    );
}
