//! The folder and the seeds with which a campaign begins and goes on.

use super::*;
use crate::{crashes::Cause, fake::seed};

#[test]
fn a_campaign_goes_on_where_it_stopped() {
    let folder = tempfile::tempdir().unwrap();
    let first = campaign(folder.path(), 300);
    let second = campaign(folder.path(), 300);
    let file: CampaignFile =
        serde_json::from_str(&fs::read_to_string(folder.path().join("campaign.json")).unwrap()).unwrap();
    assert_eq!(file.executions, first.statistics.executions + second.statistics.executions);
    assert!(
        second.statistics.coverage >= first.statistics.coverage && second.statistics.points >= first.statistics.points
    );
    assert_eq!(second.statistics.corpus, fs::read_dir(folder.path().join("corpus")).unwrap().count() as u64);
    assert_eq!(second.statistics.fault_free_coverage, first.statistics.fault_free_coverage);
    for crash in &first.crashes {
        assert!(second.crashes.contains(crash), "{crash:?} is lost");
    }
}

/// Plans that reach the same as a smaller one, and that a later start finds in the corpus.
#[test]
fn a_plan_that_does_not_earn_its_place_does_not_come_back() {
    let folder = tempfile::tempdir().unwrap();
    let first = campaign(folder.path(), 300);
    let corpus = folder.path().join("corpus");
    let earns = fs::read_dir(&corpus).unwrap().flatten().map(|entry| PlanInput::from_file(entry.path()).unwrap());
    let earns = earns.into_iter().find(|plan| plan.0.faults.len() == 1).unwrap();
    let mut useless = earns.clone();
    useless.0.faults.push(fake::plan(vec!["never".to_owned()], 9).faults.remove(0));
    useless.to_file(corpus.join(useless.generate_name(None))).unwrap();
    let second = campaign(folder.path(), 300);
    assert!(corpus.join(earns.generate_name(None)).is_file());
    assert!(!corpus.join(useless.generate_name(None)).exists());
    assert!(second.statistics.coverage >= first.statistics.coverage);
}

#[test]
fn reproducers_carry_the_target_and_the_folder_knows_its_digest() {
    let folder = tempfile::tempdir().unwrap();
    campaign(folder.path(), 300);
    let target = Target::find(targets().path(), "fake").unwrap();
    let opened = fake::open(folder.path());
    let crashes = opened.crashes().unwrap();
    assert!(!crashes.is_empty());
    for (_, reproducer) in crashes {
        let narrowed = target.narrowed(&reproducer.plan);
        assert_eq!(Target::from_definition(&reproducer.target.unwrap()).unwrap().setup(), narrowed.setup());
    }
    let file: CampaignFile =
        serde_json::from_str(&fs::read_to_string(folder.path().join("campaign.json")).unwrap()).unwrap();
    assert_eq!(file.target_digest, Some(target.digest()));
}

#[test]
fn what_a_killed_start_had_begun_to_write_is_removed() {
    let folder = tempfile::tempdir().unwrap();
    let first = campaign(folder.path(), 300);
    let unfinished = [folder.path().join("corpus/.1.json.tmp"), folder.path().join("crashes/.half")];
    fs::write(&unfinished[0], "{").unwrap();
    fs::create_dir(&unfinished[1]).unwrap();
    fs::write(unfinished[1].join("meta.json"), "{").unwrap();
    let second = campaign(folder.path(), 100);
    assert_eq!(second.crashes, first.crashes);
    assert!(unfinished.iter().all(|path| !path.exists()));
}

#[test]
fn a_folder_of_another_target_or_in_use_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    campaign(folder.path(), 20);
    let open = |target: &str| CampaignFolder::open(folder.path(), target, "fake");
    assert!(open("other").unwrap_err().to_string().contains("target \"fake\", not \"other\""));
    let text = fs::read_to_string(folder.path().join("campaign.json")).unwrap();
    fs::write(folder.path().join("campaign.json"), text.replace("\"version\": 1", "\"version\": 9")).unwrap();
    assert!(open("fake").unwrap_err().to_string().contains("format version 9"));
    fs::write(folder.path().join("campaign.json"), text).unwrap();
    let _held = open("fake").unwrap();
    assert!(matches!(open("fake").unwrap_err(), FolderError::Busy { .. }));
}

#[test]
fn a_folder_with_something_else_in_it_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join(".git")).unwrap();
    let error = CampaignFolder::open(folder.path(), "fake", "fake").unwrap_err();
    assert!(error.to_string().contains("holds no campaign (there is .git)"), "{error}");
    assert!(folder.path().join(".git").is_dir());
}

/// Runs a campaign on a target with this seed, of eleven executions: the fault-free ones at the
/// start, and what it begins with.
fn campaign_with_seed(folder: &Path, seed: &PlanInput) -> Result<Summary, CampaignError> {
    let stop = Stop::new();
    let runner = FakeRunner::new(&stop, 11);
    let targets = targets();
    let seeds = targets.path().join("fake/seeds");
    fs::create_dir(&seeds).unwrap();
    seed.to_file(seeds.join("first.json")).unwrap();
    run(options_for(targets.path(), folder, &stop, None), explorer(runner))
}

#[test]
fn a_seed_runs_once_and_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    let seed = seed("fake", "should_failslab");
    for start in 1..=2 {
        let summary = campaign_with_seed(folder.path(), &seed).unwrap();
        assert_eq!(
            (summary.statistics.fired, summary.statistics.corpus),
            (1, 3),
            "start {start}: the seed, and the workload once and twice without faults"
        );
        let files = fs::read_dir(folder.path().join("corpus")).unwrap().count();
        assert_eq!(files, 3, "start {start}");
    }
    assert!(folder.path().join("corpus").join(seed.generate_name(None)).is_file());
}

#[test]
fn a_seed_for_something_else_is_refused() {
    let refusal = |target, function| {
        let folder = tempfile::tempdir().unwrap();
        execution::chain(&campaign_with_seed(folder.path(), &seed(target, function)).unwrap_err())
    };
    let other = refusal("other", "should_failslab");
    assert!(other.contains("first.json is a plan for the target \"other\", not \"fake\""), "{other}");
    let unknown = refusal("fake", "open_ctree");
    assert!(unknown.contains("fault 1: open_ctree is none of the target's functions"), "{unknown}");
}

/// Files as the first builds wrote them: their folders must stay readable.
#[test]
fn a_folder_of_an_older_build_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let crash = at("crashes").join(slug("WARNING in f"));
    fs::create_dir_all(&crash).unwrap();
    let campaign = r#"{ "version": 1, "target": "fake", "kernel": "fake", "kernel_build_id": "fake",
        "fuzz_version": "0.1.0", "seed": 1, "executions": 968, "seconds": 32 }"#;
    let sites = r#"[{ "function": "should_failslab", "call_path": ["g", "f"], "truncated": false, "most_calls": 1,
        "executions": 1, "failed": 0, "fatal": 0, "attempted": false }]"#;
    let meta = r#"{ "version": 1, "title": "WARNING in f", "kind": "warning", "fired": [{ "fault": 1,
        "function": "should_failslab", "sequence": 29, "call_path": ["g", "f"] }], "stack": ["f"], "found_ms": 5905,
        "tried": 3, "reproduced": 3, "same_as": "WARNING in g" }"#;
    let reproducer = r#"{ "reproducer_version": 1, "title": "WARNING in f", "kernel": "fake",
        "kernel_build_id": "fake", "plan": { "version": 1, "target": "fake", "faults": [{
        "function": "should_failslab", "call_path": ["...", "f"], "occurrence": 1, "error": "ENOMEM" }] } }"#;
    fs::write(at("campaign.json"), campaign).unwrap();
    fs::write(at("sites.json"), sites).unwrap();
    fs::write(crash.join("meta.json"), meta).unwrap();
    fs::write(crash.join("reproducer.json"), reproducer).unwrap();
    let (opened, file) = CampaignFolder::open(folder.path(), "fake", "fake").unwrap();
    assert_eq!(file.unwrap().executions, 968);
    let crashes = opened.crashes().unwrap();
    assert_eq!((crashes[0].0.reproduced, crashes[0].0.same_as.as_deref()), (3, Some("WARNING in g")));
    assert_eq!((crashes[0].0.key.as_str(), crashes[0].1.plan.faults[0].occurrence), ("WARNING in f", 1));
    let crashes = Crashes::restore(Arc::new(opened), Duration::ZERO, None).unwrap();
    let finding = Finding { key: "check: f.c:1".to_owned(), ..fake::warning("WARNING in f") };
    let (plan, found) = (FaultPlan::fault_free("fake"), Execution { findings: vec![finding], ..fake::quiet() });
    assert!(!crashes.note(&fake::kernel("fake"), &Cause::of(&plan, &found)).unwrap(), "its title is known");
}
