//! Looks at what the disk holds after an execution: how many there are time for.

use std::time::Duration;

use guest_protocol::Timings;

/// One part in this many of all time is for looks. One takes as long as half an execution that
/// mounts a disk.
const SHARE: u32 = 20;

/// The time that executions took, and looks among that.
#[derive(Debug, Default)]
pub(super) struct Looks {
    all: Duration,
    spent: Duration,
}

impl Looks {
    /// Says whether there is time for one.
    pub(super) fn is_due(&self) -> bool {
        self.spent * SHARE <= self.all
    }

    /// Takes in that an execution took the time `wall`, and its look what its `timings` say.
    pub(super) fn took(&mut self, wall: Duration, timings: Timings) {
        self.all += wall;
        self.spent += Duration::from_nanos(timings.look_ns).min(wall);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn looks_have_their_share_of_the_time() {
        let mut looks = Looks::default();
        let mut due = Vec::new();
        for execution in 0..50 {
            let is_due = looks.is_due();
            let look_ns = if is_due { 50_000_000 } else { 0 };
            looks.took(Duration::from_millis(100), Timings { look_ns, ..Timings::default() });
            if is_due {
                due.push(execution);
            }
        }
        assert_eq!(due, [0, 10, 20, 30, 40], "half of the time, each tenth: the twentieth part");
    }
}
