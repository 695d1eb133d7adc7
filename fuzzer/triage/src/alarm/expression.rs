//! The expression that a check of the kernel tests, as the key of a finding has it.

/// Names that the kernel's source gives a variable with a result.
const RESULTS: &[&str] = &["ret", "ret2", "err", "err2", "error", "rc", "retval", "status", "result"];

/// Macros that warn when their first argument is true (`include/asm-generic/bug.h`, 6.12).
const WARNS: &[&str] = &["WARN_ON", "WARN_ON_ONCE", "WARN", "WARN_ONCE", "WARN_RATELIMIT"];

/// A check that warned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Checked<'a> {
    /// The function that it stands in.
    pub(super) function: &'a str,
    /// The check as the source has it, such as `WARN_ON(ret)`.
    pub(super) text: &'a str,
    name: &'a str,
    arguments: &'a str,
}

impl<'a> Checked<'a> {
    /// Reads it from a key: `check: fs/f.c function: WARN_ON(ret)`, or newer `check: fs/f.c:7 ret`,
    /// in which there is no function.
    pub(super) fn of_key(key: &'a str) -> Option<Self> {
        let rest = key.strip_prefix("check: ")?;
        let (place, text) = rest.split_once(' ')?;
        // The key has the number of a check that stands several times in one function.
        let text = text.rsplit_once(" #").filter(|(_, number)| is_number(number)).map_or(text, |(text, _)| text);
        let (function, text) = match text.split_once(": ") {
            Some((function, text)) if is_name(function) => (function, text),
            _ => ("", text),
        };
        match text.split_once('(') {
            Some((name, arguments)) if WARNS.contains(&name) => {
                Some(Self { function, text, name, arguments: arguments.strip_suffix(')').unwrap_or(arguments) })
            }
            // `CONFIG_DEBUG_BUGVERBOSE_DETAILED` prints the expression of a `WARN_ON()` alone.
            None if place.contains(':') => Some(Self { function, text, name: "WARN_ON", arguments: text }),
            _ => None,
        }
    }

    /// Says whether the check fails for the result `value`, and for nothing else.
    pub(super) fn is_about(&self, value: i64) -> bool {
        let arguments = arguments(self.arguments);
        let Some(condition) = arguments.first() else { return false };
        // `WARN(1, "…", …, ret)` tells a result.
        if *condition == "1" && arguments.len() > 2 {
            return arguments.last().is_some_and(|last| RESULTS.contains(last));
        }
        is_true(condition, value) == Some(true)
    }
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

fn is_name(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

/// Splits arguments at the commas outside of parentheses and strings.
fn arguments(text: &str) -> Vec<&str> {
    let (mut depth, mut quoted, mut escaped, mut start, mut found) = (0_u32, false, false, 0, Vec::new());
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b'(' if !quoted => depth += 1,
            b')' if !quoted => depth = depth.saturating_sub(1),
            b',' if !quoted && depth == 0 => {
                found.push(text[start..at].trim());
                start = at + 1;
            }
            _ => {}
        }
    }
    found.push(text[start..].trim());
    found
}

/// Says whether an expression is true of the result `value` whatever else there is. Gives nothing
/// where it asks for more than the result.
fn is_true(expression: &str, value: i64) -> Option<bool> {
    let expression = stripped(expression);
    if let Some((left, right)) = split_once_outside(expression, "||") {
        // Either may be why the check failed.
        return match (is_true(left, value), is_true(right, value)) {
            (Some(left), Some(right)) => Some(left || right),
            _ => None,
        };
    }
    if let Some((left, right)) = split_once_outside(expression, "&&") {
        // Without the error the check would not have failed; what else it asks for was so.
        return match (is_true(left, value), is_true(right, value)) {
            (Some(false), _) | (_, Some(false)) => Some(false),
            (None, None) => None,
            _ => Some(true),
        };
    }
    if RESULTS.contains(&expression) {
        return Some(value != 0);
    }
    if expression.strip_prefix('!').is_some_and(|inner| RESULTS.contains(&inner.trim())) {
        return Some(value == 0);
    }
    if let Some(pointer) = expression.strip_prefix("IS_ERR(").and_then(|rest| rest.strip_suffix(')')) {
        return is_name(pointer).then_some(true);
    }
    let operator = ["==", "!=", "<=", ">=", "<", ">"];
    let (operator, at) = operator.iter().find_map(|operator| Some((*operator, expression.find(operator)?)))?;
    let (left, right) = (expression[..at].trim(), expression[at + operator.len()..].trim());
    let right = constant(right).filter(|_| RESULTS.contains(&left))?;
    Some(match operator {
        "==" => value == right,
        "!=" => value != right,
        "<=" => value <= right,
        ">=" => value >= right,
        "<" => value < right,
        _ => value > right,
    })
}

/// Removes parentheses and the compiler's hints around an expression.
fn stripped(expression: &str) -> &str {
    let mut rest = expression.trim();
    loop {
        let inner = ["unlikely(", "likely(", "("].iter().find_map(|start| rest.strip_prefix(start)?.strip_suffix(')'));
        match inner.filter(|inner| is_balanced(inner)) {
            Some(inner) => rest = inner.trim(),
            None => return rest,
        }
    }
}

fn is_balanced(text: &str) -> bool {
    let mut depth = 0_i32;
    let opens = text.bytes().all(|byte| {
        depth += i32::from(byte == b'(') - i32::from(byte == b')');
        depth >= 0
    });
    opens && depth == 0
}

/// Splits at the first `operator` outside of parentheses.
fn split_once_outside<'a>(text: &'a str, operator: &str) -> Option<(&'a str, &'a str)> {
    let found = text.match_indices(operator).find(|(at, _)| is_balanced(&text[..*at]));
    found.map(|(at, _)| (&text[..at], &text[at + operator.len()..]))
}

/// Reads `-ENOENT`, `0` or `1`.
fn constant(text: &str) -> Option<i64> {
    match text.strip_prefix('-').and_then(fault_plan::Errno::from_name) {
        Some(errno) => Some(-i64::from(errno.number())),
        None => text.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENOMEM: i64 = -12;

    fn is_about(text: &str) -> bool {
        let key = format!("check: fs/f.c f: {text}");
        Checked::of_key(&key).is_some_and(|checked| checked.is_about(ENOMEM))
    }

    #[test]
    fn checks_of_a_result_are_about_it() {
        for text in [
            "WARN_ON(ret)",
            "WARN_ON(ret) #2",
            "WARN_ON_ONCE(ret < 0)",
            "WARN_ON(ret == -ENOMEM)",
            "WARN_ON(ret && ret != -ECANCELED)",
            "WARN_ON(!is_handle_aborted(handle) && err)",
            "WARN_ON(unlikely(error))",
            "WARN_ON(IS_ERR(root))",
            "WARN_RATELIMIT(err, \"ext4: mb_load_buddy failed (%d)\", err)",
            "WARN(1, KERN_DEBUG \"BTRFS: block rsv %d returned %d\\n\", block_rsv->type, ret)",
        ] {
            assert!(is_about(text), "{text}");
        }
    }

    #[test]
    fn checks_of_anything_else_are_not() {
        for text in [
            "WARN_ON(inode->csum_bytes)",
            "WARN_ON(ret > 0)",
            "WARN_ON(ret == -EAGAIN)",
            "WARN_ON(!ret)",
            "WARN_ON(!IS_ERR(inode) && inode != block_group->io_ctl.inode)",
            "WARN_ON(IS_ERR(old) || !extent_buffer_uptodate(old))",
            "WARN_ON(ret || !list_empty(list))",
            "WARN_ON_ONCE(status & EXTENT_STATUS_DELAYED)",
            "WARN_ON(strscpy(ret->str, src, len) < 0)",
            "WARN(1, \"name '%s'\\n\", name)",
            "WARN(1, \"a, ret\")",
            "BUG_ON(ret)",
            "btrfs_abort_transaction(trans, ret) #4",
            "ASSERT(ret == 0)",
            "DECLARE_SPACE_INFO_UPDATE(bytes_may_use, \"space_info\")",
            "WARN_ON(",
            "",
        ] {
            assert!(!is_about(text), "{text}");
        }
        assert!(Checked::of_key("access: null pointer in f").is_none());
        assert!(Checked::of_key("check: fs/f.c:7 ret").unwrap().is_about(ENOMEM), "newer kernels print the expression");
        assert!(!Checked::of_key("check: fs/f.c:7 count > 0").unwrap().is_about(ENOMEM));
    }
}
