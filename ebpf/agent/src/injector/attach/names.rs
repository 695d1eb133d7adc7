//! The table from text to names, by which the BPF program names callers.

use abi::{GRANULE_BYTES, NAME_BLOCK, NO_NAME, PROBE_BYTES};
use anyhow::{Result, bail};
use aya::Ebpf;

use super::super::{chosen::Probed, mapping::Mapping};
use crate::symbols::Symbols;

/// Gives a function to be probed all granules that its probes can stand in.
pub(super) fn claim_entries(symbols: &Symbols, table: &mut [u32], probed: &Probed) -> Result<()> {
    let name = &probed.function.name;
    let Some(id) = symbols.name_id(name) else {
        bail!("cannot probe \"{name}\": the kernel has no such symbol");
    };
    let text = symbols.text_start()..symbols.text_end();
    for entry in &probed.entries {
        if !text.contains(entry) {
            bail!("cannot probe \"{name}\": {entry:#x} is outside of the kernel's text");
        }
        let granule = |address: u64| usize::try_from((address - text.start) / GRANULE_BYTES).unwrap_or(usize::MAX);
        for owner in table.iter_mut().take(granule(entry + PROBE_BYTES) + 1).skip(granule(*entry)) {
            *owner = id;
        }
    }
    Ok(())
}

/// Puts the names of `granules` into their map, of `blocks` blocks.
pub(super) fn fill(bpf: &Ebpf, granules: &[u32], blocks: usize) -> Result<()> {
    let mut names = Mapping::<[u32; NAME_BLOCK]>::new(bpf, "NAMES", blocks)?;
    for (index, ids) in granules.chunks(NAME_BLOCK).enumerate() {
        let mut block = [NO_NAME; NAME_BLOCK];
        block[..ids.len()].copy_from_slice(ids);
        names.write(index, block);
    }
    Ok(())
}
