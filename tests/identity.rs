//! Keys on real kernels: two bugs in one function have two, one bug on two kernels has one.

use std::fs;

use execution::{Finding, FindingKind};
use guests::{kernel::decode, project::Project};
use kernel_report::{Frame, StackRole};

use crate::common::{KERNEL, SLAB, fault, guests_on, kernel, plan, steps_target};

/// The kernel that explores.
const LEAN: &str = "linux-6.12-lean";

/// The only finding when the allocation in `function` fails while the trigger runs on `kernel`.
fn found(trigger: &str, function: &str, kernel: &str) -> Finding {
    let folder = steps_target(&[trigger], SLAB);
    let execution =
        guests_on(kernel, folder.path().to_str().unwrap()).run_fresh(&plan(&[fault(&["...", function], 1)]));
    assert_eq!(execution.fired.len(), 1, "{trigger} on {kernel}");
    let [finding] = &execution.findings[..] else { panic!("{trigger} on {kernel}: {:?}", execution.findings) };
    finding.clone()
}

#[test]
fn two_checks_in_one_function_are_two_bugs_and_each_is_one_on_two_kernels() {
    let keys = |kernel| {
        ["selftest_pair_left", "selftest_pair_right"].map(|function| {
            let finding = found("two_warns", function, kernel);
            assert_eq!((finding.kind, finding.title.as_str()), (FindingKind::Warning, "WARNING in selftest_pair_free"));
            finding.key
        })
    };
    let checks = ["WARN_ON(pair->lefts)", "WARN_ON(pair->rights && !pair->right)"];
    let expected = checks.map(|check| format!("check: drivers/fuzz_selftest/bugs.c selftest_pair_free: {check}"));
    assert_eq!(keys(KERNEL), expected);
    assert_eq!(keys(LEAN), expected);
}

#[test]
fn a_bug_that_two_kernels_call_differently_has_one_key() {
    let both = |trigger, function| [KERNEL, LEAN].map(|kernel| found(trigger, function, kernel));
    let [checked, explored] = both("null_deref", "selftest_index_grow");
    assert_eq!(checked.key, "access: null pointer in selftest_index_grow");
    assert_eq!(explored.key, checked.key);
    assert_ne!(explored.title, checked.title);
    let [checked, explored] = both("warn", "selftest_group_join");
    assert_eq!(checked.key, "check: drivers/fuzz_selftest/bugs.c selftest_group_free: WARN_ON(group->members)");
    assert_eq!(explored.key, checked.key);
}

#[test]
fn a_report_has_its_guilty_function_and_the_lines_of_its_source() {
    let path = "drivers/fuzz_selftest/bugs.c";
    let source = fs::read_to_string(Project::find().unwrap().root().join("kernels/selftest/bugs.c")).unwrap();
    let line = |text: &str| source.lines().position(|line| line.trim() == text).unwrap() + 1;
    let lines = kernel().source_lines().unwrap();
    let finding = found("two_warns", "selftest_pair_left", KERNEL);
    let report = kernel_report::read(&finding.text).unwrap();
    let guilty = report.guilty.unwrap();
    let check = line("WARN_ON(pair->lefts);");
    assert_eq!((guilty.function.as_str(), guilty.file.as_deref()), ("selftest_pair_free", Some(path)));
    assert_eq!(guilty.line.map(|line| line as usize), Some(check));
    assert!(!report.truncated, "{}", finding.text);
    assert_eq!(report.stacks[0].role, StackRole::Call);
    assert_eq!(report.stacks[0].frames[0].function, "selftest_pair_free");

    let decoded = decode(&finding.text, &lines);
    assert!(decoded.contains(&format!("RIP: 0010:selftest_pair_free ({path}:{check})\n")), "{decoded}");
    let left = decoded.lines().filter(|line| Frame::parse(line).is_some_and(|frame| frame.certain));
    assert_eq!(left.collect::<Vec<_>>(), [""; 0], "{decoded}");
    let access = found("null_deref", "selftest_index_grow", KERNEL);
    let decoded = decode(&access.text, &lines);
    let place = format!("RIP: 0010:selftest_index_grow ({path}:");
    let at = decoded.split_once(&place).unwrap_or_else(|| panic!("{decoded}")).1.split([')', ' ']).next().unwrap();
    let written = source.lines().nth(at.parse::<usize>().unwrap() - 1).unwrap();
    assert!(written.contains("->"), "{at}: {written}");
}
