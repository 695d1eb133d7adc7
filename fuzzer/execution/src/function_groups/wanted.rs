//! Lists of functions as a target's text has them.

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{Error, MapAccess, SeqAccess, Visitor, value::MapAccessDeserializer, value::SeqAccessDeserializer},
};
use toml::Spanned;

use super::TargetFunction;

/// A target's list of functions that may fail.
#[derive(Clone, Debug)]
pub(crate) enum WantedFunctions {
    /// All functions of the group of this name.
    Group(String),
    /// Those of several entries.
    Several(Vec<Spanned<WantedFunction>>),
}

/// An entry of the list.
#[derive(Clone, Debug)]
pub(crate) enum WantedFunction {
    /// All functions of the group of this name.
    Group(String),
    /// One function.
    One(TargetFunction),
}

impl<'de> Deserialize<'de> for WantedFunctions {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;

        impl<'de> Visitor<'de> for Either {
            type Value = WantedFunctions;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the name of a group of functions, or a list of groups and functions")
            }

            fn visit_str<E: Error>(self, name: &str) -> Result<WantedFunctions, E> {
                Ok(WantedFunctions::Group(name.to_owned()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<WantedFunctions, A::Error> {
                Vec::deserialize(SeqAccessDeserializer::new(list)).map(WantedFunctions::Several)
            }
        }

        deserializer.deserialize_any(Either)
    }
}

impl<'de> Deserialize<'de> for WantedFunction {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;

        impl<'de> Visitor<'de> for Either {
            type Value = WantedFunction;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the name of a group of functions, or a table with name and errors")
            }

            fn visit_str<E: Error>(self, name: &str) -> Result<WantedFunction, E> {
                Ok(WantedFunction::Group(name.to_owned()))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<WantedFunction, A::Error> {
                TargetFunction::deserialize(MapAccessDeserializer::new(map)).map(WantedFunction::One)
            }
        }

        deserializer.deserialize_any(Either)
    }
}
