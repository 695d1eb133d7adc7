//! Parts of a kernel's ELF image that this crate reads.

use object::{Architecture, Object, ObjectSection, ObjectSymbol, SectionFlags, SymbolKind, elf::SHF_EXECINSTR};

/// Why an ELF image is of no use.
#[derive(Debug, thiserror::Error)]
pub enum ElfError {
    /// It is no ELF file, or a damaged one.
    #[error("the kernel image cannot be read as ELF; give the uncompressed vmlinux")]
    Malformed(#[from] object::Error),
    /// It is for another machine.
    #[error("the kernel image is for {found:?}, but only x86-64 is understood")]
    Machine {
        /// Architecture that it is for.
        found: Architecture,
    },
    /// A symbol is not there.
    #[error("the kernel image has no symbol {symbol}: {advice}")]
    NoSymbol {
        /// The symbol.
        symbol: &'static str,
        /// Remedy, for the user.
        advice: &'static str,
    },
    /// It has no functions in its symbol table.
    #[error("the kernel image has no symbol table: give the vmlinux as it was linked, not stripped")]
    NoSymbols,
    /// Its debug information cannot be read.
    #[error("the kernel image's debug information (DWARF) cannot be read")]
    DebugInformation(#[from] gimli::Error),
    /// It has no debug information.
    #[error("the kernel image has no debug information: build it with CONFIG_DEBUG_INFO_DWARF5=y")]
    NoDebugInformation,
    /// Nothing in it is instrumented.
    #[error("no code in the kernel image is instrumented: build it with CONFIG_KCOV_INSTRUMENT_ALL=y")]
    NotInstrumented,
    /// Its text is not one that a kernel has.
    #[error("the kernel's text goes from {start:#x} to {end:#x}, which is no range of at most 1 GiB")]
    Text {
        /// First address.
        start: u64,
        /// First address after it.
        end: u64,
    },
}

/// A section with code.
pub(crate) struct Code<'data> {
    pub(crate) address: u64,
    pub(crate) bytes: &'data [u8],
}

pub(crate) fn parse(elf: &[u8]) -> Result<object::File<'_>, ElfError> {
    let file = object::File::parse(elf)?;
    match file.architecture() {
        Architecture::X86_64 => Ok(file),
        found => Err(ElfError::Machine { found }),
    }
}

/// Says whether the processor may run what the section holds.
pub(crate) fn holds_code<'data>(section: &impl ObjectSection<'data>) -> bool {
    matches!(section.flags(), SectionFlags::Elf { sh_flags, .. } if sh_flags.contains(SHF_EXECINSTR))
}

/// The sections with code, in order of address.
pub(crate) fn code<'data>(file: &object::File<'data>) -> Result<Vec<Code<'data>>, ElfError> {
    let mut all = Vec::new();
    for section in file.sections() {
        if holds_code(&section) {
            all.push(Code { address: section.address(), bytes: section.data()? });
        }
    }
    all.sort_by_key(|code| code.address);
    Ok(all)
}

/// Gives the symbols of `file` that stand in code, with their names.
pub(crate) fn code_symbols<'file, 'data>(
    file: &'file object::File<'data>,
) -> impl Iterator<Item = (object::Symbol<'data, 'file>, &'data str)> {
    file.symbols().filter_map(|symbol| {
        let kind = matches!(symbol.kind(), SymbolKind::Text | SymbolKind::Unknown | SymbolKind::Label);
        let section = symbol.section_index().and_then(|index| file.section_by_index(index).ok());
        let is_code = kind && section.is_some_and(|section| holds_code(&section));
        let name = symbol.name().ok().filter(|name| is_code && !name.is_empty())?;
        Some((symbol, name))
    })
}

/// The address of the symbol `name`.
pub(crate) fn address_of(file: &object::File<'_>, name: &str) -> Option<u64> {
    file.symbols()
        .find(|symbol| symbol.name() == Ok(name) && !symbol.is_undefined() && symbol.kind() != SymbolKind::File)
        .map(|symbol| symbol.address())
}

/// The GNU build id of an ELF image, in lower-case hexadecimal; `None` when it has none or is no
/// ELF image.
///
/// A running kernel tells its own in `/sys/kernel/notes` (same note).
#[must_use]
pub fn build_id(elf: &[u8]) -> Option<String> {
    let file = object::File::parse(elf).ok()?;
    let id = file.build_id().ok()??;
    Some(
        id.iter()
            .flat_map(|byte| [byte >> 4, byte & 15])
            .filter_map(|digit| char::from_digit(digit.into(), 16))
            .collect(),
    )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{CallSites, Symbols, test_elf};

    #[test]
    fn the_build_id_is_lower_case_hexadecimal() {
        let id = build_id(&test_elf::kernel());
        assert_eq!(id.as_deref(), Some("005d2a2c1df83329a2522b7aae2ebf87f59fccff"));
        assert_eq!(build_id(b"no ELF"), None);
    }

    #[test]
    fn what_is_wrong_with_an_image_is_told() {
        let mut other = test_elf::kernel();
        other[18] = 183;
        assert!(matches!(CallSites::from_elf(&other), Err(ElfError::Machine { .. })));
        assert!(matches!(CallSites::from_elf(b""), Err(ElfError::Malformed(_))));
        let plain = test_elf::image(&[0x90; 64], &[]);
        assert!(matches!(
            CallSites::from_elf(&plain),
            Err(ElfError::NoSymbol { symbol: "__sanitizer_cov_trace_pc", .. })
        ));
        let silent = test_elf::image(&[0x90; 64], &[("__sanitizer_cov_trace_pc", 0, 9, true)]);
        assert!(matches!(CallSites::from_elf(&silent), Err(ElfError::NotInstrumented)));
    }

    fn read_all_of_it(elf: &[u8]) {
        let _ = build_id(elf);
        if let Ok(symbols) = Symbols::from_elf(elf) {
            for address in [0, 1, test_elf::TEXT, test_elf::TEXT + 40, test_elf::TEXT + 500, u64::MAX] {
                let _ = symbols.resolve(address);
            }
        }
        if let Ok(sites) = CallSites::from_elf(elf) {
            assert!(!sites.is_empty());
            assert!(sites.iter().all(|pc| sites.index_of(pc).is_some()));
        }
    }

    #[test]
    fn no_truncation_panics() {
        let elf = test_elf::kernel();
        (0..=elf.len()).for_each(|len| read_all_of_it(&elf[..len]));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]
        #[test]
        fn no_damage_panics(damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..12)) {
            let mut elf = test_elf::kernel();
            for (position, byte) in damage {
                let position = position.index(elf.len());
                elf[position] = byte;
            }
            read_all_of_it(&elf);
        }
    }
}
