//! Console lines without what the console adds.

/// Prefixes that some of the kernel's files put in front of their messages (`pr_fmt`), in the order
/// in which they may stand.
const SUBSYSTEMS: [&str; 5] = ["NMI ", "watchdog: ", "rcu: ", "traps: ", "kmemleak: "];

/// The lines of `log` without levels, time stamps, callers, subsystems and blanks around them.
///
/// A time stamp within a line starts a line of its own: a program wrote to the console without
/// ending its line.
pub(super) fn clean(log: &str) -> impl Iterator<Item = &str> {
    log.lines().flat_map(split_at_stamps).map(strip)
}

/// The first `bytes` bytes of `text` at most, cut between characters.
pub(super) fn cut(text: &str, bytes: usize) -> &str {
    &text[..text.floor_char_boundary(bytes)]
}

fn split_at_stamps(line: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    let mut start = 0;
    for (at, _) in line.match_indices('[') {
        if at > start && time_stamp(&line[at..]).is_some() {
            let before = &line[start..at];
            // A level belongs to the time stamp behind it.
            let level = before.rfind('<').filter(|level| strip_level(&before[*level..]).is_empty());
            let cut = start + level.unwrap_or(before.len());
            if cut > start {
                parts.push(&line[start..cut]);
                start = cut;
            }
        }
    }
    parts.push(&line[start..]);
    parts
}

fn strip(line: &str) -> &str {
    let mut rest = strip_level(line.trim());
    if let Some(after) = time_stamp(rest) {
        rest = after.trim_start();
        rest = caller(rest).unwrap_or(rest).trim_start();
    }
    for subsystem in SUBSYSTEMS {
        rest = rest.strip_prefix(subsystem).unwrap_or(rest);
    }
    rest.trim_start()
}

/// Gives the text that follows `<4>`.
fn strip_level(line: &str) -> &str {
    let Some(rest) = line.strip_prefix('<') else { return line };
    match rest.split_once('>') {
        Some((level, rest)) if (1..=3).contains(&level.len()) && level.bytes().all(|byte| byte.is_ascii_digit()) => {
            rest
        }
        _ => line,
    }
}

/// Gives the text that follows `[   12.345678]` (`print_time()` in `kernel/printk/printk.c`, 6.12).
fn time_stamp(line: &str) -> Option<&str> {
    let (stamp, rest) = line.strip_prefix('[')?.split_once(']')?;
    let (seconds, fraction) = stamp.trim_start().split_once('.')?;
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    (digits(seconds) && digits(fraction) && fraction.len() == 6).then_some(rest)
}

/// Gives the text that follows `[  T123]` or `[    C0]` (`CONFIG_PRINTK_CALLER`, `print_caller()`).
fn caller(line: &str) -> Option<&str> {
    let (id, rest) = line.strip_prefix('[')?.split_once(']')?;
    let number = id.trim_start().strip_prefix(['T', 'C'])?;
    (!number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit())).then_some(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_console_adds_is_stripped() {
        let cleaned = |line| clean(line).collect::<Vec<_>>();
        assert_eq!(cleaned("[   12.345678] BUG: x\r"), ["BUG: x"]);
        assert_eq!(cleaned("<4>[   12.345678][  T123] BUG: x"), ["BUG: x"]);
        assert_eq!(cleaned("[  112.345678][    C0] watchdog: BUG: x"), ["BUG: x"]);
        assert_eq!(cleaned("[    1.000000]  foo+0x1/0x2"), ["foo+0x1/0x2"]);
        assert_eq!(cleaned("<6>plain"), ["plain"]);
        assert_eq!(cleaned("[ BUG: Invalid wait context ]"), ["[ BUG: Invalid wait context ]"]);
        assert_eq!(cleaned("mounting..<4>[   12.345678] BUG: x"), ["mounting..", "BUG: x"]);
        assert_eq!(cleaned("a<b [    2.000000] c [    3.000000] d"), ["a<b", "c", "d"]);
    }
}
