//! Values that the functions on a fault's call path return after it has fired, in an execution that
//! traces them.
//!
//! A probe stands where each call of the path returns to, so nothing on the stack changes. The
//! stack pointer tells the calls that were open when the fault fired from all others: it stands
//! above the slot that held the return address.

use crate::{MAX_FRAMES, MAX_RULES};

/// The calls that were open when a rule fired for the first time: a value of map `OPEN`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct OpenCalls {
    /// The task: the address of its `struct task_struct`.
    pub task: u64,
    /// Execution that it is of.
    pub generation: u32,
    /// Always 0.
    pub reserved: u32,
    /// Return addresses, innermost first; those that are not used are 0.
    pub addresses: [u64; MAX_FRAMES],
    /// Addresses of the stack slots that hold them.
    pub slots: [u64; MAX_FRAMES],
}

/// The values that came to the frames of one fault's stack.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Returned {
    /// A bit for each frame that has a probe, `1 << frame`.
    pub probed: u32,
    /// A bit for each frame to which the call returned that was open when the fault fired.
    pub returned: u32,
    /// Return types of the functions that the frames are of, as [`return_type`] has them.
    pub types: [u8; MAX_FRAMES],
    /// The register `rax` then.
    pub values: [u64; MAX_FRAMES],
}

/// Only value of map `RETURNS`. It fills less than a page, which the host reads as it does
/// [`crate::FiredLog`].
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Returns {
    /// Execution that it is of; 0 when none was traced.
    pub generation: u32,
    /// Always 0.
    pub reserved: u32,
    /// One for each rule.
    pub of: [Returned; MAX_RULES],
}

const _: () = assert!(size_of::<Returns>() <= 4096, "the values of a dead guest are read as one page");

/// Return types of functions, as numbers.
pub mod return_type {
    /// The kernel does not tell.
    pub const UNKNOWN: u8 = 0;
    /// Nothing is returned.
    pub const VOID: u8 = 1;
    /// A pointer.
    pub const POINTER: u8 = 2;
    /// True or false.
    pub const BOOL: u8 = 3;
    /// A structure.
    pub const OTHER: u8 = 4;
    /// A number with a sign: this and its bytes.
    pub const SIGNED: u8 = 0x10;
    /// A number without a sign: this and its bytes.
    pub const UNSIGNED: u8 = 0x20;
}
