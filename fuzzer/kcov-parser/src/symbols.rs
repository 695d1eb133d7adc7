//! Functions of the kernel by address.

use fault_plan::base_name;
use object::{ObjectSymbol as _, SymbolKind};

use crate::elf::{self, ElfError};

/// Prefix that the kernel's build gives to the name of the padding before a function
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

/// The functions in a kernel's symbol table; none by default.
#[derive(Debug, Default)]
pub struct Symbols {
    /// By address, one for each.
    functions: Vec<Function>,
}

/// Place of an address in the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Location<'symbols> {
    /// The function, without what the compiler appends to names.
    pub function: &'symbols str,
    /// The function's symbol, with what the compiler appends.
    pub symbol: &'symbols str,
    /// Bytes from the start of the function's symbol.
    pub offset: u64,
}

impl Symbols {
    /// Reads the symbol table of `elf`, an uncompressed `vmlinux`.
    ///
    /// # Errors
    /// When `elf` is damaged, for another machine, or stripped.
    pub fn from_elf(elf: &[u8]) -> Result<Self, ElfError> {
        let file = elf::parse(elf)?;
        let mut found = Vec::new();
        for (symbol, name) in elf::code_symbols(&file) {
            if name.starts_with(PADDING_PREFIX) {
                continue;
            }
            let is_code = symbol.kind() == SymbolKind::Text;
            // Of names for one address the one a reader knows: a function's, not weak, with few
            // underscores.
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
        found.dedup_by_key(|(_, function)| function.address);
        Ok(Self { functions: found.into_iter().map(|(_, function)| function).collect() })
    }

    /// The function that holds `address`. For a return address ask for one byte less: a call may be
    /// the last instruction of its function.
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
        (offset < bytes).then(|| Location { function: base_name(&function.name), symbol: &function.name, offset })
    }

    /// Gives the symbol of the function of this name, without what the compiler appends to names.
    /// None where there are several. The cold part of a function is none of its own.
    #[must_use]
    pub fn only(&self, name: &str) -> Option<&str> {
        let is_one = |function: &&Function| base_name(&function.name) == name && !function.name.contains(".cold");
        let mut functions = self.functions.iter().filter(is_one);
        functions.next().filter(|_| functions.next().is_none()).map(|function| function.name.as_str())
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
    fn functions_of_a_name_are_counted() {
        let symbols = symbols();
        assert_eq!((symbols.only("alpha"), symbols.only("nothing")), (Some("alpha"), None));
    }
}
