//! Errors that an injectable function may return instead of running.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use strum::VariantArray;

use crate::Errno;

/// The error type that the kernel declares for an injectable function.
///
/// Mirrors `enum` `EI_ETYPE_*` of `include/asm-generic/error-injection.h` (6.12) as printed in
/// `/sys/kernel/debug/error_injection/list`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, VariantArray)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ErrorType {
    /// Returns a negative error number.
    Errno,
    /// Returns a negative error number as a pointer (`ERR_PTR`) or a null pointer.
    ErrnoNull,
    /// Returns a null pointer.
    Null,
    /// Returns true.
    True,
}

impl ErrorType {
    /// The type written as `text` in the kernel's list.
    #[must_use]
    pub fn from_kernel(text: &str) -> Option<Self> {
        match text {
            "ERRNO" => Some(Self::Errno),
            "ERRNO_NULL" => Some(Self::ErrnoNull),
            "NULL" => Some(Self::Null),
            "TRUE" => Some(Self::True),
            _ => None,
        }
    }

    /// Says whether a function of this type may return `error`.
    #[must_use]
    pub fn allows(self, error: InjectedError) -> bool {
        match error {
            InjectedError::Errno(_) => matches!(self, Self::Errno | Self::ErrnoNull),
            InjectedError::Null => matches!(self, Self::Null | Self::ErrnoNull),
            InjectedError::True => self == Self::True,
        }
    }
}

impl fmt::Display for ErrorType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Errno => "ERRNO",
            Self::ErrnoNull => "ERRNO_NULL",
            Self::Null => "NULL",
            Self::True => "TRUE",
        })
    }
}

/// A kernel function that may be told to fail, from `/sys/kernel/debug/error_injection/list`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct InjectableFunction {
    /// The symbol.
    pub name: String,
    /// Type of the errors that it may return.
    pub error_type: ErrorType,
}

/// Return value of the injected call. In files: an errno name, `"NULL"` or `"true"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum InjectedError {
    /// The negative error number.
    Errno(Errno),
    /// A null pointer.
    Null,
    /// True.
    True,
}

impl InjectedError {
    /// The error written as `text`, if it is one.
    #[must_use]
    pub fn from_name(text: &str) -> Option<Self> {
        match text {
            "NULL" => Some(Self::Null),
            "true" => Some(Self::True),
            _ => Errno::from_name(text).map(Self::Errno),
        }
    }

    /// Gives the name that files use.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Errno(errno) => errno.name(),
            Self::Null => "NULL",
            Self::True => "true",
        }
    }

    /// The value of the return register, as a sign-extended 64-bit word.
    #[must_use]
    pub fn return_value(self) -> i64 {
        match self {
            Self::Errno(errno) => -i64::from(errno.number()),
            Self::Null => 0,
            Self::True => 1,
        }
    }
}

impl fmt::Display for InjectedError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Serialize for InjectedError {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        // Not `collect_str`: for want of room postcard then says something else, which LibAFL does
        // not know for that.
        serializer.serialize_str(self.name())
    }
}

impl<'de> Deserialize<'de> for InjectedError {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::from_name(&text).ok_or_else(|| {
            serde::de::Error::custom(format!("unknown error \"{text}\": use an errno name, \"NULL\" or \"true\""))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_type_allows_what_the_kernel_allows() {
        let enomem = InjectedError::Errno(Errno::ENOMEM);
        for (kind, errors) in [
            (ErrorType::Errno, [true, false, false]),
            (ErrorType::ErrnoNull, [true, true, false]),
            (ErrorType::Null, [false, true, false]),
            (ErrorType::True, [false, false, true]),
        ] {
            let allowed = [enomem, InjectedError::Null, InjectedError::True].map(|error| kind.allows(error));
            assert_eq!(allowed, errors, "{kind}");
            assert_eq!(ErrorType::from_kernel(&kind.to_string()), Some(kind));
        }
    }

    #[test]
    fn return_values_are_what_the_register_holds() {
        assert_eq!(InjectedError::Errno(Errno::ENOMEM).return_value(), -12);
        assert_eq!(InjectedError::Null.return_value(), 0);
        assert_eq!(InjectedError::True.return_value(), 1);
    }
}
