//! Plans in guests: what fires, what is seen, what ends a guest.

use std::{collections::BTreeSet, fs, thread, time::Duration};

use campaign::{KnownPoints, Relaxed, run_relaxed};
use execution::{Execution, Finding, FindingKind, Fired, How, RunError, Stop, Target};
use fault_plan::{Fault, FaultPlan, base_name};
use guest_protocol::{Execute, Recorded, Setup, Step, StepResult};
use guests::{
    prepare::{Wanted, bare_guest, prepare},
    progress::Silent,
    project::Project,
    qemu::{Accel, AccelChoice, End, GuestConfig, Template, Traces},
};
use kcov_parser::Symbols;
use kernel_report::STEP_RAN;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::common::{
    self, Guests, LEAN, MEMORY, SLAB, fault, fault_of, guests, guests_of, guests_on, plan, steps_target,
};

const EREMOTE: i32 = 66;
const EXDEV: i32 = 18;
const ENOMEM: i32 = 12;
const WRITTEN: StepResult = StepResult::Done(1);

/// The report of an execution whose only finding it is.
fn report_of(findings: &[Finding]) -> &Finding {
    let [finding] = findings else { panic!("{findings:?}") };
    assert!(finding.is_report(), "{finding:?}");
    finding
}

#[test]
fn the_nth_call_on_a_call_path_fails_and_the_step_sees_the_error() {
    let folder = steps_target(&["occurrence", "reachable"], SLAB);
    let mut guest = guests(folder.path());
    for n in 1..=5 {
        let execution = guest.run(&plan(&[fault(&["...", "selftest_occurrence_alloc"], n)]));
        assert_eq!(execution.steps, [StepResult::Failed(100 + i32::try_from(n).unwrap()), WRITTEN]);
        assert_eq!(execution.fired.len(), 1);
        assert!(execution.fired[0].call_path.contains(&"selftest_occurrence".to_owned()), "{:?}", execution.fired);
    }
    for (path, error) in [("selftest_path_a", EREMOTE), ("selftest_path_b", EXDEV)] {
        let execution = guest.run(&plan(&[fault(&["...", "selftest_inner_alloc", path], 1)]));
        assert_eq!(execution.steps, [WRITTEN, StepResult::Failed(error)], "{path}");
    }
    let sixth = guest.run(&plan(&[fault(&["...", "selftest_occurrence_alloc"], 6)]));
    assert_eq!((sixth.steps, sixth.fired), (vec![WRITTEN, WRITTEN], Vec::new()), "there is no sixth call");
    assert_eq!(guest.usage().guests, 1, "nothing here costs a guest");
}

#[test]
fn a_fault_with_a_step_counts_and_fails_the_calls_of_that_step_alone() {
    let folder = steps_target(&["occurrence", "occurrence"], SLAB);
    let mut guest = guests(folder.path());
    let in_step = |step, n| Fault { step, ..fault(&["...", "selftest_occurrence_alloc"], n) };
    let second = [WRITTEN, StepResult::Failed(102)];
    for (step, n) in [(Some(2), 2), (None, 7)] {
        let execution = guest.run(&plan(&[in_step(step, n)]));
        assert_eq!(execution.steps, second, "{step:?}");
        assert_eq!(execution.fired.iter().map(|fired| fired.step).collect::<Vec<_>>(), [2]);
        let fired = execution.sites.iter().find(|site| site.site == execution.fired[0].site).unwrap();
        assert_eq!(fired.step, 2, "the same call path is another point in each step");
    }
    let both = guest.run(&plan(&[in_step(Some(2), 1), in_step(Some(1), 1)]));
    assert_eq!(both.steps, [StepResult::Failed(101), StepResult::Failed(101)]);
    let neither = guest.run(&plan(&[in_step(Some(1), 6)]));
    assert_eq!((neither.steps, neither.fired), (vec![WRITTEN, WRITTEN], Vec::new()), "it has no sixth call");
    let ran = guest.ran(&plan(&[in_step(Some(3), 1)]), How::Warm);
    let Err(RunError::Refused(reason)) = ran.execution else { panic!("not refused") };
    assert!(reason.contains("fault 1: step 3: the workload has 2 steps"), "{reason}");
    assert_eq!(guest.usage().guests, 1, "nothing here costs a guest");
}

#[test]
fn callers_are_complete_and_in_order() {
    let folder = steps_target(&["reachable"], SLAB);
    let mut guest = guests(folder.path());
    let execution = guest.run(&plan(&[]));
    let paths: Vec<&Vec<String>> = execution.sites.iter().map(|site| &site.call_path).collect();
    let chain = ["selftest_inner_alloc", "selftest_path_b", "selftest_reachable", "selftest_write"].map(str::to_owned);
    let found = paths.iter().any(|path| path.windows(chain.len()).any(|part| part == chain));
    assert!(found, "no call path has {chain:?} in a row: {paths:?}");
}

#[test]
fn a_call_that_must_not_fail_never_does() {
    let folder = steps_target(&["nofail", "clean"], SLAB);
    let mut guest = guests(folder.path());
    let execution = guest.run(&plan(&[fault(&["...", "selftest_nofail_alloc"], 1)]));
    assert_eq!((execution.steps, execution.fired), (vec![WRITTEN, WRITTEN], Vec::new()));
    assert!(execution.guarded >= 1, "the call was not even seen");
    let described: Vec<_> = execution.sites.iter().flat_map(|site| &site.call_path).collect();
    assert!(!described.iter().any(|caller| *caller == "selftest_nofail_alloc"), "it is no injection site either");
    for n in 1..=20 {
        let execution = guest.run(&plan(&[fault(&["...", "selftest_write"], n)]));
        assert!(execution.findings.is_empty(), "{n}: {:?}", execution.findings);
        assert_eq!(execution.steps[0], WRITTEN, "call {n}: the allocation that must not fail failed");
    }
}

/// The allocations that the kernel may fail beside those that it promises not to fail, and what
/// they return then.
#[test]
fn pages_folios_and_caches_that_must_not_fail_never_do() {
    let folder = steps_target(&["nofail_page", "nofail_folio", "bootstrap", "clean"], MEMORY);
    let mut guest = guests(folder.path());
    let whole = guest.run(&plan(&[]));
    assert_eq!((whole.steps, &whole.fired), (vec![WRITTEN; 4], &Vec::new()));
    // Slabs may get vectors of their own, which must not fail either.
    assert!(whole.guarded >= 3, "a page, a folio and a cache: {}", whole.guarded);
    // The bootstrap cache's objects come from kmem_cache_alloc(), called by what creates caches.
    let cache = ["kmem_cache_alloc_noprof", "__kmem_cache_create_args", "selftest_cache_create"];
    let guarded = |path: &[String]| {
        path.iter().any(|caller| caller == "selftest_nofail_page_alloc" || caller == "selftest_folio_must_add")
            || path.windows(3).any(|part| part == cache)
    };
    let sites: Vec<_> = whole.sites.iter().filter(|site| guarded(&site.call_path)).collect();
    assert!(sites.is_empty(), "these are no injection sites: {sites:?}");
    let below_create = whole.sites.iter().filter(|site| site.call_path.contains(&cache[2].to_owned())).count();
    assert!(below_create > 0, "other allocations of the same call are");

    let spared = [
        fault_of("should_fail_alloc_page", &["...", "selftest_nofail_page_alloc"], 1),
        fault_of("__filemap_add_folio", &["...", "selftest_folio_must_add"], 1),
        fault(&["...", cache[0], cache[1], cache[2]], 1),
    ];
    for spared in &spared {
        let execution = guest.run(&plan(std::slice::from_ref(spared)));
        assert_eq!((execution.steps, execution.fired), (vec![WRITTEN; 4], Vec::new()), "{spared:?}");
    }
    let failing = [
        (fault_of("should_fail_alloc_page", &["...", "selftest_volume_page"], 1), 3),
        (fault_of("__filemap_add_folio", &["...", "selftest_folio_may_add"], 1), 1),
        (fault(&["...", cache[2]], 1), 2),
    ];
    for (failing, step) in &failing {
        let execution = guest.run(&plan(std::slice::from_ref(failing)));
        assert!(execution.findings.is_empty(), "{failing:?}: {:?}", execution.findings);
        let mut expected = [WRITTEN; 4];
        expected[*step] = StepResult::Failed(ENOMEM);
        assert_eq!((execution.steps.as_slice(), execution.fired.len()), (expected.as_slice(), 1), "{failing:?}");
    }
    assert_eq!(guest.usage().guests, 1, "nothing here costs a guest");
}

#[test]
fn coverage_tells_two_plans_apart() {
    let folder = steps_target(&["clean", "two_faults"], SLAB);
    let mut guest = guests(folder.path());
    let symbols = Symbols::from_elf(&fs::read(&guest.prepared.kernel.vmlinux).unwrap()).unwrap();
    // Code that runs beside the triggers differs from execution to execution.
    let of_trigger =
        |pc: &u64| symbols.resolve(pc - 1).is_some_and(|location| location.function.starts_with("selftest_"));
    let covered = |guest: &mut Guests, plan: &FaultPlan| {
        let execution = guest.run(plan);
        assert_eq!(execution.fired.len(), plan.faults.len());
        let sites = guest.prepared.call_sites.as_ref();
        let unknown = execution.covered().filter(|(_, pc)| sites.index_of(*pc).is_none()).count();
        assert_eq!(unknown, 0, "every covered address is a known place");
        execution.covered().map(|(_, pc)| pc).filter(of_trigger).collect::<BTreeSet<u64>>()
    };
    let whole = covered(&mut guest, &plan(&[]));
    let again = covered(&mut guest, &plan(&[]));
    let faults = [fault(&["...", "selftest_volume_table"], 1), fault(&["...", "selftest_queue_large"], 1)];
    let failed = covered(&mut guest, &plan(&faults));
    assert!(!whole.is_empty());
    assert_eq!(whole, again, "the triggers' own code runs alike each time");
    assert!(whole.difference(&failed).count() > 0, "what comes after the failed call did not run");
    assert!(failed.difference(&whole).count() > 0, "the fallback ran");
}

#[test]
fn a_fault_behind_a_fault_fires_in_a_fresh_guest_and_is_known_when_the_guest_dies() {
    let folder = steps_target(&["two_faults"], SLAB);
    let mut guest = guests(folder.path());
    let faults = [fault(&["...", "selftest_queue_large"], 1), fault(&["...", "selftest_queue_small"], 1)];
    let one = guest.run_fresh(&plan(&faults[..1]));
    assert!(one.findings.is_empty(), "{:?}", one.findings);
    let both = guest.run_fresh(&plan(&faults));
    let report = report_of(&both.findings);
    assert!(report.title.starts_with("KASAN: ") && report.title.contains("selftest_"), "{}", report.title);
    assert_eq!(both.fired.iter().map(|fired| fired.fault).collect::<Vec<_>>(), [0, 1]);
    assert!(both.fired[1].call_path.contains(&"selftest_queue_fallback".to_owned()), "{:?}", both.fired);
}

/// Asserts that a failure of `should_failslab(cache, GFP_KERNEL)` is told with its frames and
/// arguments.
fn tells_the_call(fired: &Fired) {
    let names: Vec<_> = fired.frames.iter().filter_map(|frame| frame.split_once("+0x")).map(|(name, _)| name).collect();
    assert_eq!(names.into_iter().map(base_name).collect::<Vec<_>>(), fired.call_path, "{:?}", fired.frames);
    let told = ["cache kmalloc-", ", size ", " bytes, flags GFP_KERNEL"];
    assert!(told.iter().all(|word| fired.words.contains(word)), "{}", fired.words);
    assert_eq!((fired.arguments[0] >> 40, fired.arguments[1] & 0xcc0), (0xff_ff88, 0xcc0), "{:x?}", fired.arguments);
}

#[test]
fn a_null_dereference_ends_the_guest_and_a_fresh_one_goes_on() {
    let folder = steps_target(&["null_deref"], SLAB);
    let mut guest = guests(folder.path());
    let bug = plan(&[fault(&["...", "selftest_index_grow"], 1)]);
    let crash = guest.run(&bug);
    let report = report_of(&crash.findings);
    assert!(report.title.contains("selftest_index_grow"), "{}", report.title);
    assert_eq!(crash.fired.len(), 1, "the log of a dead guest is read");
    assert!(crash.fired[0].call_path.contains(&"selftest_index_grow".to_owned()), "{:?}", crash.fired);
    tells_the_call(&crash.fired[0]);
    let after = guest.run(&plan(&[]));
    assert_eq!(after.steps, [WRITTEN]);
    assert_eq!(guest.usage().guests, 2);
    assert_eq!(guest.usage().harness_errors, 0);
}

#[test]
fn a_warning_is_a_finding_although_the_guest_goes_on() {
    let folder = steps_target(&["warn"], SLAB);
    let mut guest = guests(folder.path());
    let crash = guest.run(&plan(&[fault(&["...", "selftest_group_join"], 1)]));
    let report = report_of(&crash.findings);
    assert_eq!((report.kind, report.title.as_str()), (FindingKind::Warning, "WARNING in selftest_group_free"));
    assert_eq!(crash.steps, [StepResult::Failed(ENOMEM)], "the workload ran to its end");
    assert_eq!(crash.fired.len(), 1);
    tells_the_call(&crash.fired[0]);
    let after = guest.run(&plan(&[]));
    assert!(after.findings.is_empty(), "{:?}", after.findings);
    assert_eq!(after.steps, [WRITTEN]);
    assert_eq!(guest.usage().guests, 2, "a kernel that warned runs no other plan");
    assert_eq!(guest.usage().harness_errors, 0);
}

#[test]
fn a_guest_killed_in_an_execution_is_trouble_and_a_hang_is_a_finding() {
    let folder = steps_target(&["hang"], SLAB);
    let mut guest = guests(folder.path());
    // The kernel's detectors, of which none sees this one, would be quicker.
    guest.runner.deadline = Duration::from_secs(25);
    let hang = plan(&[fault(&["...", "selftest_request_start"], 1)]);
    let pid = Pid::from_raw(i32::try_from(guest.runner.guest_pid().unwrap()).unwrap());
    let killer = thread::spawn(move || {
        thread::sleep(Duration::from_millis(700));
        kill(pid, Signal::SIGKILL).unwrap();
    });
    let execution = guest.run(&hang);
    killer.join().unwrap();
    let counters = guest.usage();
    // On a busy host one that hangs can be trouble as well, as it is not known whether it was let
    // run.
    assert!(counters.harness_errors >= 1, "the killed guest was trouble: {counters:?}");
    assert_eq!(counters.guests, counters.harness_errors + 1, "trouble is tried again in a fresh guest");
    let report = report_of(&execution.findings);
    // The processor was in the loop, or in a function that the loop calls.
    assert_eq!(report.title, "hang below selftest_write");
    assert!(report.text.contains("selftest_request_wait"), "{}", report.text);
    let ran_in = report.text.split_once(STEP_RAN).expect("the agent said where the step ran").1;
    assert!(ran_in.contains("selftest_write+"), "{}", report.text);
    assert!(report.text.contains(" in step 1 (trigger), target "), "{}", report.text);
    assert_eq!(execution.fired.len(), 1, "what fired is known of a guest that hangs");
}

#[test]
fn a_guest_that_has_drifted_is_replaced() {
    let folder = steps_target(&["drift", "clean"], SLAB);
    let mut guest = guests(folder.path());
    for _ in 0..8 {
        guest.run(&plan(&[]));
    }
    let harmless = plan(&[fault(&["...", "selftest_volume_table"], 1)]);
    for _ in 0..500 {
        guest.run(&harmless);
    }
    let counters = guest.usage();
    assert!(counters.controls >= 10 && counters.longest_life >= 508, "{counters:?}");
    assert_eq!((counters.drifted, counters.guests), (0, 1), "{counters:?}");
    let remembered = plan(&[fault(&["...", "selftest_drift_alloc"], 1)]);
    assert_eq!(guest.run(&remembered).steps[0], StepResult::Failed(ENOMEM));
    for _ in 0..220 {
        guest.run(&harmless);
    }
    let counters = guest.usage();
    assert_eq!((counters.drifted, counters.guests), (1, 2), "{counters:?}");
}

#[test]
fn a_plan_that_this_kernel_cannot_run_is_refused() {
    let folder = steps_target(&["clean"], SLAB);
    let mut guest = guests(folder.path());
    let ran = guest.ran(&plan(&[fault(&["no_such_function"], 1)]), How::Warm);
    let Err(RunError::Refused(reason)) = ran.execution else { panic!("not refused") };
    assert!(reason.contains("no_such_function"), "{reason}");
    assert_eq!(guest.run(&plan(&[])).steps, [WRITTEN], "the guest is as good as before");
}

#[test]
fn a_name_that_this_kernel_inlined_is_skipped_and_told() {
    let folder = steps_target(&["occurrence"], SLAB);
    let mut guest = guests(folder.path());
    let path = ["...", "no_such_function", "selftest_occurrence_alloc"];
    let execution = guest.run(&plan(&[fault(&path, 2)]));
    assert_eq!((execution.steps.as_slice(), execution.fired.len()), (&[StepResult::Failed(102)][..], 1));
    assert_eq!(execution.unknown_names, ["no_such_function"]);
    assert!(guest.run(&plan(&[])).unknown_names.is_empty());
}

#[test]
fn a_workload_that_fails_by_itself_is_refused_with_the_step() {
    let folder = steps_target(&["clean"], SLAB);
    let file = folder.path().join("target.toml");
    let text = fs::read_to_string(&file).unwrap().replace("trigger = { name = \"clean\" }", "umount = {}");
    fs::write(&file, text).unwrap();
    let target = folder.path().to_str().unwrap();
    let Err(error) = prepare(&Wanted::new(target), &Stop::new(), &Silent) else { panic!("not refused") };
    assert!(execution::chain(&error).contains("step 1 (umount)"), "{}", execution::chain(&error));
}

#[test]
fn after_a_step_that_fails_the_others_are_skipped_and_the_next_execution_works() {
    let mut guest = guests_on(LEAN, "btrfs-rw");
    let fault_free = guest.prepared.target.fault_free();
    let first = guest.run(&fault_free);
    assert!(first.steps.iter().all(|step| matches!(step, StepResult::Done(_))), "{:?}", first.steps);
    assert!(first.hits.len() > 200, "{} sites", first.hits.len());
    let mut failing = fault_free.clone();
    failing.faults.push(fault(&["...", "open_ctree"], 1));
    let failed = guest.run(&failing);
    assert_eq!(failed.steps[0], StepResult::Failed(ENOMEM));
    assert!(failed.steps[1..].iter().all(|step| *step == StepResult::Skipped), "{:?}", failed.steps);
    let again = guest.run(&fault_free);
    assert_eq!(again.steps, first.steps, "the disk is as it was");
    assert_eq!(guest.usage().guests, 1);
}

#[test]
fn what_is_known_to_crash_still_does() {
    let mut crashes = 0;
    for target in Target::all(&Project::find().unwrap().corpus()).unwrap() {
        let known = target.known().unwrap();
        if known.is_empty() {
            continue;
        }
        crashes += known.len();
        let target = &target.name;
        let mut guest = guests_of(target);
        for known in known {
            let is_same = |execution: &Execution| execution.has_key(known.identity());
            let mut points = KnownPoints::default();
            let Relaxed { execution, unfired, .. } =
                run_relaxed(&mut guest.runner, &known.plan, How::Fresh, &mut points, is_same).unwrap();
            assert!(is_same(&execution), "{target}: {}: {:?}", known.title, execution.findings);
            // What a crash is before cannot fire.
            let last = execution.fired.iter().map(|fired| fired.fault).max();
            assert!(unfired.iter().all(|fault| Some(*fault) > last), "{target}: {}: {unfired:?}", known.title);
            assert!(!execution.coverage.is_empty(), "what ran is known of a guest that dies as well");
        }
    }
    assert!(crashes >= 5, "there are {crashes}");
}

#[test]
fn kvm_is_used_only_when_it_works() {
    let kernel = common::kernel();
    let config = bare_guest(&Project::find().unwrap(), &kernel).unwrap();
    let choose = |choice: AccelChoice| {
        // An empty cache each time, so that no answer is taken from the other.
        let cache = tempfile::tempdir().unwrap();
        choice.choose(&config.qemu, &kernel.vmlinux, cache.path(), &Stop::new())
    };
    let auto = choose(AccelChoice::Auto).unwrap();
    assert!(!auto.reason.is_empty());
    match choose(AccelChoice::Kvm) {
        Ok(_) => assert!(matches!(auto.accel, Accel::Kvm), "auto did not see that KVM works"),
        Err(error) => {
            assert!(matches!(auto.accel, Accel::Tcg), "auto chose a KVM that does not work");
            assert!(execution::chain(&error).contains("KVM"), "{error}");
        }
    }
    let steps = vec![Step::Trigger { name: "clean".parse().unwrap() }.into()];
    let setup = Setup { steps, ..Setup::default() };
    let config = GuestConfig { accel: auto.accel, ..config };
    let template = Template::prepare(config, &setup, &Stop::new()).unwrap();
    let request = Execute {
        id: 1,
        plan: plan(&[]),
        keep: false,
        leave: false,
        verify: None,
        inject: true,
        coverage: Recorded::Nothing,
        look: false,
        check: false,
        search: false,
        trace: Vec::new(),
        describe_all_sites: false,
    };
    let run = template.spawn().unwrap().execute(&request, Duration::from_secs(30), &mut Traces::default());
    let End::Reported(report) = run.end else { panic!("{:?}", run.end) };
    assert_eq!(report.steps, [WRITTEN], "what was chosen runs guests");
}
