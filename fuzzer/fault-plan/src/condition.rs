//! Conditions on a call: on one of its arguments, or on its callers.
//!
//! In files a condition is a table, and so is a constant or variable of the kernel's:
//!
//! ```toml
//! { argument = 2, mask = { bit = "___GFP_NOFAIL_BIT", or = 15 }, operator = "!=", value = 0 }
//! { argument = 1, value = { symbol = "kmem_cache" } }
//! { argument = 1, field = "bio.bi_iter.bi_sector", value = 2048 }
//! { caller = "brd_submit_bio" }
//! { caller = ["btree_csum_one_bio", "csum_one_extent_buffer"] }
//! { caller = "stack_depot_save_flags", optional = true }
//! ```

mod forms;

use std::fmt;

use serde::{Deserialize, Serialize};
use strum::VariantArray;
use thiserror::Error;

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

/// A condition on an argument, or on a field behind it: `(argument & mask) operator value`, all of
/// them unsigned 64-bit numbers.
///
/// The upper half of an argument of 32 bits is undefined, so such a one needs a mask.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ArgumentCondition {
    /// Which argument, from 1, as in `$arg1` of the kernel's trace events.
    pub argument: u8,
    /// Field of the structure that the argument points to, of which the condition speaks:
    /// `STRUCTURE.MEMBER`, and further members behind more dots. None for the argument itself.
    pub field: Option<String>,
    /// The bits of it that count. No [`Operand::Symbol`].
    pub mask: Operand,
    /// Comparison of the argument with the value.
    pub operator: Operator,
    /// Value that the argument is compared with.
    pub value: Operand,
}

/// A comparison of unsigned numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, VariantArray)]
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
    /// A field without a structure or a member.
    #[error("\"{0}\" is no field: write STRUCTURE.MEMBER, and further members behind more dots")]
    Field(String),
    /// A constant, bit or symbol that is no name.
    #[error("\"{0}\" is no name of the kernel's")]
    Name(String),
    /// A variable compared otherwise.
    #[error("what the symbol \"{0}\" has can only be compared by \"==\"")]
    Operator(String),
}

impl ArgumentCondition {
    pub(crate) fn defect(&self) -> Option<ConditionError> {
        match (&self.mask, &self.value) {
            _ if !(1..=MAX_ARGUMENTS).contains(&self.argument) => Some(ConditionError::Argument(self.argument)),
            _ if self.field.as_deref().is_some_and(|field| !is_field(field)) => {
                self.field.clone().map(ConditionError::Field)
            }
            (mask, value) if mask.is_misnamed() || value.is_misnamed() => {
                let misnamed = if mask.is_misnamed() { mask } else { value };
                misnamed.name().map(|name| ConditionError::Name(name.to_owned()))
            }
            (Operand::Symbol { symbol }, _) => Some(ConditionError::Mask(symbol.clone())),
            (_, Operand::Symbol { symbol }) if self.operator != Operator::Equal => {
                Some(ConditionError::Operator(symbol.clone()))
            }
            _ => None,
        }
    }
}

impl Operand {
    /// The name of what has it in the kernel.
    fn name(&self) -> Option<&str> {
        match self {
            Self::Number(_) => None,
            Self::Constant { constant: name, .. } | Self::Bit { bit: name, .. } | Self::Symbol { symbol: name } => {
                Some(name)
            }
        }
    }

    fn is_misnamed(&self) -> bool {
        self.name().is_some_and(|name| !is_name(name))
    }
}

/// The most bytes of a name: `KSYM_NAME_LEN` of `include/linux/kallsyms.h` (6.12).
const MAX_NAME: usize = 512;

/// Says whether `text` can be a name in C.
fn is_name(text: &str) -> bool {
    (1..=MAX_NAME).contains(&text.len()) && text.bytes().all(|letter| letter.is_ascii_alphanumeric() || letter == b'_')
}

/// Says whether `text` is a structure's name and at least one member's, with dots between them.
fn is_field(text: &str) -> bool {
    text.contains('.') && text.len() <= MAX_NAME && text.split('.').all(is_name)
}

impl fmt::Display for ArgumentCondition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "argument {}", self.argument)?;
        if let Some(field) = &self.field {
            write!(f, "'s {field}")?;
        }
        if self.mask != Operand::Number(u64::MAX) {
            write!(f, " & {}", self.mask)?;
        }
        write!(f, " {} {}", self.operator, self.value)
    }
}

impl fmt::Display for Operator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Equal => "==",
            Self::NotEqual => "!=",
            Self::Less => "<",
            Self::AtMost => "<=",
            Self::Greater => ">",
            Self::AtLeast => ">=",
        })
    }
}

impl fmt::Display for Operand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => write!(f, "{number}"),
            Self::Constant { constant: name, .. } | Self::Symbol { symbol: name } => f.write_str(name),
            Self::Bit { bit, .. } => write!(f, "1 << {bit}"),
        }
    }
}

#[cfg(test)]
mod tests;
