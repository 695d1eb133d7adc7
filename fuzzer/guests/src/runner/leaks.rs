//! Leaks: memory that each run of a plan allocates and does not free, by source line.
//!
//! A line of which more is in use after an execution proves nothing: caches grow, and what is freed
//! by and by is not free yet. So the plan runs again, twice, in the same guest. A line that grew
//! each time by the same number of allocations leaks, unless it grows by as much without faults. At
//! last the plan runs once more when all is free that was put off.
//!
//! That costs executions. A line that was looked at waits for longer and longer until it is looked
//! at again. In a fresh guest, in which crashes are tried, none waits.

use std::{collections::HashMap, thread, time::Duration};

use execution::{Attributed, Execution, Fate, Finding, FindingKind, How};
use fault_plan::FaultPlan;
use guest_protocol::Growth;

use super::{
    Asked, GuestRunner,
    leftover::{evidence, seen},
    unreferenced::{Allocated, Unreferenced},
};

/// Runs of a plan: the first one, two more, and the last one.
const RUNS: usize = 4;
/// Runs of the fault-free plan before the last one.
const FAULT_FREE_RUNS: usize = 2;
/// Time before the last run of a plan, in which RCU frees what piled up in those before: seven work
/// queues of a mount that failed were there three runs later, and were no leak.
const FREED_AFTER: Duration = Duration::from_millis(500);
/// Time before one run more, in which the kernel frees what it puts off: `kfree_rcu()` collects for
/// 5 s (`KFREE_DRAIN_JIFFIES` of `kernel/rcu/tree.c`, 6.12), and waits for all readers then.
const PUT_OFF: Duration = Duration::from_secs(6);
/// Executions until a line is looked at once more; twice as many the next
/// time.
const PAUSE: u64 = 32;
/// The most doublings.
const DOUBLINGS: u32 = 8;

/// Lines whose memory is not the workload's: the disk, which is memory; slabs and pages behind
/// objects that have lines of their own; areas of `vmalloc()`, which are freed many at once (what
/// is in them counts for its caller); the detectors, BPF and KCOV; memory of user space.
const OTHERS: &[&str] = &[
    "drivers/block/brd.c",
    "mm/slub.c",
    "mm/slab_common.c",
    "mm/percpu",
    "mm/vmalloc.c",
    "mm/memory.c",
    "mm/kasan/",
    "mm/kmemleak.c",
    "lib/stackdepot.c",
    "lib/debugobjects.c",
    "kernel/kcov.c",
    "kernel/bpf/",
    "kernel/trace/",
];

/// The lines that are known to grow.
#[derive(Debug, Default)]
pub(super) struct Leaks {
    /// Those that grow without faults: by how many allocations in the two runs in which they grew
    /// most, the second first. One run may be the only one, as it fills a cache.
    normal: HashMap<String, [u32; 2]>,
    /// Those that were looked at: how often, and when to look again, in executions.
    waiting: HashMap<String, (u32, u64)>,
    executions: u64,
}

impl Leaks {
    /// Takes in what grew in a fault-free execution.
    fn learn(&mut self, growth: &[Growth]) {
        for growth in growth {
            let [second, most] = self.normal.entry(growth.place.clone()).or_default();
            *second = growth.calls.min(*most).max(*second);
            *most = growth.calls.max(*most);
        }
    }

    /// Says whether a line grows by as much without faults, again and again.
    fn is_normal(&self, line: &Growth) -> bool {
        self.normal.get(&line.place).is_some_and(|[second, _]| *second >= line.calls)
    }

    /// Gives the lines that may leak: all of them, or those that need not wait.
    fn candidates(&mut self, growth: &[Growth], all: bool) -> Vec<Growth> {
        self.executions += 1;
        let is_open = |growth: &&Growth| {
            let place = growth.place.as_str();
            !OTHERS.iter().any(|other| place.starts_with(other))
                && !self.is_normal(growth)
                && (all || self.waiting.get(place).is_none_or(|(_, at)| *at <= self.executions))
        };
        growth.iter().filter(is_open).cloned().collect()
    }

    /// Takes in that these lines were looked at.
    fn looked_at(&mut self, lines: &[Growth]) {
        for line in lines {
            let (often, at) = self.waiting.entry(line.place.clone()).or_default();
            *at = self.executions + (PAUSE << (*often).min(DOUBLINGS));
            *often += 1;
        }
    }
}

/// Keeps those of `lines` that grew by the same again.
fn grown_again(lines: &mut Vec<Growth>, growth: &[Growth]) {
    let same = |line: &Growth| growth.iter().any(|again| again.place == line.place && again.calls == line.calls);
    lines.retain(same);
}

/// Drops those of `lines` that grew by as much without faults.
fn grown_anyway(lines: &mut Vec<Growth>, growth: &[Growth]) {
    let as_much = |line: &Growth| growth.iter().any(|normal| normal.place == line.place && normal.calls >= line.calls);
    lines.retain(|line| !as_much(line));
}

/// Makes the finding of a line. Where kmemleak was asked, it has what that said of the line: its
/// words, and the stack of an allocation.
fn leak(line: &Growth, plan: &FaultPlan, execution: &Execution, allocated: Option<Allocated>) -> Finding {
    let Growth { place, function, calls, bytes } = line;
    let title = format!("memory leak of {function} ({place})");
    let told = format!(
        "{place} ({function}): each of {RUNS} runs left {calls} allocations with {bytes} bytes; runs without faults left fewer"
    );
    let Allocated { words, stack } = allocated.unwrap_or_default();
    let told = if words.is_empty() { told } else { format!("{told}\n{words}") };
    let text = evidence(&told, plan, &execution.fired, &execution.steps);
    let finding = seen(FindingKind::Leak, format!("memory leak: {function}"), title, text, &execution.fired);
    if stack.is_empty() { finding } else { Finding { stack, ..finding } }
}

impl GuestRunner {
    /// Adds the leaks of the last round of a plan, its `number`-th from 0, to the `execution`,
    /// whose guest is at hand. Runs the round again where there may be some.
    pub(super) fn find_leaks(&mut self, round: &FaultPlan, how: How, number: usize, execution: &mut Execution) {
        let growth = std::mem::take(&mut self.growth);
        if execution.guest != Fate::Alive || !execution.findings.is_empty() || self.guest.is_none() {
            return;
        }
        if round.is_fault_free() {
            // The first run of a guest fills caches, too.
            if self.drift.executions > 1 {
                self.leaks.learn(&growth);
            }
            return;
        }
        if execution.fired.is_empty() {
            return;
        }
        let candidates = self.leaks.candidates(&growth, how != How::Warm);
        if candidates.is_empty() {
            return;
        }
        if how == How::Warm {
            self.leaks.looked_at(&candidates);
        }
        // The returns of calls are noted once.
        let how = if how == How::Traced { How::Fresh } else { how };
        let lines = self.leaking(Asked { how, number, ..Asked::warm(round) }, candidates);
        let unreferenced = (how == How::Searched && !lines.is_empty()).then(|| self.unreferenced(how)).flatten();
        if self.guest.is_none() {
            execution.guest = Fate::Retired;
        }
        for line in &lines {
            let allocated = unreferenced.as_ref().map(|unreferenced| unreferenced.of(line));
            let leak = leak(line, round, execution, allocated);
            execution.findings.push(leak);
        }
    }

    /// Gives those of `lines` that grow in each run as `asked`, and not as much without faults;
    /// none when the guest is none to go on with.
    fn leaking(&mut self, asked: Asked<'_>, mut lines: Vec<Growth>) -> Vec<Growth> {
        for pause in [Duration::ZERO, FREED_AFTER] {
            self.run_again(asked, pause, &mut lines);
            if lines.is_empty() {
                return lines;
            }
        }
        for _ in 0..FAULT_FREE_RUNS {
            match self.grown_without_faults(asked.how, false) {
                Some(growth) => {
                    self.leaks.learn(&growth);
                    grown_anyway(&mut lines, &growth);
                }
                None => lines.clear(),
            }
            if lines.is_empty() {
                return lines;
            }
        }
        self.run_again(asked, PUT_OFF, &mut lines);
        lines
    }

    /// Runs a round once more after a `pause`. Keeps those of `lines` that grow by the same again;
    /// none when the guest has gone.
    fn run_again(&mut self, asked: Asked<'_>, pause: Duration, lines: &mut Vec<Growth>) {
        thread::sleep(pause);
        match self.grown(asked) {
            Some(growth) => grown_again(lines, &growth),
            None => lines.clear(),
        }
    }

    /// Runs a round once more in the guest at hand. Gives what grew; nothing when that guest has
    /// gone. Findings have the history of that run, and so they are late ones.
    fn grown(&mut self, asked: Asked<'_>) -> Option<Vec<Growth>> {
        let Ok(again) = self.attempt_once(asked) else {
            self.discard();
            return None;
        };
        if again.guest == Fate::Alive && again.findings.is_empty() {
            return Some(std::mem::take(&mut self.growth));
        }
        let Execution { findings, fired, console, history, .. } = again;
        if !findings.is_empty() {
            self.late.push(Attributed { plan: asked.plan.clone(), how: asked.how, fired, findings, console, history });
        }
        self.discard();
        None
    }

    /// Has kmemleak look what nothing points to in the guest at hand, in which a plan has leaked.
    /// The workload runs once more without faults: it overwrites what the plan has left in memory
    /// that is used again.
    fn unreferenced(&mut self, how: How) -> Option<Unreferenced> {
        self.grown_without_faults(how, true)?;
        let lines = self.prepared.kernel.source_lines();
        let lines = lines.inspect_err(|error| tracing::warn!("{}", execution::chain(error))).ok();
        Some(Unreferenced::new(&std::mem::take(&mut self.unreferenced), lines.as_ref()))
    }

    /// Runs the fault-free plan in the guest at hand, and has kmemleak `search` then. Gives what
    /// grew; nothing when that guest has gone.
    fn grown_without_faults(&mut self, how: How, search: bool) -> Option<Vec<Growth>> {
        let previous = self.attribution.previous().cloned();
        let fault_free = self.prepared.target.fault_free();
        let Ok(control) = self.attempt_once(Asked { how, search, ..Asked::warm(&fault_free) }) else {
            self.discard();
            return None;
        };
        let growth = std::mem::take(&mut self.growth);
        self.note_control(previous, control).then_some(growth)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(place: &str, calls: u32) -> Growth {
        Growth { place: place.to_owned(), function: "f".to_owned(), calls, bytes: 8 }
    }

    #[test]
    fn a_line_that_did_not_grow_again_waits_longer_and_longer() {
        let mut leaks = Leaks::default();
        leaks.learn(&[line("fs/cache.c:1", 3)]);
        leaks.learn(&[line("fs/cache.c:1", 4)]);
        let growth = [line("fs/cache.c:1", 3), line("mm/slub.c:9", 1), line("fs/f.c:7", 2)];
        let mut looked = Vec::new();
        for execution in 1..=300 {
            let candidates = leaks.candidates(&growth, false);
            if !candidates.is_empty() {
                assert_eq!(candidates, [line("fs/f.c:7", 2)]);
                leaks.looked_at(&candidates);
                looked.push(execution);
            }
        }
        assert_eq!(looked, [1, 33, 97, 225]);
        assert_eq!(leaks.candidates(&growth, true).len(), 1, "in a fresh guest it does not wait");
    }

    #[test]
    fn a_line_is_normal_that_grows_as_much_in_several_runs_without_faults() {
        let mut leaks = Leaks::default();
        let candidates = |leaks: &mut Leaks, calls| leaks.candidates(&[line("fs/f.c:7", calls)], true).len();
        leaks.learn(&[line("fs/f.c:7", 5)]);
        assert_eq!(candidates(&mut leaks, 1), 1, "one run proves nothing");
        leaks.learn(&[line("fs/f.c:7", 2)]);
        assert_eq!((candidates(&mut leaks, 2), candidates(&mut leaks, 3)), (0, 1));
        leaks.learn(&[line("fs/f.c:7", 3)]);
        assert_eq!((candidates(&mut leaks, 3), candidates(&mut leaks, 5)), (0, 1));
        let mut lines = vec![line("a", 2), line("b", 2)];
        grown_anyway(&mut lines, &[line("a", 1), line("b", 2)]);
        assert_eq!(lines, [line("a", 2)]);
    }

    #[test]
    fn a_leak_grows_by_the_same_each_time() {
        let mut lines = vec![line("a", 1), line("b", 2), line("c", 1)];
        grown_again(&mut lines, &[line("a", 1), line("b", 1)]);
        assert_eq!(lines, [line("a", 1)]);
    }
}
