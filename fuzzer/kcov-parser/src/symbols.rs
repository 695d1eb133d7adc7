//! Functions of the kernel by address and by name.

use std::collections::{BTreeMap, HashMap};

use fault_plan::base_name;
use object::{Object as _, ObjectSymbol as _, SymbolKind};

use crate::{
    CallSites,
    elf::{self, ElfError},
};

/// What the kernel's build puts in front of the name of the padding before a function
/// (`CONFIG_FUNCTION_PADDING_BYTES`, `tools/objtool/elf.c`, Linux 6.12).
const PADDING_PREFIX: &str = "__pfx_";

#[derive(Debug)]
struct Function {
    address: u64,
    /// 0 when the symbol table does not say.
    bytes: u64,
    /// As the symbol table has it.
    name: String,
}

/// The functions in a kernel's symbol table.
#[derive(Debug)]
pub struct Symbols {
    /// By address, one for each.
    functions: Vec<Function>,
    /// By base name; the addresses ascend.
    by_name: HashMap<String, Vec<u64>>,
}

/// Where in the kernel an address lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Location<'symbols> {
    /// The function, without what the compiler appends to names.
    pub function: &'symbols str,
    /// Bytes from the start of the function's symbol.
    pub offset: u64,
}

/// How much of a function was covered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FunctionCoverage<'symbols> {
    /// The function, without what the compiler appends to names; functions of the same name count as one.
    pub function: &'symbols str,
    /// PCs in it that were reported.
    pub covered: usize,
    /// PCs in it that can be reported.
    pub total: usize,
}

impl Symbols {
    /// Reads the symbol table of `elf`, an uncompressed `vmlinux`.
    ///
    /// # Errors
    /// When `elf` is damaged, for another machine, or stripped.
    pub fn from_elf(elf: &[u8]) -> Result<Self, ElfError> {
        let file = elf::parse(elf)?;
        let mut found = Vec::new();
        for symbol in file.symbols() {
            let is_code = match symbol.kind() {
                SymbolKind::Text => true,
                SymbolKind::Unknown | SymbolKind::Label => false,
                _ => continue,
            };
            let Some(section) = symbol.section_index().and_then(|index| file.section_by_index(index).ok()) else {
                continue;
            };
            let Ok(name) = symbol.name() else { continue };
            if !elf::holds_code(&section) || name.is_empty() || name.starts_with(PADDING_PREFIX) {
                continue;
            }
            // Of names for one address the one a reader knows: a function's, not weak, with few underscores.
            let underscores = name.bytes().take_while(|byte| *byte == b'_').count();
            let rank = (!is_code, symbol.is_weak(), underscores);
            found.push((rank, Function { address: symbol.address(), bytes: symbol.size(), name: name.to_owned() }));
        }
        if found.is_empty() {
            return Err(ElfError::NoSymbols);
        }
        found.sort_by(|(rank, left), (other, right)| {
            (left.address, rank, &left.name).cmp(&(right.address, other, &right.name))
        });
        let mut by_name: HashMap<String, Vec<u64>> = HashMap::new();
        for (_, function) in &found {
            let addresses = by_name.entry(base_name(&function.name).to_owned()).or_default();
            if addresses.last() != Some(&function.address) {
                addresses.push(function.address);
            }
        }
        found.dedup_by_key(|(_, function)| function.address);
        Ok(Self { functions: found.into_iter().map(|(_, function)| function).collect(), by_name })
    }

    /// The function that holds `address`. For a return address ask for one byte less: a call may be the last
    /// instruction of its function.
    #[must_use]
    pub fn resolve(&self, address: u64) -> Option<Location<'_>> {
        let after = self.functions.partition_point(|function| function.address <= address);
        let function = &self.functions[after.checked_sub(1)?];
        let offset = address - function.address;
        // Without a size the function reaches to the next one; the last one then has no known end.
        let bytes = match (function.bytes, self.functions.get(after)) {
            (0, Some(next)) => next.address - function.address,
            (bytes, _) => bytes,
        };
        (offset < bytes).then(|| Location { function: base_name(&function.name), offset })
    }

    /// The entry addresses of the functions called `name`, ascending; compiler suffixes do not count. The parts that
    /// the compiler split off (`.cold`, `.part.0`) are among them.
    #[must_use]
    pub fn addresses(&self, name: &str) -> &[u64] {
        self.by_name.get(base_name(name)).map_or(&[], Vec::as_slice)
    }

    /// Every function with at least one PC, by name, and how many of its PCs are among `pcs` (addresses; one named
    /// twice counts once, an address that is no PC does not count).
    pub fn functions_covered<'symbols>(
        &'symbols self,
        sites: &CallSites,
        pcs: impl IntoIterator<Item = u64>,
    ) -> Vec<FunctionCoverage<'symbols>> {
        let mut covered = vec![false; sites.len()];
        for index in pcs.into_iter().filter_map(|pc| sites.index_of(pc)) {
            covered[index as usize] = true;
        }
        let mut counts: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
        for (pc, covered) in sites.iter().zip(covered) {
            let Some(location) = self.resolve(pc.wrapping_sub(1)) else { continue };
            let (of_it, total) = counts.entry(location.function).or_default();
            *of_it += usize::from(covered);
            *total += 1;
        }
        counts.into_iter().map(|(function, (covered, total))| FunctionCoverage { function, covered, total }).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_elf::{self, TEXT};

    fn symbols() -> Symbols {
        Symbols::from_elf(&test_elf::kernel()).unwrap()
    }

    #[test]
    fn an_address_is_a_function_and_an_offset() {
        let symbols = symbols();
        let at = |offset: u64| symbols.resolve(TEXT + offset).map(|found| (found.function, found.offset));
        assert_eq!(at(32), Some(("alpha", 0)));
        assert_eq!(at(127), Some(("alpha", 95)));
        assert_eq!(at(128), None);
        assert_eq!(at(215), Some(("beta", 15)));
        assert_eq!(at(301), Some(("beta", 1)));
        assert_eq!(at(419), Some(("unsized", 19)));
        assert_eq!(at(427), Some(("__x", 7)));
        assert_eq!(at(428), None);
        assert_eq!(symbols.resolve(0), None);
    }

    #[test]
    fn names_have_addresses() {
        let symbols = symbols();
        assert_eq!(symbols.addresses("beta"), [TEXT + 200, TEXT + 300]);
        assert_eq!(symbols.addresses("beta.constprop.0"), [TEXT + 200, TEXT + 300]);
        assert_eq!(symbols.addresses("__alpha_alias"), [TEXT + 32]);
        assert!(symbols.addresses("__pfx_alpha").is_empty());
        assert!(symbols.addresses("gamma").is_empty());
    }

    #[test]
    fn coverage_is_counted_by_function() {
        let sites = CallSites::from_elf(&test_elf::kernel()).unwrap();
        let symbols = symbols();
        // One PC of `alpha` twice, that of the split-off part of `beta`, and an address that is no PC. The third PC
        // of `alpha` is the address after its last instruction.
        let covered = symbols.functions_covered(&sites, [38, 38, 306, 39].map(|offset| TEXT + offset));
        let count = |function, covered, total| FunctionCoverage { function, covered, total };
        assert_eq!(covered, [count("alpha", 1, 3), count("beta", 1, 2)]);
    }
}
