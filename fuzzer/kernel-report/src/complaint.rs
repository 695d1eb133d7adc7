//! What a file system's checker complains of: a line with numbers, and a title without.

/// The most bytes of a complaint's title.
const MOST_BYTES: usize = 100;

/// Questions to the user behind a complaint.
const QUESTIONS: &[&str] = &["  Fix?", "  Clear?", " Fix?", " Clear?"];

/// Gives the title of a complaint: the line with an N for each number, without a question to the
/// user, and without the numbers at its end.
#[must_use]
pub fn complaint_title(line: &str) -> String {
    let mut words: Vec<String> = unasked(line).split_whitespace().map(number_free).collect();
    while words.last().is_some_and(|word| !word.contains(|letter: char| letter.is_lowercase())) {
        words.pop();
    }
    let mut text = words.join(" ");
    text.truncate(text.floor_char_boundary(MOST_BYTES));
    text.trim_end_matches([':', '.', ',', ' ']).to_owned()
}

/// Gives the word with an N in the place of each run of letters and digits that has a digit.
fn number_free(word: &str) -> String {
    let mut text = String::new();
    let mut run = String::new();
    // The last one ends the last run.
    for letter in word.chars().chain(['\0']) {
        if letter.is_alphanumeric() {
            run.push(letter);
            continue;
        }
        let is_number = run.contains(|letter: char| letter.is_ascii_digit());
        text += if is_number { "N" } else { &run };
        run.clear();
        text.extend((letter != '\0').then_some(letter));
    }
    text
}

/// Gives the line without a question to the user.
fn unasked(line: &str) -> &str {
    QUESTIONS.iter().find_map(|question| Some(line.split_once(question)?.0)).unwrap_or(line)
}

/// Gives `title` with the complaint of the checker's `report` that it is about, numbers and all.
#[must_use]
pub fn with_complaint(title: &str, report: &str) -> String {
    let complaint = report.lines().map(|line| unasked(line).trim()).find_map(|line| {
        let words = complaint_title(line);
        (words.contains('N') && title.contains(&words)).then_some((words, line))
    });
    complaint.map_or_else(|| title.to_owned(), |(words, line)| title.replacen(&words, line, 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_complaint_is_told_with_its_numbers() {
        let report = "btrfs check\n[2/7] checking extents\nref mismatch on [13807616 8192] extent item 0, found 1\n";
        let title = "btrfs check: ref mismatch on [N N] extent item N, found after a failure in f";
        let told = "btrfs check: ref mismatch on [13807616 8192] extent item 0, found 1 after a failure in f";
        assert_eq!(with_complaint(title, report), told);
        assert_eq!(with_complaint("WARNING in f", "WARNING: CPU: 0 PID: 3 at a.c:7 f+0x1/0x2\n"), "WARNING in f");
        assert_eq!(with_complaint("N", "7\n"), "N");
    }
}
