//! Screens and files, and what is on them.

use indicatif::{InMemoryTerm, TermLike};

use super::*;

/// Screen of the terminal, or the text that was written where nothing moves.
#[derive(Clone, Debug)]
enum Out {
    Terminal(InMemoryTerm),
    File(Arc<Mutex<Vec<u8>>>),
}

impl Out {
    fn terminal(columns: u16) -> (Self, Progress) {
        let term = InMemoryTerm::new(20, columns);
        let out = Self::Terminal(term.clone());
        let progress = Progress::new(Box::new(out.clone()), ProgressDrawTarget::term_like(Box::new(term)));
        (out, progress)
    }

    fn file() -> (Self, Progress) {
        let out = Self::File(Arc::default());
        let progress = Progress::new(Box::new(out.clone()), ProgressDrawTarget::hidden());
        (out, progress)
    }

    fn text(&self) -> String {
        match self {
            Self::Terminal(term) => term.contents(),
            Self::File(bytes) => String::from_utf8(bytes.lock().unwrap().clone()).unwrap(),
        }
    }
}

impl Write for Out {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            // A terminal's driver makes both of a newline.
            Self::Terminal(term) => {
                let text = String::from_utf8_lossy(bytes).replace('\n', "\r\n");
                term.write_str(&text)?;
            }
            Self::File(file) => file.lock().unwrap().extend_from_slice(bytes),
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A terminal that is gone.
#[derive(Debug)]
struct Gone;

fn gone() -> io::Result<()> {
    Err(io::ErrorKind::BrokenPipe.into())
}

impl TermLike for Gone {
    fn width(&self) -> u16 {
        80
    }
    fn move_cursor_up(&self, _: usize) -> io::Result<()> {
        gone()
    }
    fn move_cursor_down(&self, _: usize) -> io::Result<()> {
        gone()
    }
    fn move_cursor_right(&self, _: usize) -> io::Result<()> {
        gone()
    }
    fn move_cursor_left(&self, _: usize) -> io::Result<()> {
        gone()
    }
    fn write_line(&self, _: &str) -> io::Result<()> {
        gone()
    }
    fn write_str(&self, _: &str) -> io::Result<()> {
        gone()
    }
    fn clear_line(&self) -> io::Result<()> {
        gone()
    }
    fn flush(&self) -> io::Result<()> {
        gone()
    }
}

impl Write for Gone {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        gone().map(|()| 0)
    }

    fn flush(&mut self) -> io::Result<()> {
        gone()
    }
}

#[test]
fn lines_that_stay_are_above_those_that_move() {
    let (out, progress) = Out::terminal(100);
    let first = progress.begin("one", "building one");
    first.update("unpacking", None);
    let second = progress.begin("two", "building two");
    second.update("compiled 1 of about 4 objects", Some(Part { done: 1, total: 4 }));
    let mut log = progress.writer();
    write!(log, "  5 s  100 executions").unwrap();
    assert!(!out.text().contains("executions"), "the line has not ended");
    writeln!(log, "  crashes {}", 0).unwrap();
    let expected = "fuzz: building one\nfuzz: building two\n  5 s  100 executions  crashes 0\n";
    let text = out.text();
    let moving = text.strip_prefix(expected).unwrap_or_else(|| panic!("{text}"));
    let moving: Vec<_> = moving.lines().collect();
    assert_eq!(moving.len(), 2, "{text}");
    assert!(moving[0].ends_with("one: unpacking, 0 s so far"), "{text}");
    assert!(moving[1].ends_with("[======>                 ] two: compiled 1 of about 4 objects, 0 s so far"), "{text}");

    first.done("built");
    drop(first);
    let text = out.text();
    let moving = text.strip_prefix(&format!("{expected}fuzz: one: built in 0 s\n")).map(|rest| rest.lines().count());
    assert_eq!(moving, Some(1), "{text}");
    drop(second);
    progress.say("the end");
    assert_eq!(out.text(), format!("{expected}fuzz: one: built in 0 s\nfuzz: the end"));
}

#[test]
fn a_line_that_moves_is_one_line_of_a_narrow_terminal() {
    let (out, progress) = Out::terminal(40);
    let task = progress.begin("one", "building one");
    task.update("compiled 1 of about 4 objects", Some(Part { done: 1, total: 4 }));
    assert_eq!(out.text().lines().count(), 2, "{}", out.text());
    drop(task);
    assert_eq!(out.text(), "fuzz: building one");
}

#[test]
fn nothing_moves_in_a_file() {
    let (out, progress) = Out::file();
    let task = progress.begin("one", "building one");
    for done in 0..100 {
        task.update("compiling", Some(Part { done, total: 100 }));
    }
    assert_eq!(out.text(), "fuzz: building one\n", "a line a minute");
    task.done("built");
    drop(task);
    assert_eq!(out.text(), "fuzz: building one\nfuzz: one: built in 0 s\n");
}

#[test]
fn a_task_that_says_nothing_is_shown_again_and_again() {
    let (_, progress) = Out::file();
    let doing = Mutex::new(("linking".to_owned(), None));
    let begin = Instant::now() - Duration::from_secs(185);
    let shown = Shown { progress: progress.clone(), name: "one".to_owned(), begin, doing, bar: None };
    assert_eq!(shown.text().0, "one: linking, 3 min 5 s so far");
    let (out, progress) = Out::file();
    let running = Running::start(&progress, "one", Duration::from_millis(1));
    let until = Instant::now() + Duration::from_secs(10);
    while out.text().lines().count() < 3 && Instant::now() < until {
        thread::sleep(Duration::from_millis(1));
    }
    drop(running);
    let lines = out.text().lines().count();
    assert!(lines >= 3, "{lines}");
    thread::sleep(Duration::from_millis(20));
    assert_eq!(out.text().lines().count(), lines, "it has ended");
}

#[test]
fn nobody_has_to_read_it() {
    let progress = Progress::new(Box::new(Gone), ProgressDrawTarget::term_like(Box::new(Gone)));
    let task = progress.begin("one", "building one");
    task.update("compiling", Some(Part { done: 1, total: 2 }));
    progress.say("still there");
    task.done("built");
}

#[test]
fn both_templates_are_understood() {
    for template in [SPINNER, BAR] {
        assert!(ProgressStyle::with_template(template).is_ok(), "{template}");
    }
}
