//! The constants of the running kernel's enumerations, from its types (BTF).
//!
//! Mirrors `include/uapi/linux/btf.h` and `Documentation/bpf/btf.rst` (6.12). aya reads types as
//! well, but tells no constants.

use std::fs;

use anyhow::{Context, Result};

const TYPES: &str = "/sys/kernel/btf/vmlinux";
const MAGIC: u32 = 0xeb9f;

/// Constants by name.
pub(super) struct Constants(Vec<(Vec<u8>, u64)>);

impl Constants {
    /// Those of the running kernel that are called one of `names`; none when it does not tell its
    /// types.
    ///
    /// # Errors
    ///
    /// The kernel's types cannot be understood.
    pub(super) fn read(names: &[&str]) -> Result<Self> {
        match fs::read(TYPES) {
            Ok(types) if !names.is_empty() => {
                constants(&types, names).map(Self).with_context(|| format!("{TYPES} is of an unknown form"))
            }
            _ => Ok(Self(Vec::new())),
        }
    }

    /// The number of the constant `name`.
    pub(super) fn get(&self, name: &str) -> Option<u64> {
        self.0.iter().find(|(known, _)| known == name.as_bytes()).map(|(_, number)| *number)
    }

    #[cfg(test)]
    pub(super) fn of(constants: &[(&str, u64)]) -> Self {
        Self(constants.iter().map(|(name, number)| (name.as_bytes().to_vec(), *number)).collect())
    }
}

/// The constants in `types` that are called one of `names`.
fn constants(types: &[u8], names: &[&str]) -> Option<Vec<(Vec<u8>, u64)>> {
    let header = |index: usize| word(types, index * 4);
    if header(0)? & 0xffff != MAGIC {
        return None;
    }
    let behind = types.get(header(1)? as usize..)?;
    let strings = behind.get(header(4)? as usize..)?;
    let mut rest = behind.get(header(2)? as usize..)?.get(..header(3)? as usize)?;
    let name_at = |offset: u32| strings.get(offset as usize..)?.split(|byte| *byte == 0).next();
    let mut found = Vec::new();
    while !rest.is_empty() {
        let info = word(rest, 4)?;
        let (kind, count) = (info >> 24 & 0x1f, (info & 0xffff) as usize);
        let more = rest.get(12..)?;
        let bytes = trailing_bytes(kind, count)?;
        let members = more.get(..bytes)?;
        // One that is only declared has no members.
        if matches!(kind, ENUM | ENUM64) && count > 0 {
            for member in members.chunks_exact(bytes / count) {
                let name = name_at(word(member, 0)?)?;
                if names.iter().any(|wanted| wanted.as_bytes() == name) {
                    found.push((name.to_vec(), number(kind, member)?));
                }
            }
        }
        rest = more.get(bytes..)?;
    }
    Some(found)
}

const ENUM: u32 = 6;
const ENUM64: u32 = 19;

/// Counts the bytes that follow a type of this kind with `count` members.
fn trailing_bytes(kind: u32, count: usize) -> Option<usize> {
    Some(match kind {
        // Integer, variable, declaration tag.
        1 | 14 | 17 => 4,
        // Pointer, forward declaration, typedef, volatile, const, restrict, function, floating
        // point number, type tag.
        2 | 7..=12 | 16 | 18 => 0,
        // Array.
        3 => 12,
        // Structure, union, data section, enumeration of 64 bits.
        4 | 5 | 15 | ENUM64 => count * 12,
        // Enumeration, function prototype.
        ENUM | 13 => count * 8,
        _ => return None,
    })
}

/// The number of a constant; a negative one of 32 bits is extended.
fn number(kind: u32, member: &[u8]) -> Option<u64> {
    let low = word(member, 4)?;
    if kind == ENUM64 {
        return Some(u64::from(word(member, 8)?) << 32 | u64::from(low));
    }
    Some(i64::from(low.cast_signed()).cast_unsigned())
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|word| u32::from_le_bytes(*word))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Types as the kernel writes them: an integer, an enumeration, one that is only declared, one
    /// of 64 bits, a pointer.
    fn types() -> Vec<u8> {
        let strings = b"\0A_BIT\0B\0BIG\0";
        let types: Vec<u32> = [
            &[0, 1 << 24, 4, 32][..],
            &[0, ENUM << 24 | 2, 4, 1, 15, 7, u32::MAX],
            &[0, ENUM << 24, 4],
            &[0, ENUM64 << 24 | 1, 8, 9, 1, 2],
            &[0, 2 << 24, 1],
        ]
        .concat();
        let type_bytes = u32::try_from(types.len() * 4).unwrap();
        let header = [MAGIC | 1 << 16, 24, 0, type_bytes, type_bytes, u32::try_from(strings.len()).unwrap()];
        let words = header.iter().chain(&types).flat_map(|word| word.to_le_bytes());
        words.chain(strings.iter().copied()).collect()
    }

    #[test]
    fn constants_are_found_by_name() {
        let found = Constants(constants(&types(), &["A_BIT", "B", "BIG", "NONE"]).unwrap());
        assert_eq!(found.get("A_BIT"), Some(15));
        assert_eq!(found.get("B"), Some(u64::MAX));
        assert_eq!(found.get("BIG"), Some(2 << 32 | 1));
        assert_eq!(found.get("NONE"), None);
    }

    #[test]
    fn what_is_cut_short_is_refused() {
        let whole = types();
        for bytes in 0..whole.len() - 12 {
            assert!(constants(&whole[..bytes], &["A_BIT"]).is_none(), "{bytes}");
        }
    }
}
