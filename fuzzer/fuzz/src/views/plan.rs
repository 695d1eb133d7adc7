//! Plans, for people.

use std::io::{self, Write};

use fault_plan::FaultPlan;

/// Writes which calls fail, round by round, each with its callers.
pub(crate) fn write_plan(plan: &FaultPlan, out: &mut dyn Write) -> io::Result<()> {
    if plan.is_fault_free() {
        writeln!(out, "  no fault is needed")?;
    }
    let of = plan.earlier.len() + 1;
    let mut number = 0;
    for (round, faults) in (1..).zip(plan.rounds()) {
        if of > 1 {
            writeln!(out, "  round {round} of {of}:")?;
        }
        for fault in faults {
            number += 1;
            writeln!(out, "  fault {number}: {fault}")?;
            fault.call_path.0.iter().try_for_each(|caller| writeln!(out, "      {caller}"))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_are_told_with_their_callers_and_rounds() {
        let fault = r#"{ "function": "f", "call_path": ["...", "mount"], "occurrence": 2, "error": "EIO" }"#;
        let written = |text: &str| {
            let mut out = Vec::new();
            write_plan(&FaultPlan::from_json(text).unwrap(), &mut out).unwrap();
            String::from_utf8(out).unwrap()
        };
        let single = written(&format!(r#"{{ "version": 1, "target": "t", "faults": [{fault}] }}"#));
        assert_eq!(single, "  fault 1: f returns EIO at call 2\n      ...\n      mount\n");
        let rounds = r#"{ "version": 1, "target": "t", "rounds": [{ "faults": [FAULT] }, { "faults": [FAULT] }] }"#;
        let rounds = written(&rounds.replace("FAULT", fault));
        assert!(rounds.contains("  round 2 of 2:\n  fault 2: f"), "{rounds}");
        assert_eq!(written(r#"{ "version": 1, "target": "t", "faults": [] }"#), "  no fault is needed\n");
    }
}
