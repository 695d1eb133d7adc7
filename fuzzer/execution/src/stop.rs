//! The request to stop, which wakes whoever waits for a guest.

use std::{
    convert::Infallible,
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use crossbeam::channel::{Receiver, Sender, TryRecvError, bounded};

/// A request to stop that many threads see. Clones are the same request.
#[derive(Clone)]
pub struct Stop {
    // Nothing is ever sent: the request is that the channel has lost its sender.
    sender: Arc<Mutex<Option<Sender<Infallible>>>>,
    receiver: Receiver<Infallible>,
}

impl Stop {
    /// Not requested yet.
    #[must_use]
    pub fn new() -> Self {
        let (sender, receiver) = bounded(0);
        Self { sender: Arc::new(Mutex::new(Some(sender))), receiver }
    }

    /// Makes the request. It cannot be taken back. It takes a lock: not for signal handlers.
    pub fn request(&self) {
        self.sender.lock().unwrap_or_else(PoisonError::into_inner).take();
    }

    /// Says whether the request was made.
    #[must_use]
    pub fn is_requested(&self) -> bool {
        self.receiver.try_recv() == Err(TryRecvError::Disconnected)
    }

    /// A channel that is ready, disconnected, once the request was made; for `select!`.
    #[must_use]
    pub fn receiver(&self) -> &Receiver<Infallible> {
        &self.receiver
    }
}

impl Default for Stop {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stop").field("requested", &self.is_requested()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_reaches_every_clone_and_stays() {
        let stop = Stop::new();
        let other = stop.clone();
        assert!(!other.is_requested());
        stop.request();
        stop.request();
        assert!(other.is_requested() && stop.is_requested());
        assert!(other.receiver().recv().is_err());
    }
}
