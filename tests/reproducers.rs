//! Reproducers without the fuzzer: written, and verified in guests without agent.

use std::{fs, path::Path};

use campaign::CrashMeta;
use guests::project::Project;

use crate::common::{fuzz, text};

/// A crash's folder with the reproducer `text`.
fn crash(folder: &Path, text: &str) {
    fs::write(folder.join("reproducer.json"), text).unwrap();
    let meta =
        r#"{ "version": 1, "title": "t", "kind": "kasan", "fired": [], "stack": [], "tried": 3, "reproduced": 3 }"#;
    fs::write(folder.join("meta.json"), meta).unwrap();
}

fn export(folder: &Path) -> (Option<i32>, String, CrashMeta) {
    let output = fuzz(&["export", folder.to_str().unwrap()]);
    let meta = serde_json::from_slice(&fs::read(folder.join("meta.json")).unwrap()).unwrap();
    (output.status.code(), text(&output.stdout), meta)
}

#[test]
fn a_crash_becomes_a_program_that_makes_it_without_agent() {
    let known = Project::find().unwrap().corpus().join("selftest/known/null-deref.json");
    let folder = tempfile::tempdir().unwrap();
    crash(folder.path(), &fs::read_to_string(known).unwrap());
    let (status, said, meta) = export(folder.path());
    assert_eq!(status, Some(0), "{said}");
    let text = fs::read_to_string(folder.path().join("repro.c")).unwrap();
    let outcome = meta.repro.unwrap().c.unwrap();
    assert!(outcome.ends_with(" of 3") && text.contains(&format!("It came in {outcome} fresh guests")), "{outcome}");
    assert!(text.contains("selftest_index_grow") && text.contains("fail-nth"), "{text}");
}

#[test]
fn what_the_kernels_hooks_cannot_say_has_a_reason_and_no_program() {
    let known = Project::find().unwrap().corpus().join("selftest/known/null-deref.json");
    let text = fs::read_to_string(known).unwrap();
    let folder = tempfile::tempdir().unwrap();
    // The kernel's own hook knows no other error.
    crash(folder.path(), &text.replace("ENOMEM", "EIO"));
    fs::write(folder.path().join("repro.c"), "of an earlier version").unwrap();
    let (status, said, meta) = export(folder.path());
    assert_eq!(status, Some(1), "{said}");
    assert!(!folder.path().join("repro.c").exists(), "what is not verified is not there");
    let reason = meta.repro.unwrap().c.unwrap();
    assert!(reason.contains("should_failslab returns ENOMEM"), "{reason}");
}
