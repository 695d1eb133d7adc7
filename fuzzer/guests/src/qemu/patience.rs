//! Deadlines of which only the time counts in which the host lets the guest run.

use std::time::{Duration, Instant};

use execution::Stop;

use super::{
    GuestError,
    machine::{Machine, Wake},
};

/// The least time by which a deadline is put off.
const MORE: Duration = Duration::from_secs(1);
/// A deadline is put off to at most so many times what it was.
const MOST_OFF: u32 = 6;

impl Machine {
    /// Waits for the agent's next message for the time `allowed`, of which only that counts in
    /// which the host lets the guest run: one with much to do takes longer. The guest's threads had
    /// waited for so long when it began.
    pub(super) fn receive_within(
        &mut self,
        stop: &Stop,
        allowed: Duration,
        waited: Duration,
    ) -> Result<Wake, GuestError> {
        let started = Instant::now();
        let mut until = allowed;
        loop {
            match self.receive(stop, started + until)? {
                Wake::Deadline => {}
                other => return Ok(other),
            }
            let running = allowed + self.waited().saturating_sub(waited);
            if running <= until + MORE || until >= allowed * MOST_OFF {
                return Ok(Wake::Deadline);
            }
            until = running.min(allowed * MOST_OFF);
        }
    }
}
