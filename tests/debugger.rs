//! Replays that gdb stops.

use std::{
    fs,
    io::{BufRead, BufReader, Read},
    path::Path,
    process::{Child, Command, Stdio},
};

use execution::Target;
use guests::project::Project;

use crate::common::{program, text};

/// A replay that waits for gdb. It is killed when this is dropped.
struct Waiting(Child);

impl Drop for Waiting {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Replays `plan` with these options under gdb. Gives what gdb prints, and what the replay does.
fn debugged(plan: &Path, options: &[&str]) -> (String, String) {
    let mut command = Command::new(program());
    command.arg("replay").arg(plan).args(options);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut replay = Waiting(command.spawn().unwrap());
    let mut told = BufReader::new(replay.0.stderr.take().unwrap()).lines().map(Result::unwrap);
    let script = told.find_map(|line| line.split_once(": gdb -x ").map(|(_, file)| file.to_owned()));
    let script = script.unwrap_or_else(|| panic!("the replay waits for no debugger: {options:?}"));
    let gdb = Command::new("gdb").args(["--batch", "-nx", "-x", &script]).output().unwrap();
    let printed = text(&gdb.stdout) + &text(&gdb.stderr);
    let mut out = String::new();
    replay.0.stdout.take().unwrap().read_to_string(&mut out).unwrap();
    assert!(replay.0.wait().unwrap().success(), "{printed}\n{out}");
    assert!(!Path::new(&script).exists(), "the script goes with the replay");
    (printed, out)
}

/// Says whether gdb printed a frame of this function, with its line of source.
fn has_frame(printed: &str, function: &str, file: &str) -> bool {
    printed.lines().any(|line| {
        line.starts_with('#') && line.contains(&format!(" {function} (")) && line.contains(&format!("{file}:"))
    })
}

/// The known crash of the self-test that takes one fault.
fn null_dereference() -> String {
    let known = Target::find(&Project::find().unwrap().corpus(), "selftest").unwrap().known().unwrap();
    known.into_iter().find(|known| known.title.contains("selftest_index_grow")).unwrap().to_json()
}

#[test]
fn gdb_stops_at_the_injection_and_at_the_crash() {
    let folder = tempfile::tempdir().unwrap();
    let plan = folder.path().join("reproducer.json");
    fs::write(&plan, null_dereference()).unwrap();
    let (printed, out) = debugged(&plan, &["--gdb"]);
    assert!(printed.contains("should_failslab() returns ENOMEM"), "{printed}");
    assert!(printed.contains("#0 ") && printed.contains("in just_return_func ()"), "{printed}");
    for function in ["__kmalloc_cache_noprof", "selftest_index_slots", "selftest_index_grow", "selftest_null_deref"] {
        let file = if function.starts_with("self") { "drivers/fuzz_selftest/bugs.c" } else { "mm/slub.c" };
        assert!(has_frame(&printed, function, file), "{function} in\n{printed}");
    }
    let (_, stopped) = out.split_once("the run that gdb stopped:").unwrap();
    assert!(stopped.contains("KASAN: null-ptr-deref in selftest_index_grow"), "it goes on as before: {out}");

    let (printed, _) = debugged(&plan, &["--gdb=crash"]);
    let (_, reported) =
        printed.split_once("the kernel reports what happened here:").unwrap_or_else(|| panic!("{printed}"));
    let frame = reported.lines().find(|line| line.starts_with("#0 ")).unwrap();
    assert!(frame.contains(" in selftest_index_grow (") && frame.contains("bugs.c:44"), "{printed}");
}

#[test]
fn gdb_goes_back_to_an_earlier_call_that_does_not_fail() {
    let folder = tempfile::tempdir().unwrap();
    let plan = folder.path().join("plan.json");
    let fault = r#"{ "function": "should_failslab", "call_path": ["...", "selftest_occurrence_alloc"], "occurrence": 3,
                     "error": "ENOMEM" }"#;
    fs::write(&plan, format!(r#"{{ "version": 1, "target": "selftest", "faults": [{fault}] }}"#)).unwrap();
    let (printed, out) = debugged(&plan, &["--gdb", "--at-hit", "2"]);
    assert!(printed.contains("call 2 of should_failslab() on the fault's path, which does not fail"), "{printed}");
    assert!(has_frame(&printed, "should_failslab", "mm/failslab.c"), "{printed}");
    assert!(has_frame(&printed, "selftest_occurrence_alloc", "drivers/fuzz_selftest/correct.c"), "{printed}");
    // The call was let run, so the workload comes to the fault as it did without gdb.
    let (before, stopped) = out.split_once("the run that gdb stopped:").unwrap();
    let failed = |run: &str| run.lines().find(|line| line.contains("ECONNABORTED")).map(str::to_owned);
    assert!(failed(before).is_some() && failed(stopped) == failed(before), "{out}");
    assert!(stopped.contains("fault 1 fired: should_failslab returned ENOMEM"), "{out}");
}
