//! The form of the kernel's types: `include/uapi/linux/btf.h` and `Documentation/bpf/btf.rst`
//! (6.12).

const MAGIC: u32 = 0xeb9f;
/// Bytes that every type begins with: name, info, size or type.
const HEAD_BYTES: usize = 12;

pub(super) const INTEGER: u32 = 1;
pub(super) const POINTER: u32 = 2;
pub(super) const STRUCTURE: u32 = 4;
pub(super) const UNION: u32 = 5;
pub(super) const ENUM: u32 = 6;
pub(super) const TYPEDEF: u32 = 8;
pub(super) const VOLATILE: u32 = 9;
pub(super) const CONST: u32 = 10;
pub(super) const RESTRICT: u32 = 11;
pub(super) const FUNCTION: u32 = 12;
pub(super) const TYPE_TAG: u32 = 18;
pub(super) const ENUM64: u32 = 19;

/// Types, by their ids, which begin with 1.
pub(super) struct Btf {
    bytes: Vec<u8>,
    /// Where the names are.
    strings: usize,
    /// Where each type is.
    types: Vec<u32>,
}

/// One type.
#[derive(Clone, Copy)]
pub(super) struct Type<'a> {
    pub(super) name: &'a [u8],
    pub(super) kind: u32,
    /// True when members' offsets have the size of a bit field in the upper byte.
    pub(super) has_bit_sizes: bool,
    /// Its size in bytes, or the type that it refers to.
    pub(super) size_or_type: u32,
    count: usize,
    /// The bytes behind its head.
    rest: &'a [u8],
}

/// A member of a structure or union.
#[derive(Clone, Copy)]
pub(super) struct Member<'a> {
    pub(super) name: &'a [u8],
    pub(super) kind: u32,
    /// Bits from the structure's begin, with the size of a bit field where the type says so.
    pub(super) offset: u32,
}

impl Type<'_> {
    /// The encoding of an integer.
    pub(super) fn encoding(self) -> u32 {
        word(self.rest, 0).map_or(0, |word| word >> 24)
    }
}

impl Btf {
    /// Nothing when the bytes are of an unknown form.
    pub(super) fn parse(bytes: Vec<u8>) -> Option<Self> {
        let header = |index: usize| word(&bytes, index * 4);
        if header(0)? & 0xffff != MAGIC {
            return None;
        }
        let begin = header(1)? as usize;
        let strings = begin.checked_add(header(4)? as usize)?;
        let mut at = begin.checked_add(header(2)? as usize)?;
        let end = at.checked_add(header(3)? as usize)?;
        bytes.get(at..end)?;
        bytes.get(strings..strings.checked_add(header(5)? as usize)?)?;
        let mut types = Vec::new();
        while at < end {
            types.push(u32::try_from(at).ok()?);
            let info = word(&bytes, at + 4)?;
            at += HEAD_BYTES + trailing_bytes(info >> 24 & 0x1f, (info & 0xffff) as usize)?;
        }
        (at == end).then_some(Self { bytes, strings, types })
    }

    /// The type of this id.
    pub(super) fn get(&self, id: u32) -> Option<Type<'_>> {
        let at = *self.types.get((id as usize).checked_sub(1)?)? as usize;
        let (name, info, size_or_type) =
            (word(&self.bytes, at)?, word(&self.bytes, at + 4)?, word(&self.bytes, at + 8)?);
        let (kind, count) = (info >> 24 & 0x1f, (info & 0xffff) as usize);
        let rest = self.bytes.get(at + HEAD_BYTES..)?.get(..trailing_bytes(kind, count)?)?;
        Some(Type { name: self.name(name)?, kind, has_bit_sizes: info >> 31 != 0, size_or_type, count, rest })
    }

    /// All types.
    pub(super) fn all(&self) -> impl Iterator<Item = Type<'_>> {
        (1..).map_while(|id| self.get(id))
    }

    /// The members of a structure or union.
    pub(super) fn members<'a>(&'a self, of: Type<'a>) -> impl Iterator<Item = Member<'a>> {
        let chunks = if matches!(of.kind, STRUCTURE | UNION) { of.rest } else { &[] };
        chunks.chunks_exact(HEAD_BYTES).filter_map(|member| {
            Some(Member { name: self.name(word(member, 0)?)?, kind: word(member, 4)?, offset: word(member, 8)? })
        })
    }

    /// The number of the constant `name`; nothing inside when there is none, and nothing at all
    /// when the types cannot be read.
    pub(super) fn constant(&self, name: &str) -> Option<Option<u64>> {
        // One that is only declared has no members.
        for of in self.all().filter(|of| matches!(of.kind, ENUM | ENUM64) && of.count > 0) {
            for member in of.rest.chunks_exact(of.rest.len() / of.count) {
                if self.name(word(member, 0)?)? == name.as_bytes() {
                    return Some(Some(number(of.kind, member)?));
                }
            }
        }
        Some(None)
    }

    fn name(&self, offset: u32) -> Option<&[u8]> {
        let from = self.strings.checked_add(offset as usize)?;
        self.bytes.get(from..)?.split(|byte| *byte == 0).next()
    }
}

/// Counts the bytes that follow a type of this kind with `count` members.
fn trailing_bytes(kind: u32, count: usize) -> Option<usize> {
    Some(match kind {
        // Integer, variable, declaration tag.
        INTEGER | 14 | 17 => 4,
        // Pointer, forward declaration, typedef, volatile, const, restrict, function, floating
        // point number, type tag.
        POINTER | 7..=12 | 16 | TYPE_TAG => 0,
        // Array.
        3 => 12,
        // Structure, union, data section, enumeration of 64 bits.
        STRUCTURE | UNION | 15 | ENUM64 => count * 12,
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
pub(super) mod tests {
    use super::*;

    /// The file with these types, each as its words, and these names one after the other.
    pub(in super::super) fn file(types: &[&[u32]], strings: &[u8]) -> Vec<u8> {
        let types = types.concat();
        let type_bytes = u32::try_from(types.len() * 4).unwrap();
        let header = [MAGIC | 1 << 16, 24, 0, type_bytes, type_bytes, u32::try_from(strings.len()).unwrap()];
        let words = header.iter().chain(&types).flat_map(|word| word.to_le_bytes());
        words.chain(strings.iter().copied()).collect()
    }

    /// Types as the kernel writes them: an integer, an enumeration, one that is only declared, one
    /// of 64 bits, a pointer.
    fn types() -> Vec<u8> {
        let types = [
            &[0, INTEGER << 24, 4, 32][..],
            &[0, ENUM << 24 | 2, 4, 1, 15, 7, u32::MAX],
            &[0, ENUM << 24, 4],
            &[0, ENUM64 << 24 | 1, 8, 9, 1, 2],
            &[0, POINTER << 24, 1],
        ];
        file(&types, b"\0A_BIT\0B\0BIG\0")
    }

    #[test]
    fn constants_are_found_by_name() {
        let btf = Btf::parse(types()).unwrap();
        let constant = |name| btf.constant(name).unwrap();
        assert_eq!(["A_BIT", "B", "BIG", "NONE"].map(constant), [Some(15), Some(u64::MAX), Some(2 << 32 | 1), None]);
    }

    #[test]
    fn what_is_cut_short_is_refused() {
        let whole = types();
        for bytes in 0..whole.len() {
            assert!(Btf::parse(whole[..bytes].to_vec()).is_none(), "{bytes}");
        }
    }
}
