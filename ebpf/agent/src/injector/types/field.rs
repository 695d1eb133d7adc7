//! Fields of structures: where they are, and how large.

use anyhow::{Context, Result, bail};

use super::btf::{
    Btf, CONST, ENUM, ENUM64, INTEGER, Member, POINTER, RESTRICT, STRUCTURE, TYPE_TAG, TYPEDEF, Type, UNION, VOLATILE,
};

/// The most types that one stands for, or that are in one another.
const DEPTH: u32 = 32;
/// Bytes of a pointer.
const POINTER_BYTES: u32 = 8;

/// The place of a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::injector) struct Field {
    /// Bytes from the structure's begin.
    pub(in crate::injector) offset: u32,
    /// Its size in bytes: 1, 2, 4 or 8.
    pub(in crate::injector) bytes: u32,
}

impl Field {
    /// The bits that it has.
    pub(in crate::injector) fn mask(self) -> u64 {
        u64::MAX >> (64 - self.bytes * 8)
    }
}

/// Finds the field `STRUCTURE.MEMBER`, which may have further members behind more dots.
pub(super) fn find(btf: &Btf, path: &str) -> Result<Field> {
    let mut names = path.split('.');
    let structure = names.next().unwrap_or_default();
    // One of several of the same name may be only declared.
    let is_it = |of: &Type<'_>| of.name == structure.as_bytes() && matches!(of.kind, STRUCTURE | UNION);
    let mut of = btf.all().find(is_it).with_context(|| format!("this kernel has no structure \"{structure}\""))?;
    let mut bits = 0_u32;
    for name in names {
        let (member, before) = member(btf, of, name, DEPTH)
            .with_context(|| format!("this kernel's \"{structure}\" has no field \"{name}\" where \"{path}\" says"))?;
        bits = bits.checked_add(before).context("the structure is too large")?;
        of = plain(btf, member.kind).with_context(|| format!("the type of the field \"{path}\" is unknown"))?;
    }
    let bytes = match of.kind {
        INTEGER | ENUM | ENUM64 => of.size_or_type,
        POINTER => POINTER_BYTES,
        _ => bail!("the field \"{path}\" is no number and no pointer"),
    };
    let field = Field { offset: bits / 8, bytes };
    if !matches!(bytes, 1 | 2 | 4 | 8) || !field.offset.is_multiple_of(bytes) {
        bail!("the field \"{path}\" has {bytes} bytes at {}, and cannot be read at once", field.offset);
    }
    Ok(field)
}

/// Finds a member by name, also in members that have none, and the bits before it. A bit field is
/// none.
fn member<'a>(btf: &'a Btf, of: Type<'a>, name: &str, depth: u32) -> Option<(Member<'a>, u32)> {
    let depth = depth.checked_sub(1)?;
    btf.members(of).find_map(|member| {
        let (bits, bit_size) =
            if of.has_bit_sizes { (member.offset & 0xff_ffff, member.offset >> 24) } else { (member.offset, 0) };
        if member.name == name.as_bytes() {
            return (bit_size == 0 && bits % 8 == 0).then_some((member, bits));
        }
        if !member.name.is_empty() {
            return None;
        }
        let (found, before) = self::member(btf, plain(btf, member.kind)?, name, depth)?;
        Some((found, bits.checked_add(before)?))
    })
}

/// The type of this id, or the one that it is another name of.
pub(super) fn plain(btf: &Btf, mut id: u32) -> Option<Type<'_>> {
    for _ in 0..DEPTH {
        let of = btf.get(id)?;
        if !matches!(of.kind, TYPEDEF | VOLATILE | CONST | RESTRICT | TYPE_TAG) {
            return Some(of);
        }
        id = of.size_or_type;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::{super::btf::tests::file, *};

    /// `typedef unsigned int u32; struct s { char a; const u32 b; union { u32 c; char d; }; u32
    /// e:3, f:8; struct { u32 g; u64 *h; } in; };`
    fn types() -> Btf {
        let strings = b"\0int\0char\0u32\0s\0a\0b\0c\0d\0e\0f\0g\0h\0in\0";
        let at = |name: &str| {
            u32::try_from(
                strings
                    .windows(name.len() + 2)
                    .position(|part| part == [b"\0", name.as_bytes(), b"\0"].concat())
                    .unwrap()
                    + 1,
            )
            .unwrap()
        };
        let bit_field = |size: u32, offset: u32| size << 24 | offset;
        let types: [&[u32]; 8] = [
            &[at("int"), INTEGER << 24, 4, 32],
            &[at("char"), INTEGER << 24, 1, 8],
            &[at("u32"), TYPEDEF << 24, 1],
            &[0, CONST << 24, 3],
            &[0, UNION << 24 | 2, 4, at("c"), 3, 0, at("d"), 2, 0],
            &[0, POINTER << 24, 1],
            &[0, STRUCTURE << 24 | 2, 16, at("g"), 3, 0, at("h"), 6, 64],
            &[
                at("s"),
                1 << 31 | STRUCTURE << 24 | 6,
                32,
                at("a"),
                2,
                0,
                at("b"),
                4,
                32,
                0,
                5,
                64,
                at("e"),
                3,
                bit_field(3, 96),
                at("f"),
                3,
                bit_field(8, 104),
                at("in"),
                7,
                128,
            ],
        ];
        Btf::parse(file(&types, strings)).unwrap()
    }

    #[test]
    fn fields_are_found_through_what_has_no_name_and_by_dots() {
        let btf = types();
        for (path, offset, bytes) in
            [("s.a", 0, 1), ("s.b", 4, 4), ("s.c", 8, 4), ("s.d", 8, 1), ("s.in.g", 16, 4), ("s.in.h", 24, 8)]
        {
            assert_eq!(find(&btf, path).unwrap(), Field { offset, bytes }, "{path}");
        }
        assert_eq!(Field { offset: 0, bytes: 4 }.mask(), 0xffff_ffff);
        assert_eq!(Field { offset: 0, bytes: 8 }.mask(), u64::MAX);
    }

    #[test]
    fn what_is_no_field_is_named() {
        let btf = types();
        let refusal = |path| find(&btf, path).unwrap_err().to_string();
        assert_eq!(refusal("t.a"), "this kernel has no structure \"t\"");
        assert!(refusal("s.z").contains("has no field \"z\""));
        assert!(refusal("s.g").contains("has no field \"g\""), "it is in another one, which has a name");
        assert!(refusal("s.in").contains("is no number"));
        assert!(refusal("s.e").contains("has no field \"e\""), "a bit field is none");
        assert!(refusal("s.a.b").contains("has no field \"b\""));
    }
}
