//! Scripts that have gdb stop a guest.
//!
//! A call that a fault makes fail goes on at `just_return_func` of the kernel
//! (`arch/x86/lib/error-inject.c`, 6.12), and nothing else does. The stack is there as at the call.

use std::{fmt::Write as _, path::Path};

use crate::options::GdbStop;

/// Functions in which the kernel begins to report, and the register that has the registers of the
/// reported instruction, where the function is given them (6.12: `kernel/panic.c`,
/// `arch/x86/kernel/dumpstack.c`, `arch/x86/mm/fault.c`, `mm/kasan/report.c`, `mm/slub.c`,
/// `lib/dump_stack.c`).
const REPORTS: [(&str, Option<&str>); 9] = [
    ("die", Some("$rsi")),
    ("die_addr", Some("$rsi")),
    ("page_fault_oops", Some("$rdi")),
    ("__warn", Some("$r8")),
    ("kasan_report", None),
    ("kasan_report_invalid_free", None),
    ("slab_bug", None),
    ("dump_stack", None),
    ("panic", None),
];

/// Registers that unwinding begins with, and their names in `struct pt_regs`.
const UNWOUND: [(&str, &str); 8] = [
    ("rip", "ip"),
    ("rsp", "sp"),
    ("rbp", "bp"),
    ("rbx", "bx"),
    ("r12", "r12"),
    ("r13", "r13"),
    ("r14", "r14"),
    ("r15", "r15"),
];

/// A stop of gdb.
#[derive(Clone, Debug)]
pub(super) struct Stop<'a> {
    /// What is stopped at.
    pub(super) at: GdbStop,
    /// Number of the failed call among all that fail, from 1; nothing when none does.
    pub(super) failure: Option<u32>,
    /// The function that fails.
    pub(super) function: &'a str,
    /// The error that it returns.
    pub(super) error: String,
    /// The call among those that match, when it is not to fail.
    pub(super) hit: Option<u32>,
}

/// Writes the script for the kernel `vmlinux`, whose guest waits at `socket`. `has` says which
/// functions the kernel has.
pub(super) fn script(stop: &Stop<'_>, vmlinux: &Path, socket: &Path, has: impl Fn(&str) -> bool) -> String {
    let mut out = format!(
        "# Written by fuzz replay --gdb, for one guest.\n\
         set pagination off\nset confirm off\n# QEMU answers late where the host is busy.\nset remotetimeout 120\n\
         file {}\ntarget remote {}\n",
        vmlinux.display(),
        socket.display()
    );
    // Writing to a string cannot fail.
    let _ = to_failure(stop, &mut out);
    let _ = match stop.at {
        GdbStop::Fault => writeln!(out, "backtrace"),
        GdbStop::Crash => to_report(&mut out, has),
    };
    out
}

/// Goes to the failed call.
fn to_failure(stop: &Stop<'_>, out: &mut String) -> std::fmt::Result {
    let Stop { failure: Some(failure), function, error, hit, .. } = stop else { return Ok(()) };
    writeln!(out, "tbreak *just_return_func\nignore $bpnum {}\ncontinue", failure - 1)?;
    let Some(hit) = hit else {
        return writeln!(out, "printf \"\\n{function}() returns {error}, as the fault says:\\n\"");
    };
    // A probe on the call at a function's start is over when that call is. Where the probe is
    // another instruction, it would see the call once more.
    writeln!(
        out,
        "if *(unsigned char *){function} == 0xe8\n  set $pc = (unsigned long){function} + 5\n  \
         printf \"\\ncall {hit} of {function}() on the fault's path, which does not fail:\\n\"\nelse\n  \
         printf \"\\ncall {hit} of {function}() on the fault's path. It fails here; so what follows differs:\\n\"\n\
         end"
    )
}

/// Goes on to the report that the kernel begins, and shows the stack of what it reports.
fn to_report(out: &mut String, has: impl Fn(&str) -> bool) -> std::fmt::Result {
    let reports: Vec<_> = REPORTS.iter().filter(|(name, _)| has(name)).collect();
    reports.iter().try_for_each(|(name, _)| writeln!(out, "break *{name}"))?;
    writeln!(out, "continue\nset $regs = (struct pt_regs *)0")?;
    for (name, register) in reports {
        if let Some(register) = register {
            writeln!(out, "if $pc == (unsigned long){name}\n  set $regs = (struct pt_regs *){register}\nend")?;
        }
    }
    // An interrupt's entry has no unwind information: gdb begins anew where it happened.
    writeln!(out, "if $regs\n  printf \"\\nthe kernel reports what happened here:\\n\"")?;
    for (register, field) in UNWOUND {
        writeln!(out, "  set $kept_{register} = ${register}\n  set $new_{register} = $regs->{field}")?;
    }
    UNWOUND.iter().try_for_each(|(register, _)| writeln!(out, "  set ${register} = $new_{register}"))?;
    writeln!(out, "  backtrace")?;
    UNWOUND.iter().try_for_each(|(register, _)| writeln!(out, "  set ${register} = $kept_{register}"))?;
    writeln!(out, "else\n  backtrace\nend")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(at: GdbStop, failure: Option<u32>, hit: Option<u32>) -> String {
        let stop = Stop { at, failure, function: "should_failslab", error: "ENOMEM".to_owned(), hit };
        script(&stop, Path::new("/k/vmlinux"), Path::new("/t/socket"), |name| name != "slab_bug")
    }

    #[test]
    fn gdb_stops_at_the_failure_that_is_asked_for() {
        let text = written(GdbStop::Fault, Some(3), None);
        assert!(text.contains("file /k/vmlinux\ntarget remote /t/socket\n"), "{text}");
        assert!(text.contains("tbreak *just_return_func\nignore $bpnum 2\ncontinue\n"), "{text}");
        assert!(text.ends_with("backtrace\n") && !text.contains("$pc"), "{text}");
        assert!(written(GdbStop::Fault, Some(1), Some(2)).contains("set $pc = (unsigned long)should_failslab + 5\n"));
    }

    #[test]
    fn gdb_stops_only_in_functions_that_the_kernel_has() {
        let text = written(GdbStop::Crash, None, None);
        assert!(text.contains("break *die\n") && text.contains("break *panic\n"), "{text}");
        assert!(!text.contains("slab_bug") && !text.contains("just_return_func"), "{text}");
    }
}
