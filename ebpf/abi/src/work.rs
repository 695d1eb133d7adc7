//! Work items that were queued while the workload ran, until they end.

/// Work items that can be followed at a time, a power of two.
pub const WORK_SLOTS: usize = 256;
/// Slots that are tried for a work item.
pub const WORK_PROBES: usize = 8;
/// Offset of the state in `struct work_struct`, and of its function.
///
/// Mirrors `include/linux/workqueue_types.h` (6.12) and `include/linux/workqueue.h` (6.1).
pub const WORK_DATA: u64 = 0;
/// See [`WORK_DATA`].
pub const WORK_FUNCTION: u64 = 24;
/// Set in a work item's state while it is on a queue: `WORK_STRUCT_PENDING` and `WORK_STRUCT_PWQ`
/// of `include/linux/workqueue.h` (6.1 and 6.12). One that waits for its timer has the first alone,
/// and one that was cancelled none; neither gives an event.
pub const WORK_QUEUED: u64 = 1 | 1 << 2;

/// A work item.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Work {
    /// Its address.
    pub address: u64,
    /// Address of its function.
    pub function: u64,
    /// 1 when it is queued, else 0.
    pub queued: u32,
    /// 1 when it runs, else 0. It may be queued again meanwhile.
    pub running: u32,
}

impl Work {
    /// No work item.
    pub const NONE: Self = Self { address: 0, function: 0, queued: 0, running: 0 };

    /// True when the slot is free.
    #[inline(always)]
    #[must_use]
    pub const fn is_done(&self) -> bool {
        self.queued == 0 && self.running == 0
    }
}

/// Only value of map `WORKS`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Works {
    /// 1 while work items that are queued are followed, else 0. Those that are followed already
    /// stay so.
    pub follow: u32,
    /// Always 0.
    pub reserved: u32,
    /// The work items.
    pub slots: [Work; WORK_SLOTS],
}

/// Gives the slot that is tried as number `probe`, from 0, for the work item at `address`.
#[inline(always)]
#[must_use]
pub const fn work_slot(address: u64, probe: usize) -> usize {
    (((address >> 3).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as usize + probe) & (WORK_SLOTS - 1)
}
