//! Progress of compiling.

use std::time::{Duration, Instant};

use super::Progress;

/// Interval at which compiling reports its progress.
const REPORT_EVERY: Duration = Duration::from_secs(1);

/// Progress of compiling, read from make's output.
pub(super) struct Meter {
    /// Objects so far.
    pub(super) done: u32,
    estimate: u32,
    begin: Instant,
    reported: Instant,
}

impl Meter {
    pub(super) fn new(estimate: u32) -> Self {
        let now = Instant::now();
        Self { done: 0, estimate, begin: now, reported: now }
    }

    /// Counts a line; says whether it is time to report.
    pub(super) fn line(&mut self, line: Option<&str>) -> bool {
        if line.is_some_and(|line| line.starts_with("  CC ") || line.starts_with("  AS ")) {
            self.done += 1;
        }
        let due = self.reported.elapsed() >= REPORT_EVERY;
        if due {
            self.reported = Instant::now();
        }
        due
    }

    pub(super) fn progress(&self) -> Progress {
        let total = self.estimate.max(self.done);
        let elapsed = self.begin.elapsed();
        let left = (self.done > 0).then(|| elapsed.mul_f64(f64::from(total - self.done) / f64::from(self.done)));
        Progress::Compiling { done: self.done, total, left }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_meter_counts_objects_and_never_promises_less_than_it_has() {
        let mut meter = Meter::new(2);
        for line in ["  CC      kernel/fork.o", "  AS      entry.o", "  LD      vmlinux.o", "  CC      late.o", "CC x"]
        {
            meter.line(Some(line));
        }
        meter.line(None);
        let Progress::Compiling { done, total, left, .. } = meter.progress() else { panic!("it compiles") };
        assert_eq!((done, total, left), (3, 3, Some(Duration::ZERO)));
    }
}
