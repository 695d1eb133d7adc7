//! The two forms of conditions: by their keys in files, with a place for each field in messages.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

use crate::ELLIPSIS;

use super::{ArgumentCondition, CallerCondition, Condition, ConditionError, Operand, Operator};

/// A condition in files: told by its keys.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ConditionInFile {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    argument: Option<u8>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    field: Option<String>,
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
                field,
                mask,
                operator,
                value: Some(value),
                caller: None,
                optional: None,
            } => {
                let mask = mask.unwrap_or(Operand::Number(u64::MAX));
                let operator = operator.unwrap_or_default();
                let condition = ArgumentCondition { argument, field, mask, operator, value };
                condition.defect().map_or(Ok(Self::Argument(condition)), Err)
            }
            ConditionInFile {
                argument: None,
                field: None,
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
        let (argument, field, mask, operator, value) = (None, None, None, None, None);
        let none = Self { argument, field, mask, operator, value, caller: None, optional: None };
        match condition {
            Condition::Argument(ArgumentCondition { argument, field, mask, operator, value }) => Self {
                argument: Some(argument),
                field,
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
