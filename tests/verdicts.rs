//! Replays of known crashes: what is still there, what is fixed, what was not looked for, and where
//! the errors went.

use std::fs;

use execution::Target;
use fault_plan::Reproducer;
use guests::project::Project;
use serde_json::Value;

use crate::common::{self, fuzz};

/// The crash of the self-test that takes two faults.
fn known() -> Reproducer {
    let known = Target::find(&Project::find().unwrap().corpus(), "selftest").unwrap().known().unwrap();
    known.into_iter().find(|known| known.plan.faults.len() == 2).unwrap()
}

/// Replays, and gives the exit status, the traced frames of the first fault, and the verdict.
fn replayed(reproducer: &Reproducer) -> (Option<i32>, Vec<(String, String, Value)>, Value) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("reproducer.json");
    fs::write(&file, reproducer.to_json()).unwrap();
    let ran = fuzz(&["replay", "--json", "--trace", file.to_str().unwrap()]);
    let out = common::text(&ran.stdout);
    let lines: Vec<Value> = out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let [_, traced, verdict] = &lines[..] else { panic!("{out}{}", common::text(&ran.stderr)) };
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let frames = traced["trace"][0]["frames"].as_array().unwrap().iter();
    let frames = frames.map(|frame| (text(&frame["function"]), text(&frame["returned"]), frame["mark"].clone()));
    (ran.status.code(), frames.collect(), verdict.clone())
}

#[test]
fn a_replay_tells_what_is_still_there_from_what_is_fixed_or_was_not_looked_for() {
    let (status, frames, verdict) = replayed(&known());
    assert_eq!((status, &verdict["verdict"]), (Some(0), &"still-there".into()), "{verdict}");
    assert_eq!(frames[0], ("__kmalloc_cache_noprof".to_owned(), "NULL".to_owned(), Value::Null), "{frames:?}");
    assert_eq!(frames[1], ("selftest_queue_large".to_owned(), "-ENOMEM".to_owned(), Value::Null), "{frames:?}");

    // The first fault alone does no harm.
    let mut fixed = known();
    fixed.plan.faults.pop();
    let (status, frames, verdict) = replayed(&fixed);
    assert_eq!((status, &verdict["verdict"]), (Some(1), &"fixed".into()), "{verdict}");
    let swallowed: Vec<_> = frames.iter().filter(|(_, _, mark)| mark == "swallowed").collect();
    assert_eq!(swallowed.len(), 1, "{frames:?}");
    assert_eq!((swallowed[0].0.as_str(), swallowed[0].1.as_str()), ("selftest_two_faults", "0"), "{frames:?}");

    let mut elsewhere = known();
    elsewhere.plan.faults[1].occurrence = 7;
    let (status, _, verdict) = replayed(&elsewhere);
    assert_eq!((status, &verdict["verdict"]), (Some(1), &"not-fired".into()), "{verdict}");
    assert_eq!(verdict["unfired"], serde_json::json!([2]));
}
