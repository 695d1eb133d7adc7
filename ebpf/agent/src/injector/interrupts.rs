//! Preemption count, by which the BPF program tells calls of interrupts from the workload's.

use anyhow::{Context, Result};

use crate::symbols::Symbols;

/// Offset of `preempt_count` in `struct pcpu_hot` of `arch/x86/include/asm/current.h` (6.2 to
/// 6.14).
const PCPU_HOT_PREEMPT_COUNT: u64 = 8;

/// Place of each processor's preemption count. Without it nothing may be probed.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Interrupts {
    /// Address of the array `__per_cpu_offset`.
    pub(super) per_cpu_offsets: u64,
    /// Offset of the count in a processor's area.
    pub(super) preempt_offset: u64,
}

impl Interrupts {
    /// Finds the count of the running kernel.
    ///
    /// # Errors
    ///
    /// The kernel does not tell where it is.
    pub(super) fn find(symbols: &Symbols) -> Result<Self> {
        // Linux 6.1 and 6.15 have a variable of its own for the preemption count.
        let hot = || symbols.address("pcpu_hot").map(|address| address + PCPU_HOT_PREEMPT_COUNT);
        let offsets = symbols.address("__per_cpu_offset").zip(symbols.address("__preempt_count").or_else(hot));
        let (per_cpu_offsets, preempt_offset) = offsets.context(
            "cannot tell calls of interrupts from the workload's: the kernel, built without CONFIG_KALLSYMS_ALL, \
             tells no address of the preemption count",
        )?;
        Ok(Self { per_cpu_offsets, preempt_offset })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_preemption_count_is_found_or_missed() {
        let all = [
            "ffffffff81000000 T _stext",
            "ffffffff81000030 T _etext",
            "ffffffff82000000 D __per_cpu_offset",
            "0000000000036500 D pcpu_hot",
        ];
        let find = |missing: &str| {
            let list: Vec<_> =
                all.iter().filter(|line| !line.ends_with(missing)).map(|line| format!("{line}\n")).collect();
            Interrupts::find(&Symbols::parse(list.concat()).unwrap())
        };
        let expected = Interrupts { per_cpu_offsets: 0xffff_ffff_8200_0000, preempt_offset: 0x36508 };
        assert_eq!(find("none").unwrap(), expected);
        for missing in ["__per_cpu_offset", "pcpu_hot"] {
            assert!(find(missing).unwrap_err().to_string().contains("CONFIG_KALLSYMS_ALL"), "{missing}");
        }
    }
}
