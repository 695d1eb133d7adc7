//! Standard error: lines that stay, and below them a line that moves for each task under way.
//!
//! ```text
//!                    a terminal                       anything else
//! begin  ──────────▶ a line that stays                a line
//!    │               a line that moves appears
//!    ▼
//! under way ───────▶ it moves every second            a line every minute
//!    │
//!    ├─ done ──────▶ a line that stays: how long      a line
//!    ▼
//! end (dropped) ───▶ the line that moves disappears
//! ```
//!
//! All that the process writes to standard error goes through [`Progress`], the log as well, so that a
//! line that stays never ends up inside one that moves.

use std::{
    io::{self, Write},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use crossbeam::channel::{RecvTimeoutError, Sender, bounded};
use guests::progress::{Part, ProgressSink, Task};
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

/// How often a line that moves is drawn again.
const REDRAW_EVERY: Duration = Duration::from_secs(1);
/// How often a task says how far it is where no line can move.
const LINE_EVERY: Duration = Duration::from_secs(60);

/// Line that moves, of a task that does not know how much there is to do.
const SPINNER: &str = "{spinner} {wide_msg}";
/// Line that moves, of a task that does.
const BAR: &str = "{spinner} [{bar:24}] {wide_msg}";

/// Standard error of this process. Clones are the same one.
#[derive(Clone, Debug)]
pub struct Progress(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    /// Held while anything is written.
    screen: Mutex<Screen>,
    /// Whether lines can move.
    moves: bool,
}

struct Screen {
    out: Box<dyn Write + Send>,
    bars: MultiProgress,
    /// The lines that move now.
    moving: Vec<ProgressBar>,
}

impl std::fmt::Debug for Screen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Screen").field("moving", &self.moving.len()).finish_non_exhaustive()
    }
}

impl Screen {
    /// Writes whole lines above those that move. When nobody reads them any more, there is nobody to
    /// tell.
    fn write(&mut self, lines: &[u8]) {
        // `MultiProgress::suspend` would panic when the terminal is gone.
        if !self.moving.is_empty() {
            let _ = self.bars.clear();
        }
        let _ = self.out.write_all(lines).and_then(|()| self.out.flush());
        self.moving.iter().for_each(ProgressBar::force_draw);
    }
}

impl Progress {
    /// Takes standard error.
    #[must_use]
    pub fn stderr() -> Self {
        Self::new(Box::new(io::stderr()), ProgressDrawTarget::stderr())
    }

    fn new(out: Box<dyn Write + Send>, target: ProgressDrawTarget) -> Self {
        let bars = MultiProgress::with_draw_target(target);
        let moves = !bars.is_hidden();
        Self(Arc::new(Shared { screen: Mutex::new(Screen { out, bars, moving: Vec::new() }), moves }))
    }

    fn screen(&self) -> MutexGuard<'_, Screen> {
        self.0.screen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes a line that stays: a step, or an error.
    pub fn say(&self, text: &str) {
        self.screen().write(format!("fuzz: {text}\n").as_bytes());
    }

    /// Gives a writer of lines that stay. It keeps what it gets until the line ends.
    #[must_use]
    pub fn writer(&self) -> LineWriter {
        LineWriter { progress: self.clone(), line: Vec::new() }
    }

    /// Whether standard error is a terminal whose lines can move.
    #[must_use]
    pub fn is_terminal(&self) -> bool {
        self.0.moves
    }
}

impl ProgressSink for Progress {
    fn begin(&self, name: &str, text: &str) -> Box<dyn Task + '_> {
        self.say(text);
        let every = if self.is_terminal() { REDRAW_EVERY } else { LINE_EVERY };
        Box::new(Running::start(self, name, every))
    }
}

/// Writer of lines that stay.
#[derive(Debug)]
pub struct LineWriter {
    progress: Progress,
    line: Vec<u8>,
}

impl Write for LineWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.line.extend_from_slice(bytes);
        if let Some(end) = self.line.iter().rposition(|byte| *byte == b'\n') {
            let rest = self.line.split_off(end + 1);
            self.progress.screen().write(&self.line);
            self.line = rest;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A task that is shown. A thread of its own shows it again and again, however long it says nothing.
struct Running {
    shown: Arc<Shown>,
    /// The thread ends when this is dropped.
    end: Option<Sender<()>>,
    thread: Option<thread::JoinHandle<()>>,
}

struct Shown {
    progress: Progress,
    name: String,
    begin: Instant,
    doing: Mutex<(String, Option<Part>)>,
    /// The line that moves, where lines can.
    bar: Option<ProgressBar>,
}

impl Running {
    fn start(progress: &Progress, name: &str, every: Duration) -> Self {
        let bar = progress.is_terminal().then(|| {
            let mut screen = progress.screen();
            let bar = screen.bars.add(ProgressBar::new(0).with_style(style(SPINNER)));
            screen.moving.push(bar.clone());
            bar
        });
        let (progress, name) = (progress.clone(), name.to_owned());
        let doing = Mutex::new(("starting".to_owned(), None));
        let shown = Arc::new(Shown { progress, name, begin: Instant::now(), doing, bar });
        let (end, ended) = bounded(0);
        let ticking = Arc::clone(&shown);
        let tick = move || {
            while ended.recv_timeout(every) == Err(RecvTimeoutError::Timeout) {
                ticking.show();
            }
        };
        // Without the thread the line moves less, and that is all.
        let thread = thread::Builder::new().name("progress".to_owned()).spawn(tick).ok();
        Self { shown, end: Some(end), thread }
    }
}

impl Shown {
    fn text(&self) -> (String, Option<Part>) {
        let (doing, part) = self.doing.lock().unwrap_or_else(PoisonError::into_inner).clone();
        (format!("{}: {doing}, {} so far", self.name, duration(self.begin.elapsed())), part)
    }

    /// Shows how far it is.
    fn show(&self) {
        let (text, part) = self.text();
        let Some(bar) = &self.bar else { return self.progress.say(&text) };
        let _screen = self.progress.screen();
        if part.is_some() {
            bar.set_style(style(BAR));
        }
        bar.update(|state| {
            if let Some(Part { done, total }) = part {
                state.set_len(total.into());
                state.set_pos(done.into());
            }
        });
        bar.set_message(text);
    }
}

impl Task for Running {
    fn update(&self, doing: &str, part: Option<Part>) {
        *self.shown.doing.lock().unwrap_or_else(PoisonError::into_inner) = (doing.to_owned(), part);
        if self.shown.bar.is_some() {
            self.shown.show();
        }
    }

    fn done(&self, result: &str) {
        let Shown { progress, name, begin, .. } = &*self.shown;
        progress.say(&format!("{name}: {result} in {}", duration(begin.elapsed())));
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.end.take());
        // A thread that panicked has said so itself.
        let _ = self.thread.take().map(thread::JoinHandle::join);
        if let Some(bar) = &self.shown.bar {
            let mut screen = self.shown.progress.screen();
            bar.finish_and_clear();
            screen.bars.remove(bar);
            screen.moving.retain(|other| !other.is_finished());
        }
    }
}

fn style(template: &str) -> ProgressStyle {
    // The templates are constants, and a unit test reads both.
    ProgressStyle::with_template(template)
        .map_or_else(|_| ProgressStyle::default_bar(), |style| style.progress_chars("=> "))
}

/// Writes a time for people.
fn duration(time: Duration) -> String {
    match time.as_secs() {
        seconds @ ..120 => format!("{seconds} s"),
        seconds => format!("{} min {} s", seconds / 60, seconds % 60),
    }
}

#[cfg(test)]
mod tests {
    use indicatif::{InMemoryTerm, TermLike};

    use super::*;

    /// What the terminal shows, or what was written where nothing moves.
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
        assert!(
            moving[1].ends_with("[======>                 ] two: compiled 1 of about 4 objects, 0 s so far"),
            "{text}"
        );

        first.done("built");
        drop(first);
        let text = out.text();
        let moving =
            text.strip_prefix(&format!("{expected}fuzz: one: built in 0 s\n")).map(|rest| rest.lines().count());
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
}
