//! The limits of the papers, and the files that ARCHITECTURE.md names.

use super::{read, root};

const PAPERS: [&str; 17] = [
    "README.md",
    "ARCHITECTURE.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "FINDINGS.md",
    "LICENSE.md",
    "docs/campaign-folder.md",
    "docs/cases.md",
    "docs/decisions.md",
    "docs/fault-plans.md",
    "docs/measurements.md",
    "docs/oracles.md",
    "docs/reports.md",
    "docs/reproducers.md",
    "docs/scaling.md",
    "docs/several-machines.md",
    "docs/targets.md",
];
/// The most words of a paragraph.
const PARAGRAPH_WORDS: usize = 80;
const README_LINES: usize = 120;
const ARCHITECTURE_LINES: usize = 150;

/// The paragraphs of a paper: runs of lines that are no table and no code. An entry of a list is
/// one.
fn paragraphs(text: &str) -> Vec<String> {
    let mut paragraphs = vec![String::new()];
    let mut code = false;
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            code = !code;
        }
        let entry = line.trim_start().starts_with(['-', '*'])
            || line.trim_start().split_once(". ").is_some_and(|(number, _)| number.parse::<u32>().is_ok());
        if code || line.trim().is_empty() || line.starts_with(['|', '#', '`']) || line.starts_with("    ") || entry {
            paragraphs.push(String::new());
        }
        if !code && !line.starts_with(['|', '#']) && !line.starts_with("    ") {
            let last = paragraphs.last_mut().unwrap();
            last.push_str(line);
            last.push(' ');
        }
    }
    paragraphs
}

#[test]
fn papers_are_short() {
    for paper in PAPERS {
        for paragraph in paragraphs(&read(paper)) {
            let words = paragraph.split_whitespace().count();
            assert!(words <= PARAGRAPH_WORDS, "{paper}: a paragraph of {words} words: {paragraph}");
        }
    }
    for (paper, most) in [("README.md", README_LINES), ("ARCHITECTURE.md", ARCHITECTURE_LINES)] {
        let lines = read(paper).lines().count();
        assert!(lines <= most, "{paper} has {lines} lines, at most {most} are allowed");
    }
}

#[test]
fn no_paper_is_forgotten() {
    let mut found: Vec<String> = ["", "docs"]
        .iter()
        .flat_map(|folder| std::fs::read_dir(root().join(folder)).unwrap())
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "md"))
        .map(|path| path.strip_prefix(root()).unwrap().display().to_string())
        .collect();
    found.sort();
    let mut known = PAPERS.map(str::to_owned);
    known.sort();
    assert_eq!(found, known);
}

#[test]
fn files_that_the_architecture_names_are_there() {
    let text = read("ARCHITECTURE.md");
    let words = text.split(|character: char| character.is_whitespace() || "()|,`".contains(character));
    let mut named = 0;
    for path in words.filter(|word| word.starts_with("fuzzer/") || word.starts_with("ebpf/")) {
        assert!(root().join(path).exists(), "ARCHITECTURE.md names {path}, which is not there");
        named += 1;
    }
    assert!(named > 20, "it names {named} files");
    for (crate_path, module) in modules(&text) {
        let module_path = root().join(&crate_path).join("src").join(&module);
        let there = module_path.is_dir() || module_path.with_extension("rs").is_file();
        assert!(there, "ARCHITECTURE.md names the module {crate_path}: {module}, which is not there");
    }
}

/// The modules of the second table, each with its crate's folder.
fn modules(text: &str) -> Vec<(String, String)> {
    let rows = text.lines().skip_while(|line| *line != "| module | what it is |").skip(2);
    let cells = rows.take_while(|line| line.starts_with('|')).map(|line| line.split('|').nth(1).unwrap_or_default());
    let named = cells.flat_map(|cell| cell.split('`').skip(1).step_by(2));
    named
        .map(|name| {
            let (crate_name, module) = name.split_once('/').unwrap_or_else(|| panic!("{name} has no crate"));
            let folder = if crate_name == "agent" { "ebpf" } else { "fuzzer" };
            (format!("{folder}/{crate_name}"), module.to_owned())
        })
        .collect()
}
