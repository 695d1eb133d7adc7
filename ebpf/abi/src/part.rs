//! Parts of a call's arguments: what conditions compare, and what is noted of a call that fails.

/// Offsets of a call's arguments among the saved registers, in bytes: `regs_get_kernel_argument()`
/// and `struct pt_regs` of `arch/x86/include/asm/ptrace.h` (6.12).
pub const ARGUMENTS: [u8; 6] = [112, 104, 96, 88, 72, 64];

/// A part of a call's arguments: one of them, or a field of the structure that it points to.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Part {
    /// Offset of the argument, one of [`ARGUMENTS`]; 0 when this is no part.
    pub argument: u8,
    /// 1 when it is the field that is `offset` bytes behind where the argument points.
    pub field: u8,
    /// Always 0.
    pub reserved: u16,
    /// See `field`. A field has its size in the mask, and does not cross a multiple of eight bytes.
    pub offset: u32,
    /// The bits of it that count.
    pub mask: u64,
}

impl Part {
    /// No part.
    pub const NONE: Self = Self { argument: 0, field: 0, reserved: 0, offset: 0, mask: 0 };

    /// The whole argument at this `offset`, one of [`ARGUMENTS`].
    #[must_use]
    pub const fn argument(offset: u8) -> Self {
        Self { argument: offset, mask: u64::MAX, ..Self::NONE }
    }
}
