//! The log, and the signals that request to stop.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use execution::Stop;
use nix::sys::signal::{SigSet, Signal};
use tracing_subscriber::EnvFilter;

use crate::views::progress::Progress;

/// Log levels of the project's own crates, where `FUZZ_LOG` says nothing else.
const LOG: &str = "warn,bench=info,campaign=info,execution=info,fuzz=info,guests=info";

/// True while Ctrl-C is for another program.
static LENT: AtomicBool = AtomicBool::new(false);

/// The terminal, lent to a program that takes Ctrl-C for itself. It ends when this is dropped.
#[derive(Debug)]
pub struct Lent(());

/// Lends the terminal: Ctrl-C is no request to stop meanwhile.
#[must_use]
pub fn lend() -> Lent {
    LENT.store(true, Ordering::Relaxed);
    Lent(())
}

impl Drop for Lent {
    fn drop(&mut self) {
        LENT.store(false, Ordering::Relaxed);
    }
}

/// Sends the log to standard error, as far as `FUZZ_LOG` says. `fuzz=LEVEL` there means all crates
/// of the project.
pub fn start_log(progress: &Progress) {
    let (colours, writer) = (progress.is_terminal(), progress.clone());
    let filter = std::env::var("FUZZ_LOG").ok().and_then(|text| EnvFilter::try_new(filter_of(&text)).ok());
    tracing_subscriber::fmt()
        .with_env_filter(filter.unwrap_or_else(|| EnvFilter::new(LOG)))
        .with_writer(move || writer.writer())
        .with_ansi(colours)
        .with_target(false)
        .without_time()
        // A line that cannot be written is not worth a panic, which telling of it on standard error
        // would be.
        .log_internal_errors(false)
        .init();
}

/// Widens `fuzz=LEVEL` to all crates of the project.
fn filter_of(text: &str) -> String {
    let widened = |directive: &str| match directive.strip_prefix("fuzz=") {
        Some(level) => {
            ["bench", "campaign", "execution", "fuzz", "guests"].map(|name| format!("{name}={level}")).join(",")
        }
        None => directive.to_owned(),
    };
    text.split(',').map(widened).collect::<Vec<_>>().join(",")
}

/// Makes a request to stop of Ctrl-C and SIGTERM. A second signal ends the process at once.
#[must_use]
pub fn stop_on_signals(progress: &Progress) -> Stop {
    let stop = Stop::new();
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGINT);
    signals.add(Signal::SIGTERM);
    // Threads inherit the mask: it must be set before any is started.
    if signals.thread_block().is_ok() {
        let (request, progress) = (stop.clone(), progress.clone());
        thread::spawn(move || {
            let mut signal = signals.wait();
            while signal == Ok(Signal::SIGINT) && LENT.load(Ordering::Relaxed) {
                signal = signals.wait();
            }
            if signal.is_ok() {
                request.request();
                let _ = signals.thread_unblock();
                // At last, as it waits while nobody reads standard error.
                progress.say("stopping; once more to end at once");
                loop {
                    thread::park();
                }
            }
        });
    }
    stop
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_programs_name_means_all_of_its_crates() {
        assert_eq!(filter_of("hyper=warn"), "hyper=warn");
        let filter = filter_of("fuzz=debug,aya=info");
        assert!(filter.contains("guests=debug") && filter.ends_with(",aya=info"), "{filter}");
    }
}
