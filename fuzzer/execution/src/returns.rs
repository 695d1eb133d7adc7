//! Where an error went: what the functions on a fault's call path returned after it fired.

use fault_plan::{Errno, InjectedError};
use serde::{Deserialize, Serialize};

/// Return of a function on the call path of a fault that has fired.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FrameReturn {
    /// The function, as in the call path.
    pub function: String,
    /// The value in words: `-ENOMEM`, `NULL`, `0`, `true`, `void`, `did not return`, or
    /// [`UNSEEN`].
    pub returned: String,
    /// A change of the error on its way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mark: Option<Mark>,
}

/// The word for a value where the kernel takes no probe.
pub const UNSEEN: &str = "?";

/// Change of an error on its way to the outermost caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mark {
    /// The function succeeded although the one that it had called failed.
    Swallowed,
    /// It returned another error than the one that it had called.
    Changed,
}

impl Mark {
    /// Gives its name in files, such as `swallowed`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Swallowed => "swallowed",
            Self::Changed => "changed",
        }
    }
}

/// Return type of a function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReturnType {
    /// The kernel does not tell.
    Unknown,
    /// Nothing is returned.
    Void,
    /// A pointer, which may be `NULL` or an error: `ERR_PTR()` of `include/linux/err.h` (6.12).
    Pointer,
    /// True or false.
    Bool,
    /// A number.
    Integer {
        /// Its size: 1, 2, 4 or 8.
        bytes: u8,
        /// True when it has a sign. Negative ones are errors.
        signed: bool,
    },
}

/// End of a call that was open when a fault fired.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallEnd {
    /// It returned, with this in the register of return values.
    Returned(u64, ReturnType),
    /// It did not.
    Open,
    /// No probe would have seen it return.
    NotProbed,
}

/// Success or failure of a function, as far as its value tells.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Outcome {
    /// It failed, with this error where that is told.
    Failed(Option<i64>),
    Fine,
    Unclear,
}

/// Tells where `error`, which an injectable function returned, went: through the functions that
/// `ends` names, innermost first.
#[must_use]
pub fn where_it_went(error: InjectedError, ends: impl IntoIterator<Item = (String, CallEnd)>) -> Vec<FrameReturn> {
    let mut inner = Outcome::Failed(match error {
        InjectedError::Errno(errno) => Some(i64::from(errno.number())),
        InjectedError::Null | InjectedError::True => None,
    });
    let mut frame = |(function, end)| {
        let (outcome, returned) = read(end);
        let mark = match (inner, outcome) {
            (Outcome::Failed(_), Outcome::Fine) => Some(Mark::Swallowed),
            (Outcome::Failed(Some(before)), Outcome::Failed(Some(now))) if before != now => Some(Mark::Changed),
            _ => None,
        };
        inner = outcome;
        FrameReturn { function, returned, mark }
    };
    ends.into_iter().map(&mut frame).collect()
}

/// Reads a value by its type. What succeeds when it is 0 for one function fails for another: only
/// pointers and numbers with a sign tell.
fn read(end: CallEnd) -> (Outcome, String) {
    let (value, of) = match end {
        CallEnd::Returned(value, of) => (value, of),
        CallEnd::Open => return (Outcome::Unclear, "did not return".to_owned()),
        CallEnd::NotProbed => return (Outcome::Unclear, UNSEEN.to_owned()),
    };
    match of {
        ReturnType::Void => (Outcome::Unclear, "void".to_owned()),
        ReturnType::Bool => (Outcome::Unclear, (value & 0xff != 0).to_string()),
        ReturnType::Pointer if value == 0 => (Outcome::Failed(None), "NULL".to_owned()),
        ReturnType::Pointer => match error_number(value.cast_signed()) {
            Some(number) => (Outcome::Failed(Some(number)), error_name(number)),
            None => (Outcome::Fine, format!("{value:#x}")),
        },
        ReturnType::Integer { bytes, signed } => {
            let unused = 64 - 8 * u32::from(bytes.clamp(1, 8));
            let number = (value << unused).cast_signed() >> unused;
            match error_number(number).filter(|_| signed) {
                Some(error) => (Outcome::Failed(Some(error)), error_name(error)),
                None if signed => (if number < 0 { Outcome::Unclear } else { Outcome::Fine }, number.to_string()),
                None => (Outcome::Unclear, (value << unused >> unused).to_string()),
            }
        }
        ReturnType::Unknown => {
            let low = i64::from(u32::try_from(value & 0xffff_ffff).unwrap_or_default().cast_signed());
            match error_number(value.cast_signed()).or_else(|| error_number(low).filter(|_| value >> 32 == 0)) {
                Some(number) => (Outcome::Failed(Some(number)), error_name(number)),
                None => (Outcome::Unclear, format!("{value:#x}")),
            }
        }
    }
}

/// The positive number of the error that `value` is: `IS_ERR_VALUE()` of `include/linux/err.h`
/// (6.12).
fn error_number(value: i64) -> Option<i64> {
    (-4095..0).contains(&value).then_some(-value)
}

fn error_name(number: i64) -> String {
    Errno::from_number(number).map_or_else(|| format!("-{number}"), |errno| format!("-{errno}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const INT: ReturnType = ReturnType::Integer { bytes: 4, signed: true };
    const LONG: ReturnType = ReturnType::Integer { bytes: 8, signed: true };

    fn words(error: InjectedError, ends: &[CallEnd]) -> Vec<String> {
        let ends = ends.iter().map(|end| ("f".to_owned(), *end));
        let text = |frame: FrameReturn| match frame.mark {
            Some(mark) => format!("{} {}", frame.returned, mark.as_str()),
            None => frame.returned,
        };
        where_it_went(error, ends).into_iter().map(text).collect()
    }

    #[test]
    fn an_error_is_followed_until_a_function_swallows_it() {
        use CallEnd::{NotProbed, Open, Returned};
        let enomem = InjectedError::Errno(Errno::ENOMEM);
        let through = [
            Returned(0, ReturnType::Pointer),
            Returned(0xffff_fff4, INT),
            Returned((-5_i64).cast_unsigned(), LONG),
            Returned(0xdead_0000_0000, INT),
            Returned(3, LONG),
        ];
        assert_eq!(words(enomem, &through), ["NULL", "-ENOMEM", "-EIO changed", "0 swallowed", "3"]);
        let unclear = [Returned(7, ReturnType::Void), Returned(0, INT), Returned(0x100, ReturnType::Bool), Open];
        assert_eq!(words(enomem, &unclear), ["void", "0", "false", "did not return"]);
        let others = [
            Returned(0xffff_8880_0000_1000, ReturnType::Pointer),
            Returned(10, ReturnType::Integer { bytes: 1, signed: false }),
            NotProbed,
            Returned(0xffff_fffb, ReturnType::Unknown),
            Returned((-117_i64).cast_unsigned(), ReturnType::Pointer),
            Returned((-600_i64).cast_unsigned(), LONG),
        ];
        let expected = ["0xffff888000001000 swallowed", "10", "?", "-EIO", "-EUCLEAN changed", "-600 changed"];
        assert_eq!(words(InjectedError::True, &others), expected);
    }
}
