//! Places in the kernel's code that can report coverage.

use object::Object as _;

use crate::elf::{self, Code, ElfError};

/// The function whose callers are the instrumented basic blocks.
const TRACE_PC: &str = "__sanitizer_cov_trace_pc";
/// x86 `call rel32`, and its length in bytes.
const CALL: u8 = 0xe8;
const CALL_BYTES: usize = 5;

/// The most text a kernel has: `KERNEL_IMAGE_SIZE` (`arch/x86/include/asm/page_64_types.h`, Linux
/// 6.12).
const MAX_TEXT_BYTES: u64 = 1 << 30;

/// One line of text, 64 bytes long: where its PCs are, and the index of the first of them.
#[derive(Clone, Copy, Debug, Default)]
struct Line {
    /// Bit `n`: the byte `n` of the line is a PC.
    pcs: u64,
    first: u32,
}

/// Every PC that KCOV can report in a kernel's text, numbered from 0 in order of address.
///
/// A PC is the return address of a `call __sanitizer_cov_trace_pc`. gcc and clang emit that call as
/// `e8 rel32` in front of each basic block (`-fsanitize-coverage=trace-pc`,
/// `scripts/Makefile.kcov`, Linux 6.12); the text is searched for these five bytes at every offset.
/// The numbers are the same for the same build.
///
/// Code between `_stext` and `_etext` counts, so not what is thrown away after boot (`.init.text`).
#[derive(Debug)]
pub struct CallSites {
    text_start: u64,
    offsets: Vec<u32>,
    lines: Vec<Line>,
}

impl CallSites {
    /// Finds them in `elf`, an uncompressed `vmlinux` with its symbol table.
    ///
    /// # Errors
    /// When `elf` is damaged, for another machine, stripped, or not instrumented.
    pub fn from_elf(elf: &[u8]) -> Result<Self, ElfError> {
        let file = elf::parse(elf)?;
        if file.symbols().next().is_none() {
            return Err(ElfError::NoSymbols);
        }
        let symbol = |symbol, advice| elf::address_of(&file, symbol).ok_or(ElfError::NoSymbol { symbol, advice });
        let callee = symbol(TRACE_PC, "build it with CONFIG_KCOV=y")?;
        let start = symbol("_stext", "is it a kernel?")?;
        let end = symbol("_etext", "is it a kernel?")?;
        Self::from_code(&elf::code(&file)?, callee, start, end)
    }

    fn from_code(code: &[Code<'_>], callee: u64, start: u64, end: u64) -> Result<Self, ElfError> {
        let text_bytes = end
            .checked_sub(start)
            .filter(|bytes| *bytes <= MAX_TEXT_BYTES)
            .and_then(|bytes| u32::try_from(bytes).ok())
            .ok_or(ElfError::Text { start, end })?;
        let mut offsets = Vec::new();
        for section in code {
            for (position, instruction) in section.bytes.windows(CALL_BYTES).enumerate() {
                let &[CALL, b0, b1, b2, b3] = instruction else { continue };
                let next = section.address.wrapping_add(position as u64).wrapping_add(CALL_BYTES as u64);
                let distance = i64::from(i32::from_le_bytes([b0, b1, b2, b3]));
                if next.wrapping_add_signed(distance) != callee {
                    continue;
                }
                let Some(offset) = next.checked_sub(start).filter(|offset| *offset < u64::from(text_bytes)) else {
                    continue;
                };
                offsets.extend(u32::try_from(offset));
            }
        }
        if offsets.is_empty() {
            return Err(ElfError::NotInstrumented);
        }
        Ok(Self::from_offsets(start, offsets))
    }

    /// Those at the given distances from `text_start`, for who knows them from elsewhere.
    #[must_use]
    pub fn from_offsets(text_start: u64, mut offsets: Vec<u32>) -> Self {
        offsets.sort_unstable();
        offsets.dedup();
        let lines = lines(&offsets);
        Self { text_start, offsets, lines }
    }

    /// Gives the number of PCs; the indices are those below.
    #[must_use]
    pub fn len(&self) -> usize {
        self.offsets.len()
    }

    /// Says whether there is none; never so for a value that [`Self::from_elf`] returned.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.offsets.is_empty()
    }

    /// The first address of the kernel's text, `_stext`: what the offsets of a coverage report are
    /// relative to.
    #[must_use]
    pub fn text_start(&self) -> u64 {
        self.text_start
    }

    /// The index of the address `pc`; `None` when KCOV cannot report it.
    #[must_use]
    pub fn index_of(&self, pc: u64) -> Option<u32> {
        let offset = pc.checked_sub(self.text_start)?;
        let line = self.lines.get(usize::try_from(offset >> 6).ok()?)?;
        let bit = 1u64 << (offset & 63);
        (line.pcs & bit != 0).then(|| line.first + (line.pcs & (bit - 1)).count_ones())
    }

    /// The addresses of all PCs in order of their indices.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = u64> + '_ {
        self.offsets.iter().map(|offset| self.text_start + u64::from(*offset))
    }
}

/// The lines up to the last of `offsets`, which ascend.
fn lines(offsets: &[u32]) -> Vec<Line> {
    let count = offsets.last().map_or(0, |last| (last >> 6) as usize + 1);
    let mut lines = vec![Line::default(); count];
    for offset in offsets {
        lines[(offset >> 6) as usize].pcs |= 1 << (offset & 63);
    }
    let mut first = 0;
    for line in &mut lines {
        line.first = first;
        first += line.pcs.count_ones();
    }
    lines
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;
    use crate::test_elf::{self, TEXT, branch};

    #[test]
    fn pcs_are_the_return_addresses_of_calls_to_the_callee() {
        let sites = CallSites::from_elf(&test_elf::kernel()).unwrap();
        let offsets: Vec<u64> = sites.iter().map(|pc| pc - TEXT).collect();
        assert_eq!(offsets, [38, 65, 128, 215, 306]);
        assert_eq!((sites.len(), sites.text_start()), (5, TEXT));
        assert_eq!(sites.index_of(TEXT + 128), Some(2));
        assert_eq!(sites.index_of(TEXT + 129), None);
    }

    #[test]
    fn code_outside_the_text_does_not_count() {
        let mut bytes = vec![0x90; 64];
        branch(&mut bytes, CALL, 2, 0);
        branch(&mut bytes, CALL, 40, 0);
        let code = [Code { address: TEXT, bytes: &bytes }];
        let sites = CallSites::from_code(&code, TEXT, TEXT, TEXT + 20).unwrap();
        assert_eq!(sites.iter().collect::<Vec<_>>(), [TEXT + 7]);
        let sites = CallSites::from_code(&code, TEXT, TEXT + 20, TEXT + 64).unwrap();
        assert_eq!(sites.iter().collect::<Vec<_>>(), [TEXT + 45]);
        assert!(matches!(CallSites::from_code(&code, TEXT, TEXT, TEXT - 1), Err(ElfError::Text { .. })));
        assert!(matches!(CallSites::from_code(&code, TEXT, 0, TEXT), Err(ElfError::Text { .. })));
    }

    proptest! {
        #[test]
        fn the_index_is_the_inverse_of_the_iteration(
            gaps in prop::collection::vec(5usize..200, 1..60), before in 0usize..70,
        ) {
            let mut bytes = vec![0x90; before + gaps.iter().sum::<usize>() + 5];
            let mut at = before;
            let mut expected = BTreeSet::new();
            for gap in gaps {
                branch(&mut bytes, CALL, at, 0);
                expected.insert(TEXT + at as u64 + 5);
                at += gap;
            }
            let end = TEXT + bytes.len() as u64 + 1;
            let sites = CallSites::from_code(&[Code { address: TEXT, bytes: &bytes }], TEXT, TEXT, end).unwrap();
            prop_assert_eq!(sites.iter().collect::<BTreeSet<_>>(), expected.clone());
            for (index, pc) in sites.iter().enumerate() {
                prop_assert_eq!(sites.index_of(pc).map(|index| index as usize), Some(index));
            }
            for address in TEXT - 70..end + 70 {
                prop_assert_eq!(sites.index_of(address).is_some(), expected.contains(&address));
            }
        }
    }
}
