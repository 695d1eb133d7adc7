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

fn known(name: &str) -> String {
    fs::read_to_string(Project::find().unwrap().corpus().join("selftest/known").join(name)).unwrap()
}

#[test]
fn a_crash_becomes_a_program_that_makes_it_without_agent() {
    let folder = tempfile::tempdir().unwrap();
    crash(folder.path(), &known("null-deref.json"));
    let (status, said, meta) = export(folder.path());
    assert_eq!(status, Some(0), "{said}");
    let text = fs::read_to_string(folder.path().join("repro.c")).unwrap();
    let repro = meta.repro.unwrap();
    let outcome = repro.c.unwrap();
    assert!(outcome.ends_with(" of 3") && text.contains(&format!("It came in {outcome} fresh guests")), "{outcome}");
    assert!(text.contains("selftest_index_grow") && text.contains("fail-nth"), "{text}");
    assert_eq!(repro.bt, None, "the kernel's hooks say it");
}

/// The kernel's own hook fails it when a module has put it on the list.
#[test]
fn a_function_that_is_not_on_the_kernels_list_fails_without_agent() {
    let folder = tempfile::tempdir().unwrap();
    let mut reproducer: serde_json::Value = serde_json::from_str(&known("null-deref.json")).unwrap();
    reproducer["key"] = "access: bad memory Read in selftest_account_free".into();
    reproducer["title"] = "KASAN: slab-use-after-free Read in selftest_account_free".into();
    reproducer.as_object_mut().unwrap().remove("target");
    reproducer["plan"] = serde_json::json!({ "version": 1, "target": "selftest-reach", "faults": [{
        "function": "selftest_account_charge", "call_path": ["selftest_off_list"], "occurrence": 1, "error": "EDQUOT",
    }] });
    crash(folder.path(), &reproducer.to_string());
    let (status, said, meta) = export(folder.path());
    assert_eq!(status, Some(0), "{said}");
    assert!(meta.repro.unwrap().c.unwrap().ends_with(" of 3"), "{said}");
    let text = fs::read_to_string(folder.path().join("repro.c")).unwrap();
    assert!(text.contains("{\"selftest_account_charge\", 1},") && text.contains("slots.ko"), "{text}");
    assert!(fs::read_to_string(folder.path().join("slots.c")).unwrap().contains("_error_injection_whitelist"));
}

/// The second call is counted while the script has the first one fail.
#[test]
fn what_the_kernels_hooks_cannot_say_becomes_a_script_for_bpftrace() {
    let folder = tempfile::tempdir().unwrap();
    // The kernel's own hook knows no other error.
    crash(folder.path(), &known("two-faults.json").replace("ENOMEM", "EIO"));
    fs::write(folder.path().join("repro.c"), "of an earlier version").unwrap();
    let (status, said, meta) = export(folder.path());
    assert_eq!(status, Some(0), "{said}");
    let repro = meta.repro.unwrap();
    assert!(repro.c.unwrap().contains("should_failslab returns ENOMEM"));
    let script = fs::read_to_string(folder.path().join("repro.bt")).unwrap();
    let outcome = repro.bt.unwrap();
    assert!(outcome.ends_with(" of 3") && script.contains(&format!("It came in {outcome} fresh guests")), "{outcome}");
    assert!(script.contains("kprobe:selftest_queue_small") && script.contains("override(-5)"), "{script}");
    let steps = fs::read_to_string(folder.path().join("steps.c")).unwrap();
    assert!(steps.contains("PR_SET_NAME") && !steps.contains("fail-nth"), "{steps}");
    assert!(!folder.path().join("repro.c").exists(), "what is not verified is not there");
}

#[test]
fn what_does_not_come_again_has_a_reason_and_no_program() {
    let folder = tempfile::tempdir().unwrap();
    crash(folder.path(), &known("null-deref.json").replace("in selftest_index_grow", "in nowhere"));
    fs::write(folder.path().join("repro.bt"), "of an earlier version").unwrap();
    let (status, said, meta) = export(folder.path());
    assert_eq!(status, Some(1), "{said}");
    assert!(!folder.path().join("repro.bt").exists(), "what is not verified is not there");
    let reason = meta.repro.unwrap().c.unwrap();
    assert!(reason.contains("did not come again"), "{reason}");
}
