//! Loops. The verifier follows a plain loop turn by turn, with everything that comes after it: for
//! the loops here that takes it half a minute in a guest without hardware virtualization. The body
//! of a `bpf_loop` it follows once.

use core::ffi::{c_long, c_void};

use aya_ebpf::helpers::generated::bpf_loop;

/// Go on with the next turn.
pub(crate) const CONTINUE: c_long = 0;
/// End the loop.
pub(crate) const BREAK: c_long = 1;

/// Runs `turn` with `state` at most `times` times (Linux 5.17).
#[inline(always)]
pub(crate) fn repeat<S>(times: u32, turn: extern "C" fn(u64, *mut S) -> c_long, state: &mut S) {
    // SAFETY: `turn` is of the type that the helper calls, and `state` outlives the loop.
    unsafe {
        bpf_loop(times, turn as *mut c_void, (&raw mut *state).cast(), 0);
    }
}
