//! The command `fuzz` as a user runs it, on a real guest.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use guests::project::Project;

use crate::common::{self, fuzz, program, text};

fn entries(folder: &Path) -> BTreeSet<PathBuf> {
    let visible = |path: &PathBuf| !path.file_name().unwrap().to_string_lossy().starts_with('.');
    fs::read_dir(folder).into_iter().flatten().map(|entry| entry.unwrap().path()).filter(visible).collect()
}

fn json(path: &Path) -> serde_json::Value {
    serde_json::from_str(&fs::read_to_string(path).unwrap())
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Keys that a campaign on the self-test target must find; the third takes two faults, and the last
/// two are of one function.
const PLANTED: [&str; 5] = [
    "access: null pointer in selftest_index_grow",
    "access: bad memory Write in selftest_session_abort",
    "access: bad memory Read in selftest_queue_free",
    "check: drivers/fuzz_selftest/bugs.c selftest_pair_free: WARN_ON(pair->lefts)",
    "check: drivers/fuzz_selftest/bugs.c selftest_pair_free: WARN_ON(pair->rights && !pair->right)",
];

/// The function of the planted bug that takes two faults; each other one takes a single one.
const TWO_FAULTS: &str = "selftest_queue_free";

/// A caller that the plan's kernel has inlined, and a fault that nothing can make fire.
#[test]
fn a_replay_tells_what_did_not_fire_and_relaxes_what_can() {
    let folder = common::steps_target(&["reachable"], common::SLAB);
    let target = folder.path().to_str().unwrap();
    let replay = |path: &[&str]| {
        let file = folder.path().join("plan.json");
        fs::write(&file, common::plan(&[common::fault(path, 1)]).to_json()).unwrap();
        let run = fuzz(&["replay", file.to_str().unwrap(), "--target", target]);
        (run.status.code(), text(&run.stdout) + &text(&run.stderr))
    };
    let (status, said) = replay(&["...", "selftest_inner_alloc", "selftest_reachable", "selftest_write"]);
    assert_eq!(status, Some(0), "{said}");
    for line in ["fault 1 is relaxed for this kernel: ...", "fault 1 fired: should_failslab returned ENOMEM"] {
        assert!(said.contains(line), "{said}");
    }
    let (status, said) = replay(&["...", "gone_from_here", "selftest_write", "selftest_inner_alloc"]);
    assert_eq!(status, Some(1), "{said}");
    for line in ["fault 1 did not fire: no call 1 of should_failslab", "this kernel has no function gone_from_here"] {
        assert!(said.contains(line), "{said}");
    }
}

/// The functions of the self-test module's correct code.
fn correct_functions() -> BTreeSet<String> {
    let source = fs::read_to_string(Project::find().unwrap().root().join("kernels/selftest/correct.c")).unwrap();
    let name = |line: &str| {
        let definition = line.strip_prefix("static ").unwrap_or(line).strip_prefix("noinline ")?;
        let (_, name) = definition.split_once('(')?.0.split_once("selftest_")?;
        Some(format!("selftest_{name}"))
    };
    source.lines().filter_map(name).collect()
}

/// Ends the program when the test ends, also by a panic.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

#[test]
fn a_campaign_finds_planted_bugs_and_their_reproducers_replay() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().to_str().unwrap();
    let run = fuzz(&["--target", "selftest", "--time", "20s", "--out", out, "--seed", "1"]);
    assert!(run.status.success(), "{}{}", text(&run.stdout), text(&run.stderr));
    // A search on a busy host leaves some for the next start.
    let minimized = || crashes_of(folder.path()).all(|meta| !meta["minimized"].is_null());
    for _ in 0..5 {
        if !minimized() {
            let resumed = fuzz(&["--target", "selftest", "--time", "1s", "--out", out]);
            assert!(resumed.status.success(), "{}", text(&resumed.stderr));
        }
    }
    let crashes = entries(&folder.path().join("crashes"));
    let correct = correct_functions();
    assert!(correct.len() > 20 && correct.contains("selftest_volume_page"), "{correct:?}");
    let mut keys = BTreeSet::new();
    for crash in &crashes {
        for file in ["reproducer.json", "report.txt", "console.log", "meta.json"] {
            assert!(crash.join(file).is_file(), "{} lacks {file}", crash.display());
        }
        let meta = json(&crash.join("meta.json"));
        let stack: Vec<_> = meta["stack"].as_array().unwrap().iter().map(|name| name.as_str().unwrap()).collect();
        assert!(!stack.iter().any(|name| correct.contains(*name)), "nothing is wrong with {stack:?}");
        assert!(keys.insert(meta["key"].as_str().unwrap().to_owned()), "{meta} has two folders");
        let faults = if meta["key"].as_str().unwrap().ends_with(TWO_FAULTS) { 2 } else { 1 };
        assert_eq!(meta["minimized"]["faults"][1], faults, "{meta}");
        let plan = &json(&crash.join("reproducer.json"))["plan"];
        assert_eq!(plan["faults"].as_array().map(Vec::len), Some(faults), "{plan}");
        assert!(crash.join("found.json").is_file(), "a shorter call path is one that is simpler");
    }
    for planted in PLANTED {
        assert!(keys.contains(planted), "{planted} was not found, but {keys:?}\n{}", text(&run.stdout));
    }
    let covered = fuzz(&["coverage", out, "--json"]);
    let twice = fuzz(&["coverage", out, out, "--json"]);
    assert_eq!(text(&twice.stdout), text(&covered.stdout), "a campaign adds nothing to itself");
    let covered: serde_json::Value = serde_json::from_str(text(&covered.stdout).lines().next().unwrap()).unwrap();
    assert!(covered["coverage_by_folder"]["drivers/fuzz_selftest"].as_u64().unwrap() > 50, "{covered}");
    let reproduced = |crash: &&PathBuf| json(&crash.join("meta.json"))["reproduced"] == 3;
    let crash = crashes.iter().find(reproduced).expect("no crash was reproduced 3 of 3 times");
    let reproducer = crash.join("reproducer.json");
    let replay = fuzz(&["replay", reproducer.to_str().unwrap()]);
    assert!(replay.status.success(), "{}{}", text(&replay.stdout), text(&replay.stderr));
    assert!(text(&replay.stdout).contains("came again in 1 of 1 runs"), "{}", text(&replay.stdout));

    reports_rank_and_name(folder.path());
    minimizes_what_is_superfluous(folder.path());

    let other = folder.path().join("other.json");
    let changed = fs::read_to_string(&reproducer)
        .unwrap()
        .replace("\"key\": \"", "\"key\": \"never seen: ")
        .replace("\"title\": \"", "\"title\": \"never seen: ");
    fs::write(&other, changed).unwrap();
    let replay = fuzz(&["replay", other.to_str().unwrap()]);
    assert_eq!(replay.status.code(), Some(1), "{}{}", text(&replay.stdout), text(&replay.stderr));
}

/// Each `meta.json` of a campaign's crashes.
fn crashes_of(folder: &Path) -> impl Iterator<Item = serde_json::Value> {
    entries(&folder.join("crashes")).into_iter().map(|crash| json(&crash.join("meta.json")))
}

/// Reports on the campaign in `folder`: freed memory that is written comes before a null pointer,
/// that before a warning, and each crash has its fault with lines of source.
fn reports_rank_and_name(folder: &Path) {
    let out = folder.to_str().unwrap();
    let report = fuzz(&["report", out, "--format", "json"]);
    assert!(report.status.success(), "{}", text(&report.stderr));
    let report: serde_json::Value = serde_json::from_slice(&report.stdout).unwrap();
    let crashes = report["crashes"].as_array().unwrap();
    let rank = |key: &str| crashes.iter().find(|crash| crash["key"] == key).and_then(|crash| crash["rank"].as_u64());
    assert!(rank(PLANTED[1]) < rank(PLANTED[0]) && rank(PLANTED[0]) < rank(PLANTED[3]), "{report}");
    for crash in crashes.iter().filter(|crash| PLANTED.iter().any(|key| crash["key"] == *key)) {
        assert_ne!(crash["standing"], "alarm", "{crash}");
        assert!(crash["guilty"]["file"].as_str().unwrap().starts_with("drivers/fuzz_selftest/"), "{crash}");
        assert!(crash["report"].as_str().unwrap().contains(" (drivers/fuzz_selftest/bugs.c:"), "{crash}");
        for fault in crash["faults"].as_array().unwrap() {
            assert!(fault["caller"].as_str().unwrap().starts_with("selftest_"), "{fault}");
            let lines = fault["call_path"].as_array().unwrap().iter().flat_map(|caller| caller["lines"].as_array());
            assert!(
                lines.flatten().any(|line| line.as_str().unwrap().starts_with("drivers/fuzz_selftest/")),
                "{fault}"
            );
        }
    }
    let mail = text(&fuzz(&["report", out, "--format", "lkml"]).stdout);
    for words in ["Subject: [BUG] ", "selftest_session_abort", "should_failslab() returned ENOMEM", "threat-model.rst"]
    {
        assert!(mail.contains(words), "{words}: {mail}");
    }
    let page = folder.join("report.html");
    let written = fuzz(&["report", out, "--format", "html", "-o", page.to_str().unwrap()]);
    assert!(written.status.success() && written.stdout.is_empty(), "{}", text(&written.stderr));
    let page = fs::read_to_string(page).unwrap();
    assert!(page.len() < 5_000_000 && page.contains("drivers/fuzz_selftest/bugs.c"), "{} bytes", page.len());
}

/// Minimises the known crash of two faults with more rounds, faults, conditions and steps than it
/// takes.
fn minimizes_what_is_superfluous(folder: &Path) {
    let known = Project::find().unwrap().corpus().join("selftest/known/two-faults.json");
    let mut reproducer = json(&known);
    let faults = reproducer["plan"]["faults"].take();
    let more = serde_json::json!({
        "function": "should_failslab", "call_path": ["...", "selftest_occurrence_alloc"], "occurrence": 2,
        "error": "ENOMEM",
    });
    let (mut large, mut small) = (faults[0].clone(), faults[1].clone());
    large["step"] = 7.into();
    small["after"] = 2.into();
    reproducer["plan"] = serde_json::json!({ "version": 1, "target": "selftest", "rounds": [
        { "faults": [more], "reset": true }, { "faults": [] }, { "faults": [more, large, small] },
    ] });
    let (file, out) = (folder.join("superfluous.json"), folder.join("superfluous.minimized.json"));
    fs::write(&file, reproducer.to_string()).unwrap();
    let run = fuzz(&["minimize", file.to_str().unwrap()]);
    assert!(run.status.success(), "{}{}", text(&run.stdout), text(&run.stderr));
    assert!(text(&run.stderr).contains("4 faults → 2"), "{}", text(&run.stderr));
    assert!(text(&run.stdout).contains("in 1 of 8 steps"), "{}", text(&run.stdout));
    let minimized = json(&out);
    let paths: Vec<_> = minimized["plan"]["faults"].as_array().unwrap().iter().map(|of| &of["call_path"]).collect();
    let expected =
        ["large", "small"].map(|name| serde_json::json!(["__kmalloc_cache_noprof", format!("selftest_queue_{name}")]));
    assert_eq!(paths, expected.iter().collect::<Vec<_>>(), "{minimized}");
    assert_eq!(minimized["plan"]["rounds"], serde_json::Value::Null);
    assert!(minimized["plan"]["faults"].as_array().unwrap().iter().all(|of| of.as_object().unwrap().len() == 4));
    assert_eq!(minimized["target"]["steps"].as_array().unwrap().len(), 1);

    let changed = fs::read_to_string(&file).unwrap().replace("bad memory Read in", "never seen");
    fs::write(&file, changed.replace("slab-use-after-free Read in", "never seen")).unwrap();
    fs::remove_file(&out).unwrap();
    let run = fuzz(&["minimize", file.to_str().unwrap()]);
    assert_eq!(run.status.code(), Some(1), "{}{}", text(&run.stdout), text(&run.stderr));
    assert!(text(&run.stdout).contains("in 3 fresh guests") && !out.exists(), "{}", text(&run.stdout));
}

/// In a work item, in a kernel thread, behind a function that is on no list, behind three failures.
#[test]
fn a_campaign_finds_bugs_beyond_the_calls_of_a_task_that_are_listed() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().to_str().unwrap();
    // The kernel that judges, alone: one of the bugs is no crash on the one that explores.
    let run =
        fuzz(&["--target", "selftest-reach", "--kernel", common::KERNEL, "--time", "20s", "--out", out, "--seed", "1"]);
    assert!(run.status.success(), "{}{}", text(&run.stdout), text(&run.stderr));
    let found = |function: &str| {
        crashes_of(folder.path()).any(|meta| meta["stack"].to_string().contains(&format!("\"{function}\"")))
    };
    for function in ["selftest_job_run", "selftest_batch_work", "selftest_off_list", "selftest_retries"] {
        assert!(found(function), "the bug in {function} was not found\n{}", text(&run.stdout));
    }
}

#[test]
fn a_killed_campaign_goes_on_with_all_it_reported() {
    let (folder, words) = (tempfile::tempdir().unwrap(), tempfile::NamedTempFile::new().unwrap());
    let out = folder.path().to_str().unwrap();
    let arguments = ["--target", "selftest", "--out", out, "--seed", "7"];
    let mut command = Command::new(program());
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(words.reopen().unwrap());
    let mut killed = Running(command.spawn().unwrap());
    let deadline = Instant::now() + Duration::from_secs(120);
    while entries(&folder.path().join("crashes")).is_empty() {
        let told = || fs::read_to_string(words.path()).unwrap();
        assert_eq!(killed.0.try_wait().unwrap(), None, "the campaign ended by itself: {}", told());
        assert!(Instant::now() < deadline, "no crash within two minutes: {}", told());
        thread::sleep(Duration::from_millis(100));
    }
    drop(killed);
    let (crashes, corpus) = (entries(&folder.path().join("crashes")), entries(&folder.path().join("corpus")));
    let executions = json(&folder.path().join("campaign.json"))["executions"].as_u64().unwrap();
    for plan in &corpus {
        json(plan);
    }
    let failed = failed_cells(folder.path());
    assert!(!failed.is_empty(), "the matrix of a campaign that has found a crash");
    let resumed = fuzz(&[&arguments[..], &["--time", "5s"]].concat());
    assert!(resumed.status.success(), "{}", text(&resumed.stderr));
    assert!(text(&resumed.stderr).contains("going on with the campaign"), "{}", text(&resumed.stderr));
    assert!(crashes.is_subset(&entries(&folder.path().join("crashes"))));
    assert!(failed.is_subset(&failed_cells(folder.path())));
    let queue = fs::read_to_string(folder.path().join("queue.jsonl")).unwrap();
    assert!(queue.lines().all(|line| serde_json::from_str::<serde_json::Value>(line).is_ok()), "{queue}");
    assert!(json(&folder.path().join("campaign.json"))["executions"].as_u64().unwrap() > executions);
}

/// The points and errors that the matrices of a campaign's folder say were failed. A line that was
/// not written whole does not count.
fn failed_cells(folder: &Path) -> BTreeSet<String> {
    let mut failed = BTreeSet::new();
    for path in entries(&folder.join("matrix")) {
        let text = fs::read_to_string(&path).unwrap();
        for line in text.split_inclusive('\n').filter(|line| line.ends_with('\n')) {
            let point: serde_json::Value = serde_json::from_str(line).unwrap();
            let cells = point["cells"].as_array().unwrap().iter().filter(|cell| cell.get("faults").is_some());
            let name = |error: &serde_json::Value| {
                format!("{} {} {} {} {error}", path.display(), point["step"], point["function"], point["call_path"])
            };
            failed.extend(cells.map(|cell| name(&cell["error"])));
        }
    }
    failed
}

#[test]
fn wrong_input_is_status_2_and_says_where() {
    let folder = tempfile::tempdir().unwrap();
    let bad = |name: &str, content: &str| {
        let path = folder.path().join(name);
        fs::write(&path, content).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let zero = r#"{"version":1,"target":"selftest","faults":[{"function":"should_failslab","occurrence":0,"error":"ENOMEM"}]}"#;
    let cases = [
        (vec!["--target".to_owned(), "no-such".to_owned()], "no target \"no-such\""),
        (vec!["--target".to_owned(), "selftest".to_owned(), "--time".to_owned(), "soon".to_owned()], "no duration"),
        (vec!["coverage".to_owned(), "/no/such".to_owned()], "/no/such: no campaign is there"),
        (vec!["report".to_owned(), "/no/such".to_owned()], "/no/such: no campaign is there"),
        (vec!["--target".to_owned(), "selftest".to_owned(), "--listen".to_owned(), "one".to_owned()], "use ADDR:PORT"),
        (vec!["--target".to_owned(), "selftest".to_owned(), "--join".to_owned(), "one".to_owned()], "use HOST:PORT"),
        (vec!["replay".to_owned(), bad("zero.json", zero)], "occurrences are counted from 1"),
        (vec!["replay".to_owned(), bad("syntax.json", "{")], "line 1"),
        (vec!["minimize".to_owned(), bad("none.json", "{")], "line 1"),
        (vec!["kernel".to_owned(), "build".to_owned(), "no-such".to_owned()], "no-such"),
    ];
    for (arguments, reason) in cases {
        let output = Command::new(program()).args(&arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {}", text(&output.stderr));
        assert!(text(&output.stderr).contains(reason), "{arguments:?}: {}", text(&output.stderr));
    }
}

#[test]
fn targets_and_kernels_are_listed() {
    let targets = text(&fuzz(&["targets"]).stdout);
    for name in ["btrfs-mount", "btrfs-rw", "selftest", "selftest-reach"] {
        assert!(targets.contains(name), "{targets}");
    }
    let kernels = text(&fuzz(&["kernel", "list"]).stdout);
    assert!(kernels.contains(common::KERNEL), "{kernels}");
}
