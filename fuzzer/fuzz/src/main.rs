//! The command `fuzz`.

use std::{
    io::{self, IsTerminal, Write},
    net::SocketAddr,
    num::NonZeroUsize,
    path::PathBuf,
    process::ExitCode,
    thread,
    time::Duration,
};

use clap::{Args, Parser, Subcommand, ValueEnum};
use fuzz::{
    campaign::{join_address, listen_address},
    commands::{self, Answer, Bench, BenchOptions, CommandError, FuzzOptions, PruneOptions, ReplayOptions},
    guest::{AccelChoice, Stop},
};
use nix::sys::signal::{SigSet, Signal};
use tikv_jemallocator::Jemalloc;
use tracing_subscriber::EnvFilter;

/// Gives back what a campaign no longer uses: its process grows less than with the C library's allocator.
#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

/// Finds bugs in the Linux kernel's error paths.
///
/// Without a subcommand it runs a campaign on --target until Ctrl-C. Exit status: 0 done, 1 the thing asked about is
/// not so, 2 wrong usage or input, 3 the environment lacks something, 130 stopped before it was done.
#[derive(Parser)]
#[command(version, args_conflicts_with_subcommands = true, arg_required_else_help = true)]
struct Options {
    #[command(subcommand)]
    command: Option<Subcommands>,
    #[command(flatten)]
    campaign: CampaignArgs,
}

#[derive(Args)]
struct CampaignArgs {
    /// What to fuzz: a name that `fuzz targets` lists, or a folder with a target.toml.
    #[arg(long, required = true)]
    target: Option<String>,
    /// How long to fuzz, such as 30s, 10m or 8h; until Ctrl-C without it.
    #[arg(long, value_parser = duration)]
    time: Option<Duration>,
    /// The campaign's folder, campaigns/TARGET without it. One that exists is resumed.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Seed of the random generator; the clock without it.
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Write the summary as JSON.
    #[arg(long)]
    json: bool,
    /// Guests that run at the same time, one for each core without it. Of two or more, half explore on a lean kernel
    /// and the others check on the target's what they come across; with --kernel all of them explore on that one.
    #[arg(long, value_name = "N")]
    vms: Option<NonZeroUsize>,
    /// Let campaigns on other hosts join: they and this one tell each other their plans and crashes. A port alone is one
    /// of 127.0.0.1. There is no password and no encryption: whoever reaches another address can join.
    #[arg(long, value_name = "ADDR:PORT", value_parser = listen_address)]
    listen: Option<SocketAddr>,
    /// Join the campaign that listens there, and again when the connection breaks. May be given several times.
    #[arg(long, value_name = "HOST:PORT", value_parser = join_address)]
    join: Vec<String>,
    #[command(flatten)]
    guest: GuestArgs,
}

#[derive(Args)]
struct GuestArgs {
    /// A kernel other than the target's: a name that `fuzz kernel list` shows.
    #[arg(long, value_name = "NAME")]
    kernel: Option<String>,
    /// How guests run; auto proves that KVM works before it is used.
    #[arg(long, value_enum, default_value = "auto")]
    accel: AccelArg,
}

#[derive(Clone, Copy, ValueEnum)]
enum AccelArg {
    Auto,
    Kvm,
    Tcg,
}

impl From<AccelArg> for AccelChoice {
    fn from(accel: AccelArg) -> Self {
        match accel {
            AccelArg::Auto => Self::Auto,
            AccelArg::Kvm => Self::Kvm,
            AccelArg::Tcg => Self::Tcg,
        }
    }
}

#[derive(Subcommand)]
enum Subcommands {
    /// Run a plan or reproducer in fresh guests and say what happened.
    Replay {
        /// A plan, or the reproducer.json of a crash.
        file: PathBuf,
        /// The target's name or folder, if it is not the one that the plan names.
        #[arg(long)]
        target: Option<String>,
        /// In how many fresh guests.
        #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
        runs: u32,
        /// Count instructions, so that all runs are the same, instruction for instruction: slower, and only under TCG.
        #[arg(long)]
        exact: bool,
        /// One line of JSON for each run.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        guest: GuestArgs,
    },
    /// List what can be fuzzed.
    Targets {
        /// One line of JSON for each target.
        #[arg(long)]
        json: bool,
    },
    /// Build or list kernels.
    #[command(subcommand)]
    Kernel(KernelCommand),
    /// List or prune what is kept for later starts.
    #[command(subcommand)]
    Cache(CacheCommand),
    /// Check this machine and the kernels.
    Doctor,
    /// Measure what things cost and whether they repeat, as JSON.
    Bench {
        #[arg(value_enum, default_value = "cost")]
        what: BenchArg,
        /// The only target to run; each measurement has its own without it.
        #[arg(long)]
        target: Option<String>,
        /// Counted executions of the bare guest and of the full one. Of several the last counts.
        #[arg(long, value_name = "N", overrides_with = "executions", default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..))]
        executions: u32,
        /// How long each campaign runs, or each number of guests; each measurement has its own time without it.
        #[arg(long, value_parser = duration)]
        time: Option<Duration>,
        #[command(flatten)]
        guest: GuestArgs,
    },
}

#[derive(Clone, Copy, ValueEnum)]
enum BenchArg {
    /// One guest: what an execution costs and where the time goes. 3 minutes.
    Cost,
    /// Several guests: rates and memory. 7 minutes on 2 cores, more on more.
    Scale,
    /// Whether executions that are to repeat exactly do. 5 minutes.
    Exact,
    /// What campaigns on two kernels find and when, and what those on the checking kernel alone do. 25 minutes.
    Kernels,
    /// A long campaign: whether guests drift and memory grows. An hour.
    Steady,
}

impl From<BenchArg> for Bench {
    fn from(what: BenchArg) -> Self {
        match what {
            BenchArg::Cost => Self::Cost,
            BenchArg::Scale => Self::Scale,
            BenchArg::Exact => Self::Exact,
            BenchArg::Kernels => Self::Kernels,
            BenchArg::Steady => Self::Steady,
        }
    }
}

#[derive(Subcommand)]
enum KernelCommand {
    /// Build kernels unless the cache has them, and print where they are.
    Build {
        /// Its name in kernels/kernels.toml; all without it.
        name: Option<String>,
    },
    /// List the kernels.
    List {
        /// One line of JSON for each kernel.
        #[arg(long)]
        json: bool,
    },
}

#[derive(Subcommand)]
enum CacheCommand {
    /// List kernels, guests, images, sources and tools, with their sizes on disk.
    List {
        /// One line of JSON for each.
        #[arg(long)]
        json: bool,
    },
    /// Remove what this checkout's kernels.toml does not name and what killed processes left, unless it is in use.
    Prune(PruneOptions),
}

fn duration(text: &str) -> Result<Duration, String> {
    let usage = || format!("\"{text}\" is no duration: use a whole number and s, m or h, such as 10m");
    let (number, unit) = text.split_at(text.len() - text.chars().next_back().map_or(0, char::len_utf8));
    let number: u64 = number.parse().map_err(|_| usage())?;
    let unit = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        _ => return Err(usage()),
    };
    let seconds = number.checked_mul(unit).filter(|seconds| *seconds > 0).ok_or_else(usage)?;
    Ok(Duration::from_secs(seconds))
}

fn main() -> ExitCode {
    let options = Options::parse();
    let filter = EnvFilter::try_from_env("FUZZ_LOG").unwrap_or_else(|_| EnvFilter::new("fuzz=info,warn"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .with_target(false)
        .without_time()
        // A line that cannot be written is not worth a panic, which telling of it on standard error would be.
        .log_internal_errors(false)
        .init();
    // A campaign may end at any time; what another command was asked for is not done when it was stopped.
    let campaign = options.command.is_none();
    match run(options) {
        Ok(Answer::Yes) => ExitCode::SUCCESS,
        Ok(Answer::No) => ExitCode::from(1),
        Ok(Answer::Lacking) => ExitCode::from(3),
        Err(error) if error.is_stop() => {
            say("stopped before it was done");
            if campaign { ExitCode::SUCCESS } else { ExitCode::from(STOPPED) }
        }
        Err(error) => {
            say(&format!("error: {}", fuzz::chain(&error)));
            ExitCode::from(error.status())
        }
    }
}

/// Exit status of a command that was stopped by a signal: what a shell says of one that Ctrl-C ends.
const STOPPED: u8 = 130;

/// Progress and errors go to standard error; when that is gone there is nobody to tell.
fn say(text: &str) {
    let _ = writeln!(io::stderr(), "fuzz: {text}");
}

/// A request to stop that Ctrl-C and SIGTERM make. A second signal ends the process at once.
fn stop_on_signals() -> Stop {
    let stop = Stop::new();
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGINT);
    signals.add(Signal::SIGTERM);
    // Threads inherit the mask: it must be set before any is started.
    if signals.thread_block().is_ok() {
        let request = stop.clone();
        thread::spawn(move || {
            if signals.wait().is_ok() {
                say("stopping; once more to end at once");
                request.request();
                let _ = signals.thread_unblock();
                loop {
                    thread::park();
                }
            }
        });
    }
    stop
}

fn run(options: Options) -> Result<Answer, CommandError> {
    let stop = stop_on_signals();
    let out: &mut dyn Write = &mut io::stdout();
    match options.command {
        None => {
            let CampaignArgs { target, time, out: folder, seed, json, vms, listen, join, guest } = options.campaign;
            let target = target.ok_or_else(|| CommandError::Input("--target is missing".to_owned()))?;
            let accel = guest.accel.into();
            let kernel = guest.kernel;
            let options = FuzzOptions { target, time, out: folder, kernel, vms, accel, seed, json, listen, join };
            commands::fuzz(&options, &stop, out, say)
        }
        Some(Subcommands::Replay { file, target, runs, exact, json, guest }) => {
            let (kernel, accel) = (guest.kernel, guest.accel.into());
            let options = ReplayOptions { file, runs, target, kernel, accel, exact, json };
            commands::replay(&options, &stop, out, &mut say)
        }
        Some(Subcommands::Targets { json }) => commands::targets(json, out),
        Some(Subcommands::Kernel(KernelCommand::Build { name })) => {
            commands::kernel_build(name.as_deref(), &stop, out, &mut say)
        }
        Some(Subcommands::Kernel(KernelCommand::List { json })) => commands::kernel_list(json, out),
        Some(Subcommands::Cache(CacheCommand::List { json })) => commands::cache_list(json, out),
        Some(Subcommands::Cache(CacheCommand::Prune(options))) => commands::cache_prune(&options, out),
        Some(Subcommands::Bench { what, target, executions, time, guest }) => {
            let (kernel, accel) = (guest.kernel, guest.accel.into());
            let options = BenchOptions { what: what.into(), target, kernel, executions, time, accel };
            commands::bench(&options, &stop, out, &mut say)
        }
        Some(Subcommands::Doctor) => commands::doctor(&stop, out),
    }
}
