//! The command `bench`: measures, and prints one JSON object.

use std::{
    io::{self, Write},
    process::ExitCode,
};

use bench::{Options, bench};
use clap::Parser;
use fuzz::{
    exit,
    terminal::{start_log, stop_on_signals},
    views::progress::Progress,
};
use tikv_jemallocator::Jemalloc;

/// The allocator of `fuzz`, so that a campaign's memory is measured as it is.
#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

fn main() -> ExitCode {
    let options = Options::parse();
    let progress = Progress::stderr();
    start_log(&progress);
    let stop = stop_on_signals(&progress);
    let out: &mut dyn Write = &mut io::stdout();
    exit::code(bench(&options, &stop, out, &progress), |text| progress.say(text))
}
