//! Reports of a kernel that hangs and says nothing: the host writes them.

use std::time::Duration;

use super::{Guilty, KernelReport, ReportKind, corruption, first_report, key, lines, stacks, standstill::Standstill};

/// Start of such a report's text.
const START: &str = "no reply within ";
/// Words in front of the processor's stack.
const STACK: &str = "; the processor was at:\n";
/// Words between the processor's stack and the one of a step that ran and did not return.
pub const STEP_RAN: &str = "the step ran in\n";

/// Makes the report of a guest that did not answer within `deadline` and whose kernel says nothing.
/// `stack` is console text of its processor, such as an NMI's backtrace; behind [`STEP_RAN`] may be
/// functions in which the step was seen before: then what the processor did in the end, which may
/// be somebody else's work, tells less. The step that ran, by number and kind, names what does not
/// return where the processor was idle.
#[must_use]
pub fn silent_hang(target: &str, deadline: Duration, stack: &str, step: Option<(u32, &str)>) -> KernelReport {
    let seconds = deadline.as_secs();
    let in_step = step.map_or_else(String::new, |(number, kind)| format!(" in step {number} ({kind})"));
    report(format!("{START}{seconds} s{in_step}, target {target}{STACK}{stack}"), stack, step.map(|(_, kind)| kind))
}

/// Reads the text of a report again; a text that [`KernelReport::text`] was gives that report.
/// `None` when nothing is reported in it.
#[must_use]
pub fn read(text: &str) -> Option<KernelReport> {
    let Some((_, stack)) = divided(text) else { return first_report(text).or_else(|| corruption(text)) };
    Some(report(text.to_owned(), stack, hung_step(text)))
}

/// Gives the kind of the step that did not return, where `text` is that of a silent hang.
#[must_use]
pub fn hung_step(text: &str) -> Option<&str> {
    let (head, _) = divided(text)?;
    Some(head.split_once(" in step ")?.1.split_once('(')?.1.split_once("), target ")?.0)
}

/// Divides the text of a silent hang at its stack.
fn divided(text: &str) -> Option<(&str, &str)> {
    text.strip_prefix(START)?.split_once(STACK)
}

fn report(text: String, stack: &str, step: Option<&str>) -> KernelReport {
    let (processor, ran_in) = stack.split_once(STEP_RAN).unwrap_or((stack, ""));
    let [lines, ran_in] = [processor, ran_in].map(|text| lines::clean(text).collect::<Vec<_>>());
    let seen = || if is_interrupted(&lines) { Standstill::of_loop(&lines) } else { Standstill::of_waiting(&lines) };
    let place = Standstill::of_loop(&ran_in).or_else(seen);
    let does_not_return = step.map(|kind| format!("{kind} does not return"));
    let named = place.as_ref().map(Standstill::to_string).or_else(|| does_not_return.clone());
    let title = match (&place, does_not_return) {
        (Some(place), _) => format!("hang {}{place}", if matches!(place, Standstill::Below(_)) { "" } else { "in " }),
        (None, Some(waits)) => format!("hang: {waits}"),
        (None, None) => "hang: the deadline passed without a word of the kernel".to_owned(),
    };
    let guilty = place.map(|(Standstill::In(function) | Standstill::Below(function))| function.to_owned());
    KernelReport {
        key: key::hang(named.as_deref()),
        title,
        kind: ReportKind::Hang,
        text,
        guilty: guilty.map(|function| Guilty { function, file: None, line: None }),
        access: None,
        stacks: stacks::sections(&lines).iter().map(stacks::Section::stack).collect(),
        truncated: false,
    }
}

/// Says whether a processor that ran was interrupted. Else the stack is of a task that waits.
fn is_interrupted(stack: &[&str]) -> bool {
    stack.iter().any(|line| line.trim() == "</NMI>")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hang(stack: &str, step: Option<(u32, &str)>) -> KernelReport {
        let report = silent_hang("t", Duration::from_secs(30), stack, step);
        assert_eq!(read(&report.text), Some(report.clone()));
        assert_eq!(hung_step(&report.text), step.map(|(_, kind)| kind));
        report
    }

    #[test]
    fn a_hang_names_the_function_or_the_step() {
        let idle = hang("", Some((3, "mount")));
        assert_eq!(
            (idle.key.as_str(), idle.title.as_str()),
            ("hang: mount does not return", "hang: mount does not return")
        );
        assert!(idle.text.starts_with("no reply within 30 s in step 3 (mount), target t"), "{}", idle.text);
        assert_eq!(hang("", None).key, "hang: somewhere");
    }

    #[test]
    fn a_step_that_runs_says_where_whoever_the_processor_works_for_in_the_end() {
        let worker = "RIP: 0010:kernfs_find_ns+0x10/0x60\n</NMI>\n<TASK>\nupdate_super_work+0x1/0x2\n\
            process_one_work+0x1/0x2\nworker_thread+0x1/0x2\nkthread+0x1/0x2\nret_from_fork+0x1/0x2\n</TASK>\n";
        let key = |ran_in: &str| {
            hang(&format!("Call Trace:\n<NMI>\npanic+0x1/0x2\n{worker}{ran_in}"), Some((2, "mmap-write"))).key
        };
        assert_eq!(key(""), "hang: below update_super_work");
        let step = "Call Trace:\n__cond_resched+0x1/0x2\n__get_user_pages+0x1/0x2\nvm_mmap_pgoff+0x1/0x2\n\
            __x64_sys_mmap+0x1/0x2\ndo_syscall_64+0x1/0x2\n";
        assert_eq!(key(&format!("{STEP_RAN}{step}")), "hang: below vm_mmap_pgoff");
        assert_eq!(key(&format!("{STEP_RAN}cannot read it\n")), "hang: below update_super_work");
    }

    #[test]
    fn a_silent_hang_has_a_place() {
        let nmi = "Uhhuh. NMI received for unknown reason 21 on CPU 0.\nKernel panic - not syncing: NMI: Not continuing\n\
            Call Trace:\n<NMI>\ndump_stack_lvl+0x2f/0xe0\npanic+0x552/0x5f0\nnmi_panic+0xae/0xf0\n\
            unknown_nmi_error+0xd7/0x160\ndefault_do_nmi+0xcc/0x100\nexc_nmi+0xe5/0x110\nend_repeat_nmi+0xf/0x18\n";
        let irq = "RIP: 0010:native_io_delay+0x0/0x60\nCode: 83 e8\n? do_raw_spin_lock+0x122/0x250\n</NMI>\n<IRQ>\n\
            ? pit_next_event+0x36/0x50\nclockevents_program_event+0x202/0x2e0\ncommon_interrupt+0x7d/0x90\n</IRQ>\n\
            <TASK>\nasm_common_interrupt+0x27/0x40\nRIP: 0010:find_free_extent+0x2278/0x4da0\n\
            ? find_free_extent+0x2278/0x4da0\nbtrfs_reserve_extent+0x30e/0x630\nRIP: 0033:0x43a8da\n</TASK>\n";
        let task = "RIP: 0010:search_loop.isra.0+0x10/0x60\n</NMI>\n<TASK>\nouter+0x1/0x2\n</TASK>\n";
        let lock = "RIP: 0010:native_queued_spin_lock_slowpath+0x10/0x60\n</NMI>\n<TASK>\n_raw_spin_lock+0x1/0x2\n\
            outer+0x1/0x2\n</TASK>\n";
        let user = "RIP: 0033:0x43a8da\n</NMI>\n";
        let idle = "RIP: 0010:pv_native_safe_halt+0xf/0x10\n</NMI>\n<TASK>\ndefault_idle+0x1/0x2\ndo_idle+0x1/0x2\n\
            cpu_startup_entry+0x1/0x2\nstart_kernel+0x1/0x2\ncommon_startup_64+0x1/0x2\n</TASK>\n";
        let switching = "RIP: 0010:update_curr+0x10/0x60\n</NMI>\n<TASK>\n__schedule+0x1/0x2\nschedule+0x1/0x2\n\
            syscall_exit_to_user_mode+0x1/0x2\ndo_syscall_64+0x1/0x2\n</TASK>\n";
        let place = |rest: &str| hang(&format!("{nmi}{rest}"), None).guilty.map(|guilty| guilty.function);
        assert_eq!(place(irq).as_deref(), Some("btrfs_reserve_extent"));
        let loops = |at: &str| {
            format!(
                "RIP: 0010:{at}+0x10/0x60\n</NMI>\n<TASK>\n_raw_spin_lock+0x1/0x2\n\
            btrfs_buffered_write+0x1/0x2\nbtrfs_file_write_iter+0x1/0x2\nvfs_write+0x1/0x2\n\
            __x64_sys_pwrite64+0x1/0x2\ndo_syscall_64+0x1/0x2\nentry_SYSCALL_64_after_hwframe+0x1/0x2\n</TASK>\n"
            )
        };
        for at in ["fault_in_readable", "_raw_spin_lock", "kmem_cache_alloc"] {
            let hang = hang(&format!("{nmi}{}", loops(at)), None);
            let (title, key) = ("hang below btrfs_file_write_iter", "hang: below btrfs_file_write_iter");
            assert_eq!((hang.title.as_str(), hang.key.as_str()), (title, key), "where it was is chance");
        }
        assert_eq!(place(task).as_deref(), Some("outer"));
        assert_eq!(place(lock).as_deref(), Some("outer"));
        assert_eq!([place(user), place(idle), place(switching)], [None, None, None]);
        assert_eq!(hang("", None).guilty, None);
    }
}
