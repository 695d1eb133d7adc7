//! The options of the command line. The commands take them as they are.

use std::{net::SocketAddr, num::NonZeroUsize, path::PathBuf, time::Duration};

use campaign::{join_address, listen_address};
use clap::{Args, Parser, Subcommand, ValueEnum};
use guests::qemu::AccelChoice;
use serde::Serialize;

/// Finds bugs in the Linux kernel's error paths.
///
/// Without a subcommand it runs a campaign on --target until Ctrl-C. Exit status: 0 done, 1 the
/// answer is no, 2 wrong usage or input, 3 the environment lacks something, 130 stopped before it
/// was done.
#[derive(Debug, Parser)]
#[command(version, args_conflicts_with_subcommands = true, arg_required_else_help = true)]
pub struct Options {
    /// The command; a campaign without one.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// A campaign's options.
    #[command(flatten)]
    pub campaign: Option<FuzzOptions>,
}

/// A command other than a campaign.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run a plan or reproducer in fresh guests and say what happened.
    Replay(ReplayOptions),
    /// Make a plan or reproducer as simple as one that makes the same crash.
    Minimize(MinimizeOptions),
    /// Write a C program that makes a crash without the fuzzer, and prove that it does.
    Export(ExportOptions),
    /// Say how many places of each part of the kernel campaigns have covered.
    Coverage {
        /// The campaign's folder, or several, of which the places are put together. Campaigns may
        /// be running.
        #[arg(required = true, value_name = "DIR")]
        dirs: Vec<PathBuf>,
        /// One line of JSON for each kernel.
        #[arg(long)]
        json: bool,
    },
    /// Write what a campaign found: ranked, with the faults named.
    Report(ReportOptions),
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
}

/// A campaign's options.
// clap leaves a group empty that has another one in it, and takes an empty group for absent.
#[derive(Args, Clone, Debug)]
#[group(args = ["target"])]
pub struct FuzzOptions {
    /// Target to fuzz: a name that `fuzz targets` lists, or a folder with a target.toml; with
    /// :VARIANT behind it for one of its variants.
    #[arg(long)]
    pub target: String,
    /// Time to search, such as 30s, 10m or 8h; until Ctrl-C without it. Then crashes are tried and
    /// minimised, for a minute more.
    #[arg(long, value_parser = duration)]
    pub time: Option<Duration>,
    /// The campaign's folder, campaigns/TARGET without it. One that exists is resumed.
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Seed of the random generator; the clock without it.
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
    /// Write the summary as JSON.
    #[arg(long)]
    pub json: bool,
    /// Guests that run at the same time, one for each core without it. Of two or more, half explore
    /// on a lean kernel and the others check on the target's what they come across; with --kernel
    /// all of them explore on that one.
    #[arg(long, value_name = "N")]
    pub vms: Option<NonZeroUsize>,
    /// Let campaigns on other hosts join: they and this one tell each other their plans and
    /// crashes. A port alone is one of 127.0.0.1. There is no password and no encryption: whoever
    /// reaches another address can join.
    #[arg(long, value_name = "ADDR:PORT", value_parser = listen_address)]
    pub listen: Option<SocketAddr>,
    /// Join the campaign that listens there, and again when the connection breaks. May be given
    /// several times.
    #[arg(long, value_name = "HOST:PORT", value_parser = join_address)]
    pub join: Vec<String>,
    /// The guests.
    #[command(flatten)]
    pub guest: GuestOptions,
}

/// Options of all commands that start guests.
#[derive(Args, Clone, Debug)]
pub struct GuestOptions {
    /// A kernel other than the target's: a name that `fuzz kernel list` shows.
    #[arg(long, value_name = "NAME")]
    pub kernel: Option<String>,
    /// Acceleration of guests: auto, kvm or tcg; auto proves that KVM works before it is used.
    #[arg(long, value_name = "HOW", default_value = "auto")]
    pub accel: AccelChoice,
}

/// A plan or reproducer, and what it runs on.
#[derive(Args, Debug)]
pub struct InputOptions {
    /// A plan, or the reproducer.json of a crash.
    pub file: PathBuf,
    /// The target's name or folder, if it is not the one that the file carries or names.
    #[arg(long)]
    pub target: Option<String>,
    /// Run the program by which the file says that its target's disk is made. Without it such a
    /// program runs only if a target here has the same, or if it is a plain mkfs.
    #[arg(long)]
    pub trust: bool,
}

/// Options of `fuzz minimize`.
#[derive(Args, Debug)]
pub struct MinimizeOptions {
    /// The input.
    #[command(flatten)]
    pub input: InputOptions,
    /// The file to write: a reproducer. NAME.minimized.json beside the input without it.
    #[arg(short, long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// In how many fresh guests a simpler plan has to make the crash each time. The simplest one
    /// has to make it in three, or in as many as this says if that is more.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    pub runs: u32,
    /// Leave the target's steps as they are. Each try with fewer steps needs a guest of its own
    /// that is prepared for them.
    #[arg(long)]
    pub keep_steps: bool,
    /// The guests.
    #[command(flatten)]
    pub guest: GuestOptions,
}

/// Options of a replay.
#[derive(Args, Debug)]
pub struct ReplayOptions {
    /// The input.
    #[command(flatten)]
    pub input: InputOptions,
    /// In how many fresh guests.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    pub runs: u32,
    /// Count instructions, so that all runs are the same, instruction for instruction: slower, and
    /// only under TCG.
    #[arg(long)]
    pub exact: bool,
    /// Run the plan once more, and tell what each function on the faults' call paths returned after
    /// them.
    #[arg(long)]
    pub trace: bool,
    /// One line of JSON for each run, one for a trace, and one for the verdict on a reproducer.
    #[arg(long)]
    pub json: bool,
    /// Replay exactly, and once more in a guest that gdb stops: as the fault returns its error, or
    /// at the kernel's report after it (--gdb=crash). At a terminal gdb is started; else the
    /// command to run is told.
    #[arg(
        long, value_enum, value_name = "AT", num_args = 0..=1, default_missing_value = "fault",
        require_equals = true, conflicts_with_all = ["runs", "trace", "json"]
    )]
    pub gdb: Option<GdbStop>,
    /// The fault at which gdb stops, from 1; the last one that fires without it.
    #[arg(long, value_name = "N", requires = "gdb", value_parser = clap::value_parser!(u32).range(1..))]
    pub fault: Option<u32>,
    /// Stop at another call of those that the fault's pattern matches, from 1, and let it run as it
    /// would without gdb.
    #[arg(long, value_name = "N", requires = "gdb", value_parser = clap::value_parser!(u32).range(1..))]
    pub at_hit: Option<u32>,
    /// The guests.
    #[command(flatten)]
    pub guest: GuestOptions,
}

/// A moment at which a debugger stops the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum GdbStop {
    /// The call that the fault makes fail returns.
    Fault,
    /// The kernel begins to report the first thing after the fault.
    Crash,
}

/// Options of a report.
#[derive(Args, Clone, Debug)]
pub struct ReportOptions {
    /// The campaign's folder. The campaign may be running.
    pub dir: PathBuf,
    /// Form of the report: text for a terminal, json for programs, html for a browser, sarif for
    /// code hosts, lkml for one crash as a mail to the kernel's maintainers, which nobody sends.
    #[arg(long, value_enum, default_value = "text")]
    pub format: ReportFormat,
    /// Write the report into this file, and not to standard output.
    #[arg(short, long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// Only the crash with this key, this folder's name, or this rank. The mail is about the most
    /// urgent one without it.
    #[arg(long, value_name = "KEY")]
    pub crash: Option<String>,
    /// A tree of the kernel's source: it says whom a mail is for, and the page shows its lines.
    #[arg(long, value_name = "DIR")]
    pub tree: Option<PathBuf>,
}

/// A form of a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ReportFormat {
    /// For a terminal.
    Text,
    /// For programs.
    Json,
    /// One page for a browser.
    Html,
    /// A mail to the kernel's maintainers.
    Lkml,
    /// For code hosts.
    Sarif,
}

/// Options of an export.
#[derive(Args, Debug)]
pub struct ExportOptions {
    /// A reproducer.json, a crash's folder, or the folder of a campaign that has ended, for all of
    /// its crashes.
    pub path: PathBuf,
    /// Where the program goes, for one crash; a script for bpftrace is repro.bt beside it. Without
    /// it that is the crash's folder, or this one for a file that is in none. A program for
    /// another kernel than the crash's needs it.
    #[arg(short, long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// Run the program by which the file says that its target's disk is made: see `fuzz replay`.
    #[arg(long)]
    pub trust: bool,
    /// One line of JSON for each crash.
    #[arg(long)]
    pub json: bool,
    /// The guests.
    #[command(flatten)]
    pub guest: GuestOptions,
}

/// A command about kernels.
#[derive(Debug, Subcommand)]
pub enum KernelCommand {
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

/// A command about the cache.
#[derive(Debug, Subcommand)]
pub enum CacheCommand {
    /// List kernels, guests, images, sources and tools, with their sizes on disk.
    List {
        /// One line of JSON for each.
        #[arg(long)]
        json: bool,
    },
    /// Remove what this checkout's kernels.toml does not name and what killed processes left,
    /// unless it is in use.
    Prune(PruneOptions),
}

/// A kind of thing in the cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Finished kernels.
    Kernel,
    /// Guests that are ready to be cloned.
    Template,
    /// Disk images.
    Image,
    /// Archives of kernel sources.
    Source,
    /// The compiler's cache.
    Ccache,
    /// Programs that the scripts have built or unpacked.
    Tool,
    /// Folders and files of processes that were killed.
    Leftover,
}

/// Options of `fuzz cache prune`.
#[derive(Args, Clone, Debug, Default)]
pub struct PruneOptions {
    /// Remove everything that is not in use; what is needed again is made again.
    #[arg(long)]
    pub all: bool,
    /// Remove nothing of this kind. May be given several times.
    #[arg(long, value_name = "KIND", value_enum)]
    pub keep: Vec<Kind>,
    /// Say what would be removed, and remove nothing.
    #[arg(long)]
    pub dry_run: bool,
}

/// Reads a duration such as `10m`.
///
/// # Errors
///
/// It is none; the reason.
pub fn duration(text: &str) -> Result<Duration, String> {
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

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn options_are_read_or_refused() {
        Options::command().debug_assert();
        let read = |words: &str| Options::try_parse_from(words.split(' '));
        let campaign = read("fuzz --target t --time 10m --vms 3 --accel tcg").unwrap().campaign.unwrap();
        assert_eq!((campaign.target.as_str(), campaign.time), ("t", Some(Duration::from_secs(600))));
        assert_eq!(campaign.guest.accel, AccelChoice::Tcg);
        assert!(matches!(read("fuzz targets").unwrap().command, Some(Command::Targets { json: false })));
        for wrong in ["fuzz --vms 2", "fuzz --target t --vms 0", "fuzz --target t --time 3", "fuzz --target t targets"]
        {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_debugger_stops_at_the_fault_unless_told_otherwise() {
        let gdb = |words: &str| match Options::try_parse_from(words.split(' ')).ok()?.command {
            Some(Command::Replay(options)) => options.gdb,
            _ => None,
        };
        assert_eq!(gdb("fuzz replay --gdb plan.json"), Some(GdbStop::Fault));
        assert_eq!(gdb("fuzz replay --gdb=crash --fault 2 plan.json"), Some(GdbStop::Crash));
        for wrong in ["fuzz replay --at-hit 1 plan.json", "fuzz replay --gdb --runs 2 plan.json"] {
            assert!(Options::try_parse_from(wrong.split(' ')).is_err(), "{wrong}");
        }
    }

    #[test]
    fn each_command_takes_the_file_that_it_writes_by_one_name() {
        for command in ["minimize", "report", "export"] {
            for name in ["-o", "--out"] {
                Options::try_parse_from(["fuzz", command, "PATH", name, "FILE"]).unwrap();
            }
        }
    }
}
