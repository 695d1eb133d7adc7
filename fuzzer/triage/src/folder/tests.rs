//! Folders that are whole, running, damaged or none.

use std::fs;

use tempfile::TempDir;

use super::*;
use crate::{Impact, NoKernels, Standing};

const META: &str = r#"{ "version": 1, "key": "check: fs/btrfs/inode.c f: WARN_ON(x)", "title": "WARNING in f",
    "kind": "warning", "fired": [ { "fault": 1, "function": "should_failslab", "sequence": 7,
    "call_path": ["kmem_cache_alloc_noprof", "f"] } ], "stack": ["f"], "found_ms": 1500, "tried": 3, "reproduced": 2,
    "of_a_later_version": true }"#;

const REPRODUCER: &str = r#"{ "reproducer_version": 1, "key": "check: fs/btrfs/inode.c f: WARN_ON(x)",
    "title": "WARNING in f", "kernel": "linux-check", "kernel_build_id": "ab12", "plan": { "version": 1, "target": "t",
    "faults": [ { "function": "should_failslab", "call_path": ["kmem_cache_alloc_noprof"], "occurrence": 2,
    "error": "ENOMEM" } ] }, "target": {
        "image": {
            "mkfs": ["mkfs.btrfs", "-q"], "size_mib": 128, "steps": [{ "mount": { "fstype": "btrfs" } }, { "crash-copy": {} }]
        },
        "steps": [ { "mount": { "options": "compress=zstd" } }, "umount" ] } }"#;

fn write(folder: &Path, files: &[(&str, &str)]) {
    for (name, text) in files {
        let path = folder.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
}

fn whole() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    write(
        folder.path(),
        &[
            (
                "campaign.json",
                r#"{ "version": 1, "target": "t", "kernel": "linux-check", "executions": 9, "seconds": 5 }"#,
            ),
            ("crashes/one/meta.json", META),
            ("crashes/one/reproducer.json", REPRODUCER),
            (
                "crashes/one/report.txt",
                "WARNING: CPU: 0 PID: 3 at fs/btrfs/inode.c:7 f+0x1/0x2\nCall Trace:\nf+0x1/0x2\n",
            ),
            ("crashes/.unfinished/meta.json", "{"),
            (
                "matrix/linux-lean.jsonl",
                "{\"function\":\"a\",\"call_path\":[\"g\"],\"cells\":[{\"error\":\"EIO\"}]}\n\
                 {\"function\":\"a\",\"call_path\":[\"g\"],\"cells\":[{\"error\":\"EIO\",\"faults\":1,\
                 \"findings\":[\"check: fs/btrfs/inode.c f: WARN_ON(x)\"]}]}\n",
            ),
            (
                "stats.jsonl",
                "{\"seconds\":1.0,\"coverage\":5}\n{\"seconds\":3.0,\"coverage\":7}\n{\"seconds\":1.0,\"coverage\":9}\n{\"sec",
            ),
        ],
    );
    folder
}

#[test]
fn a_whole_folder_is_read() {
    let folder = whole();
    let report = read(folder.path(), &NoKernels).unwrap();
    assert_eq!((report.gaps.len(), report.crashes.len()), (0, 1), "{:?}", report.gaps);
    let crash = &report.crashes[0];
    assert_eq!((crash.rank, crash.standing, crash.impact), (1, Standing::Finding, Impact::Warning));
    assert_eq!((crash.found_s, crash.replays(), crash.plan_faults), (Some(1.5), "2/3".to_owned(), 1));
    assert_eq!((crash.faults[0].error.as_deref(), crash.faults[0].occurrence), (Some("ENOMEM"), Some(2)));
    assert_eq!(crash.steps, ["mount", "umount"]);
    let disk = crash.disk.as_deref().unwrap();
    assert!(disk.starts_with("mkfs.btrfs -q (128 MiB), mount -o compress=zstd, used before: mount, a copy"), "{disk}");
    assert_eq!(crash.guilty.as_ref().unwrap().line, Some(7));
    let kernels: Vec<_> = crash.kernels.iter().map(|kernel| kernel.name.as_str()).collect();
    assert_eq!(kernels, ["linux-check", "linux-lean"], "the matrix says where else it was seen");
    let matrix = &report.matrices[0];
    assert_eq!((matrix.points, matrix.cells, matrix.cells_failed), (1, 1, 1), "the later line counts");
    let times: Vec<_> = report.growth.iter().map(|growth| growth.seconds).collect();
    assert_eq!(times, [1.0, 3.0, 4.0], "a start goes on where the one before ended; half a line is left out");
}

#[test]
fn what_is_missing_or_damaged_is_a_gap() {
    for damage in ["", "{", "[]", "{}", "null", "\u{0}", "{\"fired\": 7}", "{\"title\": {}}"] {
        for name in [
            "campaign.json",
            "stats.jsonl",
            "matrix/linux-lean.jsonl",
            "crashes/one/meta.json",
            "crashes/one/reproducer.json",
        ] {
            let folder = whole();
            fs::write(folder.path().join(name), format!("{damage}\n")).unwrap();
            let report = read(folder.path(), &NoKernels).unwrap();
            assert_eq!(report.crashes.len(), 1, "{name} with {damage}");
            let text = crate::formats::text(&report, None);
            assert!(text.contains("WARNING in f"), "{name} with {damage}: {text}");
        }
    }
    for name in ["meta.json", "reproducer.json", "report.txt"] {
        let folder = whole();
        fs::remove_file(folder.path().join("crashes/one").join(name)).unwrap();
        let report = read(folder.path(), &NoKernels).unwrap();
        assert!(report.crashes[0].gaps.iter().any(|gap| gap.contains(name)), "{name}: {:?}", report.crashes[0].gaps);
    }
    let folder = whole();
    fs::write(folder.path().join("crashes/one/report.txt"), [0xff, 0x1b, b'a']).unwrap();
    let report = read(folder.path(), &NoKernels).unwrap();
    assert!(!crate::formats::text(&report, None).contains('\u{1b}'), "no commands for the terminal");
}

#[test]
fn a_folder_without_a_campaign_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    assert!(matches!(read(folder.path(), &NoKernels), Err(ReportError::NoCampaign { .. })));
    assert!(matches!(read(Path::new("/nowhere"), &NoKernels), Err(ReportError::NoCampaign { .. })));
}

#[test]
fn a_program_is_shown_only_if_it_made_the_crash() {
    for (verdict, shown) in [
        (r#""repro": { "c": "2 of 3" },"#, Some(("repro.c", true))),
        (r#""repro": { "c": "0 of 3" },"#, Some(("repro.c", false))),
        (r#""repro": { "c": "step 2 cannot be written in C" },"#, Some(("repro.c", false))),
        (r#""repro": { "c": "fails 3 times", "bt": "1 of 3" },"#, Some(("repro.bt", true))),
        (r#""repro": { "c": "fails 3 times", "bt": "not installed" },"#, Some(("repro.bt", false))),
        ("", None),
    ] {
        let folder = whole();
        let meta = META.replacen('{', &format!("{{ {verdict}"), 1);
        let files = ["meta.json", "repro.c", "repro.bt"].map(|name| format!("crashes/one/{name}"));
        let texts = [meta.as_str(), "int main(void);\n", "END {}\n"];
        write(folder.path(), &[(&files[0], texts[0]), (&files[1], texts[1]), (&files[2], texts[2])]);
        let report = read(folder.path(), &NoKernels).unwrap();
        assert!(report.crashes[0].gaps.is_empty(), "{:?}", report.crashes[0].gaps);
        let program = report.crashes[0].program.as_ref();
        assert_eq!(program.map(|program| (program.file.as_str(), program.text.is_some())), shown, "{verdict}");
    }
}
