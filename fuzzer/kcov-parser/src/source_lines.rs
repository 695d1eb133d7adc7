//! Lines of the kernel's source by address, with the functions that the compiler made part of
//! others.
//!
//! They come from the debug information, which is many times the kernel. So each lookup reads only
//! the compilation unit of its address. For all coverage points at once there is `Places`.

use std::{borrow::Cow, collections::HashMap, sync::Arc};

use addr2line::Context;
use fault_plan::base_name;
use gimli::{Dwarf, EndianArcSlice, LittleEndian, SectionId};
use object::{Object as _, ObjectSection as _, ObjectSymbol as _};

use crate::{
    elf::{self, ElfError},
    places::relative,
};

/// Function in the source, and the line in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceFrame {
    /// Name in the source, which has no compiler suffixes; in assembler that of the symbol.
    pub function: String,
    /// File of the line, relative to the source's folder: `fs/btrfs/disk-io.c`.
    pub file: String,
    /// Number of the line, from 1; 0 for code that stands on no line.
    pub line: u32,
    /// True when the compiler made the function part of the next frame's.
    pub inlined: bool,
}

/// The debug information of one kernel build.
pub struct SourceLines {
    context: Context<EndianArcSlice<LittleEndian>>,
    /// Address and size of each function by its name in the symbol table.
    symbols: ByName,
    /// Names in the symbol table that are the same without compiler suffixes.
    with_suffix: HashMap<String, Vec<String>>,
}

type ByName = HashMap<String, Vec<(u64, u64)>>;

impl std::fmt::Debug for SourceLines {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SourceLines").field("functions", &self.symbols.len()).finish_non_exhaustive()
    }
}

impl SourceLines {
    /// Reads `elf`: a `vmlinux` with debug information, or the file to which `objcopy
    /// --only-keep-debug` moved that.
    ///
    /// # Errors
    /// When `elf` is damaged, for another machine, or has no debug information.
    pub fn from_elf(elf: &[u8]) -> Result<Self, ElfError> {
        let file = elf::parse(elf)?;
        if file.section_by_name(SectionId::DebugLine.name()).is_none() {
            return Err(ElfError::NoDebugInformation);
        }
        let dwarf = Dwarf::load(|section| {
            // Where variables are is of no use here.
            let is_used = !matches!(section, SectionId::DebugLoc | SectionId::DebugLocLists);
            let data = file.section_by_name(section.name()).filter(|_| is_used);
            let data = data.map(|section| section.uncompressed_data()).transpose()?.unwrap_or_default();
            Ok::<_, object::Error>(EndianArcSlice::new(Arc::from(data), LittleEndian))
        })?;
        let (symbols, with_suffix) = symbols(&file);
        Ok(Self { context: Context::from_dwarf(dwarf)?, symbols, with_suffix })
    }

    /// Gives the frames at the instruction with the byte at `address`, an address of the linked
    /// kernel: the innermost inlined function first, the one that has the code last. It is empty
    /// where nothing is known. For a return address ask for one byte less.
    #[must_use]
    pub fn at(&self, address: u64) -> Vec<SourceFrame> {
        // addr2line adds one.
        if address == u64::MAX { Vec::new() } else { self.frames(address).unwrap_or_default() }
    }

    /// Gives the frames at the instruction with the byte at `offset` in `function`. For a return
    /// address, as callers on a stack have it, ask for one byte less. Of several functions with
    /// that name the one of `size` bytes counts, as the kernel prints it. It is empty where nothing
    /// is known, and where several functions may be meant.
    #[must_use]
    pub fn in_symbol(&self, function: &str, offset: u64, size: Option<u64>) -> Vec<SourceFrame> {
        let address = self.symbol(function, size).and_then(|address| address.checked_add(offset));
        address.map_or_else(Vec::new, |address| self.at(address))
    }

    /// Finds the address of the only function with this name, or of the only one that has this size
    /// too.
    fn symbol(&self, function: &str, size: Option<u64>) -> Option<u64> {
        let name = match self.with_suffix.get(function).map(Vec::as_slice) {
            Some([only]) if !self.symbols.contains_key(function) => only,
            _ => function,
        };
        let found = self.symbols.get(name)?;
        only(found.iter()).or_else(|| only(found.iter().filter(|(_, bytes)| Some(*bytes) == size)))
    }

    /// Finds the name of the function that holds `address` in the symbol table.
    fn name_at(&self, address: u64) -> Option<&str> {
        let holds = |(start, size): &(u64, u64)| address.checked_sub(*start).is_some_and(|offset| offset < *size);
        let found = self.symbols.iter().filter(|(_, places)| places.iter().any(holds));
        found.map(|(name, _)| name.as_str()).min()
    }

    fn frames(&self, address: u64) -> Result<Vec<SourceFrame>, gimli::Error> {
        let Some(unit) = self.context.find_dwarf_and_unit(address).skip_all_loads() else { return Ok(Vec::new()) };
        let folder =
            unit.comp_dir.as_ref().map_or_else(String::new, |folder| String::from_utf8_lossy(folder).into_owned());
        let mut read = self.context.find_frames(address).skip_all_loads()?;
        let mut frames = Vec::new();
        while let Some(frame) = read.next()? {
            let name = frame.function.as_ref().map(|function| function.raw_name()).transpose()?;
            let Some(location) = frame.location else { continue };
            // Functions in assembler are known to the symbol table alone.
            let name = name.map(Cow::into_owned).or_else(|| self.name_at(address).map(str::to_owned));
            frames.push(SourceFrame {
                function: name.unwrap_or_default(),
                file: relative(location.file.unwrap_or_default(), &folder),
                line: location.line.unwrap_or(0),
                inlined: true,
            });
        }
        if let Some(outermost) = frames.last_mut() {
            outermost.inlined = false;
        }
        Ok(frames)
    }
}

/// Gives the address of `places` if it is one. A name may stand twice for one function.
fn only<'places>(mut places: impl Iterator<Item = &'places (u64, u64)>) -> Option<u64> {
    let (first, _) = *places.next()?;
    places.all(|(address, _)| *address == first).then_some(first)
}

/// Reads the functions of `file`: address and size by name, and names by what they are without
/// compiler suffixes. As the kernel prints sizes, a function reaches to the next symbol, whatever
/// its own size (`get_symbol_pos()` in `kernel/kallsyms.c`, 6.12).
fn symbols(file: &object::File<'_>) -> (ByName, HashMap<String, Vec<String>>) {
    let mut found: Vec<_> = elf::code_symbols(file).map(|(symbol, name)| (symbol.address(), name)).collect();
    found.sort_unstable();
    let (mut symbols, mut with_suffix) = (ByName::new(), HashMap::<String, Vec<String>>::new());
    for (address, name) in &found {
        let next = found.partition_point(|(other, _)| other <= address);
        // The last one has no known end.
        let size = found.get(next).map_or(0, |(next, _)| next - address);
        symbols.entry((*name).to_owned()).or_default().push((*address, size));
        if base_name(name) != *name {
            with_suffix.entry(base_name(name).to_owned()).or_default().push((*name).to_owned());
        }
    }
    (symbols, with_suffix)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_elf;

    /// Made of `testdata/inlined.c`, where the command stands.
    const ELF: &[u8] = include_bytes!("../testdata/inlined.elf");
    const TEXT: u64 = 0xffff_ffff_8100_0000;
    const SOURCE: &str = include_str!("../testdata/inlined.c");

    /// Gives the frame at the only line of the source that is `statement`.
    fn frame(function: &str, statement: &str, inlined: bool) -> SourceFrame {
        let at = SOURCE.lines().position(|line| line.trim() == statement).unwrap();
        let line = u32::try_from(at + 1).unwrap();
        SourceFrame { function: function.to_owned(), file: "inlined.c".to_owned(), line, inlined }
    }

    #[test]
    fn an_address_has_the_functions_that_were_inlined_there() {
        let lines = SourceLines::from_elf(ELF).unwrap();
        let outermost = frame("_start", "inner();", false);
        assert_eq!(
            lines.at(TEXT + 0x10),
            [frame("innermost", "cell = 1;", true), frame("inner", "innermost();", true), outermost.clone()]
        );
        assert_eq!(lines.at(TEXT + 0x1a), [frame("inner", "cell = 2;", true), outermost]);
        assert_eq!(lines.in_symbol("_start", 0x19 - 1, None), [frame("_start", "called(3);", false)]);
        assert_eq!(lines.in_symbol("_start", 0x19, None), [frame("_start", "cell = 4;", false)]);
        assert!(lines.at(0).is_empty() && lines.at(u64::MAX).is_empty());
    }

    #[test]
    fn a_name_may_lack_the_compilers_suffix_but_not_mean_two() {
        let lines = SourceLines::from_elf(ELF).unwrap();
        let called = [frame("called", "cell = value;", false)];
        assert_eq!(lines.in_symbol("called", 0, None), called);
        assert_eq!(lines.in_symbol("called.constprop.0", 0, Some(16)), called, "padding counts");
        assert!(lines.in_symbol("no_function", 0, None).is_empty());
        assert!(lines.in_symbol("called", u64::MAX, None).is_empty());
        let mut two = lines;
        two.symbols.insert("_start".to_owned(), vec![(TEXT, 11), (TEXT + 0x10, 36)]);
        assert!(two.in_symbol("_start", 0, None).is_empty());
        assert_eq!(two.in_symbol("_start", 0, Some(36))[0].function, "innermost");
        assert!(two.in_symbol("_start", 0, Some(12)).is_empty());
    }

    #[test]
    fn a_kernel_without_debug_information_is_refused() {
        assert!(matches!(SourceLines::from_elf(&test_elf::kernel()), Err(ElfError::NoDebugInformation)));
        let mut damaged = ELF.to_vec();
        damaged.iter_mut().skip(0x200).step_by(3).for_each(|byte| *byte ^= 0x55);
        for bytes in [damaged, ELF[..ELF.len() / 2].to_vec(), ELF[..0x400].to_vec()] {
            if let Ok(lines) = SourceLines::from_elf(&bytes) {
                let _ = lines.at(TEXT + 0x10);
            }
        }
    }
}
