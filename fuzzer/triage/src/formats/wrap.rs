//! Text for terminals and mails.

/// Breaks prose into lines of at most `columns`, at blanks. A longer word has a line of its own.
pub(super) fn wrap(text: &str, columns: usize) -> String {
    let (mut wrapped, mut width) = (String::new(), 0);
    for word in text.split_whitespace() {
        let length = word.chars().count();
        if width > 0 && width + 1 + length > columns {
            wrapped.push('\n');
            width = 0;
        } else if width > 0 {
            wrapped.push(' ');
            width += 1;
        }
        wrapped.push_str(word);
        width += length;
    }
    wrapped
}

/// Breaks prose likewise, and indents all lines, the first by `first` and the others as far.
pub(super) fn indent(text: &str, first: &str, columns: usize) -> String {
    let width = first.chars().count();
    let lines = wrap(text, columns.saturating_sub(width));
    let blank = " ".repeat(width);
    lines.lines().enumerate().map(|(at, line)| format!("{}{line}\n", if at == 0 { first } else { &blank })).collect()
}

/// Replaces what a terminal would take for commands: the guest is hostile.
pub(super) fn plain(text: &str) -> String {
    text.chars()
        .map(|character| if character.is_control() && character != '\n' && character != '\t' { '?' } else { character })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prose_is_broken_and_indented() {
        assert_eq!(wrap("a bb  ccc dddd", 6), "a bb\nccc\ndddd");
        assert_eq!(wrap("longer than that", 3), "longer\nthan\nthat");
        assert_eq!(indent("a bb ccc", "- ", 6), "- a bb\n  ccc\n");
        assert_eq!(plain("a\u{1b}[2Jb\r\n\tc"), "a?[2Jb?\n\tc");
    }
}
