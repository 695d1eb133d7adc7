//! The messages.

use fault_plan::{Condition, ErrorType, FaultPlan, InjectableFunction, Scope};
use serde::{Deserialize, Serialize};

use crate::{Hit, Recorded, StepResult, TraceMemory, WorkloadStep, hit::packed};

/// Both sides must have the same; it changes with every change of a message or of the window.
pub const PROTOCOL_VERSION: u32 = 22;

/// Name in the guest's initial file system of the module by which the agent adds functions to the
/// kernel's list of those that may fail. Its section `_error_injection_whitelist` has room for
/// them.
pub const SLOTS_FILE: &str = "slots.ko";
/// The types of functions in the order in which the module's first slots have them:
/// `kernels/slots/slots.c`.
pub const SLOT_TYPES: [ErrorType; 4] = [ErrorType::Null, ErrorType::Errno, ErrorType::ErrnoNull, ErrorType::True];

/// The line that [`Report::log`] has where the kernel dropped records before they were read.
pub const LOG_LOST: &str = "agent: the kernel dropped log records here\n";

/// Parts in which the disk is compared with the image, one in each control run. Comparing all of a
/// disk of 128 MiB takes as long as three executions on the checking kernel, and nine on the lean
/// one.
pub const DISK_PARTS: u32 = 16;

/// From host to agent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum ToAgent {
    /// Prepare for one target. Once, after [`FromAgent::Hello`].
    Setup(Setup),
    /// Run the workload once.
    Execute(Execute),
}

/// The target that the agent prepares.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Setup {
    /// The functions to probe.
    pub functions: Vec<Contract>,
    /// Scopes whose calls are hits and may fail.
    pub scopes: Vec<Scope>,
    /// Functions, at most [`MAX_UNRELATED`](crate::MAX_UNRELATED). A call of another scope than the
    /// workload's with one of them among its callers is left alone, and is no hit. A kernel may
    /// lack some.
    pub unrelated: Vec<String>,
    /// Steps that run before the workload, not armed and without coverage.
    pub setup_steps: Vec<WorkloadStep>,
    /// The workload.
    pub steps: Vec<WorkloadStep>,
    /// Device files of the target's disks, at most [`MAX_DISKS`](crate::MAX_DISKS), which the steps
    /// know by their numbers. `/dev/vda` is copied to the first one, and the others are all zero.
    pub disks: Vec<String>,
    /// Steps that run once, when the target is prepared. What the disks hold then is their image.
    pub image_steps: Vec<WorkloadStep>,
    /// True when the agent waits for the first request by polling the window. The host puts it
    /// there before the guest goes on and does not ring, as an interrupt comes at a moment that
    /// nobody controls.
    pub awake: bool,
    /// True to count live allocations by source line, where the kernel can: see
    /// [`Report::growth`].
    pub allocations: bool,
}

/// A function that the agent probes, and which of its calls the kernel would never fail.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Contract {
    /// The function.
    pub function: String,
    /// Type of its errors, for a function that is added to the kernel's list where it is not there.
    /// None for one that must be there.
    pub error_type: Option<ErrorType>,
    /// A call for which any of these holds never fails, and is no occurrence. At most
    /// [`MAX_CONDITIONS`](crate::MAX_CONDITIONS) speak of arguments, and the others of at most
    /// [`MAX_CALLERS`](crate::MAX_CALLERS) callers.
    pub never: Vec<Condition>,
    /// Parts of a call's arguments that are noted when it fails, at most
    /// [`MAX_SHOWN`](crate::MAX_SHOWN). A kernel may lack some.
    pub shown: Vec<Shown>,
}

/// A part of a call's arguments.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shown {
    /// Number of the argument, from 1.
    pub argument: u8,
    /// Field of the structure that it points to, such as `kmem_cache.object_size`.
    pub field: Option<String>,
    /// True when that points to a text. Only one part is a text.
    pub text: bool,
}

/// One execution.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Execute {
    /// Number of the execution, chosen by the host; the report repeats it.
    pub id: u64,
    /// The faults. The agent runs the last round alone.
    pub plan: FaultPlan,
    /// True to run in the state that the execution before left, whatever something still holds.
    /// That one had `leave`, or a leftover.
    pub keep: bool,
    /// True to leave the state for the next execution: the disk is not put back. It never is after
    /// an execution with a leftover.
    pub leave: bool,
    /// Part of the disk, below [`DISK_PARTS`], to compare first with the image; then the agent also
    /// asks whether the kernel's detectors are still on. See [`Report::defects`].
    pub verify: Option<u32>,
    /// True to probe and count calls; false only to measure what that costs.
    pub inject: bool,
    /// The coverage to record.
    pub coverage: Recorded,
    /// True to mount the disk again when the workload has ended, without faults, and to compare
    /// what is there with what was written: see [`Report::losses`].
    pub look: bool,
    /// True to mount the disk again and unmount it when the workload has ended, without faults, so
    /// that no log is left, and then to have the file system's checker read it: see
    /// [`Report::complaints`].
    pub check: bool,
    /// True to have kmemleak look, when the workload has ended, for memory that nothing points to:
    /// see [`Report::unreferenced`]. That takes seconds.
    pub search: bool,
    /// Return addresses of the faults that are to be traced, one list for each fault up to the last
    /// such, innermost first: it is noted what calls return to them after the fault has fired.
    /// Empty to trace none.
    pub trace: Vec<Vec<u64>>,
    /// True to describe every site hit, also those described in an earlier report, or reached when
    /// the guest was prepared.
    pub describe_all_sites: bool,
}

/// From agent to host.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum FromAgent {
    /// The agent is up.
    Hello(Hello),
    /// The target is prepared.
    Ready(Ready),
    /// An execution ended.
    Report(Box<Report>),
    /// The guest was not fit to run the plan, and did not: what an earlier execution left behind
    /// and that showed after its report. Never a finding.
    Unclean(String),
    /// This kernel cannot do what was asked, and would not the next time: the reason, fit after
    /// "the guest's agent: ". Never a finding.
    Refused(String),
    /// The agent failed, in whatever it was doing: the reason, fit after "the guest's agent: ".
    /// Says nothing about what was asked, and is never a finding. The guest must not be used any
    /// more.
    Trouble(String),
    /// A step of the workload does not return in an idle guest, and the kernel does not say so: the
    /// functions in which it waits, innermost first, as `/proc/PID/stack` has them. The guest must
    /// not be used any more.
    Hung(String),
}

/// Version of the agent, and the abilities of its kernel.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Hello {
    /// [`PROTOCOL_VERSION`] of the agent.
    pub protocol: u32,
    /// Release, as `uname -r` says.
    pub kernel_release: String,
    /// GNU build id of the running kernel in lower-case hexadecimal, from `/sys/kernel/notes`.
    pub kernel_build_id: String,
    /// Features that the kernel has or lacks.
    pub features: Vec<Feature>,
    /// All of `/sys/kernel/debug/error_injection/list`.
    pub injectable: Vec<InjectableFunction>,
}

/// Something that the agent wants of its kernel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Feature {
    /// Its name: `kcov`, `bpf-override`, `kmemleak`, …
    pub name: String,
    /// Why it is missing and what would bring it (the kernel option); empty when it is there.
    pub missing: String,
}

/// The target is prepared.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Ready {
    /// The functions that are probed now.
    pub functions: Vec<InjectableFunction>,
    /// Functions of [`Setup::functions`] that are not probed, as this kernel cannot make them fail.
    pub left_out: Vec<LeftOut>,
    /// Guest-physical address of the page with the log of fired faults, for the host to read when
    /// the guest died.
    pub fired_log_address: u64,
    /// Guest-physical address of the page with the values that traced calls return.
    pub returns_address: u64,
    /// The coverage traces, of each role at most one. The workload's is always there, the others
    /// where the kernel can trace other tasks.
    pub traces: Vec<TraceMemory>,
    /// Why no [`Checker`](crate::Checker) reads the disk, although there is one for its file
    /// system; empty where one does, or where there is none.
    pub unchecked: String,
    /// First address of the kernel's text.
    pub text_start: u64,
    /// Size of the kernel's text.
    pub text_bytes: u64,
}

/// A function that cannot be made to fail on this kernel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeftOut {
    /// The function.
    pub function: String,
    /// Why, fit after its name and a colon.
    pub reason: String,
}

/// The effects of one execution. Its coverage is in the traces, see [`Ready::traces`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// [`Execute::id`].
    pub id: u64,
    /// One result for each step.
    pub steps: Vec<StepResult>,
    /// The sites reached.
    #[serde(with = "packed")]
    pub hits: Vec<Hit>,
    /// Sites that this guest has not described before, nor reached when it was prepared.
    pub new_sites: Vec<SiteDescription>,
    /// The faults that fired, in that order.
    pub fired: Vec<FiredFault>,
    /// Calls that found no room in the site table.
    pub lost_hits: u32,
    /// Calls that the kernel promises not to fail and that were left alone.
    pub guarded: u32,
    /// Names in the plan's call paths that this kernel has no function of: it inlined them, and
    /// they were skipped over.
    pub unknown_names: Vec<String>,
    /// Kernel log from the end of the execution before (or of the set-up) until this one's plan was
    /// in place, one record a line: late effects of earlier executions.
    pub log_before: String,
    /// Kernel log from then until this one's end.
    pub log: String,
    /// Leftovers that the oracles found. A guest with one runs another plan only to see what comes
    /// of it ([`Execute::keep`]). What shows still later, [`FromAgent::Unclean`] says.
    pub leftovers: Vec<Leftover>,
    /// Ways in which the disk does not hold what it should, where [`Execute::look`] asked. The
    /// guest may run another plan.
    pub losses: Vec<Loss>,
    /// The words of the file system's checker after a line with its command, where
    /// [`Execute::check`] asked and it complains of the disk; else empty. The guest may run another
    /// plan.
    pub complaints: String,
    /// Source lines of which more memory is in use than before the execution, those with the most
    /// bytes first. Empty where the kernel does not count that.
    pub growth: Vec<Growth>,
    /// Objects that nothing points to, as `/sys/kernel/debug/kmemleak` tells of them, where
    /// [`Execute::search`] asked; else empty. It is cut off when it is long.
    pub unreferenced: String,
    /// Ways in which the guest was no longer as it was at first, before the execution, where
    /// [`Execute::verify`] asked. Never a finding. The guest must not be used any more.
    pub defects: Vec<Defect>,
    /// Times of the execution's phases.
    pub timings: Timings,
}

/// A way in which a guest is not as it was at first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Defect {
    /// The disk is not the image: which block, and what is there.
    Disk(String),
    /// A detector of the kernel's has switched itself off: which one.
    Detector(String),
}

/// Something that was still in use when the workload had ended and was cleaned up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leftover {
    /// The kind of thing.
    pub kind: LeftoverKind,
    /// Words of the oracle.
    pub text: String,
}

/// Something on the disk that should not be so.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Loss {
    /// The kind of loss.
    pub kind: LossKind,
    /// What was expected and what is there.
    pub text: String,
}

/// The kind of a loss.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum LossKind {
    /// Data is not there that the kernel said to be on the disk.
    Lost,
    /// A file has data that nobody wrote to it.
    Stale,
    /// The file system cannot be mounted again.
    Unmountable,
}

/// Memory that one source line has allocated, and that was not freed in an execution.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Growth {
    /// File and line, as the kernel was built.
    pub place: String,
    /// The function.
    pub function: String,
    /// Number of allocations.
    pub calls: u32,
    /// Number of bytes.
    pub bytes: u64,
}

/// The kind of thing that was left.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum LeftoverKind {
    /// A mount that cannot be undone.
    Mount,
    /// The disk, which something in the kernel holds although nothing is mounted.
    Device,
    /// State of a file system, of which no mount is left.
    FileSystem,
    /// Memory that does not come back.
    Memory,
    /// A taint of the kernel, which then has noticed something.
    Taint,
    /// Work that the workload caused in the kernel, and that does not end.
    Work,
}

/// The injection site behind a site's number, in one step and one scope: a point.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SiteDescription {
    /// The site's number.
    pub site: u64,
    /// The injectable function.
    pub function: String,
    /// The callers, innermost first.
    pub call_path: Vec<String>,
    /// True when there were more callers than fit.
    pub truncated: bool,
    /// The step of the workload, from 1.
    pub step: u32,
    /// The scope of its calls.
    pub scope: Scope,
}

/// A fault that fired.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FiredFault {
    /// Index in the plan, from 0.
    pub fault: u32,
    /// Position of the call among all calls of the execution, from 1; always of the first time.
    pub sequence: u32,
    /// The site's number.
    pub site: u64,
    /// Step of the workload that the call was in, from 1.
    pub step: u32,
    /// Scope of the call.
    pub scope: Scope,
    /// Number of times that it fired. The rest is of the first time, or of the last one of as many
    /// as the program allows.
    pub times: u32,
    /// The callers, innermost first.
    pub call_path: Vec<String>,
    /// The return addresses into them.
    pub stack: Vec<u64>,
    /// The registers of the call's arguments, at most [`MAX_ARGUMENTS`](fault_plan::MAX_ARGUMENTS).
    pub arguments: Vec<u64>,
    /// The parts of them that the function's contract wants noted, in its order; nothing for one
    /// that the kernel lacks.
    pub shown: Vec<Option<u64>>,
    /// The text among them; cut off when it is long.
    pub text: String,
}

/// Times of an execution's phases in the guest, in nanoseconds of the guest's monotonic clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timings {
    /// Putting the disk back for this execution, which the agent does right after the report of the
    /// one before; 0 in the first.
    pub reset_ns: u64,
    /// Lowering the plan and arming.
    pub arm_ns: u64,
    /// The steps.
    pub run_ns: u64,
    /// Waiting for the end of the work that they caused.
    pub settle_ns: u64,
    /// Clean-up, hits, log.
    pub collect_ns: u64,
    /// Mounting the disk again and comparing what it holds.
    pub look_ns: u64,
    /// Having the file system's checker read the disk.
    pub check_ns: u64,
}
