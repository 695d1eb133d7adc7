//! The checks of a kernel's source, `WARN()` and `BUG()`: their text by file and line.
//!
//! A kernel up to 6.12 says of a check that fired only its file and line, which move with every
//! change above them, and the function that the compiler made it part of. The source says which
//! function it stands in and what it checks. The build writes that down, as the source is gone
//! later.

use std::{collections::BTreeMap, fs, path::Path};

use execution::Finding;
use serde::{Deserialize, Serialize};

use super::KernelError;
use super::make::failed;

/// File of a kernel's folder that has them.
pub(super) const FILE: &str = "checks.json";
/// The most lines of one check.
const MOST_LINES: usize = 16;
/// The most bytes of a check's text that are kept.
const MOST_BYTES: usize = 240;
/// Start of the keys of checks, which `kernel_report` makes.
const CHECK: &str = "check: ";
/// Words that the names of checks have in them.
const WORDS: [&str; 3] = ["WARN", "BUG", "ASSERT"];

/// The checks of a kernel.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Checks(BTreeMap<String, String>);

impl Checks {
    /// Reads those of the kernel in the folder `dir`.
    ///
    /// # Errors
    ///
    /// The file is missing or damaged.
    pub(crate) fn read(dir: &Path) -> Result<Self, KernelError> {
        let path = dir.join(FILE);
        let damaged = |reason: String| KernelError::Damaged { path: dir.to_owned(), reason };
        let text = fs::read_to_string(&path).map_err(|error| damaged(format!("{FILE}: {error}")))?;
        serde_json::from_str(&text).map_err(|error| damaged(format!("{FILE}: {error}")))
    }

    /// Finds in the folder `source` those that `vmlinux` has. A file that is not there, as it was
    /// generated, has none.
    ///
    /// # Errors
    ///
    /// `vmlinux` is no kernel, or cannot be read.
    pub(super) fn find(vmlinux: &Path, source: &Path) -> Result<Self, KernelError> {
        let bytes = fs::read(vmlinux).map_err(|error| failed("read", vmlinux, error))?;
        let places = kcov_parser::checks(&bytes)
            .map_err(|error| KernelError::Vmlinux { path: vmlinux.to_owned(), reason: error.to_string() })?;
        let mut files: BTreeMap<String, Option<String>> = BTreeMap::new();
        let mut checks = BTreeMap::new();
        for (file, line) in places {
            let read = || fs::read(source.join(&file)).ok().map(|text| String::from_utf8_lossy(&text).into_owned());
            let Some(text) = files.entry(file.clone()).or_insert_with(read) else { continue };
            let lines: Vec<&str> = text.lines().collect();
            if let Some(check) = describe(&lines, line as usize) {
                checks.insert(format!("{file}:{line}"), check);
            }
        }
        Ok(Self(checks))
    }

    /// Names the check in a finding's key by what it checks: `check: fs/f.c f: WARN_ON(count)`,
    /// from `check: fs/f.c:7`. One of which nothing is known keeps its line, or has the expression
    /// that the kernel printed.
    pub(crate) fn name(&self, finding: &mut Finding) {
        let Some(rest) = finding.key.strip_prefix(CHECK) else { return };
        let (location, printed) = rest.split_once(' ').unwrap_or((rest, ""));
        let Some((file, _)) = location.rsplit_once(':') else { return };
        let alone = printed.strip_prefix("in ").map(|caller| ("", caller));
        let (expression, caller) = match alone.or_else(|| printed.rsplit_once(" in ")) {
            Some((before, caller)) if !caller.contains(' ') => (before, caller),
            _ => (printed, ""),
        };
        let check =
            self.0.get(location).map(String::as_str).or_else(|| Some(expression).filter(|text| !text.is_empty()));
        let Some(check) = check else { return };
        // One kernel has made the helper part of its caller, the other one has not.
        let helper = check.split_once(": ").map(|(function, _)| function).filter(|function| *function == caller);
        let outside = finding.stack.iter().skip_while(|function| Some(function.as_str()) == helper);
        let caller = helper.and_then(|_| outside.map(String::as_str).next()).unwrap_or(caller);
        let caller = if caller.is_empty() { String::new() } else { format!(" in {caller}") };
        finding.key = format!("{CHECK}{file} {check}{caller}");
    }
}

/// Describes the check in the line number `line`, from 1. Of several with the same text in one
/// function all but the first have a number. Outside of functions, as in macros, a check has only
/// its text: when that is there twice, nothing tells the two apart.
fn describe(lines: &[&str], line: usize) -> Option<String> {
    let at = line.checked_sub(1).filter(|at| *at < lines.len())?;
    let text = statement(&lines[at..])?;
    let name = text.split('(').next().unwrap_or(&text);
    let is_same = |other: &usize| lines[*other].contains(name) && statement(&lines[*other..]).as_ref() == Some(&text);
    let function = body_of(lines, at).and_then(|body| Some((body, function_of(lines, body)?)));
    let Some((body, function)) = function else {
        let is_only = !(0..lines.len()).any(|other| other != at && is_same(&other));
        return is_only.then_some(text);
    };
    let same = (body + 1..at).filter(is_same).count();
    let number = if same > 0 { format!(" #{}", same + 1) } else { String::new() };
    Some(format!("{function}: {text}{number}"))
}

/// Finds the line of the brace that opens the function around the line `at`. The kernel's style
/// puts that brace, and the one that closes it, at the start of a line.
fn body_of(lines: &[&str], at: usize) -> Option<usize> {
    let brace = lines[..at].iter().rposition(|line| line.starts_with(['{', '}']))?;
    lines[brace].starts_with('{').then_some(brace)
}

/// Gives the name of the function whose brace is in the line `body`.
fn function_of(lines: &[&str], body: usize) -> Option<String> {
    let ends = |line: &&str| line.is_empty() || line.starts_with(['#', '}', '/']) || line.ends_with([';', '/', '\\']);
    let start = lines[..body].iter().rposition(|line| ends(&line.trim_end())).map_or(0, |end| end + 1);
    let signature = lines[start..body].join(" ");
    let (before, arguments) = signature.split_once('(')?;
    let is_name = |character: char| character.is_ascii_alphanumeric() || character == '_';
    let name = before.trim_end().rsplit(|character| !is_name(character)).next().filter(|name| !name.is_empty())?;
    // A macro makes the function, and its first argument is the name: `SYSCALL_DEFINE2(mkdir, …)`.
    if !name.bytes().any(|byte| byte.is_ascii_lowercase()) {
        return Some(format!("{name}({})", arguments.split([',', ')']).next()?.trim()));
    }
    Some(name.to_owned())
}

/// Gives the check that begins in the first of `lines`, up to the parenthesis that closes it, on
/// one line, without comments and without superfluous blanks.
fn statement(lines: &[&str]) -> Option<String> {
    let text = lines.iter().take(MOST_LINES).map(|line| line.trim()).collect::<Vec<_>>().join("\n");
    let start = check_name(&text).unwrap_or(0);
    let mut words = String::new();
    let (mut depth, mut quoted, mut escaped) = (0_i32, false, false);
    let mut rest = &text[start..];
    while let Some(character) = rest.chars().next() {
        if !quoted && let Some(after) = comment(rest) {
            rest = after;
            words.push(' ');
            continue;
        }
        rest = &rest[character.len_utf8()..];
        quoted ^= character == '"' && !escaped;
        escaped = character == '\\' && !escaped;
        if !quoted {
            depth += i32::from(character == '(') - i32::from(character == ')');
            // A line without any parenthesis, such as an assembler's.
            if character == '\n' && depth <= 0 || depth < 0 || character == ';' && depth == 0 {
                break;
            }
        }
        words.push(character);
        if character == ')' && depth == 0 {
            break;
        }
    }
    let is_odd = |character: char| !character.is_ascii_graphic() && character != ' ';
    let text = words.split_whitespace().collect::<Vec<_>>().join(" ").replace(is_odd, "?");
    (!text.is_empty()).then(|| text[..text.floor_char_boundary(MOST_BYTES)].to_owned())
}

/// Finds the start of a check's name in the first line of `text`.
fn check_name(text: &str) -> Option<usize> {
    let line = text.lines().next()?;
    let is_name = |character: char| character.is_ascii_alphanumeric() || character == '_';
    line.match_indices('(').find_map(|(end, _)| {
        let start = line[..end].trim_end_matches(is_name).len();
        WORDS.iter().any(|word| line[start..end].contains(word)).then_some(start)
    })
}

/// Gives the text behind the comment that `text` begins with.
fn comment(text: &str) -> Option<&str> {
    if let Some(rest) = text.strip_prefix("/*") {
        return Some(rest.split_once("*/").map_or("", |(_, after)| after));
    }
    text.strip_prefix("//").map(|rest| rest.find('\n').map_or("", |end| &rest[end..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOURCE: &str = r#"static const struct x y = {
	.z = 1,
};

static noinline void
selftest_pair_free(struct selftest_pair *pair,
		   int flags)
{
	WARN_ON(pair->lefts);
	if (flags || /* why ( */ WARN_ON_ONCE(pair->rights &&	// not )
		!pair->right)) {
		BUG();
	}
	WARN(1, "a \") b (", pair);
	BUG_ON(pair);
	if (!flags) BUG_ON(pair);
}

SYSCALL_DEFINE2(open_it, int, a, int, b)
{
	return a < b ? 0 : WARN_ON(a);
}

DECLARE_UPDATE(bytes_may_use, "space_info");
"#;

    fn check(line: usize) -> Option<String> {
        describe(&SOURCE.lines().collect::<Vec<_>>(), line)
    }

    #[test]
    fn a_check_is_its_function_and_its_statement() {
        let expected = [
            (9, "selftest_pair_free: WARN_ON(pair->lefts)"),
            (10, "selftest_pair_free: WARN_ON_ONCE(pair->rights && !pair->right)"),
            (12, "selftest_pair_free: BUG()"),
            (14, r#"selftest_pair_free: WARN(1, "a \") b (", pair)"#),
            (15, "selftest_pair_free: BUG_ON(pair)"),
            (16, "selftest_pair_free: BUG_ON(pair) #2"),
            (21, "SYSCALL_DEFINE2(open_it): WARN_ON(a)"),
            (24, r#"DECLARE_UPDATE(bytes_may_use, "space_info")"#),
        ];
        for (line, text) in expected {
            assert_eq!(check(line).as_deref(), Some(text), "line {line}");
        }
        assert_eq!((check(0), check(25), check(4)), (None, None, None));
    }

    #[test]
    fn a_key_says_what_is_checked_where_that_is_known() {
        let known = |(location, check): (&str, &str)| (location.to_owned(), check.to_owned());
        let checks = [("fs/f.c:7", "f: WARN_ON(a in b)"), ("include/linux/i.h:9", "get: WARN_ON(!count)")];
        let checks = Checks(checks.into_iter().map(known).collect());
        let named = |header: &str| {
            let report = kernel_report::first_report(&format!("{header}\nCall Trace:\n g+0x1/0x2\n")).unwrap();
            let mut finding = report.into();
            checks.name(&mut finding);
            finding.key
        };
        let at = |place: &str| named(&format!("WARNING: CPU: 0 PID: 7 at {place} g+0x1/0x2"));
        assert_eq!(at("fs/f.c:7"), "check: fs/f.c f: WARN_ON(a in b)");
        assert_eq!(at("fs/f.c:8"), "check: fs/f.c:8");
        assert_eq!(at("include/linux/i.h:9"), "check: include/linux/i.h get: WARN_ON(!count) in g");
        let apart = "WARNING: CPU: 0 PID: 7 at include/linux/i.h:9 get+0x1/0x2\nRIP: 0010:get+0x1/0x2";
        assert_eq!(named(apart), at("include/linux/i.h:9"), "not made part of its caller");
        assert_eq!(named("WARNING: [a > 0] fs/f.c:8 at g+0x1/0x2, CPU#0: a/1"), "check: fs/f.c a > 0");
        assert_eq!(named("WARNING: [a > 0] fs/f.c:7 at g+0x1/0x2, CPU#0: a/1"), at("fs/f.c:7"));
        assert_eq!(named("BUG: odd"), "bug: BUG: odd in g");
    }

    #[test]
    fn two_checks_are_never_one() {
        let lines = ["#define put(a) \\", "\tWARN_ON(!(a))", "#define get(a) \\", "\tWARN_ON(!(a))", "\tWARN_ON(b)"];
        let described: Vec<_> = (1..=lines.len()).map(|line| describe(&lines, line)).collect();
        assert_eq!([&described[1], &described[3]], [&None, &None]);
        assert_eq!(described[4].as_deref(), Some("WARN_ON(b)"));
    }

    #[test]
    fn a_name_may_stand_behind_any_character() {
        assert_eq!(statement(&["\u{a0}WARN_ON(a);"]).as_deref(), Some("WARN_ON(a)"));
        assert_eq!(statement(&["x = \"\u{e9}\" f(\u{e9}BUG_ON(b))"]).as_deref(), Some("BUG_ON(b)"));
    }

    #[test]
    fn a_check_that_moves_stays_the_same() {
        let moved = SOURCE.replace("\tWARN_ON(pair->lefts);", "\tint a;\n\n\tWARN_ON(pair\n\t\t->lefts);");
        let lines: Vec<&str> = moved.lines().collect();
        assert_eq!(describe(&lines, 18), check(15));
        assert_eq!(describe(&lines, 11).as_deref(), Some("selftest_pair_free: WARN_ON(pair ->lefts)"));
    }
}
