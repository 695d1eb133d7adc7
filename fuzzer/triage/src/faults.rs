//! The named fault, and the guilty place.

use std::collections::BTreeSet;

use fault_plan::{Fault, FaultPlan, Reproducer, one_line, shell_word};
use kernel_report::{Frame, first_report, telling_caller};

use crate::{
    chance::{Failure, chance},
    kernels::Kernels,
    meta::FiredJson,
    model::{Caller, Guilty, NamedFault},
    subsystem,
};

/// Names a fault that fired. `plans` are the reproducer's and, behind it, the one that the crash
/// was found with.
pub(crate) fn named(fired: &FiredJson, plans: &[&FaultPlan], build_id: &str, kernels: &dyn Kernels) -> NamedFault {
    let (fault, round) = planned(fired, plans).unzip();
    let error = fault.map(|fault| fault.error.name().to_owned());
    let contract = kernels.contract(&fired.function);
    let (likely, reason) = chance(&Failure {
        function: &fired.function,
        error: error.as_deref(),
        call_path: &fired.call_path,
        arguments: &fired.arguments,
        contract: contract.as_deref(),
    });
    let caller = |(at, function): (usize, &String)| {
        let frame = fired.frames.get(at);
        // The lists are as long, unless somebody changed the file.
        let frame = frame.filter(|frame| name_of(frame) == function);
        let lines = frame.map(|frame| kernels.lines(build_id, frame)).unwrap_or_default();
        let end = fired.returns.get(at).filter(|end| end.function == *function);
        let (returned, mark) = end.map(|end| (end.returned.clone(), end.mark.clone())).unzip();
        Caller { function: frame.unwrap_or(function).clone(), lines, returned, mark: mark.flatten() }
    };
    NamedFault {
        number: fired.fault,
        function: fired.function.clone(),
        caller: telling_caller(&fired.call_path).map(str::to_owned),
        call_path: fired.call_path.iter().enumerate().map(caller).collect(),
        occurrence: fault.map(|fault| fault.occurrence),
        times: fault.map(|fault| fault.times).filter(|times| *times > 1),
        sequence: fired.sequence,
        round: round.flatten(),
        step: fired.step.or_else(|| fault.and_then(|fault| fault.step)),
        scope: fired.task.clone().unwrap_or_else(|| "workload".to_owned()),
        arguments: fired.words.clone(),
        chance: likely,
        chance_reason: reason,
        error,
    }
}

/// Finds the plan's fault that fired, and its round where there are several: that of its number if
/// it may be it, or any that may be it.
fn planned<'a>(fired: &FiredJson, plans: &[&'a FaultPlan]) -> Option<(&'a Fault, Option<usize>)> {
    let same = |fault: &Fault| fault.function == fired.function;
    let may = |fault: &Fault| same(fault) && fault.call_path.matches(&fired.call_path);
    let all: Vec<Vec<_>> = plans.iter().map(|plan| with_rounds(plan)).collect();
    let number = fired.fault.checked_sub(1);
    let numbered = |faults: &Vec<(&'a Fault, _)>| faults.get(number?).filter(|(fault, _)| may(fault)).copied();
    let any = |fits: &dyn Fn(&Fault) -> bool| all.iter().flatten().find(|(fault, _)| fits(fault)).copied();
    // A file that was changed by hand may say less.
    all.iter().find_map(numbered).or_else(|| any(&may)).or_else(|| any(&same))
}

/// Leaves of what `fired` that of the last round, where the rounds of `plan` are one.
pub(crate) fn of_one_round(fired: &mut Vec<FiredJson>, plan: &FaultPlan) {
    let round = |fired: &FiredJson| fired.fault.saturating_sub(1) / plan.count().max(1);
    let last = fired.iter().map(round).max();
    if plan.is_repeated() {
        fired.retain(|fired| Some(round(fired)) == last);
    }
}

/// Gives the faults of a plan, each with its round, from 1, where there are several.
fn with_rounds(plan: &FaultPlan) -> Vec<(&Fault, Option<usize>)> {
    let several = !plan.earlier.is_empty() && !plan.is_repeated();
    let numbered = (1..).zip(plan.rounds());
    { numbered }.flat_map(|(round, faults)| faults.iter().map(move |fault| (fault, several.then_some(round)))).collect()
}

/// Gives the name in `name+0x12`, without the compiler's suffixes.
fn name_of(frame: &str) -> &str {
    fault_plan::base_name(frame.split_once("+0x").map_or(frame, |(name, _)| name))
}

/// Names the steps of the reproducer's workload, `mount` and the like.
pub(crate) fn steps(reproducer: &Reproducer) -> Vec<String> {
    reproducer.target.as_ref().map_or_else(Vec::new, steps_of)
}

/// Names the steps of a target, or of its image.
fn steps_of(whose: &serde_json::Value) -> Vec<String> {
    let name = |step: &serde_json::Value| match step {
        serde_json::Value::String(name) => name.clone(),
        serde_json::Value::Object(fields) => fields.keys().next().cloned().unwrap_or_default(),
        _ => String::new(),
    };
    let steps = whose.get("steps").and_then(serde_json::Value::as_array);
    steps.into_iter().flatten().map(name).collect()
}

/// Gives the command that makes the disk of the reproducer's target, the disk's size, options of
/// mounts, and the steps that were done on the disk before.
pub(crate) fn disk(reproducer: &Reproducer) -> Option<String> {
    let target = reproducer.target.as_ref()?;
    let image = target.get("image")?;
    let words = image.get("mkfs")?.as_array()?.iter().filter_map(serde_json::Value::as_str);
    let words: Vec<_> = words.map(shell_word).collect();
    let mounts = target.get("steps")?.as_array()?.iter().filter_map(|step| step.get("mount")?.get("options")?.as_str());
    let options: BTreeSet<_> = mounts.filter(|options| !options.is_empty()).collect();
    let options: String = options.iter().map(|options| format!(", mount -o {}", shell_word(options))).collect();
    let before = match steps_of(image).join(", ").replace("crash-copy", "a copy of the disk, as a power cut leaves it")
    {
        steps if steps.is_empty() => steps,
        steps => format!(", used before: {steps}"),
    };
    Some(one_line(&format!("{} ({} MiB){options}{before}", words.join(" "), image.get("size_mib")?)))
}

/// Finds the place that a report blames. An oracle's finding blames nobody: there it is the first
/// function below which the last fault fired that tells a subsystem.
pub(crate) fn guilty(
    key: &str,
    report: &str,
    stack: &[String],
    build_id: &str,
    kernels: &dyn Kernels,
) -> Option<Guilty> {
    let report = first_report(report);
    let blamed = report.as_ref().and_then(|report| report.guilty.clone());
    if let Some(kernel_report::Guilty { function, file: Some(file), line }) = blamed {
        return Some(Guilty { function, file: Some(file), line });
    }
    let in_key = || key.rsplit_once(' ').map(|(_, function)| function).filter(|function| is_name(function));
    let owns = |function: &str| {
        let file = || kernels.file(build_id, function);
        subsystem::of_function(function).is_some() || file().is_some_and(|file| subsystem::is_of_one(&file))
    };
    let owner = || stack.iter().map(String::as_str).find(|function| owns(function));
    let telling = || {
        let owner = if report.is_none() { owner() } else { None };
        owner.or_else(|| telling_caller(stack)).or_else(|| stack.first().map(String::as_str))
    };
    let function = blamed.map(|blamed| blamed.function).or_else(|| telling().or_else(in_key).map(str::to_owned))?;
    let frames = report.iter().flat_map(|report| &report.stacks).flat_map(|stack| &stack.frames);
    let frame = { frames }.find(|frame| fault_plan::base_name(&frame.function) == function);
    let at = |frame: &Frame, offset: u64| format!("{}+{offset:#x}/{:#x}", frame.function, frame.size);
    // Where the processor was is the instruction itself, and lines are asked for behind a call.
    let pointer = |frame: &Frame| {
        let place = format!(":{}", at(frame, frame.offset));
        let text = report.iter().flat_map(|report| report.text.lines());
        { text }.any(|line| line.contains("RIP: ") && line.contains(&place))
    };
    let frame = frame.map(|frame| at(frame, frame.offset.saturating_add(u64::from(pointer(frame)))));
    // The outermost of the inlined functions is the one that is blamed.
    let place = frame.and_then(|frame| kernels.lines(build_id, &frame).pop());
    let place = place.as_deref().and_then(|place| place.rsplit_once(':'));
    let (file, line) = place.map(|(file, line)| (file.to_owned(), line.parse().ok())).unzip();
    let file = file.or_else(|| kernels.file(build_id, &function));
    Some(Guilty { function, file, line: line.flatten() })
}

fn is_name(text: &str) -> bool {
    text.len() > 1 && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.".contains(&byte))
}

#[cfg(test)]
mod tests {
    use fault_plan::FOR_EVER;
    use serde_json::{Value, json};

    use super::*;
    use crate::kernels::{KnownKernel, NoKernels};

    struct Lines;

    impl Kernels for Lines {
        fn known(&self, _build_id: &str) -> Option<KnownKernel> {
            None
        }

        fn lines(&self, _build_id: &str, frame: &str) -> Vec<String> {
            if let Some((offset, _)) = frame.strip_prefix("h+0x").and_then(|rest| rest.split_once('/')) {
                return vec![format!("fs/h.c:{offset}")];
            }
            let known = name_of(frame) == "g";
            if known { vec![format!("fs/g.h:{}", frame.len()), "fs/g.c:7".to_owned()] } else { Vec::new() }
        }

        fn decode(&self, _build_id: &str, _report: &str) -> Option<String> {
            None
        }

        fn file(&self, _build_id: &str, function: &str) -> Option<String> {
            (function == "fsync").then(|| "fs/f.c".to_owned())
        }

        fn contract(&self, _function: &str) -> Option<String> {
            None
        }
    }

    #[test]
    fn the_guilty_place_is_the_checks_or_the_functions() {
        let of = |key: &str, report: &str, stack: &[&str]| {
            let stack: Vec<_> = stack.iter().map(|name| (*name).to_owned()).collect();
            guilty(key, report, &stack, "", &Lines)
        };
        let warning = "------------[ cut here ]------------\n\
                       WARNING: CPU: 0 PID: 3 at fs/btrfs/inode.c:7762 btrfs_x+0x1/0x2\nCall Trace:\n btrfs_y+0x1/0x2\n";
        let found = of("check: fs/btrfs/inode.c btrfs_x: WARN_ON(a)", warning, &["btrfs_x"]).unwrap();
        assert_eq!(
            (found.function.as_str(), found.file.as_deref(), found.line),
            ("btrfs_x", Some("fs/btrfs/inode.c"), Some(7762))
        );
        let access = "BUG: KASAN: slab-use-after-free in g+0x3/0x10\nRead of size 8 at addr f by task w/3\nCall Trace:\n \
                      g+0x3/0x10\n f+0x1/0x2\n";
        let found = of("access: bad memory Read in g", access, &["g"]).unwrap();
        assert_eq!((found.function.as_str(), found.file.as_deref(), found.line), ("g", Some("fs/g.c"), Some(7)));
        let oops = "BUG: kernel NULL pointer dereference, address: 0000000000000008\nRIP: 0010:h+0x4/0x10\n\
                    Call Trace:\n <TASK>\n g+0x3/0x10\n </TASK>\n";
        let found = of("access: null pointer Read in h", oops, &["h", "g"]).unwrap();
        assert_eq!((found.function.as_str(), found.line), ("h", Some(5)), "the instruction, not the one before it");
        let left = of("device left open: fsync", "", &["fsync"]).unwrap();
        assert_eq!((left.file.as_deref(), left.line), (Some("fs/f.c"), None));
        assert_eq!(of("a mount was left in /mnt", "", &[]), None);
    }

    #[test]
    fn a_fault_of_a_later_round_says_so() {
        let fault = r#"{ "function": "should_failslab", "occurrence": 1, "error": "ENOMEM" }"#;
        let text = format!(
            r#"{{ "version": 1, "target": "t", "rounds": [ {{ "faults": [] }}, {{ "faults": [{fault}] }} ] }}"#
        );
        let plan = FaultPlan::from_json(&text).unwrap();
        let fired = FiredJson { fault: 1, function: "should_failslab".to_owned(), ..FiredJson::default() };
        assert_eq!(named(&fired, &[&plan], "", &NoKernels).round, Some(2));
    }

    #[test]
    fn of_a_round_that_is_repeated_the_faults_of_one_are_named() {
        let fault = r#"{ "function": "should_failslab", "occurrence": 1, "error": "ENOMEM" }"#;
        let plan = |earlier: &str| {
            let rounds = format!(r#"{{ "faults": [{earlier}] }}, {{ "faults": [{fault}] }}"#);
            FaultPlan::from_json(&format!(r#"{{ "version": 1, "target": "t", "rounds": [ {rounds} ] }}"#)).unwrap()
        };
        let fired = || {
            let fired = |fault| FiredJson { fault, function: "should_failslab".to_owned(), ..FiredJson::default() };
            vec![fired(1), fired(2)]
        };
        let named = |plan: &FaultPlan| {
            let mut fired = fired();
            of_one_round(&mut fired, plan);
            let named = fired.iter().map(|fired| named(fired, &[plan], "", &NoKernels));
            named.map(|fault| (fault.number, fault.round)).collect::<Vec<_>>()
        };
        assert_eq!(named(&plan(fault)), [(2, None)]);
        assert_eq!(named(&plan(&fault.replace("ENOMEM", "EIO"))), [(1, Some(1)), (2, Some(2))]);
    }

    #[test]
    fn a_fault_is_found_in_the_plan_that_has_it() {
        let plan = |function: &str| {
            FaultPlan::from_json(&format!(
                r#"{{ "version": 1, "target": "t", "faults": [
                    {{ "function": "{function}", "call_path": ["a"], "occurrence": 4, "error": "ENOMEM", "step": 2,
                    "times": 3 }} ] }}"#
            ))
            .unwrap()
        };
        let (smaller, found) = (plan("should_fail_bio"), plan("should_failslab"));
        let fired = FiredJson {
            fault: 1,
            function: "should_failslab".to_owned(),
            call_path: vec!["a".to_owned(), "g".to_owned()],
            frames: vec!["a+0x7".to_owned(), "g+0x5".to_owned()],
            arguments: vec![1, 0xcc0],
            words: "flags GFP_KERNEL".to_owned(),
            ..FiredJson::default()
        };
        let named = named(&fired, &[&smaller, &found], "", &Lines);
        assert_eq!((named.occurrence, named.step, named.error.as_deref()), (Some(4), Some(2), Some("ENOMEM")));
        assert_eq!(named.further(), " and the next 2");
        assert_eq!(named.call_path[1].lines, ["fs/g.h:5", "fs/g.c:7"]);
        assert_eq!(named.arguments, "flags GFP_KERNEL");
        let times = |times| serde_json::to_value(NamedFault { times, ..named.clone() }).unwrap()["times"].clone();
        assert_eq!([Some(FOR_EVER), Some(3), None].map(times), [json!("always"), json!(3), Value::Null]);
    }
}
