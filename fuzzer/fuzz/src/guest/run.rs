//! A guest and what it executes.

use std::{
    fmt, mem, thread,
    time::{Duration, Instant},
};

use guest_protocol::{Execute, FromAgent, MemoryRange, Report, ToAgent};
use serde_json::json;

use super::{
    FiredLog, GuestError, Stop, Trace,
    console::Mark,
    machine::{Machine, Wake},
    template::unexpected,
};

/// How long after an execution a kernel is listened to when that is all there is to do.
const LATE: Duration = Duration::from_millis(200);

/// Asking how long the guest's threads have waited takes a tenth of a millisecond. So that is done at most once
/// in this time, and not after executions that were shorter.
const WAITED_INTERVAL: Duration = Duration::from_secs(1);

/// A running guest. Its process ends when it is dropped.
pub struct Guest {
    machine: Machine,
    places: Places,
    /// Whether the agent notices the first request without being rung.
    awake: bool,
    stop: Stop,
    state: State,
    /// Whether it has reported an execution.
    reported: bool,
    /// End of the last execution's console text.
    told: Mark,
    /// How long the guest's threads had waited for a processor of the host when that was last asked.
    waited: Option<(Instant, Duration)>,
}

/// What the host reads in the guest's memory.
#[derive(Clone, Debug)]
pub(super) struct Places {
    /// Guest-physical address of the log of fired faults.
    pub(super) fired_log: u64,
    /// Where the coverage trace is.
    pub(super) trace: Vec<MemoryRange>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Saved,
    Idle,
    Dead,
}

/// What one execution did, seen from the host.
#[derive(Clone, Debug, PartialEq)]
pub struct GuestRun {
    /// How it ended.
    pub end: RunEnd,
    /// What the guest printed from the moment when the plan was in place (from the start of the execution, where that
    /// moment is not known) to the execution's end; at most the last 4 MiB.
    pub console: String,
    /// What it printed between the end of the execution before (or its birth) and that moment: late effects of earlier
    /// executions. First the console's text, then what the agent read of the kernel's log.
    pub console_before: String,
    /// From the request to the guest's answer or end.
    pub wall: Duration,
    /// How long the guest's threads, all together, were ready to run and the host ran something else, since at most a second before
    /// the request; nothing for an execution of less than a second.
    pub starved: Duration,
}

/// How an execution ended.
#[derive(Clone, Debug, PartialEq)]
pub enum RunEnd {
    /// The agent reports. The guest can execute more, unless the report says that it is not clean.
    Completed(Box<Report>),
    /// The agent cannot do what was asked; the reason. The guest can execute more.
    Refused(String),
    /// The plan was not run, as an earlier execution left something behind: what. The guest is dead;
    /// [`GuestRun::console_before`] is all that it printed since that execution.
    Unclean(String),
    /// The kernel died. The guest is dead.
    Died {
        /// What had fired; nothing when the log cannot be read.
        fired: Option<FiredLog>,
    },
    /// The deadline passed. The guest is dead.
    Hung {
        /// What had fired; nothing when the log cannot be read.
        fired: Option<FiredLog>,
        /// What the kernel printed when it was interrupted after the deadline: a panic ("NMI: Not continuing") that is
        /// none of its own, with the stack of what its processor was at. Empty when it did not answer.
        stack: String,
    },
    /// The kernel had died or hung before this execution's plan was in place: a late effect of an earlier one. This
    /// one's plan was not run. The guest is dead; [`GuestRun::console_before`] tells of its death.
    DiedBefore {
        /// What had fired in the execution before; nothing when the log cannot be read.
        fired: Option<FiredLog>,
        /// As in [`RunEnd::Hung`], if it hung until the deadline.
        stack: Option<String>,
    },
}

impl RunEnd {
    /// Whether the plan was run.
    fn has_run(&self) -> bool {
        matches!(self, Self::Completed(_) | Self::Died { .. } | Self::Hung { .. })
    }
}

impl GuestRun {
    /// Takes out what belongs to earlier executions. `earlier` is the generation that the log of fired faults had when
    /// this one began; a plan that is put in place, as `inject` says, gives it another one.
    fn tell_from_earlier(&mut self, earlier: Option<u32>, inject: bool) {
        match &mut self.end {
            RunEnd::Completed(report) => {
                self.console.drain(..bytes_of(&report.log_before, &self.console));
                self.console_before.push_str(&report.log_before);
            }
            RunEnd::Unclean(_) => self.console_before.push_str(&mem::take(&mut self.console)),
            RunEnd::Died { fired: Some(log) } | RunEnd::Hung { fired: Some(log), .. }
                if Some(log.generation) == earlier =>
            {
                if inject {
                    let fired = Some(mem::take(log));
                    let stack =
                        if let RunEnd::Hung { stack, .. } = &mut self.end { Some(mem::take(stack)) } else { None };
                    self.end = RunEnd::DiedBefore { fired, stack };
                    self.console_before.push_str(&mem::take(&mut self.console));
                } else {
                    log.fired.clear();
                }
            }
            _ => {}
        }
    }
}

/// Among how many lines of the console one of the log is looked for, as a guest may send many of both.
const LINES_AHEAD: usize = 64;

/// How many bytes at the start of `console` print `log`. The console has a time before each line and leaves out lines
/// of little weight.
fn bytes_of(log: &str, console: &str) -> usize {
    let mut printed = 0;
    for line in log.lines().filter(|line| !line.trim().is_empty()) {
        let mut end = printed;
        let found = console[printed..].split_inclusive('\n').take(LINES_AHEAD).any(|on_console| {
            end += on_console.len();
            on_console.trim_end().ends_with(line.trim_end())
        });
        if found {
            printed = end;
        }
    }
    printed
}

impl Guest {
    pub(super) fn new(machine: Machine, places: Places, awake: bool, stop: Stop) -> Self {
        let (state, told) = (State::Saved, Mark::default());
        Self { machine, places, awake, stop, state, reported: false, told, waited: None }
    }

    /// Executes `request` and waits for its end, at most until `deadline` has passed. `trace` gets the code that ran, if it
    /// was to be recorded, also when the guest died or hung, and is empty otherwise.
    ///
    /// The kernel reports a soft lockup or a hung task by itself after 10 to 20 s: a longer deadline gives better
    /// reports of hangs.
    ///
    /// # Errors
    ///
    /// Guest trouble: see [`GuestError`]. The guest is dead after any error but a request that is too large.
    pub fn execute(
        &mut self,
        request: &Execute,
        deadline: Duration,
        trace: &mut Trace,
    ) -> Result<GuestRun, GuestError> {
        trace.clear();
        if self.state == State::Dead {
            return Err(GuestError::Dead);
        }
        let message = ToAgent::Execute(request.clone());
        message.encode()?;
        let result = self.run(&message, request, deadline);
        if let Ok(run) = &result
            && request.coverage
            && run.end.has_run()
            && let Err(error) = self.machine.read_trace(&self.places.trace, trace)
        {
            // How the execution ended is known nevertheless.
            tracing::warn!("no coverage of an execution: {}", crate::chain(&error));
            trace.clear();
        }
        match &result {
            Ok(run) if matches!(run.end, RunEnd::Completed(_) | RunEnd::Refused(_)) => {}
            _ => self.kill(),
        }
        result
    }

    fn run(&mut self, message: &ToAgent, request: &Execute, deadline: Duration) -> Result<GuestRun, GuestError> {
        let ended = self.machine.has_ended();
        if ended {
            self.machine.settle();
        }
        let start = self.machine.console().mark();
        let console_before = self.machine.console().between(mem::replace(&mut self.told, start), start);
        // What the log says now is of an earlier execution.
        let earlier = if ended { None } else { self.generation() };
        let waited = self.waited_before();
        let started = Instant::now();
        let wake = if ended {
            Wake::Ended
        } else {
            self.send(message)?;
            self.machine.receive(&self.stop, started + deadline)?
        };
        let wall = started.elapsed();
        let starved =
            if wall < WAITED_INTERVAL { Duration::ZERO } else { self.machine.waited().saturating_sub(waited) };
        let mut until = None;
        let end = match wake {
            Wake::Message(FromAgent::Report(report)) => {
                if report.id != request.id {
                    let found = format!("the report of execution {}", report.id);
                    return Err(GuestError::Unexpected { found, expected: "the report of this execution" });
                }
                self.reported = true;
                RunEnd::Completed(report)
            }
            Wake::Message(FromAgent::Refused(reason)) => RunEnd::Refused(reason),
            // Only what ran before can have left something, and what runs then has not begun.
            Wake::Message(FromAgent::Unclean(leftover)) if self.reported && self.generation() == earlier => {
                self.machine.settle();
                RunEnd::Unclean(leftover)
            }
            Wake::Message(other) => return Err(unexpected(&other, "a report")),
            Wake::Ended => {
                self.machine.settle();
                let fired = self.fired_log();
                if ended { RunEnd::DiedBefore { fired, stack: None } } else { RunEnd::Died { fired } }
            }
            Wake::Deadline => {
                let (hung, mark) = self.stop_hung()?;
                until = Some(mark);
                hung
            }
        };
        self.told = until.unwrap_or_else(|| self.machine.console().mark());
        let console = self.machine.console().between(start, self.told);
        let mut run = GuestRun { end, console, console_before, wall, starved };
        run.tell_from_earlier(earlier, request.inject);
        Ok(run)
    }

    /// How long the guest's threads had waited for a processor a short while ago.
    fn waited_before(&mut self) -> Duration {
        match self.waited {
            Some((asked, waited)) if asked.elapsed() < WAITED_INTERVAL => waited,
            _ => {
                let waited = self.machine.waited();
                self.waited = Some((Instant::now(), waited));
                waited
            }
        }
    }

    /// Gives the agent its request. A guest that was saved goes on only when it is there.
    fn send(&mut self, message: &ToAgent) -> Result<(), GuestError> {
        let saved = self.state == State::Saved;
        if saved && self.awake {
            self.machine.put(message)?;
        } else {
            self.machine.send(message)?;
        }
        if saved {
            self.machine.command("cont", &json!({}))?;
            self.state = State::Idle;
        }
        Ok(())
    }

    /// Asks the kernel where it is, then stops the guest.
    fn stop_hung(&mut self) -> Result<(RunEnd, Mark), GuestError> {
        let mark = self.machine.console().mark();
        if !self.machine.interrupt(&self.stop)? {
            self.machine.command("stop", &json!({}))?;
        }
        self.machine.settle();
        let stack = self.machine.console().since(mark);
        Ok((RunEnd::Hung { fired: self.fired_log(), stack }, mark))
    }

    /// The generation that the log of fired faults has now.
    fn generation(&self) -> Option<u32> {
        self.fired_log().map(|log| log.generation)
    }

    fn fired_log(&self) -> Option<FiredLog> {
        self.machine.fired_log(self.places.fired_log)
    }

    /// What the guest prints after the last execution, if it does so soon: it is given the time `LATE` and for as long
    /// after that as it prints.
    pub fn late_console(&mut self) -> String {
        thread::sleep(LATE);
        self.machine.settle();
        self.machine.console().since(self.told)
    }

    /// Ends the guest. Its console can still be read.
    pub fn kill(&mut self) {
        self.state = State::Dead;
        self.machine.kill();
    }

    /// The process id of its QEMU.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.machine.pid()
    }
}

impl fmt::Debug for Guest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guest").field("pid", &self.pid()).field("state", &self.state).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WARNING: &str = "WARNING: CPU: 0 PID: 7 at fs/x.c:1 late_work+0x1/0x2\n";

    fn run(end: RunEnd, console: &str) -> GuestRun {
        GuestRun {
            end,
            console: console.to_owned(),
            console_before: "[    1.000000] earlier\n".to_owned(),
            wall: Duration::ZERO,
            starved: Duration::ZERO,
        }
    }

    fn log(generation: u32) -> Option<FiredLog> {
        let fired = super::super::Fired { fault: 0, sequence: 1, site: 2, stack: Vec::new() };
        Some(FiredLog { generation, fired: vec![fired] })
    }

    #[test]
    fn what_was_printed_before_the_plan_was_in_place_is_told_from_the_rest() {
        let log_before = format!("brd: of no weight\n\n{WARNING}Call Trace:\n");
        let report = Report { log_before: log_before.clone(), ..Report::default() };
        let console = format!("[    2.000000] {WARNING}[    2.000001] Call Trace:\n[    3.000000] own\n");
        let mut run = run(RunEnd::Completed(Box::new(report)), &console);
        run.tell_from_earlier(Some(4), true);
        assert_eq!(run.console, "[    3.000000] own\n");
        assert_eq!(run.console_before, format!("[    1.000000] earlier\n{log_before}"));
    }

    #[test]
    fn a_death_before_the_plan_was_in_place_is_the_execution_befores() {
        let hung = |generation| RunEnd::Hung { fired: log(generation), stack: String::new() };
        for (end, stack) in [(RunEnd::Died { fired: log(4) }, None), (hung(4), Some(String::new()))] {
            let mut run = run(end, WARNING);
            run.tell_from_earlier(Some(4), true);
            assert_eq!(run.end, RunEnd::DiedBefore { fired: log(4), stack }, "the log is still that execution's");
            assert_eq!((run.console.as_str(), run.console_before.ends_with(WARNING)), ("", true));
        }
        for end in [RunEnd::Died { fired: log(6) }, hung(6), RunEnd::Died { fired: None }] {
            let mut run = run(end.clone(), WARNING);
            run.tell_from_earlier(Some(4), true);
            assert_eq!((run.end, run.console.as_str()), (end, WARNING), "it is this one's own, or not known");
        }
    }

    #[test]
    fn what_a_guest_printed_that_was_not_clean_is_the_execution_befores() {
        let mut run = run(RunEnd::Unclean("a disk that is held".to_owned()), WARNING);
        run.tell_from_earlier(Some(4), true);
        assert_eq!((run.console.as_str(), run.console_before.ends_with(WARNING)), ("", true));
    }

    #[test]
    fn an_agents_trouble_is_the_guests() {
        let trouble = unexpected(&FromAgent::Trouble("no disk".to_owned()), "a report");
        assert!(matches!(trouble, GuestError::Agent(reason) if reason == "no disk"));
    }

    #[test]
    fn without_injection_nothing_fired() {
        let mut run = run(RunEnd::Died { fired: log(4) }, WARNING);
        run.tell_from_earlier(Some(4), false);
        assert_eq!(run.end, RunEnd::Died { fired: Some(FiredLog { generation: 4, fired: Vec::new() }) });
        assert_eq!(run.console, WARNING);
    }
}
