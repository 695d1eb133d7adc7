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
//! All that the process writes to standard error goes through [`Progress`], the log as well, so
//! that a line that stays never ends up inside one that moves.

use std::{
    io::{self, Write},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use crossbeam::channel::{RecvTimeoutError, Sender, bounded};
use guests::progress::{Part, ProgressSink, Task};
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Interval at which a line that moves is drawn again.
const REDRAW_EVERY: Duration = Duration::from_secs(1);
/// Interval at which a task reports its progress where no line can move.
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
    /// True when lines can move.
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
    /// Writes whole lines above those that move. When nobody reads them any more, there is nobody
    /// to tell.
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

    /// Says whether standard error is a terminal whose lines can move.
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

/// A task that is shown. A thread of its own shows it again and again, however long it says
/// nothing.
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

    fn note(&self, text: &str) {
        self.shown.progress.say(&format!("{}: {text}", self.shown.name));
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
mod tests;
