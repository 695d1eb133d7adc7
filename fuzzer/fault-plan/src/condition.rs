//! Conditions on a call: on one of its arguments, or on its callers.
//!
//! In files a condition is a table, and so is a constant or variable of the kernel's:
//!
//! ```toml
//! { argument = 2, mask = { bit = "___GFP_NOFAIL_BIT", or = 15 }, operator = "!=", value = 0 }
//! { argument = 1, value = { symbol = "kmem_cache" } }
//! { caller = "brd_submit_bio" }
//! { caller = ["btree_csum_one_bio", "csum_one_extent_buffer"] }
//! { caller = "stack_depot_save_flags", optional = true }
//! ```

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use thiserror::Error;

use crate::ELLIPSIS;

/// The arguments that are passed in registers on x86-64.
pub const MAX_ARGUMENTS: u8 = 6;

/// A condition on a call.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Condition {
    /// Its argument has a certain value.
    Argument(ArgumentCondition),
    /// A certain function is among its callers.
    Caller(CallerCondition),
}

/// A condition on callers: one of these functions is among them, at whatever distance.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct CallerCondition {
    /// Their names, at least one. There are several where kernels or compilers differ in which of
    /// them is a function of its own.
    pub names: Vec<String>,
    /// True when there are kernels without any of them, where the condition holds for no call.
    pub optional: bool,
}

/// A condition on an argument: `(argument & mask) operator value`, all of them unsigned 64-bit
/// numbers.
///
/// The upper half of an argument of 32 bits is undefined, so such a one needs a mask.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ArgumentCondition {
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
    /// It speaks neither of an argument nor of callers, or of both.
    #[error(
        "a condition is {{ argument = NUMBER, value = … }} or {{ caller = NAME }}, and not both; only a caller is optional"
    )]
    Form,
    /// No caller, or one that is no name.
    #[error("\"{0}\" is no function's name: a condition on callers has at least one")]
    Caller(String),
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

/// A condition in files: told by its keys.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ConditionInFile {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    argument: Option<u8>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    mask: Option<Operand>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    operator: Option<Operator>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    value: Option<Operand>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    caller: Option<Callers>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    optional: Option<bool>,
}

/// Callers in files: one name or several.
#[derive(Serialize, Deserialize)]
#[serde(untagged, expecting = "a caller is the name of a function, or a list of such names")]
enum Callers {
    One(String),
    Several(Vec<String>),
}

/// A condition in messages, which have no keys.
#[derive(Serialize, Deserialize)]
#[serde(remote = "Condition")]
enum ConditionInMessage {
    Argument(ArgumentCondition),
    Caller(CallerCondition),
}

impl TryFrom<ConditionInFile> for Condition {
    type Error = ConditionError;

    fn try_from(file: ConditionInFile) -> Result<Self, ConditionError> {
        match file {
            ConditionInFile {
                argument: Some(argument),
                mask,
                operator,
                value: Some(value),
                caller: None,
                optional: None,
            } => {
                let mask = mask.unwrap_or(Operand::Number(u64::MAX));
                let condition = ArgumentCondition { argument, mask, operator: operator.unwrap_or_default(), value };
                condition.defect().map_or(Ok(Self::Argument(condition)), Err)
            }
            ConditionInFile {
                argument: None,
                mask: None,
                operator: None,
                value: None,
                caller: Some(callers),
                optional,
            } => {
                let names = match callers {
                    Callers::One(name) => vec![name],
                    Callers::Several(names) => names,
                };
                let unfit = |name: &&String| name.trim().is_empty() || *name == ELLIPSIS;
                match names.iter().find(unfit) {
                    Some(name) => Err(ConditionError::Caller(name.clone())),
                    None if names.is_empty() => Err(ConditionError::Caller(String::new())),
                    None => Ok(Self::Caller(CallerCondition { names, optional: optional.unwrap_or_default() })),
                }
            }
            _ => Err(ConditionError::Form),
        }
    }
}

impl From<Condition> for ConditionInFile {
    fn from(condition: Condition) -> Self {
        let none = Self { argument: None, mask: None, operator: None, value: None, caller: None, optional: None };
        match condition {
            Condition::Argument(ArgumentCondition { argument, mask, operator, value }) => Self {
                argument: Some(argument),
                mask: (mask != Operand::Number(u64::MAX)).then_some(mask),
                operator: (operator != Operator::default()).then_some(operator),
                value: Some(value),
                ..none
            },
            Condition::Caller(CallerCondition { mut names, optional }) => {
                let callers = match names.pop() {
                    Some(name) if names.is_empty() => Callers::One(name),
                    last => Callers::Several(names.into_iter().chain(last).collect()),
                };
                Self { caller: Some(callers), optional: optional.then_some(true), ..none }
            }
        }
    }
}

impl ArgumentCondition {
    fn defect(&self) -> Option<ConditionError> {
        match (&self.mask, &self.value) {
            _ if !(1..=MAX_ARGUMENTS).contains(&self.argument) => Some(ConditionError::Argument(self.argument)),
            (Operand::Symbol { symbol }, _) => Some(ConditionError::Mask(symbol.clone())),
            (_, Operand::Symbol { symbol }) if self.operator != Operator::Equal => {
                Some(ConditionError::Operator(symbol.clone()))
            }
            _ => None,
        }
    }
}

impl Serialize for Condition {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            ConditionInFile::from(self.clone()).serialize(serializer)
        } else {
            ConditionInMessage::serialize(self, serializer)
        }
    }
}

impl<'de> Deserialize<'de> for Condition {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            ConditionInFile::deserialize(deserializer)?.try_into().map_err(D::Error::custom)
        } else {
            ConditionInMessage::deserialize(deserializer)
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
        let (operator, value) = (Operator::NotEqual, Operand::Number(0));
        assert_eq!(condition, Condition::Argument(ArgumentCondition { argument: 2, mask, operator, value }));
        let cache = r#"{"argument":1,"value":{"symbol":"kmem_cache"}}"#;
        let Condition::Argument(of_cache) = read(cache).unwrap() else { panic!("it is one on an argument") };
        assert_eq!((of_cache.mask, of_cache.operator), (Operand::Number(u64::MAX), Operator::Equal));
        let (one, two) = (r#"{"caller":"f"}"#, r#"{"caller":["f","g"]}"#);
        let maybe = r#"{"caller":"f","optional":true}"#;
        let callers = |names: &[&str], optional| {
            let names = names.iter().map(|name| (*name).to_owned()).collect();
            Condition::Caller(CallerCondition { names, optional })
        };
        assert_eq!(read(one).unwrap(), callers(&["f"], false));
        assert_eq!(read(two).unwrap(), callers(&["f", "g"], false));
        assert_eq!(read(maybe).unwrap(), callers(&["f"], true));
        for text in [flag, cache, one, two, maybe] {
            let condition = read(text).unwrap();
            assert_eq!(serde_json::to_string(&condition).unwrap(), text);
            let packed = postcard::to_stdvec(&condition).unwrap();
            assert_eq!(postcard::from_bytes::<Condition>(&packed).unwrap(), condition);
        }
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
            (r#"{"argument":1}"#, "{ argument = NUMBER, value = … } or { caller = NAME }"),
            (r#"{"argument":1,"value":1,"caller":"f"}"#, "and not both"),
            (r#"{"argument":1,"value":1,"optional":true}"#, "only a caller is optional"),
            (r#"{"caller":[]}"#, "at least one"),
            (r#"{"caller":["f",""]}"#, "\"\" is no function's name"),
            (r#"{"caller":"..."}"#, "\"...\" is no function's name"),
            (r#"{"caller":1}"#, "a caller is the name of a function, or a list"),
        ] {
            let refusal = read(text).unwrap_err();
            assert!(refusal.contains(reason), "{text}: {refusal}");
        }
    }
}
