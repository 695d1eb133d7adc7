//! Who allocated the memory that a plan leaks, for people and for scripts.

use std::io::{self, Write};

use execution::{Execution, Finding, FindingKind};

/// Says whether memory leaked.
pub(crate) fn is_leak(execution: &Execution) -> bool {
    leaks(execution).next().is_some()
}

fn leaks(execution: &Execution) -> impl Iterator<Item = &Finding> {
    execution.findings.iter().filter(|finding| finding.kind == FindingKind::Leak)
}

/// Writes the evidence of the leaks of an execution, after which memory was searched, for people.
pub(crate) fn write_text(execution: &Execution, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "who allocated what leaks, in one more run with kmemleak:")?;
    if !is_leak(execution) {
        writeln!(out, "  nothing leaked in this run")?;
    }
    for finding in leaks(execution) {
        writeln!(out, "  {}", finding.title)?;
        finding.text.lines().try_for_each(|line| writeln!(out, "{}", format!("      {line}").trim_end()))?;
    }
    Ok(())
}

/// Writes it as one line of JSON.
pub(crate) fn write_json(execution: &Execution, out: &mut dyn Write) -> io::Result<()> {
    let leak =
        |finding: &Finding| serde_json::json!({ "key": finding.key, "stack": finding.stack, "evidence": finding.text });
    let leaks: Vec<_> = leaks(execution).map(leak).collect();
    writeln!(out, "{}", serde_json::json!({ "leaks": leaks }))
}

#[cfg(test)]
mod tests {
    use super::{super::replay::tests::execution, *};

    #[test]
    fn a_leak_is_told_with_its_evidence_and_nothing_else_is() {
        let mut ran = execution(Vec::new(), Vec::new());
        let text = |ran: &Execution| {
            let mut out = Vec::new();
            write_text(ran, &mut out).unwrap();
            String::from_utf8(out).unwrap()
        };
        assert!(text(&ran).ends_with("kmemleak:\n  nothing leaked in this run\n"));
        let leak = Finding::seen(
            FindingKind::Leak,
            "memory leak: f",
            "memory leak of f (fs/f.c:7)",
            "f left it\n\n  f+0x1/0x2\n",
        );
        ran.findings = vec![Finding::leftover("mount left: g", "a mount", "it is there"), leak];
        assert!(
            text(&ran).ends_with("  memory leak of f (fs/f.c:7)\n      f left it\n\n        f+0x1/0x2\n"),
            "{}",
            text(&ran)
        );
        let mut out = Vec::new();
        write_json(&ran, &mut out).unwrap();
        let json: serde_json::Value = serde_json::from_slice(&out).unwrap();
        assert_eq!((json["leaks"].as_array().unwrap().len(), &json["leaks"][0]["key"]), (1, &"memory leak: f".into()));
    }
}
