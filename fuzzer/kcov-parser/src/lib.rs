//! KCOV words to PCs, PCs to a dense index and to functions.
//!
//! `__sanitizer_cov_trace_pc()` (`kernel/kcov.c`, Linux 6.12) stores, once per basic block that
//! runs, its own return address `_RET_IP_`, less the KASLR offset where the kernel has
//! `CONFIG_RANDOMIZE_BASE` (`canonicalize_ip()`). So a *PC* here is always an address of the linked
//! `vmlinux`: that of the instruction after a `call __sanitizer_cov_trace_pc`. Word 0 of the buffer
//! is the count of the words that follow; no function here takes that word.
//!
//! ```text
//! trace (one u64 per basic block run) ── Deduplicator ──▶ distinct PCs, u32 offsets from the text's start
//! vmlinux ── CallSites ──▶ every PC that can be reported, numbered 0..len in order of address
//!         ├─ Symbols ────▶ address to function
//!         ├─ checks ─────▶ file and line of each WARN() and BUG()
//!         ├─ Places ─────▶ each PC's file and line, from the debug information
//!         ├─ SourceLines ▶ address to lines, inlined functions too, likewise
//!         └─ build_id ───▶ which build this is
//! ```
//!
//! This crate does no I/O and knows no clock. What it reads may be hostile: a trace from a guest
//! with corrupted memory, a truncated file.

mod call_sites;
mod checks;
mod elf;
mod places;
mod source_lines;
mod symbols;
#[cfg(test)]
mod test_elf;
mod trace;

pub use call_sites::CallSites;
pub use checks::checks;
pub use elf::{ElfError, build_id};
pub use places::{Place, Places};
pub use source_lines::{SourceFrame, SourceLines};
pub use symbols::{Location, Symbols};
pub use trace::Deduplicator;
