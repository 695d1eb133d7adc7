//! The places of a kernel that can report coverage, with the functions that they are in.

use std::fs;

use execution::chain;
use guests::kernel::Built;
use kcov_parser::{CallSites, Place, Places, Symbols};

/// All of one kernel.
pub(super) struct KernelPlaces {
    sites: CallSites,
    symbols: Symbols,
    places: Places,
}

impl KernelPlaces {
    /// Reads those of `built`, or says why that cannot be.
    pub(super) fn read(built: &Built) -> Result<Self, String> {
        let elf = fs::read(&built.vmlinux).map_err(|error| format!("{}: {error}", built.vmlinux.display()))?;
        // Builds of older versions lack the file.
        let places =
            built.places().map_err(|_| format!("{} does not say where its coverage is", built.dir.display()))?;
        let sites = CallSites::from_elf(&elf).map_err(|error| chain(&error))?;
        let symbols = Symbols::from_elf(&elf).map_err(|error| chain(&error))?;
        Ok(Self { sites, symbols, places })
    }

    /// Gives each place that is known: its address as KCOV reports it, its function, and where in
    /// the source it is.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u64, &str, Place<'_>)> {
        (0..)
            .zip(self.sites.iter())
            .filter_map(|(index, pc)| Some((pc, self.symbols.resolve(pc)?.function, self.places.get(index)?)))
    }
}
