//! Shares of the time that looks at the disk may take.

use std::time::Duration;

/// The time that executions took, and something else among that, which has its share.
#[derive(Debug)]
pub(super) struct Share {
    /// One part in this many of all time.
    one_in: u32,
    all: Duration,
    spent: Duration,
}

impl Share {
    pub(super) fn new(one_in: u32) -> Self {
        Self { one_in, all: Duration::ZERO, spent: Duration::ZERO }
    }

    /// Says whether there is time for one.
    pub(super) fn is_due(&self) -> bool {
        self.spent * self.one_in <= self.all
    }

    /// Takes in that an execution took the time `wall`, and so much of it was `spent`.
    pub(super) fn took(&mut self, wall: Duration, spent: Duration) {
        self.all += wall;
        self.spent += spent.min(wall);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn looks_have_their_share_of_the_time() {
        let mut looks = Share::new(20);
        let mut due = Vec::new();
        for execution in 0..50 {
            let is_due = looks.is_due();
            let spent = Duration::from_millis(if is_due { 50 } else { 0 });
            looks.took(Duration::from_millis(100), spent);
            if is_due {
                due.push(execution);
            }
        }
        assert_eq!(due, [0, 10, 20, 30, 40], "half of the time, each tenth: the twentieth part");
    }
}
