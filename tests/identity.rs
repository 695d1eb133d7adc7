//! Keys on real kernels: two bugs in one function have two, one bug on two kernels has one.

use execution::{Finding, FindingKind};

use crate::common::{KERNEL, SLAB, fault, guests_on, plan, steps_target};

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
