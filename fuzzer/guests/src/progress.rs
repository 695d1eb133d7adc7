//! Progress of what takes long, told to whoever shows it.

/// Receiver of progress. Several threads may tell it at the same time.
pub trait ProgressSink: Sync {
    /// Takes in that a task begins, which takes seconds or minutes. `name` tells it from the others
    /// that are under way, `text` is one line for people.
    fn begin(&self, name: &str, text: &str) -> Box<dyn Task + '_>;
}

/// A task under way. It ends when it is dropped.
pub trait Task {
    /// Takes in what the task is doing, a few words. `part` tells how much of all is done, where
    /// that is known.
    fn update(&self, doing: &str, part: Option<Part>);

    /// Takes in what people have to know, one line: it stays.
    fn note(&self, text: &str);

    /// Takes in that the task has succeeded, and how people call that, such as "built".
    fn done(&self, result: &str);
}

/// Part of a task that is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// Units so far.
    pub done: u32,
    /// Units in the end, an estimate.
    pub total: u32,
}

/// A receiver that shows nothing; the log has each begin, at its level `debug`.
#[derive(Clone, Copy, Debug)]
pub struct Silent;

impl ProgressSink for Silent {
    fn begin(&self, _: &str, text: &str) -> Box<dyn Task + '_> {
        tracing::debug!("{text}");
        Box::new(Self)
    }
}

/// A receiver that shows nothing; the log has each begin, at its level `info`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Logged;

impl ProgressSink for Logged {
    fn begin(&self, _: &str, text: &str) -> Box<dyn Task + '_> {
        tracing::info!("{text}");
        Box::new(Silent)
    }
}

impl Task for Silent {
    fn update(&self, _: &str, _: Option<Part>) {}
    fn note(&self, text: &str) {
        tracing::debug!("{text}");
    }
    fn done(&self, _: &str) {}
}
