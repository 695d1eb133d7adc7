//! Process 1 of the guest: programs the faults, runs the workload, reads the coverage.
//!
//! ```text
//!        mount /proc, …        Setup                Execute
//!  boot ─────────────▶ Hello ───────▶ Ready ◀──────────────────────────▶ Report
//!    │                   │              │     arm, run, disarm, oracles     │
//!    └───────────────────┴──────────────┴── error or panic ─────────────────┴──▶ Trouble, power off
//! ```
//!
//! A request that cannot be served as asked (an unknown function, a plan that cannot be lowered) is
//! refused and the guest stays usable; an error of the agent itself is told as trouble and ends the
//! guest.

mod channel;
mod checker;
mod child;
mod content;
mod coverage;
mod detectors;
mod disk;
mod init;
mod injector;
mod kernel;
mod kernel_log;
mod oracles;
mod session;
mod symbols;
mod workload;

fn main() {
    if child::is_asked_for() {
        child::run();
        return;
    }
    if std::process::id() != 1 {
        init::say("this program is process 1 of a guest; it does nothing elsewhere");
        return;
    }
    init::remember_panics();
    if let Err(error) = init::guarded(init::mount_file_systems) {
        init::say(&error);
        init::power_off();
    }
    match init::guarded(channel::Channel::open) {
        Ok(mut channel) => {
            if let Err(error) = init::guarded(|| session::serve(&mut channel)) {
                init::say(&error);
                if let Err(error) = init::guarded(|| channel.send(&session::trouble(error))) {
                    init::say(&error);
                }
            }
        }
        Err(error) => init::say(&error),
    }
    init::power_off();
}
