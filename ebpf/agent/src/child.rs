//! A program that the workload executes: it starts a process, waits for it and ends.

use nix::{
    libc,
    sys::wait::waitpid,
    unistd::{ForkResult, fork},
};

/// The argument that asks for it.
const CHILD: &str = "child";

/// Says whether this process is to be it.
pub(crate) fn is_asked_for() -> bool {
    std::process::id() != 1 && std::env::args().nth(1).is_some_and(|argument| argument == CHILD)
}

/// Starts a process that ends at once, and waits for it. What fails on the way is what a workload
/// is run for.
pub(crate) fn run() {
    // SAFETY: the process has one thread, and the new one does nothing but end.
    match unsafe { fork() } {
        // SAFETY: it ends the process.
        Ok(ForkResult::Child) => unsafe { libc::_exit(0) },
        Ok(ForkResult::Parent { child }) => {
            let _ = waitpid(child, None);
        }
        Err(_) => {}
    }
}
