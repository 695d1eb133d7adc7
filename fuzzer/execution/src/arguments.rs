//! The arguments of a call that matter, in words.

use fault_plan::MAX_ARGUMENTS;
use guest_protocol::{MAX_SHOWN, Shown};
use serde::{Deserialize, Serialize};

/// A part of a function's arguments that says why a call of it fails, or how large it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NamedArgument {
    /// Its name for people.
    pub name: String,
    /// Number of the argument, from 1.
    pub argument: u8,
    /// Field of the structure that it points to, such as `kmem_cache.object_size`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    /// The form in which it is told.
    #[serde(rename = "as", default)]
    pub form: Form,
}

/// The form in which an argument is told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Form {
    /// A number.
    #[default]
    Number,
    /// A number of bytes.
    Bytes,
    /// The text that it points to.
    Text,
    /// `gfp_t`: how an allocation may go about it.
    Gfp,
    /// `blk_opf_t`: an operation on a block device, and its flags.
    Operation,
}

/// Says what is wrong with the `arguments` of a function, in words that go behind its name.
pub(crate) fn defect(arguments: &[NamedArgument]) -> Option<String> {
    if arguments.len() > MAX_SHOWN {
        return Some(format!("names {} arguments, possible are {MAX_SHOWN}", arguments.len()));
    }
    if arguments.iter().filter(|argument| argument.form == Form::Text).count() > 1 {
        return Some("names two texts, possible is one".to_owned());
    }
    let impossible = arguments.iter().find(|argument| !(1..=MAX_ARGUMENTS).contains(&argument.argument))?;
    Some(format!("names argument {}, possible are 1 to {MAX_ARGUMENTS}", impossible.argument))
}

/// Gives what the guest is to note.
pub(crate) fn shown(arguments: &[NamedArgument]) -> Vec<Shown> {
    let shown = |argument: &NamedArgument| Shown {
        argument: argument.argument,
        field: argument.field.clone(),
        text: argument.form == Form::Text,
    };
    arguments.iter().map(shown).collect()
}

/// Tells the `arguments` in words, such as `cache kmalloc-64, flags GFP_KERNEL`. The guest noted
/// these `values` and this `text`; nothing is said of what it lacks.
#[must_use]
pub fn words(arguments: &[NamedArgument], values: &[Option<u64>], text: &str) -> String {
    let word = |(argument, value): (&NamedArgument, &Option<u64>)| {
        let value = (*value)?;
        let told = match argument.form {
            Form::Number => value.to_string(),
            Form::Bytes => format!("{value} bytes"),
            Form::Text if text.is_empty() => return None,
            Form::Text => text.to_owned(),
            Form::Gfp => gfp(value),
            Form::Operation => operation(value),
        };
        Some(format!("{} {told}", argument.name))
    };
    arguments.iter().zip(values).filter_map(word).collect::<Vec<_>>().join(", ")
}

/// Sets of flags with a name, larger ones first, and single flags: `include/linux/gfp_types.h`
/// (6.12). What later bits mean depends on the configuration.
#[rustfmt::skip]
const GFP: &[(u64, &str)] = &[
    (0x50_0cc0, "GFP_USER|__GFP_ACCOUNT"), (0x40_0cc0, "GFP_KERNEL_ACCOUNT"), (0x10_0cc2, "GFP_HIGHUSER"),
    (0x10_0cc0, "GFP_USER"), (0xcc0, "GFP_KERNEL"), (0xc40, "GFP_NOFS"), (0xc00, "GFP_NOIO"), (0x820, "GFP_ATOMIC"),
    (0x2800, "GFP_NOWAIT"),
    (1 << 0, "__GFP_DMA"), (1 << 1, "__GFP_HIGHMEM"), (1 << 2, "__GFP_DMA32"), (1 << 3, "__GFP_MOVABLE"),
    (1 << 4, "__GFP_RECLAIMABLE"), (1 << 5, "__GFP_HIGH"), (1 << 6, "__GFP_IO"), (1 << 7, "__GFP_FS"),
    (1 << 8, "__GFP_ZERO"), (1 << 10, "__GFP_DIRECT_RECLAIM"), (1 << 11, "__GFP_KSWAPD_RECLAIM"),
    (1 << 12, "__GFP_WRITE"), (1 << 13, "__GFP_NOWARN"), (1 << 14, "__GFP_RETRY_MAYFAIL"), (1 << 15, "__GFP_NOFAIL"),
    (1 << 16, "__GFP_NORETRY"), (1 << 17, "__GFP_MEMALLOC"), (1 << 18, "__GFP_COMP"), (1 << 19, "__GFP_NOMEMALLOC"),
    (1 << 20, "__GFP_HARDWALL"), (1 << 21, "__GFP_THISNODE"), (1 << 22, "__GFP_ACCOUNT"), (1 << 23, "__GFP_ZEROTAGS"),
];

/// Gives the flags of an allocation by name, such as `GFP_KERNEL|__GFP_ZERO`.
fn gfp(value: u64) -> String {
    names(value & 0xffff_ffff, GFP)
}

/// Flags of operations: `enum req_flag_bits` of `include/linux/blk_types.h` (6.12).
#[rustfmt::skip]
const OPERATION_FLAGS: &[(u64, &str)] = &[
    (1 << 8, "FAILFAST_DEV"), (1 << 9, "FAILFAST_TRANSPORT"), (1 << 10, "FAILFAST_DRIVER"), (1 << 11, "SYNC"),
    (1 << 12, "META"), (1 << 13, "PRIO"), (1 << 14, "NOMERGE"), (1 << 15, "IDLE"), (1 << 16, "INTEGRITY"),
    (1 << 17, "FUA"), (1 << 18, "PREFLUSH"), (1 << 19, "RAHEAD"), (1 << 20, "BACKGROUND"), (1 << 21, "NOWAIT"),
    (1 << 22, "POLLED"),
];

/// Gives an operation by name, such as `WRITE|SYNC|FUA`: `enum req_op` there.
fn operation(value: u64) -> String {
    let name = match value & 0xff {
        0 => "READ".to_owned(),
        1 => "WRITE".to_owned(),
        2 => "FLUSH".to_owned(),
        3 => "DISCARD".to_owned(),
        5 => "SECURE_ERASE".to_owned(),
        7 => "ZONE_APPEND".to_owned(),
        9 => "WRITE_ZEROES".to_owned(),
        other => other.to_string(),
    };
    match value & 0xffff_ff00 {
        0 => name,
        flags => format!("{name}|{}", names(flags, OPERATION_FLAGS)),
    }
}

/// Gives the names of the bits of `value`, and the rest as a number.
fn names(mut value: u64, known: &[(u64, &str)]) -> String {
    let mut names = Vec::new();
    for (bits, name) in known {
        if value & bits == *bits {
            names.push((*name).to_owned());
            value &= !bits;
        }
    }
    if value != 0 || names.is_empty() {
        names.push(format!("{value:#x}"));
    }
    names.join("|")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_have_the_names_of_the_source() {
        for (value, name) in [
            (0xcc0, "GFP_KERNEL"),
            (0xdc0, "GFP_KERNEL|__GFP_ZERO"),
            (0xc40, "GFP_NOFS"),
            (0x820, "GFP_ATOMIC"),
            (0x40_0cc0, "GFP_KERNEL_ACCOUNT"),
            (0x2800, "GFP_NOWAIT"),
            (0x800, "__GFP_KSWAPD_RECLAIM"),
            (0x14_0cca, "GFP_HIGHUSER|__GFP_MOVABLE|__GFP_COMP"),
            (0x100_0c40, "GFP_NOFS|0x1000000"),
            (0, "0x0"),
        ] {
            assert_eq!(gfp(value), name, "{value:#x}");
        }
        assert_eq!(
            [operation(0), operation(0x6_1801), operation(0x24)],
            ["READ", "WRITE|SYNC|META|FUA|PREFLUSH", "36"]
        );
    }

    #[test]
    fn what_was_not_noted_is_not_told() {
        let named = |name: &str, form| NamedArgument { name: name.to_owned(), argument: 1, field: None, form };
        let all = [named("cache", Form::Text), named("size", Form::Bytes), named("flags", Form::Gfp)];
        assert_eq!(
            words(&all, &[Some(1), Some(64), Some(0xcc0)], "kmalloc-64"),
            "cache kmalloc-64, size 64 bytes, flags GFP_KERNEL"
        );
        assert_eq!(words(&all, &[Some(1), None, Some(0xcc0)], ""), "flags GFP_KERNEL");
        assert_eq!(words(&all, &[], "x"), "");
        assert_eq!(defect(&all), None);
        assert!(defect(&[named("a", Form::Text), named("b", Form::Text)]).unwrap().contains("two texts"));
        assert!(defect(&vec![named("a", Form::Number); 5]).unwrap().contains("5 arguments"));
        let zero = NamedArgument { argument: 0, ..named("a", Form::Number) };
        assert!(defect(&[zero]).unwrap().contains("argument 0"));
    }
}
