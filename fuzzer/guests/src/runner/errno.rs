//! Findings of steps that return what their system calls never may.

use execution::{Finding, FindingKind, Fired};
use fault_plan::{Errno, FaultPlan, InjectedError};
use guest_protocol::{Step, StepResult, WorkloadStep};

use super::leftover::{evidence, seen};

/// The last error number that user space knows: `EHWPOISON` of `include/uapi/asm-generic/errno.h`
/// (6.12). Those above are the kernel's own, as in `include/linux/errno.h`.
const LAST: i32 = 133;

/// Error numbers that the pages of these steps' calls do not have, in any file system, and that
/// mean something inside of the kernel: ESRCH, ECHILD, EFAULT, EEXIST, EDOM, ENODATA. The list is
/// short on purpose: manual pages are not complete.
const INNER: &[i32] = &[3, 10, 14, 17, 33, 61];

/// Says whether no call of this step gives one of [`INNER`].
fn is_strict(step: &Step) -> bool {
    use Step::{Fsync, Read, Sync, Truncate, Umount, Write};
    matches!(step, Write { .. } | Read { .. } | Fsync { .. } | Sync {} | Truncate { .. } | Umount {})
}

/// Makes a finding of the first step of the `workload` that returned what its calls never may. An
/// error that the plan injects is no wrong one: who returned it is not the question here.
pub(super) fn wrong(
    plan: &FaultPlan,
    workload: &[WorkloadStep],
    fired: &[Fired],
    results: &[StepResult],
) -> Option<Finding> {
    let injected = |number: i32| {
        let is =
            |error: &InjectedError| matches!(error, InjectedError::Errno(errno) if i32::from(errno.number()) == number);
        plan.all_faults().any(|fault| is(&fault.error))
    };
    let numbered = workload.iter().zip(results).zip(1..);
    let (what, kind, number) = numbered.into_iter().find_map(|((step, result), number)| {
        let kind = step.kind();
        let what = match (&step.step, result) {
            (_, StepResult::Failed(error)) if *error > LAST => {
                format!("error {error}, which the kernel has for itself")
            }
            (inner, StepResult::Failed(error)) if is_strict(inner) && INNER.contains(error) && !injected(*error) => {
                Errno::from_number(i64::from(*error)).map_or("?", Errno::name).to_owned()
            }
            (Step::Write { length, .. } | Step::MmapWrite { length, .. }, StepResult::Done(bytes))
                if *bytes > i64::from(*length) =>
            {
                "more bytes than it was given".to_owned()
            }
            (_, StepResult::Done(value)) if *value < 0 => "a negative number".to_owned(),
            _ => return None,
        };
        Some((what, kind, number))
    })?;
    let key = format!("wrong result: {kind}: {what}");
    let title = format!("{kind} returned {what}");
    let text = evidence(&format!("step {number} ({kind}) returned {what}"), plan, fired, results);
    Some(seen(FindingKind::Errno, key, title, text, fired))
}

#[cfg(test)]
mod tests {
    use fault_plan::{CallPath, Fault};

    use super::*;

    #[test]
    fn what_a_call_never_returns_is_found() {
        let path = || "f".parse().unwrap();
        let write = Step::Write { path: path(), offset: 0, length: 9, direct: false, sync: false };
        let create = Step::Create { path: path() };
        let errno = |name| InjectedError::Errno(Errno::from_name(name).unwrap());
        let plan_of = |error| FaultPlan {
            faults: vec![Fault::new("f", CallPath::default(), 1, error)],
            ..FaultPlan::fault_free("t")
        };
        let key = |step: &Step, result, error| {
            let found = wrong(&plan_of(errno(error)), &[step.clone().into()], &[], &[result]);
            found.map(|found| found.key).unwrap_or_default()
        };
        let failed = StepResult::Failed;
        assert!(key(&create, failed(524), "ENOMEM").contains("create: error 524"));
        assert_eq!(key(&create, failed(17), "ENOMEM"), "", "it may");
        assert_eq!(key(&write, failed(17), "ENOMEM"), "wrong result: write: EEXIST");
        assert_eq!(key(&write, failed(17), "EEXIST"), "", "it was injected");
        assert_eq!([key(&write, failed(117), "EIO"), key(&write, failed(12), "ENOMEM")], ["", ""]);
        assert_eq!(key(&write, StepResult::Done(9), "EIO"), "");
        assert!(key(&write, StepResult::Done(10), "EIO").contains("more bytes"));
        assert!(key(&create, StepResult::Done(-3), "EIO").contains("negative"));
        assert_eq!(key(&write, StepResult::Skipped, "EIO"), "");
    }
}
