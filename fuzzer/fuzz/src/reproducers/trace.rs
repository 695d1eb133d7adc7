//! The calls of a program's run, as the kernel's tracing recorded them.
//!
//! ```text
//!   program-57  [000] .....  3.12: tracing_mark_write: round 1 step 2
//!   program-57  [000] .....  3.13: should_failslab: (should_failslab+0x0/0x80) caller=f+0x2/0x9 first=0x1 second=0xcc0
//!   program-57  [000] .....  3.13: <stack trace>
//!    => should_failslab
//!    => g
//! ```
//!
//! The formats are those of `kernel/trace/trace_output.c` and `Documentation/trace/kprobetrace.rst`
//! (6.12).

use fault_plan::{Scope, base_name};
use guests::bare::BPFTRACE_TASK;

/// `___GFP_NOFAIL_BIT` of `include/linux/gfp_types.h` (6.12).
pub(super) const NOFAIL: u64 = 1 << 15;

/// Text of a mark that the program makes before a step.
const MARK: &str = "tracing_mark_write: ";

/// A call of an injectable function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Call {
    /// The function.
    pub(super) function: String,
    /// Round and step that it was in, from 1.
    pub(super) place: (u32, u32),
    /// Scope of the task that made it.
    pub(super) scope: Scope,
    /// The callers, innermost first, without the compiler's suffixes.
    pub(super) callers: Vec<String>,
    /// False when the hook lets the call pass without counting it: allocations that may not fail
    /// (`mm/failslab.c`, `mm/fail_page_alloc.c`, 6.12).
    pub(super) counts: bool,
}

/// Gives the kprobe event that records the calls of `function`, which is `symbol` in the kernel:
/// its direct caller, which the call trace of a function's entry lacks, and two arguments.
pub(super) fn event(function: &str, symbol: &str) -> String {
    format!("p:{function} {symbol} caller=$stack0:symbol first=%di second=%si\n")
}

/// Reads the calls in steps of the program. Those in between are left out.
pub(super) fn calls(trace: &str) -> Vec<Call> {
    let mut calls: Vec<Call> = Vec::new();
    let (mut place, mut program) = (None, "");
    let mut open = false;
    for line in trace.lines() {
        if let Some(frame) = line.strip_prefix(" => ") {
            if let Some(call) = calls.last_mut().filter(|_| open) {
                call.callers.push(base_name(frame.trim()).to_owned());
            }
            continue;
        }
        let Some((task, event)) = event_of(line) else { continue };
        if event.starts_with("<stack trace>") {
            continue;
        }
        open = false;
        if let Some(mark) = event.strip_prefix(MARK) {
            place = place_of(mark);
            program = task;
            continue;
        }
        let Some(place) = place.filter(|_| !is_bpftrace(task)) else { continue };
        let Some(call) = call(event, place, scope(task, program)) else { continue };
        calls.push(call);
        open = true;
    }
    calls.iter_mut().for_each(clean);
    calls
}

/// The task, as `name-number`, and the event of a line.
fn event_of(line: &str) -> Option<(&str, &str)> {
    let (head, event) = line.split_once(": ")?;
    let task = head.split(" [").next()?.trim();
    task.rsplit_once('-')?.1.parse::<u32>().ok()?;
    Some((task, event.trim_start()))
}

fn place_of(mark: &str) -> Option<(u32, u32)> {
    let mut words = mark.split(' ');
    match (words.next()?, words.next()?, words.next()?, words.next()?) {
        ("round", round, "step", step) => Some((round.parse().ok()?, step.trim().parse().ok()?)),
        _ => None,
    }
}

/// Says whether the task is one of the program's that runs the script.
fn is_bpftrace(task: &str) -> bool {
    task.rsplit_once('-').is_some_and(|(name, _)| name == BPFTRACE_TASK)
}

fn scope(task: &str, program: &str) -> Scope {
    // The name of a task that takes steps has the step behind its first word.
    let name = |task: &str| task.rsplit_once('-').and_then(|(name, _)| name.split(' ').next().map(str::to_owned));
    if task == program {
        Scope::Workload
    } else if task.starts_with("kworker/") {
        Scope::Worker
    } else if name(task) == name(program) || name(task).as_deref() == Some("exe") {
        Scope::Child
    } else {
        Scope::Thread
    }
}

fn call(event: &str, place: (u32, u32), scope: Scope) -> Option<Call> {
    let (function, rest) = event.split_once(": ")?;
    let field = |name: &str| rest.split(' ').find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
    let number = |name: &str| u64::from_str_radix(field(name)?.strip_prefix("0x")?, 16).ok();
    let flags = match function {
        "should_failslab" => number("second")?,
        "should_fail_alloc_page" => number("first")?,
        _ => 0,
    };
    let caller = field("caller")?.split('+').next()?;
    let callers = vec![base_name(caller).to_owned()];
    Some(Call { function: function.to_owned(), place, scope, callers, counts: flags & NOFAIL == 0 })
}

/// Takes the function itself out of the call trace.
fn clean(call: &mut Call) {
    if call.callers.get(1) == Some(&call.function) {
        call.callers.remove(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "# tracer: nop
#
         program-57      [000] .....     3.10: should_failslab: (should_failslab+0x0/0x80) caller=early+0x1/0x2 first=0x1 second=0xcc0
         program-57      [000] .....     3.12: tracing_mark_write: round 1 step 2
         program-57      [000] .....     3.12: <stack trace>
 => ksys_write
         program-57      [000] .....     3.13: should_failslab: (should_failslab+0x0/0x80) caller=f.isra.0+0x2/0x9 first=0x1 second=0xcc0
         program-57      [000] .....     3.13: <stack trace>
 => should_failslab
 => g.constprop.0
 => do_syscall_64
     kworker/0:1-12      [000] .....     3.14: should_fail_alloc_page: (should_fail_alloc_page+0x0/0x80) caller=h+0x2/0x9 first=0x8cc0 second=0x0
     kworker/0:1-12      [000] .....     3.14: <stack trace>
 => should_fail_alloc_page
 => worker_thread
           ld.so-56      [000] .....     3.14: should_failslab: (should_failslab+0x0/0x80) caller=f+0x2/0x9 first=0x1 second=0xcc0
           ld.so-56      [000] .....     3.14: <stack trace>
 => should_failslab
         program-57      [000] .....     3.15: tracing_mark_write: end of round 1 step 2
         program-57      [000] .....     3.16: should_failslab: (should_failslab+0x0/0x80) caller=late+0x1/0x2 first=0x1 second=0xcc0
";

    #[test]
    fn calls_of_steps_are_read_with_their_callers() {
        let calls = calls(TRACE);
        assert_eq!(calls.len(), 2, "{calls:?}");
        assert_eq!(calls[0].callers, ["f", "g", "do_syscall_64"]);
        assert_eq!((calls[0].place, calls[0].scope, calls[0].counts), ((1, 2), Scope::Workload, true));
        assert_eq!(calls[1].callers, ["h", "worker_thread"]);
        assert_eq!((calls[1].scope, calls[1].counts), (Scope::Worker, false), "it may not fail");
    }

    #[test]
    fn what_is_no_trace_has_no_calls() {
        for text in ["", "a-1 [0]: b", " => f\n => g", "tracing_mark_write: round 1 step 2", ": : :"] {
            assert_eq!(calls(text), []);
        }
    }
}
