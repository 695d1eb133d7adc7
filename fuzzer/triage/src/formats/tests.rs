//! Golden outputs, and what no form may do. `FUZZ_BLESS=1` writes the golden files anew.

use std::{fs, path::Path};

use super::*;
use crate::model::{Crash, CrashKernel, FileCoverage, FunctionCoverage, KernelCoverage, LineCoverage, Ran};
use crate::{
    Kernels, KnownKernel, Standing,
    fixture::{HOSTILE, write_campaign},
    read,
};

/// A cache with one kernel, whose every frame is a line of `fs/btrfs/f.c`.
struct OneKernel;

impl Kernels for OneKernel {
    fn known(&self, build_id: &str) -> Option<KnownKernel> {
        (build_id == "ab12").then(|| KnownKernel {
            name: "linux-6.12-check".to_owned(),
            release: "6.12.117-fuzz".to_owned(),
            source: "linux-source-6.12 6.12.117-1".to_owned(),
            compiler: "gcc (Debian 12.2.0-14) 12.2.0".to_owned(),
            config: "/cache/kernels/linux-6.12-check/config".into(),
        })
    }

    fn lines(&self, _build_id: &str, _frame: &str) -> Vec<String> {
        vec!["fs/btrfs/f.c:7".to_owned()]
    }

    fn decode(&self, _build_id: &str, report: &str) -> Option<String> {
        Some(report.replace("+0x250/0x290", " (fs/btrfs/messages.c:83)").replace("+0x1/0x2", " (fs/btrfs/inode.c:9)"))
    }

    fn file(&self, _build_id: &str, function: &str) -> Option<String> {
        function.starts_with("btrfs").then(|| "fs/btrfs/super.c".to_owned())
    }

    fn contract(&self, _function: &str) -> Option<String> {
        None
    }
}

fn report() -> Report {
    let folder = tempfile::tempdir().unwrap();
    write_campaign(folder.path());
    let mut report = read(folder.path(), &OneKernel).unwrap();
    report.campaign.folder = "campaigns/btrfs-mount".into();
    report
}

fn golden(name: &str, found: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata").join(name);
    if std::env::var_os("FUZZ_BLESS").is_some() {
        fs::write(&path, found).unwrap();
    }
    assert_eq!(found, fs::read_to_string(&path).unwrap_or_default(), "{name}; FUZZ_BLESS=1 writes it anew");
}

fn mail(report: &Report, rank: usize) -> String {
    let addressees = Addressees::Known {
        to: vec!["Chris Mason <clm@fb.com>".to_owned(), "David Sterba <dsterba@suse.com>".to_owned()],
        cc: vec!["linux-btrfs@vger.kernel.org".to_owned()],
    };
    lkml(&Mail { report, crash: &report.crashes[rank - 1], addressees: &addressees })
}

#[test]
fn text_and_mails_are_as_they_were() {
    let report = report();
    golden("report.txt", &text(&report, None));
    golden("two-faults.mail", &mail(&report, 1));
    golden("leftover.mail", &mail(&report, 3));
    let alarm = report.crashes.last().unwrap();
    assert_eq!(alarm.standing, Standing::Alarm);
    assert!(mail(&report, alarm.rank).contains("alarm by design"));
}

#[test]
fn a_mail_says_that_no_other_version_was_tried_only_if_so() {
    let mut report = report();
    assert!(mail(&report, 1).contains("no other version was tried"));
    let other = CrashKernel { name: "linux-6.1".to_owned(), ..CrashKernel::default() };
    report.crashes[0].kernels.push(other);
    let mail = mail(&report, 1);
    assert!(mail.contains("Seen on too") && !mail.contains("no other version"), "{mail}");
}

#[test]
fn a_mail_has_its_first_screen_within_its_columns() {
    let report = report();
    for rank in 1..=report.crashes.len() {
        let mail = mail(&report, rank);
        let (head, _) = mail.split_once("no security report").unwrap_or_else(|| panic!("{mail}"));
        assert!(head.lines().count() <= 45, "the first screen of rank {rank}:\n{mail}");
        let prose = head.lines().skip_while(|line| !line.is_empty());
        let long = prose.filter(|line| line.chars().count() > 75).collect::<Vec<_>>();
        assert!(rank == 2 || long.is_empty(), "{long:?}");
        assert!(!mail.contains('\u{1b}'), "no commands for a terminal");
        assert!(!mail.lines().any(|line| line.starts_with("Bcc:")), "no header of a guest's:\n{mail}");
    }
}

#[test]
fn json_and_sarif_are_valid() {
    let report = report();
    let json: serde_json::Value = serde_json::from_str(&json(&report).unwrap()).unwrap();
    assert_eq!((&json["version"], &json["crashes"][0]["rank"]), (&1.into(), &1.into()));
    assert_eq!(json["crashes"][0]["faults"][0]["function"], "should_failslab");
    let controls = |text: &serde_json::Value| text.as_str().unwrap().contains(char::is_control);
    assert!(json["crashes"].as_array().unwrap().iter().all(|one| !controls(&one["key"]) && !controls(&one["title"])));
    let sarif: serde_json::Value = serde_json::from_str(&sarif(&report).unwrap()).unwrap();
    let results = &sarif["runs"][0]["results"];
    assert_eq!(results.as_array().unwrap().len(), report.crashes.len());
    assert_eq!((&results[0]["ruleId"], &results[0]["level"]), (&"kasan".into(), &"error".into()));
    let place = &results[0]["locations"][0]["physicalLocation"];
    assert_eq!(place["artifactLocation"]["uri"], "fs/btrfs/f.c");
    assert_eq!(place["region"]["startLine"], 7);
    assert_eq!(results[report.crashes.len() - 1]["level"], "note", "an alarm is only told");
}

#[test]
fn nothing_of_a_guest_becomes_markup() {
    let page = html(&report()).unwrap();
    assert!(!page.contains(HOSTILE) && !page.contains("<img"), "all is escaped");
    assert!(page.contains("&#60;script&#62;"), "and shown");
    assert!(!page.contains("http:") && !page.contains("https:"), "nothing is loaded from anywhere");
    assert_eq!(page.matches("<script>").count(), 1, "the page's own");
}

#[test]
fn a_page_with_many_crashes_stays_small() {
    let mut report = report();
    let long = Crash { report: "x".repeat(64 << 10), ..report.crashes[0].clone() };
    report.crashes = vec![long; 30];
    let line = |line| LineCoverage { line, ran: Some(Ran::Faults), text: Some("\tif (ret < 0)".to_owned()) };
    let function = |number| FunctionCoverage {
        function: format!("btrfs_function_with_a_long_name_{number}"),
        workload: 1,
        faults: 1,
        never: 1,
        lines: (1..40).map(line).collect(),
    };
    let file =
        |number| FileCoverage { file: format!("fs/btrfs/{number}.c"), functions: (0..60).map(function).collect() };
    let kernel =
        KernelCoverage { by_faults_known: true, files: (0..60).map(file).collect(), ..KernelCoverage::default() };
    report.coverage = vec![kernel.clone(), kernel];
    let page = html(&report).unwrap();
    assert!(page.len() < 5_000_000, "{} bytes", page.len());
    assert!(page.contains("The source of some functions is left out"));
}
