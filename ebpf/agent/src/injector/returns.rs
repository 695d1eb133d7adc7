//! Probes where the calls on a fault's call path return to.
//!
//! A return probe would put its own address on the stack, in the place of the caller's, and no call
//! path would match any more. So these are plain probes behind the calls.

use std::{collections::HashSet, fs};

use abi::{MAX_FRAMES, MAX_RULES, Returned, Returns};
use anyhow::{Context, Result, bail};
use aya::{Ebpf, programs::KProbe};

use super::{mapping::Mapping, types::Types};
use crate::symbols::Symbols;

const PROGRAM: &str = "returned";
/// The kernel makes jumps of probes some time after they are put in place, by a work item of its
/// own: `kprobe_optimizer()` of `kernel/kprobes.c` (6.12).
const OPTIMIZATION: &str = "/proc/sys/debug/kprobes-optimization";

/// Attaches a probe to each of the return addresses of the `faults`, innermost first, and notes in
/// `returns` which of them have one, and the return types of the functions that they are in.
///
/// # Errors
///
/// The program cannot be loaded, or there are more faults than rules.
pub(super) fn probe(
    bpf: &mut Ebpf,
    returns: &mut Mapping<Returns>,
    symbols: &Symbols,
    types: &mut Types,
    faults: &[Vec<u64>],
) -> Result<()> {
    if faults.len() > MAX_RULES {
        bail!("{} faults to trace, possible are {MAX_RULES}", faults.len());
    }
    // Without the file there is nothing to switch off.
    let _ = fs::write(OPTIMIZATION, "0");
    let program = bpf.program_mut(PROGRAM).with_context(|| format!("the BPF object has no program \"{PROGRAM}\""))?;
    let program: &mut KProbe = program.try_into()?;
    if program.fd().is_err() {
        program.load().context("the kernel refuses the BPF program that traces faults")?;
    }
    let addresses: HashSet<u64> = faults.iter().flatten().copied().collect();
    // Some functions cannot be probed: those that enter the kernel, and probes' own.
    let probed: HashSet<u64> = addresses.into_iter().filter(|address| program.attach("", *address).is_ok()).collect();
    let names: HashSet<&str> = faults.iter().flatten().map(|address| symbols.caller(*address)).collect();
    let known = types.returned_by(&names)?;
    let mut of = [Returned::default(); MAX_RULES];
    for (fault, into) in faults.iter().zip(&mut of) {
        for (frame, address) in fault.iter().take(MAX_FRAMES).enumerate() {
            into.probed |= u32::from(probed.contains(address)) << frame;
            into.types[frame] = known.get(symbols.caller(*address)).copied().unwrap_or_default();
        }
    }
    returns.write(0, Returns { generation: 0, reserved: 0, of });
    Ok(())
}
