//! Conditions on the arguments of a call.
//!
//! In files a condition is a table, and so is a constant or variable of the kernel's:
//!
//! ```toml
//! { argument = 2, mask = { bit = "___GFP_NOFAIL_BIT", or = 15 }, operator = "!=", value = 0 }
//! { argument = 1, value = { symbol = "kmem_cache" } }
//! ```

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use thiserror::Error;

/// The arguments that are passed in registers on x86-64.
pub const MAX_ARGUMENTS: u8 = 6;

/// A condition on a call: `(argument & mask) operator value`, all of them unsigned 64-bit numbers.
///
/// The upper half of an argument of 32 bits is undefined, so such a one needs a mask.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "Unchecked")]
pub struct Condition {
    /// Which argument, from 1, as in `$arg1` of the kernel's trace events.
    pub argument: u8,
    /// The bits of it that count. No [`Operand::Symbol`].
    pub mask: Operand,
    /// Comparison of the argument with the value.
    pub operator: Operator,
    /// Value that the argument is compared with.
    pub value: Operand,
}

/// A comparison of unsigned numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Operator {
    /// Equal.
    #[default]
    #[serde(rename = "==")]
    Equal,
    /// Not equal.
    #[serde(rename = "!=")]
    NotEqual,
    /// Less.
    #[serde(rename = "<")]
    Less,
    /// Less or equal.
    #[serde(rename = "<=")]
    AtMost,
    /// Greater.
    #[serde(rename = ">")]
    Greater,
    /// Greater or equal.
    #[serde(rename = ">=")]
    AtLeast,
}

/// A number, or what has it in the running kernel.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Operand {
    /// This number.
    Number(u64),
    /// A constant of an enumeration of the kernel's.
    Constant {
        /// Its name among the kernel's types (BTF).
        constant: String,
        /// The number in kernels that do not tell it.
        or: Option<u64>,
    },
    /// The number with one bit set, which a constant says.
    Bit {
        /// Its name among the kernel's types (BTF).
        bit: String,
        /// The bit's number in kernels that do not tell it, from 0.
        or: Option<u32>,
    },
    /// The 64-bit number that stands in a variable, for [`Operator::Equal`] alone. 0 there matches
    /// every call, as then it is not known.
    Symbol {
        /// The variable's symbol.
        symbol: String,
    },
}

/// Why a condition cannot be.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum ConditionError {
    /// No such argument.
    #[error("there is no argument {0}, possible are 1 to {MAX_ARGUMENTS}")]
    Argument(u8),
    /// A mask that is in a variable.
    #[error("a mask is a number or a constant, not what the symbol \"{0}\" has")]
    Mask(String),
    /// A variable compared otherwise.
    #[error("what the symbol \"{0}\" has can only be compared by \"==\"")]
    Operator(String),
}

/// A condition as it is read.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Unchecked {
    argument: u8,
    #[serde(default = "all_bits")]
    mask: Operand,
    #[serde(default)]
    operator: Operator,
    value: Operand,
}

fn all_bits() -> Operand {
    Operand::Number(u64::MAX)
}

impl TryFrom<Unchecked> for Condition {
    type Error = ConditionError;

    fn try_from(unchecked: Unchecked) -> Result<Self, ConditionError> {
        let Unchecked { argument, mask, operator, value } = unchecked;
        match (&mask, &value) {
            _ if !(1..=MAX_ARGUMENTS).contains(&argument) => Err(ConditionError::Argument(argument)),
            (Operand::Symbol { symbol }, _) => Err(ConditionError::Mask(symbol.clone())),
            (_, Operand::Symbol { symbol }) if operator != Operator::Equal => {
                Err(ConditionError::Operator(symbol.clone()))
            }
            _ => Ok(Self { argument, mask, operator, value }),
        }
    }
}

/// An operand in files: told by its keys.
#[derive(Serialize, Deserialize)]
#[serde(
    remote = "Operand",
    untagged,
    deny_unknown_fields,
    expecting = "an operand is a number, { bit = NAME, or = NUMBER }, { constant = NAME, or = NUMBER } or { symbol = NAME }"
)]
enum InFile {
    Number(u64),
    Constant {
        constant: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        or: Option<u64>,
    },
    Bit {
        bit: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        or: Option<u32>,
    },
    Symbol {
        symbol: String,
    },
}

/// An operand in messages, which have no keys.
#[derive(Serialize, Deserialize)]
#[serde(remote = "Operand")]
enum InMessage {
    Number(u64),
    Constant { constant: String, or: Option<u64> },
    Bit { bit: String, or: Option<u32> },
    Symbol { symbol: String },
}

impl Serialize for Operand {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            InFile::serialize(self, serializer)
        } else {
            InMessage::serialize(self, serializer)
        }
    }
}

impl<'de> Deserialize<'de> for Operand {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            InFile::deserialize(deserializer)
        } else {
            InMessage::deserialize(deserializer)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Condition, String> {
        serde_json::from_str(text).map_err(|error| error.to_string())
    }

    #[test]
    fn a_condition_is_what_its_keys_say() {
        let flag = r#"{"argument":2,"mask":{"bit":"___GFP_NOFAIL_BIT","or":15},"operator":"!=","value":0}"#;
        let condition = read(flag).unwrap();
        let mask = Operand::Bit { bit: "___GFP_NOFAIL_BIT".to_owned(), or: Some(15) };
        let value = Operand::Number(0);
        assert_eq!(condition, Condition { argument: 2, mask, operator: Operator::NotEqual, value });
        assert_eq!(serde_json::to_string(&condition).unwrap(), flag);
        let cache = read(r#"{"argument":1,"value":{"symbol":"kmem_cache"}}"#).unwrap();
        assert_eq!((cache.mask, cache.operator), (Operand::Number(u64::MAX), Operator::Equal));
        assert!(read(r#"{"argument":1,"value":{"constant":"A"}}"#).is_ok());
    }

    #[test]
    fn what_cannot_be_compared_is_refused() {
        for (text, reason) in [
            (r#"{"argument":0,"value":1}"#, "there is no argument 0, possible are 1 to 6"),
            (r#"{"argument":7,"value":1}"#, "no argument 7"),
            (r#"{"argument":1,"mask":{"symbol":"a"},"value":1}"#, "a mask is a number"),
            (r#"{"argument":1,"operator":"<","value":{"symbol":"a"}}"#, "\"a\" has can only be compared by \"==\""),
            (r#"{"argument":1,"operator":"=","value":1}"#, "unknown variant `=`"),
            (r#"{"argument":1,"value":{"bit":"A","and":1}}"#, "an operand is a number, { bit"),
            (r#"{"argument":1,"value":1,"values":1}"#, "unknown field `values`"),
        ] {
            let refusal = read(text).unwrap_err();
            assert!(refusal.contains(reason), "{text}: {refusal}");
        }
    }
}
