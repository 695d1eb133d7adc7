//! Places of the kernel's own checks, `WARN()` and `BUG()`, in its source.

use std::collections::BTreeSet;

use object::{Object as _, ObjectSection as _};

use crate::elf::{self, ElfError};

/// Bytes of an entry of the table: addresses of instruction and file relative to themselves, line,
/// flags (`struct bug_entry` in `include/asm-generic/bug.h`, 6.12, with
/// `CONFIG_GENERIC_BUG_RELATIVE_POINTERS` and `CONFIG_DEBUG_BUGVERBOSE`).
const ENTRY_BYTES: usize = 12;

/// Reads the table of checks of `elf`, an uncompressed `vmlinux`: file and line of each. A file is
/// relative to the source's folder. Entries of another form are left out.
///
/// # Errors
///
/// `elf` is damaged, or for another machine.
pub fn checks(elf: &[u8]) -> Result<BTreeSet<(String, u32)>, ElfError> {
    let file = elf::parse(elf)?;
    let Some(table) = file.section_by_name("__bug_table") else { return Ok(BTreeSet::new()) };
    let name_at = |address: u64| {
        let section = file.sections().find(|section| {
            section.address() != 0 && address.checked_sub(section.address()).is_some_and(|at| at < section.size())
        })?;
        let at = usize::try_from(address - section.address()).ok()?;
        let bytes = section.data().ok()?.get(at..)?;
        std::str::from_utf8(bytes.split(|byte| *byte == 0).next()?).ok()
    };
    Ok(entries(table.data()?, table.address(), name_at))
}

/// Gives the entries of `table`, which is at `address`. `name_at` gives the text at an address.
fn entries<'data>(table: &[u8], address: u64, name_at: impl Fn(u64) -> Option<&'data str>) -> BTreeSet<(String, u32)> {
    let entry = |(number, entry): (usize, &[u8])| {
        let distance = i32::from_le_bytes(entry.get(4..8)?.try_into().ok()?);
        let field = address.checked_add((number * ENTRY_BYTES + 4) as u64)?;
        let name = name_at(field.checked_add_signed(distance.into())?)?;
        let line = u16::from_le_bytes(entry.get(8..10)?.try_into().ok()?);
        let is_file = name.contains('.') && name.bytes().all(|byte| byte.is_ascii_graphic());
        is_file.then(|| (name.trim_start_matches("./").to_owned(), line.into()))
    };
    table.chunks_exact(ENTRY_BYTES).enumerate().filter_map(entry).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_elf;

    #[test]
    fn an_entry_names_its_file_relative_to_itself() {
        let name_at = |address| match address {
            0x50 => Some("fs/f.c"),
            0x80 => Some("./include/i.h"),
            _ => None,
        };
        let entry = |number: i32, name: i32, line: u16| {
            let distance = name - (0x100 + number * 12 + 4);
            [&[7; 4][..], &distance.to_le_bytes(), &line.to_le_bytes(), &[0; 2]].concat()
        };
        let table = [entry(0, 0x50, 12), entry(1, 0x80, 300), entry(2, 0x50, 12), entry(3, 0x60, 1), vec![1; 5]];
        let expected = [("fs/f.c".to_owned(), 12), ("include/i.h".to_owned(), 300)];
        assert_eq!(entries(&table.concat(), 0x100, name_at), BTreeSet::from(expected));
        assert!(entries(&[0xff; 24], u64::MAX - 3, name_at).is_empty());
    }

    #[test]
    fn a_kernel_without_a_table_has_no_checks() {
        assert!(checks(&test_elf::kernel()).unwrap().is_empty());
        assert!(checks(b"no ELF").is_err());
    }
}
