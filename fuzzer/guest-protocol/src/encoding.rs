//! Messages as bytes (postcard). What comes from a guest is decoded without trust.

use serde::{Serialize, de::DeserializeOwned};
use thiserror::Error;

use crate::{Defect, FromAgent, PROTOCOL_VERSION, REPLY_MAX_BYTES, REQUEST_MAX_BYTES, ToAgent};

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

    /// The message in `bytes`, which come from a guest: decoded and checked, and its free text made
    /// fit to print. Line feeds and tabs are the only control characters left, others become
    /// U+FFFD.
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
            Self::Ready(ready) => {
                let left_out = ready.left_out.iter_mut().map(|left_out| &mut left_out.reason);
                left_out.chain([&mut ready.unchecked]).collect()
            }
            Self::Report(report) => {
                let leftovers = report.leftovers.iter_mut().map(|leftover| &mut leftover.text);
                let defects = report.defects.iter_mut().map(|(Defect::Disk(what) | Defect::Detector(what))| what);
                let losses = report.losses.iter_mut().map(|loss| &mut loss.text);
                let growth = report.growth.iter_mut().flat_map(|growth| [&mut growth.place, &mut growth.function]);
                let lists = leftovers.chain(losses).chain(growth).chain(defects).chain(&mut report.unknown_names);
                let texts = [&mut report.complaints, &mut report.unreferenced, &mut report.log_before, &mut report.log];
                lists.chain(texts).collect()
            }
            Self::Unclean(reason) | Self::Refused(reason) | Self::Trouble(reason) | Self::Hung(reason) => vec![reason],
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
    use fault_plan::{FaultPlan, Scope};
    use proptest::prelude::*;

    use super::*;
    use crate::{
        Execute, Feature, FiredFault, Growth, Hello, Hit, LIMITS, LeftOut, Leftover, LeftoverKind, Loss, LossKind,
        MemoryRange, Ready, Recorded, Report, SiteDescription, StepResult, TraceMemory, TraceRole,
    };

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
                step: 1,
                scope: Scope::Worker,
            }],
            fired: vec![FiredFault {
                fault: 0,
                sequence: 2,
                site: 9,
                step: 1,
                scope: Scope::Workload,
                times: 3,
                call_path: vec!["open_ctree".to_owned()],
                stack: vec![u64::MAX],
                arguments: vec![1, 0xcc0],
                shown: vec![Some(64), None],
                text: "kmalloc-64".to_owned(),
            }],
            ..Report::default()
        }))
    }

    fn leftover(text: String) -> Leftover {
        Leftover { kind: LeftoverKind::Device, text }
    }

    fn loss(text: String) -> Loss {
        Loss { kind: LossKind::Lost, text }
    }

    fn growth(place: String) -> Growth {
        Growth { place, function: String::new(), calls: 1, bytes: 8 }
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
            keep: true,
            leave: false,
            verify: Some(3),
            inject: true,
            coverage: Recorded::All,
            look: true,
            check: true,
            search: true,
            trace: vec![vec![u64::MAX]],
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
        assert!(refused(|report| report.fired[0].stack = vec![0; 25]));
        assert!(refused(|report| report.fired[0].arguments = vec![0; 7]));
        assert!(refused(|report| report.fired[0].shown = vec![None; 5]));
        assert!(refused(|report| report.log = "x".repeat(LIMITS.log_bytes + 1)));
        assert!(refused(|report| report.log_before = "x".repeat(LIMITS.log_bytes + 1)));
        assert!(refused(|report| report.leftovers = vec![leftover("x".repeat(LIMITS.text_bytes + 1))]));
        assert!(refused(|report| report.losses = vec![loss("x".repeat(LIMITS.text_bytes + 1))]));
        assert!(refused(|report| report.losses = vec![loss(String::new()); LIMITS.notes + 1]));
        assert!(refused(|report| report.complaints = "x".repeat(LIMITS.text_bytes + 1)));
        assert!(refused(|report| report.growth = vec![growth("x".repeat(LIMITS.text_bytes + 1))]));
        assert!(refused(|report| report.growth = vec![growth(String::new()); LIMITS.notes + 1]));
        assert!(refused(|report| report.unreferenced = "x".repeat(LIMITS.log_bytes + 1)));
        assert!(refused(|report| report.defects = vec![Defect::Disk("x".repeat(LIMITS.text_bytes + 1))]));
        assert!(refused(|report| report.steps[0] = StepResult::Failed(4096)));
        assert!(refused(|report| report.steps[0] = StepResult::Failed(i32::MIN)));
        assert!(refused(|report| report.steps = vec![StepResult::Skipped; LIMITS.steps + 1]));
    }

    #[test]
    fn traces_have_a_size_that_can_be_and_a_role_each() {
        let decoded = |traces: &[(TraceRole, Vec<MemoryRange>)]| {
            let traces = traces.iter().cloned().map(|(role, ranges)| TraceMemory { role, ranges }).collect();
            FromAgent::decode(&FromAgent::Ready(Ready { traces, ..Ready::default() }).encode().unwrap()).is_ok()
        };
        let range = |bytes| MemoryRange { address: 4096, bytes };
        let (workload, threads) = (TraceRole::Workload, TraceRole::Threads);
        assert!(decoded(&[(workload, vec![range(16 << 20); 2]), (threads, vec![range(32 << 20)])]));
        assert!(!decoded(&[(workload, vec![range(32 << 20)]), (threads, vec![range((32 << 20) + 1)])]));
        assert!(!decoded(&[(workload, vec![range(u64::MAX), range(1)])]));
        assert!(!decoded(&[(workload, vec![range(0); LIMITS.trace_ranges]), (threads, vec![range(0)])]));
        assert!(!decoded(&[(workload, Vec::new()), (workload, Vec::new())]));
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
        (dirty.leftovers, dirty.unknown_names) = (vec![leftover("\x07".to_owned())], vec!["\x1b".to_owned()]);
        (dirty.losses, dirty.growth) = (vec![loss("\x07".to_owned())], vec![growth("\x1b".to_owned())]);
        (dirty.log_before, dirty.log) = ("a\x08".to_owned(), "b\x7f".to_owned());
        (dirty.complaints, dirty.unreferenced) = ("c\x1b".to_owned(), "d\x1b".to_owned());
        let Ok(FromAgent::Report(clean)) = decoded(&FromAgent::Report(dirty)) else { panic!("refused") };
        assert_eq!((clean.log_before, clean.log), ("a\u{fffd}".to_owned(), "b\u{fffd}".to_owned()));
        assert_eq!(
            (clean.leftovers, clean.unknown_names),
            (vec![leftover("\u{fffd}".to_owned())], vec!["\u{fffd}".to_owned()])
        );
        assert_eq!(clean.losses, [loss("\u{fffd}".to_owned())]);
        assert_eq!((clean.growth, clean.complaints), (vec![growth("\u{fffd}".to_owned())], "c\u{fffd}".to_owned()));
        assert_eq!(clean.unreferenced, "d\u{fffd}");
        let feature = |missing: String| {
            let features = vec![Feature { name: "kcov".to_owned(), missing }];
            FromAgent::Hello(Hello { features, ..Hello::default() })
        };
        assert!(decoded(&feature("x".repeat(LIMITS.text_bytes + 1))).is_err());
        assert_eq!(decoded(&feature("\x1b".to_owned())).unwrap(), feature("\u{fffd}".to_owned()));
        let ready = |reason: &str| {
            let left_out = vec![LeftOut { function: "f".to_owned(), reason: reason.to_owned() }];
            FromAgent::Ready(Ready { left_out, unchecked: reason.to_owned(), ..Ready::default() })
        };
        assert_eq!(decoded(&ready("\x1b")).unwrap(), ready("\u{fffd}"));
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
                Ok(
                    FromAgent::Unclean(text) | FromAgent::Refused(text) | FromAgent::Trouble(text) | FromAgent::Hung(text),
                ) => assert_printable(&text, 16 << 10),
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
        assert!(report.fired.iter().all(|fired| fired.stack.len() <= 24 && fired.arguments.len() <= 6));
        assert!(report.leftovers.len() <= 256);
        report.leftovers.iter().for_each(|leftover| assert_printable(&leftover.text, 16 << 10));
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
