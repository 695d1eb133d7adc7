//! Adds functions to the kernel's list of those that may fail.
//!
//! The kernel takes them from a section of a module, whatever text of the kernel they point to:
//! `find_module_sections()` of `kernel/module/main.c`, `populate_error_injection_list()` of
//! `lib/error-inject.c` (6.12). The kernel's build makes a module that has only this section, full
//! of slots. Its first slots say which numbers the types have in that kernel.

use std::{fs, io::ErrorKind, path::Path};

use anyhow::{Context, Result, bail};
use fault_plan::ErrorType;
use guest_protocol::{SLOT_TYPES, SLOTS_FILE};
use nix::kmod::init_module;
use object::{
    LittleEndian,
    elf::{FileHeader64, SectionHeader64},
    read::elf::{FileHeader as _, SectionHeader as _},
};

use crate::kernel;

const SECTION: &str = "_error_injection_whitelist";
/// Size of `struct error_injection_entry` (`include/asm-generic/error-injection.h`, 6.12): the
/// address, the type and padding.
const SLOT_BYTES: usize = 16;
/// Offset of the type in it.
const TYPE_OFFSET: usize = 8;
/// Offset of the section's size in its header: `Elf64_Shdr` of `include/uapi/linux/elf.h`.
const SIZE_OFFSET: usize = 32;

/// The module, not yet loaded.
pub(super) struct Slots(Vec<u8>);

/// The file of a kernel that can load modules.
const MODULES: &str = "/proc/modules";

impl Slots {
    /// Reads the module. The inner error says why this kernel has none.
    ///
    /// # Errors
    ///
    /// It is there and cannot be read.
    pub(super) fn find() -> Result<Result<Self, &'static str>> {
        if !Path::new(MODULES).exists() {
            return Ok(Err("not on this kernel's list, which cannot have more: it was built without CONFIG_MODULES"));
        }
        match fs::read(Path::new("/").join(SLOTS_FILE)) {
            Ok(module) => Ok(Ok(Self(module))),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                Ok(Err("not on this kernel's list, and the kernel's folder has no module for more: build it anew"))
            }
            Err(error) => Err(error).with_context(|| format!("cannot read /{SLOTS_FILE}")),
        }
    }

    /// Loads the module with `entries`: the address of each function, and its type. From then on
    /// they are on the kernel's list.
    ///
    /// # Errors
    ///
    /// The module is none of this kernel's, or the kernel does not take all entries.
    pub(super) fn load(self, entries: &[(u64, ErrorType)]) -> Result<()> {
        let before = kernel::injectable().len();
        let module = filled(self.0, entries)?;
        init_module(&module, c"").with_context(|| format!("the kernel does not load /{SLOTS_FILE}"))?;
        let added = kernel::injectable().len().saturating_sub(before);
        if added != entries.len() {
            bail!("the kernel added {added} functions to its list, and not {}", entries.len());
        }
        Ok(())
    }
}

/// Gives `module` with its slots filled with `entries`, and no slot more.
fn filled(mut module: Vec<u8>, entries: &[(u64, ErrorType)]) -> Result<Vec<u8>> {
    let Section { header, start, bytes } = section(&module).context("the module of slots is damaged")?;
    let slots = module.get_mut(start..start + bytes).context("the module of slots is cut off")?;
    if entries.len() > bytes / SLOT_BYTES {
        bail!("the module has {} slots, and {} functions are to be added", bytes / SLOT_BYTES, entries.len());
    }
    let (slots, _) = slots.as_chunks_mut::<SLOT_BYTES>();
    let mut numbers = [[0; SLOT_BYTES - TYPE_OFFSET]; SLOT_TYPES.len()];
    for (number, slot) in numbers.iter_mut().zip(&*slots) {
        number.copy_from_slice(&slot[TYPE_OFFSET..]);
    }
    for ((address, error_type), slot) in entries.iter().zip(slots) {
        let number = SLOT_TYPES.iter().zip(numbers).find(|(known, _)| *known == error_type);
        let (_, number) = number.context("a type has no number")?;
        slot[..TYPE_OFFSET].copy_from_slice(&address.to_le_bytes());
        slot[TYPE_OFFSET..].copy_from_slice(&number);
    }
    let size = ((entries.len() * SLOT_BYTES) as u64).to_le_bytes();
    module[header + SIZE_OFFSET..][..size.len()].copy_from_slice(&size);
    Ok(module)
}

/// Place of the section in the file, in bytes.
struct Section {
    /// Its header.
    header: usize,
    start: usize,
    bytes: usize,
}

fn section(module: &[u8]) -> Result<Section> {
    let file = FileHeader64::<LittleEndian>::parse(module)?;
    let endian = file.endian()?;
    let sections = file.sections(endian, module)?;
    let (index, section) = sections.section_by_name(endian, SECTION.as_bytes()).context("it has no slots")?;
    let header = usize::try_from(file.e_shoff.get(endian))? + index.0 * size_of::<SectionHeader64<LittleEndian>>();
    let (start, bytes) = (section.sh_offset(endian), section.sh_size(endian));
    Ok(Section { header, start: usize::try_from(start)?, bytes: usize::try_from(bytes)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMES: &[u8] = b"\0_error_injection_whitelist\0.shstrtab\0";
    /// Where the slots are in the module below: behind header and names.
    const START: usize = 64 + 40;

    /// A module as the kernel's build makes it, with so many slots, whose types have the numbers 7
    /// to 10.
    fn module(slots: usize) -> Vec<u8> {
        let mut elf = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
        elf.extend([1_u16, 62].iter().flat_map(|half| half.to_le_bytes()));
        elf.extend(1_u32.to_le_bytes());
        let headers = (START + slots * SLOT_BYTES) as u64;
        elf.extend([0, 0, headers].iter().flat_map(|word: &u64| word.to_le_bytes()));
        elf.extend(0_u32.to_le_bytes());
        elf.extend([64_u16, 0, 0, 64, 3, 2].iter().flat_map(|half| half.to_le_bytes()));
        elf.extend(NAMES);
        elf.resize(START, 0);
        for slot in 0..slots {
            elf.extend(0_u64.to_le_bytes());
            elf.extend(if slot < 4 { 7 + slot as u64 } else { 0 }.to_le_bytes());
        }
        elf.extend([0; 64]);
        for (name, kind, start, bytes) in [(1_u32, 1_u32, START, slots * SLOT_BYTES), (28, 3, 64, NAMES.len())] {
            elf.extend([name, kind].iter().flat_map(|half| half.to_le_bytes()));
            elf.extend([3, 0, start as u64, bytes as u64, 0, 8, 0].iter().flat_map(|word: &u64| word.to_le_bytes()));
        }
        elf
    }

    #[test]
    fn slots_are_filled_and_the_rest_is_cut_off() {
        let whole = module(6);
        let entries = [(0xffff_ffff_8100_0010, ErrorType::True), (0xffff_ffff_8100_0050, ErrorType::Null)];
        let edited = filled(whole.clone(), &entries).unwrap();
        assert_eq!(edited.len(), whole.len());
        let found = section(&edited).unwrap();
        assert_eq!((found.start, found.bytes), (START, 2 * SLOT_BYTES), "no empty slot is left");
        let words: Vec<u64> =
            edited[START..START + 2 * SLOT_BYTES].as_chunks().0.iter().map(|word| u64::from_le_bytes(*word)).collect();
        assert_eq!(words, [0xffff_ffff_8100_0010, 10, 0xffff_ffff_8100_0050, 7]);
        let size = found.header + SIZE_OFFSET..found.header + SIZE_OFFSET + 8;
        let same = |at: &usize| !size.contains(at) && !(START..START + 2 * SLOT_BYTES).contains(at);
        assert!((0..whole.len()).filter(same).all(|at| whole[at] == edited[at]), "nothing else changes");
    }

    #[test]
    fn a_module_that_has_no_room_is_refused() {
        let entries = [(0xffff_ffff_8100_0010, ErrorType::Errno); 7];
        let refused = |module, count: usize| filled(module, &entries[..count]).unwrap_err().to_string();
        assert_eq!(refused(module(6), 7), "the module has 6 slots, and 7 functions are to be added");
        assert!(filled(module(6), &entries[..6]).is_ok());
        assert_eq!(refused(b"\x7fELF".to_vec(), 1), "the module of slots is damaged");
        let mut other = module(6);
        other[65] = b'-';
        assert_eq!(refused(other, 1), "the module of slots is damaged");
        let mut short = module(6);
        short[START + 6 * SLOT_BYTES + 64 + SIZE_OFFSET + 2] = 1;
        assert_eq!(refused(short, 1), "the module of slots is cut off");
    }
}
