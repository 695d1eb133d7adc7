//! The messages and their encoding (postcard).

use fault_plan::{FaultPlan, InjectableFunction};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use thiserror::Error;

use crate::{Hit, REPLY_MAX_BYTES, REQUEST_MAX_BYTES, Step, StepResult, hit::packed};

/// Both sides must have the same; it changes with every change of a message or of the window.
pub const PROTOCOL_VERSION: u32 = 7;

/// What [`Report::log`] has where the kernel dropped records before they were read.
pub const LOG_LOST: &str = "agent: the kernel dropped log records here\n";

/// From host to agent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum ToAgent {
    /// Prepare for one target. Once, after [`FromAgent::Hello`].
    Setup(Setup),
    /// Run the workload once.
    Execute(Execute),
}

/// What the agent prepares.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Setup {
    /// The functions to probe.
    pub functions: Vec<String>,
    /// The workload.
    pub steps: Vec<Step>,
    /// Whether the target has a disk: `/dev/vda` is copied to `/dev/ram0`, which the steps mount.
    pub disk: bool,
    /// Whether the agent waits for the first request by looking at the window over and over: the host puts it there
    /// before the guest goes on and does not ring, as an interrupt comes at a moment that nobody controls.
    pub awake: bool,
}

/// One execution.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Execute {
    /// Number of the execution, chosen by the host; the report repeats it.
    pub id: u64,
    /// What fails.
    pub plan: FaultPlan,
    /// Whether to probe and count calls; off only to measure what that costs.
    pub inject: bool,
    /// Whether to record coverage; off only to measure what that costs.
    pub coverage: bool,
    /// Whether to describe every site hit, also those described in an earlier report, or reached when the guest was prepared.
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
    /// The guest was not fit to run the plan, and did not: what an earlier execution left behind and that showed after its report.
    /// Never a finding.
    Unclean(String),
    /// This kernel cannot do what was asked, and would not the next time: the reason, fit after "the guest's agent: ".
    /// Never a finding.
    Refused(String),
    /// The agent failed, in whatever it was doing: the reason, fit after "the guest's agent: ". Says nothing about what
    /// was asked, and is never a finding. The guest must not be used any more.
    Trouble(String),
}

/// Who the agent is and what its kernel can do.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Hello {
    /// [`PROTOCOL_VERSION`] of the agent.
    pub protocol: u32,
    /// Release, as `uname -r` says.
    pub kernel_release: String,
    /// GNU build id of the running kernel in lower-case hexadecimal, from `/sys/kernel/notes`.
    pub kernel_build_id: String,
    /// What the kernel has and lacks.
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
    /// Guest-physical address of the page with the log of fired faults, for the host to read when the guest died.
    pub fired_log_address: u64,
    /// Where the coverage trace is, for the host to read when an execution has ended, also of a guest that died: 64-bit
    /// little-endian words, of which the first counts those that follow. Between executions the number of all words that there is room for is
    /// added to it.
    pub trace: Vec<MemoryRange>,
    /// First address of the kernel's text.
    pub text_start: u64,
    /// Size of the kernel's text.
    pub text_bytes: u64,
}

/// A piece of the guest's physical memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryRange {
    /// Its first address.
    pub address: u64,
    /// Its size.
    pub bytes: u64,
}

/// What one execution did. Its coverage is in the trace, see [`Ready::trace`].
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
    /// Kernel log from the end of the execution before (or of the set-up) until this one's plan was in place, one
    /// record a line: late effects of earlier executions.
    pub log_before: String,
    /// Kernel log from then until this one's end.
    pub log: String,
    /// What was still in use after the clean-up: a guest that is not clean must not run another plan. What only shows when the disk
    /// is put back, [`FromAgent::Unclean`] says.
    pub leftovers: Vec<String>,
    /// Where the time went.
    pub timings: Timings,
}

/// What stands behind a site's number.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SiteDescription {
    /// The site's number.
    pub site: u64,
    /// The injectable function.
    pub function: String,
    /// The callers, innermost first.
    pub call_path: Vec<String>,
    /// Whether there were more callers than fit.
    pub truncated: bool,
}

/// A fault that fired.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FiredFault {
    /// Index in the plan, from 0.
    pub fault: u32,
    /// Position of the call among all calls of the execution, from 1.
    pub sequence: u32,
    /// The site's number.
    pub site: u64,
    /// The callers, innermost first.
    pub call_path: Vec<String>,
}

/// Where an execution's time went in the guest, in nanoseconds of the guest's monotonic clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timings {
    /// Putting the disk back for this execution, which the agent does right after the report of the one before; 0 in the first.
    pub reset_ns: u64,
    /// Lowering the plan and arming.
    pub arm_ns: u64,
    /// The steps.
    pub run_ns: u64,
    /// Clean-up, hits, log.
    pub collect_ns: u64,
}

/// Why a message is refused.
#[derive(Debug, Error)]
pub enum MessageError {
    /// Not a message at all.
    #[error("not a message of protocol version {PROTOCOL_VERSION}")]
    Decode(#[source] postcard::Error),
    /// Bytes after the message.
    #[error("{0} bytes follow the message")]
    Trailing(usize),
    /// Too large for its area of the window.
    #[error("a message of {bytes} bytes does not fit into {max} bytes")]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// The area's size.
        max: usize,
    },
    /// A part of it is out of bounds.
    #[error("{what} is out of bounds")]
    OutOfBounds {
        /// The part.
        what: &'static str,
    },
}

fn encode<T: Serialize>(message: &T, max: usize) -> Result<Vec<u8>, MessageError> {
    let bytes = postcard::to_stdvec(message).map_err(MessageError::Decode)?;
    if bytes.len() > max { Err(MessageError::TooLarge { bytes: bytes.len(), max }) } else { Ok(bytes) }
}

fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, MessageError> {
    let (message, rest) = postcard::take_from_bytes(bytes).map_err(MessageError::Decode)?;
    if rest.is_empty() { Ok(message) } else { Err(MessageError::Trailing(rest.len())) }
}

impl ToAgent {
    /// The message's bytes.
    ///
    /// # Errors
    ///
    /// It does not fit into its area.
    pub fn encode(&self) -> Result<Vec<u8>, MessageError> {
        encode(self, REQUEST_MAX_BYTES)
    }

    /// The message in `bytes`.
    ///
    /// # Errors
    ///
    /// They are no message.
    pub fn decode(bytes: &[u8]) -> Result<Self, MessageError> {
        decode(bytes)
    }
}

impl FromAgent {
    /// The message's bytes.
    ///
    /// # Errors
    ///
    /// It does not fit into its area.
    pub fn encode(&self) -> Result<Vec<u8>, MessageError> {
        encode(self, REPLY_MAX_BYTES)
    }

    /// The message in `bytes`, which come from a guest: decoded and checked, and its free text made fit to print. Line
    /// feeds and tabs are the only control characters left, others become U+FFFD.
    ///
    /// # Errors
    ///
    /// They are no message, or a part of it is out of bounds.
    pub fn decode(bytes: &[u8]) -> Result<Self, MessageError> {
        let mut message: Self = decode(bytes)?;
        message.check()?;
        message.texts().into_iter().for_each(make_printable);
        Ok(message)
    }

    /// All free text in the message.
    fn texts(&mut self) -> Vec<&mut String> {
        match self {
            Self::Hello(hello) => hello.features.iter_mut().map(|feature| &mut feature.missing).collect(),
            Self::Ready(_) => Vec::new(),
            Self::Report(report) => {
                report.leftovers.iter_mut().chain([&mut report.log_before, &mut report.log]).collect()
            }
            Self::Unclean(reason) | Self::Refused(reason) | Self::Trouble(reason) => vec![reason],
        }
    }
}

fn make_printable(text: &mut String) {
    let is_unfit = |character: char| character.is_control() && !matches!(character, '\n' | '\t');
    if text.contains(is_unfit) {
        *text = text.replace(is_unfit, "\u{fffd}");
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::LIMITS;

    fn report() -> FromAgent {
        FromAgent::Report(Box::new(Report {
            id: 7,
            steps: vec![StepResult::Failed(12), StepResult::Skipped],
            hits: vec![Hit { site: 9, count: 3, first_sequence: 1 }],
            new_sites: vec![SiteDescription {
                site: 9,
                function: "should_failslab".to_owned(),
                call_path: vec!["open_ctree".to_owned()],
                truncated: false,
            }],
            fired: vec![FiredFault { fault: 0, sequence: 2, site: 9, call_path: vec!["open_ctree".to_owned()] }],
            ..Report::default()
        }))
    }

    fn refused(change: impl FnOnce(&mut Report)) -> bool {
        let FromAgent::Report(mut inner) = report() else { unreachable!("it is a report") };
        change(&mut inner);
        FromAgent::decode(&FromAgent::Report(inner).encode().unwrap()).is_err()
    }

    #[test]
    fn what_is_sent_is_received() {
        assert_eq!(FromAgent::decode(&report().encode().unwrap()).unwrap(), report());
        let execute = ToAgent::Execute(Execute {
            id: 1,
            plan: FaultPlan::fault_free("t"),
            inject: true,
            coverage: true,
            describe_all_sites: false,
        });
        assert_eq!(ToAgent::decode(&execute.encode().unwrap()).unwrap(), execute);
    }

    #[test]
    fn a_hostile_guest_is_refused() {
        assert!(!refused(|_| ()));
        assert!(refused(|report| report.new_sites[0].function = "../../etc/passwd".to_owned()));
        assert!(refused(|report| report.new_sites[0].function = "x".repeat(513)));
        assert!(refused(|report| report.new_sites[0].call_path = vec!["x".to_owned(); 25]));
        assert!(refused(|report| report.fired[0].call_path[0] = "new\nline".to_owned()));
        assert!(refused(|report| report.fired = vec![report.fired[0].clone(); 17]));
        assert!(refused(|report| report.fired[0].fault = 16));
        assert!(refused(|report| report.log = "x".repeat(LIMITS.log_bytes + 1)));
        assert!(refused(|report| report.log_before = "x".repeat(LIMITS.log_bytes + 1)));
        assert!(refused(|report| report.leftovers = vec!["x".repeat(LIMITS.text_bytes + 1)]));
        assert!(refused(|report| report.steps[0] = StepResult::Failed(4096)));
        assert!(refused(|report| report.steps[0] = StepResult::Failed(i32::MIN)));
        assert!(refused(|report| report.steps = vec![StepResult::Skipped; LIMITS.steps + 1]));
    }

    #[test]
    fn a_trace_has_a_size_that_can_be() {
        let decoded = |trace: Vec<MemoryRange>| {
            FromAgent::decode(&FromAgent::Ready(Ready { trace, ..Ready::default() }).encode().unwrap()).is_ok()
        };
        let range = |bytes| MemoryRange { address: 4096, bytes };
        assert!(decoded(vec![range(32 << 20); 2]));
        assert!(!decoded(vec![range(32 << 20), range((32 << 20) + 1)]));
        assert!(!decoded(vec![range(u64::MAX), range(1)]));
        assert!(!decoded(vec![range(0); LIMITS.trace_ranges + 1]));
    }

    #[test]
    fn free_text_of_a_guest_is_bounded_and_fit_to_print() {
        let decoded = |message: &FromAgent| FromAgent::decode(&message.encode().unwrap());
        for message in [FromAgent::Unclean, FromAgent::Refused, FromAgent::Trouble] {
            assert!(decoded(&message("x".repeat(LIMITS.text_bytes + 1))).is_err());
            assert_eq!(decoded(&message("\x1b[2J\r\0\u{9b}é\n\t~".to_owned())).unwrap(), {
                message("\u{fffd}[2J\u{fffd}\u{fffd}\u{fffd}é\n\t~".to_owned())
            });
        }
        let FromAgent::Report(mut dirty) = report() else { unreachable!("it is a report") };
        dirty.leftovers = vec!["\x07".to_owned()];
        (dirty.log_before, dirty.log) = ("a\x08".to_owned(), "b\x7f".to_owned());
        let Ok(FromAgent::Report(clean)) = decoded(&FromAgent::Report(dirty)) else { panic!("refused") };
        assert_eq!((clean.log_before, clean.log), ("a\u{fffd}".to_owned(), "b\u{fffd}".to_owned()));
        assert_eq!(clean.leftovers, ["\u{fffd}"]);
        let feature = |missing: String| {
            let features = vec![Feature { name: "kcov".to_owned(), missing }];
            FromAgent::Hello(Hello { features, ..Hello::default() })
        };
        assert!(decoded(&feature("x".repeat(LIMITS.text_bytes + 1))).is_err());
        assert_eq!(decoded(&feature("\x1b".to_owned())).unwrap(), feature("\u{fffd}".to_owned()));
    }

    #[test]
    fn a_message_too_large_is_not_sent() {
        let huge = FromAgent::Refused("x".repeat(REPLY_MAX_BYTES));
        assert!(matches!(huge.encode(), Err(MessageError::TooLarge { .. })));
    }

    #[test]
    fn trailing_bytes_are_refused() {
        let mut bytes = report().encode().unwrap();
        bytes.push(0);
        assert!(matches!(FromAgent::decode(&bytes), Err(MessageError::Trailing(1))));
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_decoder_panic(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
            let _ = FromAgent::decode(&bytes);
        }

        #[test]
        fn a_damaged_report_is_refused_or_within_bounds(
            damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        ) {
            let mut bytes = report().encode().unwrap();
            for (at, to) in damage {
                let at = at.index(bytes.len());
                bytes[at] = to;
            }
            match FromAgent::decode(&bytes) {
                Ok(FromAgent::Report(report)) => assert_bounded(&report),
                Ok(FromAgent::Unclean(reason) | FromAgent::Refused(reason) | FromAgent::Trouble(reason)) => assert_printable(&reason, 16 << 10),
                Ok(FromAgent::Hello(_) | FromAgent::Ready(_)) | Err(_) => {}
            }
        }
    }

    /// The bounds that code beyond the decoder relies on, in numbers.
    fn assert_bounded(report: &Report) {
        assert!(report.steps.len() <= 4096 && report.hits.len() <= 65_536 && report.new_sites.len() <= 65_536);
        for step in &report.steps {
            assert!(!matches!(step, StepResult::Failed(error) if *error < 0 || *error > 4095));
        }
        let paths = report.new_sites.iter().map(|site| &site.call_path);
        for path in paths.chain(report.fired.iter().map(|fired| &fired.call_path)) {
            assert!(path.len() <= 24);
            path.iter().for_each(|name| assert_name(name));
        }
        report.new_sites.iter().for_each(|site| assert_name(&site.function));
        assert!(report.fired.len() <= 16 && report.fired.iter().all(|fired| fired.fault < 16));
        assert!(report.leftovers.len() <= 256);
        report.leftovers.iter().for_each(|leftover| assert_printable(leftover, 16 << 10));
        assert_printable(&report.log_before, 1 << 20);
        assert_printable(&report.log, 1 << 20);
    }

    fn assert_name(name: &str) {
        assert!(name.len() <= 512 && name.chars().all(|byte| ('!'..='~').contains(&byte) && byte != '/'), "{name:?}");
    }

    fn assert_printable(text: &str, max_bytes: usize) {
        // A replacement is longer than what it replaces.
        assert!(text.len() <= 3 * max_bytes);
        let is_fit = |character: char| !character.is_control() || matches!(character, '\n' | '\t');
        assert!(text.chars().all(is_fit), "{text:?}");
    }
}
