//! Whose call it is.

use abi::{CHILD, Control, THREAD, WORKER, WORKLOAD};
use aya_ebpf::helpers::{bpf_get_current_pid_tgid, generated::bpf_get_current_task};

use crate::memory::Reader;

/// Flags of a task: a work item runs in it, it is a kernel thread. Mirrors `include/linux/sched.h`
/// (6.12).
const PF_WQ_WORKER: u32 = 0x20;
const PF_KTHREAD: u32 = 0x20_0000;

/// The scope of the running task, if calls of that scope are of interest.
///
/// Mostly the workload alone is armed or calls: then this is one helper and a few comparisons.
#[inline(always)]
pub(crate) fn of_current(control: &Control) -> Option<u8> {
    let ids = bpf_get_current_pid_tgid();
    let (process, thread) = ((ids >> 32) as u32, ids as u32);
    let scope = if thread == control.thread {
        WORKLOAD
    } else if control.scopes & !(1 << WORKLOAD) == 0 || process == control.process || thread == 0 {
        // The task of number 0 is the idle one.
        return None;
    } else {
        of_other(control)?
    };
    (control.scopes & 1 << scope != 0).then_some(scope)
}

#[inline(always)]
fn of_other(control: &Control) -> Option<u8> {
    // SAFETY: the helper takes no arguments.
    let task = unsafe { bpf_get_current_task() };
    let flags: u32 = Reader::new().number(task.wrapping_add(u64::from(control.task_flags)))?;
    Some(match () {
        () if flags & PF_KTHREAD == 0 => CHILD,
        () if flags & PF_WQ_WORKER != 0 => WORKER,
        () => THREAD,
    })
}
