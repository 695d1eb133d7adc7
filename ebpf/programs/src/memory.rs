//! Reads the kernel's memory: by plain loads where the kernel tells its types (BTF), else by a helper, whose call costs several
//! times as much.
//!
//! The verifier lets a program load through an address that `bpf_rdonly_cast()` made a pointer to one of the kernel's types.
//! That is a function of the kernel, which neither the compiler nor the loader can name: here it is a helper with a
//! number that no kernel has, for which the agent puts the function. See `ebpf/agent/src/injector/cast.rs`.

use core::{ffi::c_void, mem};

use abi::{CAST, Frame};
use aya_ebpf::helpers::bpf_probe_read_kernel;

/// Id of `struct pt_regs`, which begins with 64-bit numbers, among the kernel's types; 0 if it does not tell them. The agent sets
/// it, and to the verifier it is a constant: of the two ways to read only one is left in the program.
#[unsafe(no_mangle)]
static PT_REGS: u32 = 0;

/// How memory is read.
#[derive(Clone, Copy)]
pub(crate) struct Reader {
    numbers: u32,
}

impl Reader {
    #[inline(always)]
    pub(crate) fn new() -> Self {
        // SAFETY: it is initialised and never written to. Volatile, as the compiler does not know of the agent.
        Self { numbers: unsafe { (&raw const PT_REGS).read_volatile() } }
    }

    /// The number at `address`; without any memory there nothing, or 0.
    #[inline(always)]
    pub(crate) fn number<T>(self, address: u64) -> Option<T> {
        match self.cast(address) {
            // SAFETY: the kernel catches a fault of such a load, and gives 0.
            Some(numbers) => Some(unsafe { numbers.cast::<T>().read_volatile() }),
            // SAFETY: the helper checks the address.
            None => unsafe { bpf_probe_read_kernel(address as *const T) }.ok(),
        }
    }

    /// The frame at `address`; without any memory there nothing, or one of zeros, after which comes none.
    #[inline(always)]
    pub(crate) fn frame(self, address: u64) -> Option<Frame> {
        match self.cast(address) {
            // SAFETY: as in `number()`.
            Some(numbers) => {
                Some(unsafe { Frame { next: numbers.read_volatile(), address: numbers.add(1).read_volatile() } })
            }
            // SAFETY: the helper checks the address.
            None => unsafe { bpf_probe_read_kernel(address as *const Frame) }.ok(),
        }
    }

    /// The 64-bit numbers at `address`, where programs may load them.
    #[inline(always)]
    fn cast(self, address: u64) -> Option<*const u64> {
        if self.numbers == 0 {
            return None;
        }
        // SAFETY: it is called as every helper is, and has the signature of `bpf_rdonly_cast()` in `kernel/bpf/helpers.c`
        // (6.2 and later).
        let cast: unsafe extern "C" fn(*const c_void, u32) -> *const u64 = unsafe { mem::transmute(CAST as usize) };
        // SAFETY: the function touches no memory.
        Some(unsafe { cast(address as *const c_void, self.numbers) })
    }
}
