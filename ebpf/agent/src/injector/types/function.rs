//! Functions: which type they return.

use std::collections::{HashMap, HashSet};

use abi::return_type;

use super::{
    btf::{Btf, ENUM, ENUM64, FUNCTION, INTEGER, POINTER, Type},
    field::plain,
};

/// Encodings of an integer: `BTF_INT_SIGNED` and `BTF_INT_BOOL` of `include/uapi/linux/btf.h`
/// (6.12).
const SIGNED: u32 = 1;
const BOOL: u32 = 4;

/// Gives the return types of the functions with these `names`, as [`return_type`] has them. A
/// function that is missing is unknown.
pub(super) fn returned_by(btf: &Btf, names: &HashSet<&str>) -> HashMap<String, u8> {
    let functions = btf.all().filter(|of| of.kind == FUNCTION);
    let wanted = functions.filter_map(|function| {
        let name = std::str::from_utf8(function.name).ok().filter(|name| names.contains(name))?;
        Some((name.to_owned(), number(btf, btf.get(function.size_or_type)?)))
    });
    wanted.collect()
}

/// The number of the type that a function of this prototype returns.
fn number(btf: &Btf, prototype: Type<'_>) -> u8 {
    // No type has the id 0, which stands for void.
    if prototype.size_or_type == 0 {
        return return_type::VOID;
    }
    let Some(of) = plain(btf, prototype.size_or_type) else { return return_type::UNKNOWN };
    let sized = |base: u8| u8::try_from(of.size_or_type).map_or(return_type::UNKNOWN, |bytes| base | bytes & 0xf);
    match of.kind {
        POINTER => return_type::POINTER,
        INTEGER if of.encoding() & BOOL != 0 => return_type::BOOL,
        INTEGER if of.encoding() & SIGNED != 0 => sized(return_type::SIGNED),
        INTEGER => sized(return_type::UNSIGNED),
        ENUM | ENUM64 if of.has_bit_sizes => sized(return_type::SIGNED),
        ENUM | ENUM64 => sized(return_type::UNSIGNED),
        _ => return_type::OTHER,
    }
}

#[cfg(test)]
mod tests {
    use super::{super::btf::tests::file, *};

    /// `int f(void); void g(void); struct s *h(void); bool i(void); u8 j(void);`
    #[test]
    fn functions_have_the_types_that_they_return() {
        let strings = b"\0int\0f\0g\0h\0i\0j\0";
        let prototype = |of: u32| [0, 13 << 24, of];
        let function = |name: u32, prototype: u32| [name, FUNCTION << 24, prototype];
        let (of_int, of_void, of_pointer) = (prototype(1), prototype(0), prototype(2));
        let (of_bool, of_byte) = (prototype(3), prototype(4));
        let functions = [function(5, 5), function(7, 6), function(9, 7), function(11, 8), function(13, 9)];
        let types: [&[u32]; 9] = [
            &[1, INTEGER << 24, 4, SIGNED << 24 | 32],
            &[0, POINTER << 24, 1],
            &[0, INTEGER << 24, 1, BOOL << 24 | 8],
            &[0, INTEGER << 24, 1, 8],
            &of_int,
            &of_void,
            &of_pointer,
            &of_bool,
            &of_byte,
        ];
        let all: Vec<&[u32]> = types.into_iter().chain(functions.iter().map(<[u32; 3]>::as_slice)).collect();
        let btf = Btf::parse(file(&all, strings)).unwrap();
        let known = returned_by(&btf, &HashSet::from(["f", "g", "h", "i", "j", "k"]));
        let of = |name: &str| known.get(name).copied();
        assert_eq!([of("f"), of("g"), of("h")], [Some(0x14), Some(return_type::VOID), Some(return_type::POINTER)]);
        assert_eq!([of("i"), of("j"), of("k")], [Some(return_type::BOOL), Some(0x21), None]);
    }
}
