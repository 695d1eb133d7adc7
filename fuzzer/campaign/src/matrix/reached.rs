//! The calls that an execution made, packed for its corpus entry.

use libafl_bolts::impl_serdeany;
use serde::{Deserialize, Serialize};

use super::PointIndex;

/// The calls at one point in one execution.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Calls {
    pub(crate) point: PointIndex,
    pub(crate) count: u32,
}

/// The calls that the execution of one corpus entry made, by point. Packed, as this is most of what
/// an entry takes in memory, and there may be thousands of both.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Reached {
    /// [`Calls`] as `postcard` writes them, small numbers in one byte, each `point` less the one
    /// before: three bytes instead of eight.
    pub(super) packed: Box<[u8]>,
}

impl_serdeany!(Reached);

impl Reached {
    pub(super) fn pack(mut calls: Vec<Calls>) -> Self {
        calls.sort_unstable_by_key(|calls| calls.point);
        let mut before = 0;
        for calls in &mut calls {
            calls.point -= std::mem::replace(&mut before, calls.point);
        }
        // Numbers in memory can always be written.
        Self { packed: postcard::to_stdvec(&calls).unwrap_or_default().into() }
    }

    /// Gives the calls, in the order in which the matrix has their points.
    pub(crate) fn calls(&self) -> Vec<Calls> {
        let mut all: Vec<Calls> = postcard::from_bytes(&self.packed).unwrap_or_default();
        let mut before = 0;
        for calls in &mut all {
            before += calls.point;
            calls.point = before;
        }
        all
    }
}
