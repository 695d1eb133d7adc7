//! What the disk holds: what the kernel acknowledged is there, and nothing that nobody wrote.
//!
//! ```text
//!   steps, results, faults ─▶ model ─▶ contents that each file may have ─┐
//!   mount, read, unmount ────────────▶ what is there ────────────────────┴▶ losses
//! ```
//!
//! The rules are in `docs/oracles.md`.

mod file;
mod model;

use std::{
    ffi::CString,
    fs,
    io::ErrorKind,
    path::{Path, PathBuf},
};

use guest_protocol::{FiredFault, LIMITS, Loss, LossKind, Setup, StepResult, WorkloadStep, cut};
use nix::{
    errno::Errno,
    mount::{MntFlags, mount, umount2},
};

use self::model::{Model, Mounted, Named};
use crate::workload::fs::{MOUNT_POINT, options};

/// Options of mounts after which the disk need not hold what was promised: the log is not read,
/// a device is missing, or data is written in any order.
const NO_PROMISE: &[&str] = &["norecovery", "nologreplay", "rescue", "degraded", "data=writeback", "noload"];

/// The steps of a target, whose files are compared with what the disk holds.
pub(crate) struct Content {
    setup: Vec<WorkloadStep>,
    steps: Vec<WorkloadStep>,
    /// Device file of the only disk.
    disk: String,
    /// True when nothing can be said: without a disk, with several, or with such options.
    silent: bool,
}

impl Content {
    /// The oracle of a target.
    pub(crate) fn new(setup: &Setup) -> Self {
        let (before, steps) = (setup.setup_steps.clone(), setup.steps.clone());
        let options = before.iter().chain(&steps).filter_map(|step| match &step.step {
            guest_protocol::Step::Mount { options, .. } | guest_protocol::Step::Remount { options } => Some(options),
            _ => None,
        });
        let silent = setup.disks.len() != 1 || options.into_iter().any(|options| promises_nothing(options));
        let disk = setup.disks.first().cloned().unwrap_or_default();
        Self { setup: before, steps, disk, silent }
    }

    /// Gives the device file of the disk that can be mounted again.
    pub(crate) fn disk(&self) -> &str {
        &self.disk
    }

    /// Mounts the disk as the last mount of the workload did, when nothing is mounted or fails any
    /// more, compares if it is to, and unmounts. The steps had these `results`, and these faults
    /// `fired`.
    pub(crate) fn look(&self, results: &[StepResult], fired: &[FiredFault], compare: bool) -> Seen {
        if self.silent {
            return Seen::default();
        }
        let first_fault = fired.iter().map(|fired| fired.step).filter(|step| *step > 0).min();
        let mut model = Model::new(first_fault.or_else(|| fired.first().map(|_| u32::MAX - 1)));
        for (step, pattern) in self.setup.iter().zip(1..) {
            let result = if step.expect.is_empty() { StepResult::Done(worked(step)) } else { StepResult::Skipped };
            model.step(&step.step, 0, pattern, result);
        }
        for ((step, result), number) in self.steps.iter().zip(results).zip(1..) {
            model.step(&step.step, number, number, *result);
        }
        let Some(mounted) = model.mounted.clone() else { return Seen::default() };
        if let Err(error) = mount_again(&self.disk, &mounted) {
            let text = format!("{} has no {} that can be mounted again: {error}", self.disk, mounted.fstype);
            let losses = compare.then(|| loss(LossKind::Unmountable, text));
            return Seen { losses: losses.into_iter().collect(), unmounted: None };
        }
        let differences = model.files().filter(|_| compare).filter_map(|named| difference(&named));
        let losses = differences.take(LIMITS.notes).collect();
        Seen { losses, unmounted: unmount().then_some(mounted.fstype) }
    }
}

/// The state of a disk that was mounted again.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// How it differs from what it should hold.
    pub(crate) losses: Vec<Loss>,
    /// Type of the file system that was mounted and unmounted again, so that no log is left.
    pub(crate) unmounted: Option<String>,
}

fn promises_nothing(options: &str) -> bool {
    options.split(',').any(|option| NO_PROMISE.contains(&option) || option.starts_with("rescue="))
}

/// The value of a step of the set-up that worked.
fn worked(step: &WorkloadStep) -> i64 {
    match &step.step {
        guest_protocol::Step::Write { length, .. } => i64::from(*length),
        _ => 0,
    }
}

fn loss(kind: LossKind, text: String) -> Loss {
    Loss { kind, text: cut(text, LIMITS.text_bytes) }
}

fn mount_again(disk: &str, mounted: &Mounted) -> Result<(), Errno> {
    let (flags, data) = options::split(&mounted.options);
    let data = CString::new(data).map_err(|_| Errno::EINVAL)?;
    mount(Some(disk), MOUNT_POINT, Some(mounted.fstype.as_str()), flags, Some(data.as_c_str()))
}

/// Unmounts. Whatever then holds the disk is found when it is put back.
fn unmount() -> bool {
    let unmounted = umount2(MOUNT_POINT, MntFlags::empty()).is_ok();
    if !unmounted {
        let _ = umount2(MOUNT_POINT, MntFlags::MNT_DETACH);
    }
    unmounted
}

/// Says how a file that is mounted differs from what it may hold.
fn difference(named: &Named<'_>) -> Option<Loss> {
    if named.file.is_unknown() {
        return None;
    }
    for path in &named.paths {
        let place: PathBuf = Path::new(MOUNT_POINT).join(path);
        let found = match fs::read(&place) {
            Ok(found) => found,
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            Err(error) => {
                let text = format!("{path} cannot be read: {error}{}", named.file.by());
                return named.file.must_exist().then(|| loss(LossKind::Lost, text));
            }
        };
        let (kind, text) = named.file.difference(&found)?;
        return Some(loss(kind, format!("{path}: {text}")));
    }
    let is_missing = named.all && named.file.must_exist();
    is_missing.then(|| loss(LossKind::Lost, format!("{} is not there{}", named.paths.join(", "), named.file.by())))
}
