//! Bounds on what a guest may say, and the check that a message keeps to them.

use crate::{Defect, FromAgent, Hello, MessageError, Ready, Report, StepResult, TraceRole};

/// The most functions that can be probed in one guest.
pub const MAX_FUNCTIONS: usize = 512;
/// The most disks of a target.
pub const MAX_DISKS: u8 = 4;
/// The most conditions on arguments under which a function never fails.
pub const MAX_CONDITIONS: usize = 4;
/// The most callers below which a function never fails.
pub const MAX_CALLERS: usize = 12;

/// The most parts of a call's arguments that are noted when it fails.
pub const MAX_SHOWN: usize = 4;

/// The most functions below which calls of other tasks are unrelated to the workload.
pub const MAX_UNRELATED: usize = 32;

/// Bounds on what a guest may say.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of a symbol, feature or file name.
    pub name_bytes: usize,
    /// Callers of a path.
    pub call_path: usize,
    /// Functions in a list.
    pub functions: usize,
    /// Bytes of the kernel's text.
    pub text_span_bytes: u64,
    /// Pieces of memory that the traces are in, and their bytes in all.
    pub trace_ranges: usize,
    /// See [`Limits::trace_ranges`].
    pub trace_bytes: u64,
    /// Sites in a report.
    pub sites: usize,
    /// Steps in a report.
    pub steps: usize,
    /// Leftovers, losses, features and source lines in a message.
    pub notes: usize,
    /// Bytes of a reason, a leftover, or what is said of a feature.
    pub text_bytes: usize,
    /// Bytes of a kernel log, and of what kmemleak tells.
    pub log_bytes: usize,
}

/// The bounds in force.
pub const LIMITS: Limits = Limits {
    name_bytes: 512,
    call_path: fault_plan::MAX_CALL_PATH,
    functions: 1 << 16,
    text_span_bytes: 256 << 20,
    trace_ranges: 1 << 14,
    trace_bytes: 64 << 20,
    sites: 1 << 16,
    steps: 1 << 12,
    notes: 1 << 8,
    text_bytes: 16 << 10,
    log_bytes: 1 << 20,
};

/// The largest error number that a system call returns: `MAX_ERRNO` of `include/linux/err.h`
/// (6.12).
const MAX_ERRNO: i32 = 4095;

/// `text`, cut between two characters when it is longer than `max_bytes`.
#[must_use]
pub fn cut(mut text: String, max_bytes: usize) -> String {
    text.truncate(text.floor_char_boundary(max_bytes));
    text
}

impl FromAgent {
    /// Checks every length and count against [`LIMITS`], that names are printable ASCII without a
    /// slash, and that error numbers and indices of faults can be such.
    ///
    /// # Errors
    ///
    /// Names the part that is out of bounds.
    pub fn check(&self) -> Result<(), MessageError> {
        match self {
            Self::Hello(hello) => hello.check(),
            Self::Ready(ready) => ready.check(),
            Self::Report(report) => report.check(),
            Self::Unclean(reason) | Self::Refused(reason) | Self::Trouble(reason) | Self::Hung(reason) => text(reason),
        }
    }
}

impl Hello {
    fn check(&self) -> Result<(), MessageError> {
        name(&self.kernel_release)?;
        name(&self.kernel_build_id)?;
        within(self.features.len() <= LIMITS.notes, "the list of features")?;
        for feature in &self.features {
            name(&feature.name)?;
            text(&feature.missing)?;
        }
        within(self.injectable.len() <= LIMITS.functions, "the list of injectable functions")?;
        self.injectable.iter().try_for_each(|function| name(&function.name))
    }
}

impl Ready {
    fn check(&self) -> Result<(), MessageError> {
        within(self.functions.len() <= LIMITS.functions, "the list of functions")?;
        let is_one = |role| self.traces.iter().filter(|trace| trace.role == role).count() <= 1;
        within(TraceRole::ALL.into_iter().all(is_one), "the list of traces")?;
        let ranges = || self.traces.iter().flat_map(|trace| &trace.ranges);
        within(ranges().count() <= LIMITS.trace_ranges, "the list of the traces' pieces")?;
        let bytes = ranges().try_fold(0_u64, |sum, range| sum.checked_add(range.bytes));
        within(bytes.is_some_and(|bytes| bytes <= LIMITS.trace_bytes), "the size of the traces")?;
        within(self.text_bytes <= LIMITS.text_span_bytes, "the size of the kernel's text")?;
        self.functions.iter().try_for_each(|function| name(&function.name))?;
        text(&self.unchecked)?;
        within(self.left_out.len() <= LIMITS.functions, "the list of functions left out")?;
        self.left_out.iter().try_for_each(|left_out| {
            name(&left_out.function)?;
            text(&left_out.reason)
        })
    }
}

impl Report {
    fn check(&self) -> Result<(), MessageError> {
        within(self.steps.len() <= LIMITS.steps, "the list of steps")?;
        within(self.hits.len() <= LIMITS.sites, "the list of hits")?;
        within(self.new_sites.len() <= LIMITS.sites, "the list of new sites")?;
        within(self.fired.len() <= fault_plan::MAX_FAULTS, "the list of fired faults")?;
        within(self.leftovers.len() <= LIMITS.notes, "the list of leftovers")?;
        within(self.losses.len() <= LIMITS.notes, "the list of losses")?;
        text(&self.complaints)?;
        self.losses.iter().try_for_each(|loss| text(&loss.text))?;
        within(self.growth.len() <= LIMITS.notes, "the list of memory that is more")?;
        self.growth.iter().try_for_each(|growth| text(&growth.place).and_then(|()| text(&growth.function)))?;
        within(self.unreferenced.len() <= LIMITS.log_bytes, "the list of memory that nothing points to")?;
        within(self.defects.len() <= LIMITS.notes, "the list of defects")?;
        self.defects.iter().try_for_each(|(Defect::Disk(what) | Defect::Detector(what))| text(what))?;
        within(self.log_before.len() <= LIMITS.log_bytes, "the kernel log before the execution")?;
        within(self.log.len() <= LIMITS.log_bytes, "the kernel log")?;
        let most_names = fault_plan::MAX_FAULTS * LIMITS.call_path;
        within(self.unknown_names.len() <= most_names, "the list of unknown names")?;
        self.unknown_names.iter().try_for_each(|unknown| text(unknown))?;
        self.leftovers.iter().try_for_each(|leftover| text(&leftover.text))?;
        let possible =
            |step: &StepResult| !matches!(step, StepResult::Failed(error) if !(0..=MAX_ERRNO).contains(error));
        within(self.steps.iter().all(possible), "a step's error number")?;
        for site in &self.new_sites {
            name(&site.function)?;
            call_path(&site.call_path)?;
            step_number(site.step)?;
        }
        for fired in &self.fired {
            within((fired.fault as usize) < fault_plan::MAX_FAULTS, "the index of a fault")?;
            call_path(&fired.call_path)?;
            within(fired.stack.len() <= LIMITS.call_path, "the return addresses of a fault")?;
            within(fired.arguments.len() <= usize::from(fault_plan::MAX_ARGUMENTS), "the arguments of a fault")?;
            within(fired.shown.len() <= MAX_SHOWN, "the parts of a fault's arguments")?;
            text(&fired.text)?;
            step_number(fired.step)?;
        }
        Ok(())
    }
}

fn within(holds: bool, what: &'static str) -> Result<(), MessageError> {
    if holds { Ok(()) } else { Err(MessageError::OutOfBounds { what }) }
}

fn name(name: &str) -> Result<(), MessageError> {
    let plain = name.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'/');
    within(plain && name.len() <= LIMITS.name_bytes, "a name")
}

fn text(text: &str) -> Result<(), MessageError> {
    within(text.len() <= LIMITS.text_bytes, "a text")
}

fn step_number(step: u32) -> Result<(), MessageError> {
    within(step as usize <= LIMITS.steps, "the number of a step")
}

fn call_path(path: &[String]) -> Result<(), MessageError> {
    within(path.len() <= LIMITS.call_path, "a call path")?;
    path.iter().try_for_each(|caller| name(caller))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_cut_between_characters() {
        assert_eq!(cut("aé".to_owned(), 2), "a");
        assert_eq!(cut("aé".to_owned(), 3), "aé");
    }
}
