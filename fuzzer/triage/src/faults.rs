//! The named fault, the guilty place, and reports with lines of source.

use fault_plan::{Fault, FaultPlan, Reproducer};
use kernel_report::telling_caller;

use crate::{
    chance::{Failure, chance},
    kernels::Kernels,
    meta::FiredJson,
    model::{Caller, Guilty, NamedFault},
};

/// `PAGE_SIZE` of x86-64.
const PAGE_BYTES: u64 = 4096;

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
        let place = frame.and_then(|frame| place(frame)).filter(|(name, _)| fault_plan::base_name(name) == function);
        let lines = place.map(|(name, offset)| kernels.lines(build_id, name, offset, true)).unwrap_or_default();
        Caller { function: place.and(frame).unwrap_or(function).clone(), lines }
    };
    NamedFault {
        number: fired.fault,
        function: fired.function.clone(),
        caller: telling_caller(&fired.call_path).map(str::to_owned),
        call_path: fired.call_path.iter().enumerate().map(caller).collect(),
        occurrence: fault.map(|fault| fault.occurrence),
        sequence: fired.sequence,
        round: round.flatten(),
        step: fired.step.or_else(|| fault.and_then(|fault| fault.step)),
        scope: fired.task.clone().unwrap_or_else(|| "workload".to_owned()),
        arguments: arguments(fired),
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

/// Gives the faults of a plan, each with its round, from 1, where there are several.
fn with_rounds(plan: &FaultPlan) -> Vec<(&Fault, Option<usize>)> {
    let rounds = plan.earlier.iter().map(|round| &round.faults).chain([&plan.faults]);
    let several = !plan.earlier.is_empty();
    let numbered = (1..).zip(rounds);
    { numbered }.flat_map(|(round, faults)| faults.iter().map(move |fault| (fault, several.then_some(round)))).collect()
}

/// Says what the arguments mean of the functions that are known.
fn arguments(fired: &FiredJson) -> Vec<String> {
    let argument = |at: usize| fired.arguments.get(at).copied();
    match fired.function.as_str() {
        "should_failslab" => argument(1).map(|flags| format!("GFP flags {flags:#x}")).into_iter().collect(),
        "should_fail_alloc_page" => {
            let flags = argument(0).map(|flags| format!("GFP flags {flags:#x}"));
            let order = argument(1).map(|order| {
                let bytes = PAGE_BYTES.checked_shl(u32::try_from(order).unwrap_or(u32::MAX)).unwrap_or(0);
                format!("order {order} ({bytes} bytes)")
            });
            flags.into_iter().chain(order).collect()
        }
        _ => (0..fired.arguments.len())
            .filter_map(|at| Some(format!("argument {} {:#x}", at + 1, argument(at)?)))
            .collect(),
    }
}

/// Splits `name+0x12/0x34` or `name+0x12`.
fn place(frame: &str) -> Option<(&str, u64)> {
    let (name, rest) = frame.split_once("+0x")?;
    let offset = rest.split('/').next()?;
    Some((name, u64::from_str_radix(offset, 16).ok()?))
}

/// Names the steps of the reproducer's workload, `mount` and the like.
pub(crate) fn steps(reproducer: &Reproducer) -> Vec<String> {
    let steps = reproducer.target.as_ref().and_then(|target| target.get("steps")?.as_array());
    let name = |step: &serde_json::Value| match step {
        serde_json::Value::String(name) => name.clone(),
        serde_json::Value::Object(fields) => fields.keys().next().cloned().unwrap_or_default(),
        _ => String::new(),
    };
    steps.into_iter().flatten().map(name).collect()
}

/// Finds the place that a report blames: the function of its trace that says most, and the file and
/// line of the check that reported, or else of that function.
pub(crate) fn guilty(
    key: &str,
    report: &str,
    stack: &[String],
    build_id: &str,
    kernels: &dyn Kernels,
) -> Option<Guilty> {
    let checked = checked_place(report);
    let in_key = key.rsplit_once(" in ").map(|(_, function)| function).filter(|function| is_name(function));
    let left = key.strip_prefix("device left open: ").filter(|function| is_name(function));
    let telling = || telling_caller(stack).map(str::to_owned).or_else(|| stack.first().cloned());
    let function = in_key.or(left).map(str::to_owned).or_else(telling)?;
    if let Some((file, line)) = checked {
        return Some(Guilty { function, file: Some(file), line: Some(line) });
    }
    let frame = report
        .lines()
        .filter_map(|line| place(trace_word(line)?))
        .find(|(name, _)| fault_plan::base_name(name) == function);
    let place = frame.and_then(|(name, offset)| kernels.lines(build_id, name, offset, false).pop());
    let (file, line) = place
        .as_deref()
        .and_then(|place| place.rsplit_once(':'))
        .map_or((None, None), |(file, line)| (Some(file.to_owned()), line.parse().ok()));
    let file = file.or_else(|| kernels.file(build_id, &function));
    Some(Guilty { function, file, line })
}

fn is_name(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.".contains(&byte))
}

/// Finds `fs/f.c:7` in the header of a check: "WARNING: CPU: 0 PID: 7 at fs/f.c:7 f+0x1/0x2",
/// "kernel BUG at fs/f.c:7!", "assertion failed: …, in fs/f.c:7" (6.12).
fn checked_place(report: &str) -> Option<(String, u32)> {
    let header =
        |line: &&str| ["WARNING: ", "kernel BUG at ", "assertion failed: "].iter().any(|start| line.starts_with(start));
    let line = report.lines().map(str::trim).take(12).find(header)?;
    line.split([' ', ',']).find_map(|word| {
        let (file, number) = word.trim_end_matches('!').rsplit_once(':')?;
        let number = number.parse().ok()?;
        file.contains('/').then(|| (file.trim_start_matches("./").to_owned(), number))
    })
}

/// Gives `name+0x12/0x34` of a line of a trace, or of the one that says where the processor was.
fn trace_word(line: &str) -> Option<&str> {
    let line = line.trim();
    let line = line.strip_prefix("RIP: ").and_then(|rest| rest.split_once(':')).map_or(line, |(_, rest)| rest);
    let word = line.strip_prefix("? ").unwrap_or(line).split(' ').next()?;
    (word.contains("+0x") && word.contains("/0x")).then_some(word)
}

/// Adds the lines of source behind the functions of a report's traces, as the kernel's
/// `scripts/decode_stacktrace.sh` does. Without the kernel the text stays as it is.
pub(crate) fn decode(report: &str, build_id: &str, kernels: &dyn Kernels) -> String {
    let mut text = String::with_capacity(report.len());
    for line in report.lines() {
        text.push_str(line.trim_end());
        let is_instruction = line.trim_start().starts_with("RIP: ");
        if let Some((name, offset)) = trace_word(line).and_then(place) {
            let lines = kernels.lines(build_id, name, offset, !is_instruction);
            if !lines.is_empty() {
                text.push_str(&format!(" ({})", lines.join(" ")));
            }
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::{KnownKernel, NoKernels};

    struct Lines;

    impl Kernels for Lines {
        fn known(&self, _build_id: &str) -> Option<KnownKernel> {
            None
        }

        fn lines(&self, _build_id: &str, function: &str, offset: u64, returns: bool) -> Vec<String> {
            if function == "g" {
                vec![format!("fs/g.h:{offset}"), format!("fs/g.c:{}", u8::from(returns))]
            } else {
                Vec::new()
            }
        }

        fn file(&self, _build_id: &str, function: &str) -> Option<String> {
            (function == "f").then(|| "fs/f.c".to_owned())
        }

        fn contract(&self, _function: &str) -> Option<String> {
            None
        }
    }

    #[test]
    fn traces_get_lines_of_source() {
        let report = "RIP: 0010:g+0x3/0x10\nCall Trace:\n? g+0x2/0x10\nf+0x1/0x2\nanother line g+0x1/0x2\n";
        let decoded = decode(report, "", &Lines);
        assert_eq!(
            decoded,
            "RIP: 0010:g+0x3/0x10 (fs/g.h:3 fs/g.c:0)\nCall Trace:\n? g+0x2/0x10 (fs/g.h:2 fs/g.c:1)\nf+0x1/0x2\n\
             another line g+0x1/0x2\n"
        );
        assert_eq!(decode(report, "", &NoKernels), report);
    }

    #[test]
    fn the_guilty_place_is_the_checks_or_the_functions() {
        let of = |key: &str, report: &str, stack: &[&str]| {
            let stack: Vec<_> = stack.iter().map(|name| (*name).to_owned()).collect();
            guilty(key, report, &stack, "", &Lines)
        };
        let warning =
            "------------[ cut here ]------------\nWARNING: CPU: 0 PID: 3 at fs/btrfs/inode.c:7762 btrfs_x+0x1/0x2\n";
        let found = of("check: fs/btrfs/inode.c btrfs_x: WARN_ON(a)", warning, &["btrfs_x"]).unwrap();
        assert_eq!((found.file.as_deref(), found.line), (Some("fs/btrfs/inode.c"), Some(7762)));
        let access =
            of("access: bad memory Read in g", "BUG: KASAN\nRIP: 0010:g+0x3/0x10\n", &["dump_stack", "g"]).unwrap();
        assert_eq!((access.function.as_str(), access.file.as_deref()), ("g", Some("fs/g.c")));
        let file = of("device left open: f", "", &[]).unwrap();
        assert_eq!((file.file.as_deref(), file.line), (Some("fs/f.c"), None));
        assert_eq!(of("hang: somewhere", "", &[]), None);
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
    fn a_fault_is_found_in_the_plan_that_has_it() {
        let plan = |function: &str| {
            FaultPlan::from_json(&format!(
                r#"{{ "version": 1, "target": "t", "faults": [
                    {{ "function": "{function}", "call_path": ["a"], "occurrence": 4, "error": "ENOMEM", "step": 2 }} ] }}"#
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
            ..FiredJson::default()
        };
        let named = named(&fired, &[&smaller, &found], "", &Lines);
        assert_eq!((named.occurrence, named.step, named.error.as_deref()), (Some(4), Some(2), Some("ENOMEM")));
        assert_eq!(named.call_path[1].lines, ["fs/g.h:5", "fs/g.c:1"]);
        assert_eq!(named.arguments, ["GFP flags 0xcc0"]);
    }
}
