//! The page of a report in a real browser: headless Chromium opens it, clicks through it, and tells
//! what its document is then.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[path = "../src/fixture.rs"]
mod fixture;

use std::{fs, path::Path, process::Command};

use serde_json::Value;
use triage::{CoveredPlace, KernelCoverage, NoKernels, Ran, by_file, formats, read};

/// Names under which distributions have the browser.
const BROWSERS: [&str; 3] = ["chromium", "chromium-browser", "google-chrome"];

/// Clicks of a user; the result is left in the document.
const CLICKS: &str = r##"
const order = () => [...document.querySelectorAll("#crash-table tbody tr")].map(row => row.cells[0].textContent.trim());
const head = name => [...document.querySelectorAll("#crash-table th button")].find(button => button.textContent === name);
const result = { before: order() };
head("Found at").click();
result.found = order();
head("Found at").click();
result.foundDown = order();
head("Title").click();
result.title = [...document.querySelectorAll("#crash-table tbody a")].map(link => link.textContent);
const third = document.getElementById("crash-3");
result.closed = !third.open;
document.querySelector("#crash-table a[href='#crash-3']").click();
const file = document.querySelector("#coverage details.file");
file.querySelector("summary").click();
setTimeout(() => {
  result.open = third.open;
  result.visible = third.querySelector("pre").getBoundingClientRect().height > 0;
  result.telling = third.querySelector(".telling").textContent.trim();
  result.file = file.open && file.querySelector(".fn .mono").textContent;
  result.plots = [...document.querySelectorAll("#growth svg")].map(svg => svg.getBoundingClientRect().height > 50);
  result.wide = document.documentElement.scrollWidth > document.documentElement.clientWidth;
  result.documentTitle = document.title;
  result.images = document.images.length;
  const told = document.createElement("pre");
  told.id = "told";
  told.textContent = JSON.stringify(result);
  document.body.append(told);
}, 100);
"##;

/// Gives the document of `page` as the browser has it after its scripts ran.
fn document(page: &Path, hash: &str) -> String {
    let profile = tempfile::tempdir().unwrap();
    let url = format!("file://{}{hash}", page.display());
    for browser in BROWSERS {
        let mut command = Command::new("timeout");
        command.args(["120", browser, "--headless=new", "--no-sandbox", "--disable-gpu", "--window-size=1280,1000"]);
        command.arg(format!("--user-data-dir={}", profile.path().display()));
        let output = command.args(["--virtual-time-budget=5000", "--dump-dom", &url]).output().unwrap();
        // `timeout` has no such program.
        if output.status.code() == Some(127) {
            continue;
        }
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{browser}: {}: {error}", output.status);
        return String::from_utf8(output.stdout).unwrap();
    }
    panic!("this test needs a browser; install it with: apt-get install --no-install-recommends chromium")
}

fn page() -> String {
    let folder = tempfile::tempdir().unwrap();
    fixture::write_campaign(folder.path());
    let mut report = read(folder.path(), &NoKernels).unwrap();
    let place = |line, ran| CoveredPlace {
        function: "open_ctree",
        unit: "fs/btrfs/disk-io.c",
        file: "fs/btrfs/disk-io.c",
        line,
        ran,
    };
    let places = [place(7, Ran::Workload), place(9, Ran::Faults), place(11, Ran::Never)];
    let files = by_file(&places, &[("open_ctree".to_owned(), 3)].into());
    let kernel = "linux-6.12-check".to_owned();
    report.coverage = vec![KernelCoverage { kernel, by_faults_known: true, files, ..KernelCoverage::default() }];
    formats::html(&report).unwrap()
}

#[test]
fn a_browser_clicks_through_the_page() {
    let (folder, page) = (tempfile::tempdir().unwrap(), page());
    let path = folder.path().join("page.html");
    // The page's policy would not let the test's script run.
    let (before, rest) = page.split_once("script-src 'sha256-").unwrap();
    let (_, after) = rest.split_once('\'').unwrap();
    let clicked = format!("{before}script-src 'unsafe-inline'{after}")
        .replace("</body>", &format!("<script>{CLICKS}</script></body>"));
    fs::write(&path, clicked).unwrap();
    let document = document(&path, "");
    let told = document.split_once("<pre id=\"told\">").and_then(|(_, rest)| rest.split_once("</pre>"));
    let (told, _) = told.unwrap_or_else(|| panic!("the clicks failed: {document}"));
    let told: Value =
        serde_json::from_str(&told.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")).unwrap();
    assert_eq!(told["before"], serde_json::json!(["1", "2", "3", "4"]));
    assert_eq!(told["found"], serde_json::json!(["3", "1", "4", "2"]), "12 s, 27.8 s, 55 s, 90 s: numbers, not words");
    assert_eq!(told["foundDown"], serde_json::json!(["2", "4", "1", "3"]));
    assert_eq!(told["title"][3], "WARNING in btrfs_lookup_inode");
    assert_eq!((&told["closed"], &told["open"], &told["visible"]), (&true.into(), &true.into(), &true.into()));
    assert_eq!(told["telling"], "[-ENOMEM] super_setup_bdi", "with what it returned");
    assert_eq!(told["file"], "open_ctree");
    assert_eq!(told["plots"], serde_json::json!([true, true, true]));
    assert_eq!(told["wide"], false, "the page fits its window");
    assert_eq!(
        (&told["documentTitle"], &told["images"]),
        (&"fuzz: btrfs-mount, 4 crashes".into(), &0.into()),
        "the guest runs no script"
    );
}

#[test]
fn the_page_runs_its_own_script_under_its_policy() {
    let (folder, page) = (tempfile::tempdir().unwrap(), page());
    let path = folder.path().join("page.html");
    fs::write(&path, &page).unwrap();
    let opened = |document: &str| {
        let (_, rest) = document.split_once("id=\"crash-2\"").unwrap();
        rest.split_once('>').unwrap().0.contains("open")
    };
    assert!(opened(&document(&path, "#crash-2")), "the script opens what the address names");
    let foreign = page.replace("</body>", "<script>document.getElementById('crash-2').open = true</script></body>");
    fs::write(&path, foreign).unwrap();
    assert!(!opened(&document(&path, "")), "no other script runs");
}
