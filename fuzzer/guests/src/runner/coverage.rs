//! Coverage of an execution: its trace, each address once.

use kcov_parser::Deduplicator;

use crate::qemu::Trace;

/// Memory for one trace after the other.
pub(super) struct Coverage {
    pub(super) trace: Trace,
    text_start: u64,
    deduplicator: Deduplicator,
    offsets: Vec<u32>,
}

impl Coverage {
    /// For kernels whose text has `text_bytes` bytes from `text_start` on.
    pub(super) fn new(text_start: u64, text_bytes: u64) -> Self {
        let deduplicator = Deduplicator::new(text_start, text_bytes);
        Self { trace: Trace::default(), text_start, deduplicator, offsets: Vec::new() }
    }

    /// Gives the addresses in the trace, each once.
    pub(super) fn distinct(&mut self) -> Vec<u64> {
        self.deduplicator.distinct(self.trace.words(), &mut self.offsets);
        self.offsets.iter().map(|offset| self.text_start.wrapping_add(u64::from(*offset))).collect()
    }
}
