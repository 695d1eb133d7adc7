//! The command `fuzz`.

use std::{
    io::{self, Write},
    process::ExitCode,
};

use clap::Parser;
use fuzz::{
    commands,
    exit::{self, Answer, CommandError},
    options::{CacheCommand, Command, KernelCommand, Options},
    terminal::{start_log, stop_on_signals},
    views::progress::Progress,
};
use tikv_jemallocator::Jemalloc;

/// Gives back memory that a campaign no longer uses: its process grows less than with the C
/// library's allocator.
#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

fn main() -> ExitCode {
    let options = Options::parse();
    let progress = Progress::stderr();
    start_log(&progress);
    // A campaign may end at any time; another command was asked for something, and has not done it.
    let campaign = options.command.is_none();
    let result =
        run(options, &progress).or_else(|error| if campaign && error.is_stop() { Ok(Answer::Yes) } else { Err(error) });
    exit::code(result, |text| progress.say(text))
}

fn run(options: Options, progress: &Progress) -> Result<Answer, CommandError> {
    let stop = stop_on_signals(progress);
    let out: &mut dyn Write = &mut io::stdout();
    match options.command {
        None => {
            let campaign = options.campaign.ok_or_else(|| CommandError::Input("--target is missing".to_owned()))?;
            commands::fuzz(&campaign, &stop, out, progress)
        }
        Some(Command::Replay(options)) => commands::replay(&options, &stop, out, progress),
        Some(Command::Minimize(options)) => commands::minimize(&options, &stop, out, progress),
        Some(Command::Export(options)) => commands::export(&options, &stop, out, progress),
        Some(Command::Coverage { dirs, json }) => commands::coverage(&dirs, json, out),
        Some(Command::Report(options)) => commands::report(&options, out, progress),
        Some(Command::Targets { json }) => commands::targets(json, out),
        Some(Command::Kernel(KernelCommand::Build { name })) => {
            commands::kernel_build(name.as_deref(), &stop, out, progress)
        }
        Some(Command::Kernel(KernelCommand::List { json })) => commands::kernel_list(json, out),
        Some(Command::Cache(CacheCommand::List { json })) => commands::cache_list(json, out),
        Some(Command::Cache(CacheCommand::Prune(options))) => commands::cache_prune(&options, out),
        Some(Command::Doctor) => commands::doctor(&stop, out),
    }
}
