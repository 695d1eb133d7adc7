//! The text of `repro.bt`.
//!
//! ```text
//! the task of steps.c takes a step's name ─▶ @step
//! a task enters and leaves functions      ─▶ @inF_L[tid], fault F, function L from within
//! a call of the function that may fail    ─▶ @callsF, where all of that holds ─▶ override()
//! ```

use std::{collections::BTreeMap, fmt::Write as _};

use fault_plan::{FOR_EVER, Scope};

use super::frames::Probe;

/// `PF_KTHREAD` of `include/linux/sched.h` (6.12).
const KERNEL_THREAD: &str = "(((struct task_struct *)curtask)->flags & 0x200000) != 0";
const WORKER: &str = "strncmp(comm, \"kworker/\", 8) == 0";
/// A child that has run another program is called `exe`.
const CHILD: &str = "tid != cpid && (strncmp(comm, \"repro\", 5) == 0 || comm == \"exe\")";

/// Writes a script with the comment `head`.
pub(super) fn text(head: &str, probes: &[Probe]) -> String {
    let mut text = format!("{head}\n");
    step(&mut text, probes);
    let entered = entered(probes);
    for (function, counters) in &entered {
        block(&mut text, &format!("kprobe:{function}"), "@step > 0", &|text| {
            for (counter, outer) in counters {
                let _ = match outer {
                    Some(outer) => writeln!(text, "\tif ({outer}[tid] > 0) {{ {counter}[tid]++; }}"),
                    None => writeln!(text, "\t{counter}[tid]++;"),
                };
            }
        });
        block(&mut text, &format!("kretprobe:{function}"), "@step > 0", &|text| {
            for (counter, _) in counters {
                let _ = writeln!(text, "\tif ({counter}[tid] > 0) {{ {counter}[tid]--; }}");
            }
        });
    }
    let mut functions: BTreeMap<&str, Vec<(usize, &Probe)>> = BTreeMap::new();
    for (number, probe) in (1..).zip(probes) {
        functions.entry(&probe.function).or_default().push((number, probe));
    }
    for (function, own) in functions {
        block(&mut text, &format!("kprobe:{function}"), "@step > 0", &|text| {
            // The call that one fault fails is none that comes after it.
            own.iter().rev().for_each(|(number, probe)| fault(text, *number, probe));
        });
    }
    text.push_str("END\n{\n");
    for (number, probe) in (1..).zip(probes) {
        let function = &probe.function;
        let _ = writeln!(
            text,
            "\tif (@fired{number} > 0) {{ printf(\"repro: fault {number}: {function} failed %d times\\n\", @fired{number}); }}\n\
             \telse {{ printf(\"repro: fault {number}: {function} DID NOT FAIL: the call was not reached\\n\"); }}"
        );
    }
    text.push_str("}\n");
    text
}

fn block(text: &mut String, probe: &str, filter: &str, body: &dyn Fn(&mut String)) {
    let _ = writeln!(text, "{probe}\n/{filter}/\n{{");
    body(text);
    text.push_str("}\n\n");
}

/// Gives a step's number in a script.
fn number((round, step): (u32, u32)) -> u32 {
    round * 1000 + step
}

fn step(text: &mut String, probes: &[Probe]) {
    let steps = |probe: &Probe| (probe.place.1..=probe.until).map(|step| (probe.place.0, step)).collect::<Vec<_>>();
    let mut places: Vec<(u32, u32)> = probes.iter().flat_map(steps).collect();
    places.sort_unstable();
    places.dedup();
    text.push_str("// Round and step are in the name of the task that takes the steps.\n");
    block(text, "tracepoint:task:task_rename", "tid == cpid", &|text| {
        text.push_str("\t@step = 0;\n");
        for place in &places {
            let (round, step) = place;
            let _ =
                writeln!(text, "\tif (args->newcomm == \"repro {round}.{step}\") {{ @step = {}; }}", number(*place));
        }
        for counter in entered(probes).values().flatten().map(|(counter, _)| counter) {
            let _ = writeln!(text, "\t{counter}[cpid] = 0;");
        }
    });
}

/// Gives for each function that a task is or is not inside of its counters. One has the counter of
/// the function outside of it, which has to count something.
fn entered(probes: &[Probe]) -> BTreeMap<&str, Vec<(String, Option<String>)>> {
    let mut entered: BTreeMap<&str, Vec<(String, Option<String>)>> = BTreeMap::new();
    for (number, probe) in (1..).zip(probes) {
        let levels = probe.inside.len();
        for (level, function) in (1..).zip(&probe.inside) {
            let outer = (level < levels).then(|| format!("@in{number}_{}", level + 1));
            entered.entry(function).or_default().push((format!("@in{number}_{level}"), outer));
        }
        for (place, function) in (1..).zip(&probe.outside) {
            entered.entry(function).or_default().push((format!("@out{number}_{place}"), None));
        }
    }
    entered
}

/// Writes how a call of the function of fault `number` is counted, and fails.
fn fault(text: &mut String, number: usize, probe: &Probe) {
    let (first, last) = (self::number(probe.place), self::number((probe.place.0, probe.until)));
    let mut counted = if first == last {
        vec![format!("@step == {first}")]
    } else {
        vec![format!("@step >= {first}"), format!("@step <= {last}")]
    };
    counted.push(match probe.scope {
        Scope::Workload => "tid == cpid".to_owned(),
        Scope::Child => CHILD.to_owned(),
        Scope::Worker => WORKER.to_owned(),
        Scope::Thread => format!("{KERNEL_THREAD} && !({WORKER})"),
    });
    counted.extend(probe.counted.iter().cloned());
    counted.extend((!probe.inside.is_empty()).then(|| format!("@in{number}_1[tid] > 0")));
    counted.extend(probe.after.map(|after| format!("@fired{} > 0", after + 1)));
    let mut fails = vec![format!("@calls{number} >= {}", probe.number)];
    if probe.times < FOR_EVER {
        fails.push(format!("@fired{number} < {}", probe.times));
    }
    fails.extend(probe.failed.iter().cloned());
    fails.extend((1..=probe.outside.len()).map(|place| format!("@out{number}_{place}[tid] == 0")));
    let inside: Vec<_> = probe.inside.iter().map(String::as_str).collect();
    if !inside.is_empty() {
        let _ = writeln!(text, "\t// Inside of {}.", inside.join(", called by "));
    }
    let _ = writeln!(
        text,
        "\tif ({}) {{\n\t\t@calls{number}++;\n\t\tif ({}) {{\n\t\t\t@fired{number}++;\n\t\t\toverride({});\n\t\t}}\n\t}}",
        counted.join(" && "),
        fails.join(" && "),
        probe.returns
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    fn probe(inside: &[&str], after: Option<usize>) -> Probe {
        Probe {
            function: "should_failslab".to_owned(),
            returns: -12,
            place: (2, 1),
            until: 1,
            scope: Scope::Workload,
            inside: inside.iter().map(|name| (*name).to_owned()).collect(),
            outside: Vec::new(),
            counted: vec!["arg0 == 0x1".to_owned()],
            failed: Vec::new(),
            number: 3,
            times: 1,
            after,
        }
    }

    #[test]
    fn a_fault_is_counted_inside_of_its_functions() {
        let text = text("// head\n", &[probe(&["grow", "open"], None)]);
        assert!(text.starts_with("// head\n\n"));
        for part in [
            "if (args->newcomm == \"repro 2.1\") { @step = 2001; }",
            "kprobe:grow\n/@step > 0/\n{\n\tif (@in1_2[tid] > 0) { @in1_1[tid]++; }\n}",
            "kprobe:open\n/@step > 0/\n{\n\t@in1_2[tid]++;\n}",
            "kretprobe:open\n/@step > 0/\n{\n\tif (@in1_2[tid] > 0) { @in1_2[tid]--; }\n}",
            "if (@step == 2001 && tid == cpid && arg0 == 0x1 && @in1_1[tid] > 0) {",
            "if (@calls1 >= 3 && @fired1 < 1) {",
            "override(-12);",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }

    #[test]
    fn a_function_has_one_probe_and_the_later_fault_is_asked_first() {
        let probes = [probe(&["grow"], None), Probe { until: 4, times: FOR_EVER, ..probe(&["grow"], Some(0)) }];
        let text = text("", &probes);
        assert_eq!(text.matches("kprobe:should_failslab").count(), 1, "{text}");
        let at = |words: &str| text.find(words).unwrap_or_else(|| panic!("{words}: {text}"));
        assert!(at("@calls2 >= 3) {") < at("@calls1 >= 3 &&"), "{text}");
        assert!(text.contains("@step >= 2001 && @step <= 2004") && text.contains("@fired1 > 0) {"), "{text}");
        assert!(text.contains("@in1_1[tid]++;\n\t@in2_1[tid]++;"), "{text}");
    }
}
