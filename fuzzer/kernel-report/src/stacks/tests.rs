//! Stacks of reports, by role, cut and whole.

use super::*;

fn names<'log>(lines: &[&'log str]) -> Vec<&'log str> {
    call_trace(lines).iter().map(|entry| entry.function).collect()
}

#[test]
fn the_caller_of_a_frameless_function_is_no_guess() {
    let lines =
        ["RIP: 0010:memset_orig+0x1/0x2", "Call Trace:", "? caller+0x1/0x2", "? stale+0x1/0x2", "outer+0x1/0x2"];
    assert_eq!(names(&lines), ["memset_orig", "caller", "outer"]);
}

#[test]
fn the_first_trace_counts() {
    let lines = [
        "RIP: 0010:inner+0x1/0x2 [module]",
        "Call Trace:",
        "<TASK>",
        "? noise+0x1/0x2",
        "inner+0x1/0x2",
        "mount: a word",
        "outer+0x1/0x2",
        "outer+0x1/0x2",
        "RIP: 0033:0x7f1234",
        "</TASK>",
        "Call Trace:",
        "other+0x1/0x2",
    ];
    assert_eq!(names(&lines), ["inner", "outer", "outer"]);
    let sections = sections(&lines);
    let roles: Vec<StackRole> = sections.iter().map(|section| section.role).collect();
    assert_eq!(roles, [StackRole::Call, StackRole::Other]);
    let frames = sections[0].stack().frames;
    let certain: Vec<(&str, bool)> = frames.iter().map(|frame| (frame.function.as_str(), frame.certain)).collect();
    assert_eq!(certain, [("inner", true), ("noise", false), ("outer", true), ("outer", true)]);
    assert_eq!(frames[0].module.as_deref(), Some("module"));
}

#[test]
fn a_stack_has_the_role_that_its_header_gives() {
    let lines = [
        "-> #1 (a){+.+.}-{4:4}:",
        "lock_acquire+0x1/0x2",
        "first+0x1/0x2",
        "",
        "{HARDIRQ-ON-W} state was registered at:",
        "second+0x1/0x2",
        "",
        "1 lock held by a/1:",
        "#0: ffff8880 (&lock){+.+.}-{4:4}, at: third+0x1/0x2",
        "",
        "stack backtrace:",
        "CPU: 0",
        "Call Trace:",
        "noticed.cold+0x1/0x2",
        "",
        "Allocated by task 7:",
        "allocator+0x1/0x2",
        "",
        "freed by task 7 on cpu 0 at 1.0s:",
        "freer+0x1/0x2",
        "",
        "Last potentially related work creation:",
        "work+0x1/0x2",
    ];
    let read: Vec<(StackRole, String)> = sections(&lines)
        .iter()
        .map(|section| (section.role, section.stack().frames.last().unwrap().function.clone()))
        .collect();
    use StackRole::{Allocated, Call, Freed, Lock, Other};
    let expected = [
        (Lock, "first"),
        (Lock, "second"),
        (Lock, "third"),
        (Call, "noticed.cold"),
        (Allocated, "allocator"),
        (Freed, "freer"),
        (Other, "work"),
    ];
    assert_eq!(read, expected.map(|(role, name)| (role, name.to_owned())));
}

#[test]
fn a_stack_that_was_cut_is_damaged() {
    let damaged = |lines: &[&str]| sections(lines)[0].is_damaged();
    assert!(!damaged(&["Call Trace:", "<TASK>", "f+0x1/0x2", "</TASK>"]));
    assert!(!damaged(&["Call Trace:", "<IRQ>", "f+0x1/0x2", "</IRQ>", "<TASK>", "g+0x1/0x2", "</TASK>"]));
    assert!(damaged(&["Call Trace:", "<TASK>", "f+0x1/0x2"]));
    assert!(damaged(&["Call Trace:", "<TASK>", "f+0x1/0x2", "g+0x1", "</TASK>"]));
}
