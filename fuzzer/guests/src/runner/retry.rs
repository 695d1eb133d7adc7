//! When a plan is tried again, and when it is given up.

use std::time::Duration;

use execution::RunError;

use crate::qemu::{GuestError, PAUSES};

/// Attempts that may end in a hang of which the host may be the cause.
const STARVED_ATTEMPTS: u32 = 2;

/// The attempts at one run so far.
#[derive(Debug, Default)]
pub(super) struct Retry {
    attempts: usize,
    starved: u32,
}

impl Retry {
    /// Takes in that an attempt ended in `trouble`. Gives the pause before the next one.
    ///
    /// # Errors
    ///
    /// There were enough attempts.
    pub(super) fn after(&mut self, trouble: GuestError) -> Result<Duration, RunError> {
        self.starved += u32::from(matches!(trouble, GuestError::Starved { .. }));
        if self.starved == STARVED_ATTEMPTS {
            return Err(RunError::Starved);
        }
        let pause = PAUSES.get(self.attempts);
        self.attempts += 1;
        pause.copied().ok_or(RunError::Guests { attempts: self.attempts, source: Box::new(trouble) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guests_that_fail_are_given_up_after_five_and_a_busy_host_after_two() {
        let mut retry = Retry::default();
        for pause in PAUSES {
            assert_eq!(retry.after(GuestError::Lost).unwrap(), pause);
        }
        assert!(matches!(retry.after(GuestError::Lost), Err(RunError::Guests { attempts: 5, .. })));
        let starved = || GuestError::Starved { wall: Duration::ZERO, waited: Duration::ZERO };
        let mut retry = Retry::default();
        retry.after(starved()).unwrap();
        retry.after(GuestError::Lost).unwrap();
        assert!(matches!(retry.after(starved()), Err(RunError::Starved)));
    }
}
