//! Tables of a program: what it makes fail.

use std::fmt::Write as _;

use fault_plan::ErrorType;
use guest_protocol::SLOT_TYPES;

use super::{
    arming::{Arming, Hook},
    steps,
};

/// Appends the functions that are not on the kernel's list, with their types.
pub(super) fn unlisted(text: &mut String, functions: &[(&str, ErrorType)]) {
    text.push_str("static const struct allowed allowed[] = {\n");
    for (name, error_type) in functions {
        let slot = SLOT_TYPES.iter().position(|known| known == error_type).unwrap_or_default();
        let _ = writeln!(text, "    {{{}, {slot}}},", steps::text(name));
    }
    text.push_str("};\n\n");
}

/// Appends the table of faults.
pub(super) fn faults(text: &mut String, armings: &[Arming]) {
    text.push_str("static const struct fault faults[] = {\n");
    for arming in armings {
        let (round, step) = arming.place;
        let (inject, retval) = match &arming.hook {
            Hook::Function(name, value) => (steps::text(name), format!("\"{value:#x}\"")),
            _ => ("NULL".to_owned(), "NULL".to_owned()),
        };
        let what = format!("calls of {} below {}", arming.hook.function(), arming.below);
        let _ = writeln!(
            text,
            "    {{{round}, {step}, \"{}\", {}, {}, {}, {}, {inject}, {retval}, {}}},",
            arming.hook.attribute(),
            steps::text(&arming.below),
            arming.nth,
            arming.interval,
            arming.times,
            steps::text(&what),
        );
    }
    let count = armings.len();
    if count == 0 {
        text.push_str("    {0},\n");
    }
    let _ = writeln!(text, "}};\n#define FAULTS {count}\n");
}
