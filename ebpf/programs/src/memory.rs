//! Reads the kernel's memory: by plain loads where the kernel tells its types (BTF), else by a
//! helper, whose call costs several times as much.
//!
//! The verifier lets a program load through an address that `bpf_rdonly_cast()` made a pointer to
//! one of the kernel's types, and through the pointers to such types that it loads there. That is a
//! function of the kernel, which neither the compiler nor the loader can name: here it is a helper
//! with a number that no kernel has, for which the agent puts the function. See
//! `ebpf/agent/src/injector/attach/cast.rs`.

use core::{ffi::c_void, mem};

use abi::CAST;
use aya_ebpf::helpers::bpf_probe_read_kernel;

/// Id of `struct stack_frame` among the kernel's types; 0 if it does not tell them. The agent sets
/// it, and to the verifier it is a constant: of the two ways to read only one is left in the
/// program.
#[unsafe(no_mangle)]
static STACK_FRAME: u32 = 0;

/// A frame as it is on the stack: what the frame pointer points to.
///
/// Mirrors `struct stack_frame` in `arch/x86/include/asm/stacktrace.h` (6.12).
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Frame {
    /// The caller's frame pointer.
    pub(crate) next: *const Frame,
    /// The return address into the caller.
    pub(crate) address: u64,
}

/// Offset of the return address in a frame.
pub(crate) const RETURN_ADDRESS: u64 = mem::offset_of!(Frame, address) as u64;

/// Method of reading memory.
#[derive(Clone, Copy)]
pub(crate) struct Reader {
    frame_type: u32,
}

impl Reader {
    #[inline(always)]
    pub(crate) fn new() -> Self {
        // SAFETY: it is initialised and never written to. Volatile, as the compiler does not know
        // of the agent.
        Self { frame_type: unsafe { (&raw const STACK_FRAME).read_volatile() } }
    }

    /// The number at `address`; without any memory there nothing, or 0.
    #[inline(always)]
    pub(crate) fn number<T>(self, address: u64) -> Option<T> {
        if self.frame_type == 0 {
            // SAFETY: the helper checks the address.
            return unsafe { bpf_probe_read_kernel(address as *const T) }.ok();
        }
        // A program may load a pointer as a pointer only, but the number behind it as any number.
        let frame = self.frame_at(address.wrapping_sub(RETURN_ADDRESS));
        // SAFETY: the kernel catches a fault of such a load, and gives 0.
        Some(unsafe { (&raw const (*frame).address).cast::<T>().read_volatile() })
    }

    /// The frame at `frame`; without any memory there nothing, or one of zeros, after which comes
    /// none.
    #[inline(always)]
    pub(crate) fn frame(self, frame: *const Frame) -> Option<Frame> {
        if self.frame_type == 0 {
            // SAFETY: the helper checks the address.
            return unsafe { bpf_probe_read_kernel(frame) }.ok();
        }
        // SAFETY: as in `number()`. Volatile, so that either field is loaded as what it is.
        Some(unsafe {
            Frame {
                next: (&raw const (*frame).next).read_volatile(),
                address: (&raw const (*frame).address).read_volatile(),
            }
        })
    }

    /// The frame at `address` as programs may load it.
    #[inline(always)]
    pub(crate) fn frame_at(self, address: u64) -> *const Frame {
        if self.frame_type == 0 {
            return address as *const Frame;
        }
        // SAFETY: it is called as every helper is, and has the signature of `bpf_rdonly_cast()` in
        // `kernel/bpf/helpers.c` (6.2 and later).
        let cast: unsafe extern "C" fn(*const c_void, u32) -> *const Frame = unsafe { mem::transmute(CAST as usize) };
        // SAFETY: the function touches no memory.
        unsafe { cast(address as *const c_void, self.frame_type) }
    }
}
