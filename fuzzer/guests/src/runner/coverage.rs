//! Coverage of an execution: its traces, each address once.

use execution::Coverage;
use guest_protocol::TraceRole;
use kcov_parser::Deduplicator;

use crate::qemu::Traces;

/// Memory for the traces of one execution after the other.
pub(super) struct CoverageReader {
    pub(super) traces: Traces,
    text_start: u64,
    deduplicator: Deduplicator,
    offsets: Vec<u32>,
}

impl CoverageReader {
    /// For kernels whose text has `text_bytes` bytes from `text_start` on.
    pub(super) fn new(text_start: u64, text_bytes: u64) -> Self {
        let deduplicator = Deduplicator::new(text_start, text_bytes);
        Self { traces: Traces::default(), text_start, deduplicator, offsets: Vec::new() }
    }

    /// Gives what is in the traces, one for each role that ran something.
    pub(super) fn coverage(&mut self) -> Vec<Coverage> {
        let mut coverage = Vec::new();
        for role in TraceRole::ALL {
            let trace = &self.traces[role.index()];
            self.deduplicator.distinct(trace.words(), &mut self.offsets);
            if !self.offsets.is_empty() || trace.is_full() {
                let address = |offset: &u32| self.text_start.wrapping_add(u64::from(*offset));
                let addresses = self.offsets.iter().map(address).collect();
                coverage.push(Coverage { role, addresses, overflowed: trace.is_full() });
            }
        }
        coverage
    }
}
