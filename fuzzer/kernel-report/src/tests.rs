use std::{collections::HashMap, fs, path::PathBuf};

use proptest::prelude::*;

use super::*;

/// A golden file: a header (see [`header_of`]), an empty line, a log.
pub(crate) struct Golden {
    path: PathBuf,
    pub(crate) header: String,
    pub(crate) log: String,
}

pub(crate) fn golden_files() -> Vec<Golden> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("testdata/reports");
    let mut files: Vec<Golden> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "log"))
        .map(|path| {
            let content = String::from_utf8_lossy(&fs::read(&path).unwrap()).into_owned();
            // A new file may have no header yet.
            let (header, log) = match content.split_once("\n\n") {
                Some((header, log)) if header.starts_with("TITLE: ") => (header.to_owned(), log.to_owned()),
                _ => (String::new(), content),
            };
            Golden { path, header, log }
        })
        .collect();
    files.sort_by(|left, right| left.path.cmp(&right.path));
    files
}

/// Gives the header of a golden file: title, key and kind, then the structure, without what there
/// is none of. A stack is its role and the number of its frames, those in doubt too.
fn header_of(report: Option<&KernelReport>) -> String {
    let Some(report) = report else { return "TITLE: none".to_owned() };
    let mut header = format!("TITLE: {}\nKEY: {}\nKIND: {}", report.title, report.key, report.kind);
    if let Some(Guilty { function, file, line }) = &report.guilty {
        header += &format!("\nGUILTY: {function}");
        header += &file.as_ref().zip(*line).map_or_else(String::new, |(file, line)| format!(" {file}:{line}"));
    }
    if let Some(Access { what, bytes, address }) = &report.access {
        header += &format!("\nACCESS: {what}");
        header += &bytes.map_or_else(String::new, |bytes| format!(", {bytes} bytes"));
        header += &address.map_or_else(String::new, |address| format!(", {address:#x}"));
    }
    for Stack { role, frames } in &report.stacks {
        header += &format!("\nSTACK: {role:?} {}", frames.len());
    }
    if report.truncated { header + "\nTRUNCATED" } else { header }
}

/// `UPDATE_GOLDEN=1` rewrites the headers.
#[test]
fn golden_logs_have_their_titles_keys_and_structures() {
    let update = std::env::var_os("UPDATE_GOLDEN").is_some();
    let files = golden_files();
    assert!(files.len() >= 30, "only {} golden logs", files.len());
    let mut wrong = Vec::new();
    for file in files {
        let found = header_of(first_report(&file.log).as_ref());
        if found == file.header {
            continue;
        }
        if update {
            fs::write(&file.path, format!("{found}\n\n{}", file.log)).unwrap();
        } else {
            wrong.push(format!("{}\n  expected {:?}\n  found    {found:?}", file.path.display(), file.header));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_text_of_a_report_says_all_of_it_again() {
    for report in golden_files().iter().flat_map(|file| reports(&file.log)) {
        let again = read(&report.text);
        // The report that followed may have shown where this one ends.
        assert_eq!(again.map(|again| KernelReport { truncated: report.truncated, ..again }), Some(report));
    }
}

#[test]
fn the_console_prefixes_do_not_matter() {
    for file in golden_files() {
        let bare: String = lines::clean(&file.log).map(|line| format!("{line}\n")).collect();
        let prefixed: String = bare.lines().map(|line| format!("<4>[  102.000001][  T123] {line}\r\n")).collect();
        let expected = first_report(&file.log);
        assert_eq!(first_report(&bare), expected, "{}", file.path.display());
        assert_eq!(first_report(&prefixed), expected, "{}", file.path.display());
    }
}

#[test]
fn lines_of_others_in_between_do_not_matter() {
    for file in golden_files() {
        let disturbed: String =
            lines::clean(&file.log).map(|line| format!("{line}\nBTRFS info (device ram0): using crc32c\n")).collect();
        let title = |log: &str| first_report(log).map(|report| report.title);
        assert_eq!(title(&disturbed), title(&file.log), "{}", file.path.display());
    }
}

#[test]
fn a_report_is_found_behind_any_boot_log() {
    for file in golden_files() {
        let log = format!(
            "[    0.000000] Linux version 6.12.117\n[    0.000000] BUG: MAX_LOCKDEP_KEYS too low!\n{}",
            file.log
        );
        assert_eq!(header_of(first_report(&log).as_ref()), file.header, "{}", file.path.display());
    }
}

#[test]
fn a_kernel_that_is_not_fit_to_judge_says_so_and_reports_nothing() {
    let of = |name: &str| golden_files().into_iter().find(|file| file.path.ends_with(name)).unwrap().log;
    let full = of("195-none-lockdep-full.log");
    assert_eq!(impairment(&full), Some("BUG: MAX_LOCKDEP_CHAINS too low!"));
    let short = of("191-none-page-allocation.log");
    assert!(impairment(&short).unwrap().contains("page allocation failure"));
    let out = of("197-none-out-of-memory.log");
    assert!(impairment(&out).is_some() && is_out_of_memory(&out) && !is_out_of_memory(&short));
    assert_eq!(
        impairment("[    9.100000] kmemleak: Kernel memory leak detector disabled\n").unwrap().split(' ').next(),
        Some("Kernel")
    );
    for fit in ["190-none-fault-injection.log", "192-none-file-systems.log", "120-warning.log"] {
        assert_eq!(impairment(&of(fit)), None, "{fit}");
    }
    let cause = format!("{}\n{out}", of("120-warning.log"));
    assert_eq!(reports(&cause).len(), 1, "what was reported before counts");
}

#[test]
fn the_text_is_that_report_alone() {
    let log = "noise\n------------[ cut here ]------------\nWARNING: CPU: 0 PID: 7 at fs/a.c:1 f+0x1/0x2\nCall Trace:\n\
        <TASK>\nf+0x1/0x2\ng.isra.0+0x1/0x2\n? h+0x1/0x2\n</TASK>\n---[ end trace 0000000000000000 ]---\nnoise\nBUG: later";
    let report = first_report(log).unwrap();
    assert_eq!(report.title, "WARNING in f");
    assert!(report.text.starts_with("------------[ cut here ]"));
    assert!(report.text.ends_with("---[ end trace 0000000000000000 ]---\n"));
    assert_eq!(report.stack(), ["f", "g"]);
}

#[test]
fn an_announced_error_does_not_hide_a_defect() {
    let log = "------------[ cut here ]------------\nBTRFS: Transaction aborted (error -28)\n\
        WARNING: CPU: 0 PID: 7 at fs/btrfs/a.c:1 f+0x1/0x2\nCall Trace:\nf+0x1/0x2\n---[ end trace 0 ]---\n\
        BUG: kernel NULL pointer dereference, address: 0000000000000008\nRIP: 0010:g+0x1/0x2\n";
    assert_eq!(first_report(log).unwrap().title, "BUG: kernel NULL pointer dereference in g");
    assert_eq!(first_report(&log[..log.find("BUG:").unwrap()]), None);
}

#[test]
fn a_report_hides_no_later_one() {
    let titles = |log: &str| reports(log).into_iter().map(|report| report.title).collect::<Vec<_>>();
    let warning = "------------[ cut here ]------------\nWARNING: CPU: 0 PID: 7 at fs/a.c:1 f+0x1/0x2\nCall Trace:\n\
        f+0x1/0x2\n---[ end trace 0000000000000000 ]---\n";
    let kasan = "==================================================================\n\
        BUG: KASAN: slab-use-after-free in g+0x1/0x2\nRead of size 8 at addr ffff888001 by task a/1\nCall Trace:\n\
        g+0x1/0x2\n==================================================================\n";
    let panic = "Kernel panic - not syncing: kasan: panic_on_warn set ...\n";
    let found = titles(&format!("{warning}noise\n{warning}{kasan}{warning}{panic}"));
    assert_eq!(found, ["WARNING in f", "KASAN: slab-use-after-free Read in g"]);
    assert_eq!(titles(panic).len(), 1, "a panic that nothing explains");
    assert_eq!(titles(&format!("{warning}Kernel panic - not syncing: stack-protector: corrupted\n")).len(), 2);
    let rss = "BUG: Bad rss-counter state mm:00000000a1b2c3d4 type:MM_ANONPAGES val:1\n";
    assert_eq!(titles(&format!("{rss}{kasan}")).len(), 2, "a report without a trace ends where another begins");
    let aborted = warning.replace("WARNING", "BTRFS: Transaction aborted (error -28)\nWARNING");
    assert_eq!(titles(&format!("BUG: odd\nCall Trace:\nf+0x1/0x2\n{aborted}")), ["BUG: odd in f"]);
    for first in golden_files() {
        let expected: Vec<String> = first_report(&first.log).into_iter().map(|report| report.title).collect();
        let alone = titles(&first.log);
        assert_eq!(alone[..expected.len()], expected, "{}", first.path.display());
        // The end of a report without its call trace cannot be known.
        if !lines::clean(&first.log).any(|line| frames::stack_line(line).is_some()) {
            continue;
        }
        for second in golden_files() {
            let both: Vec<_> =
                reports(&format!("{}{}", first.log, second.log)).into_iter().map(|report| report.key).collect();
            let consequence = alone.len() + usize::from(second.header.contains("\nKIND: panic")) > 1;
            for report in reports(&second.log).iter().filter(|_| !consequence) {
                let names = format!("{} and {}", first.path.display(), second.path.display());
                assert!(both.contains(&report.key), "{} is not in {both:?}: {names}", report.key);
            }
        }
    }
}

#[test]
fn a_number_after_a_letter_is_an_address_only_in_hexadecimal() {
    let title = |words: &str| first_report(&format!("Kernel panic - not syncing: {words}")).unwrap().title;
    assert_eq!(title("a0x0 at 0x12"), "kernel panic: aN at N");
    assert_eq!(title("ext4 on loop0"), "kernel panic: ext4 on loop0");
    assert_eq!(title("a0x"), "kernel panic: a0x");
}

#[test]
fn slugs_are_file_names_and_stay_distinct() {
    assert_eq!(slug("plain-name_1.2"), "plain-name_1.2");
    let long = "x".repeat(200);
    let titles = ["WARNING in f", "WARNING: in f", "../../etc/passwd", "", ".", "..", "ä", &long, &long[..199]];
    let mut slugs = HashMap::new();
    for title in titles {
        let slug = slug(title);
        assert!((1..=MAX_SLUG_BYTES).contains(&slug.len()), "{slug}");
        assert!(slug.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte)), "{slug}");
        assert!(!slug.starts_with(['.', '-']), "{slug}");
        assert_eq!(slugs.insert(slug, title), None);
    }
}

const MAX_SLUG_BYTES: usize = 80;

pub(crate) fn is_a_good_title(title: &str) -> bool {
    let hex = |word: &str| word.bytes().take_while(u8::is_ascii_hexdigit).count();
    title.len() <= 120
        && !title.is_empty()
        && title.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ')
        && !title.contains("+0x")
        && !title.split("0x").skip(1).any(|after| hex(after) > 0)
}

pub(crate) fn is_a_good_key(key: &str) -> bool {
    (1..=400).contains(&key.len()) && key.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ')
}

/// Lines that steer the parser into its corners.
fn a_line() -> impl Strategy<Value = String> {
    let headers = prop::sample::select(vec![
        "BUG: KASAN: slab-use-after-free in f+0x1/0x2",
        "Read of size 8 at addr ffff888",
        "BUG: ",
        "WARNING: a at b+0x",
        "Call Trace:",
        "<TASK>",
        "</TASK>",
        "</IRQ>",
        "RIP: 0010:",
        "Oops: ",
        "Oops: x [#1]",
        "Oops:  [#",
        "kernel BUG at ",
        "unreferenced object 0x",
        "backtrace:",
        "BUG a (b): ",
        "assertion failed: ",
        ", in fs/f.c:7",
        "KASAN:  in range [",
        "Kernel panic - not syncing: ",
        "workfn=",
        "#0: at: ",
        "====================================",
        "---[ end trace",
        "UBSAN: ",
        "+0x",
        "f+0x1/0x2",
    ]);
    let piece =
        prop_oneof![3 => headers.prop_map(str::to_owned), 1 => "\\PC{0,12}", 1 => "[0-9a-fx+ /:\\[\\]<>.#]{0,14}"];
    prop::collection::vec(piece, 1..4).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    #[test]
    fn any_text_is_survived(text in any::<String>()) {
        if let Some(report) = first_report(&text) {
            prop_assert!(is_a_good_title(&report.title), "{:?}", report.title);
        }
    }

    #[test]
    fn titles_of_damaged_reports_are_clean(lines in prop::collection::vec(a_line(), 0..12)) {
        let log = lines.join("\n");
        let all = reports(&log);
        prop_assert_eq!(all.first().cloned(), first_report(&log));
        for report in all {
            prop_assert!(is_a_good_title(&report.title), "{:?}", report.title);
            prop_assert!(is_a_good_key(&report.key), "{:?}", report.key);
            let _ = report.stack();
            prop_assert!(slug(&report.title).len() <= MAX_SLUG_BYTES);
        }
    }

    #[test]
    fn slugs_of_distinct_titles_differ(one in "\\PC{0,100}", other in "\\PC{0,100}") {
        prop_assert_eq!(one == other, slug(&one) == slug(&other));
    }
}
