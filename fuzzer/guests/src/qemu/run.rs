//! A guest and its executions.

use std::{
    fmt, mem, thread,
    time::{Duration, Instant},
};

use execution::Stop;
use guest_protocol::{Execute, FromAgent, Recorded, Report, ToAgent, TraceMemory, step_ran};
use kernel_report::STEP_RAN;
use serde_json::json;

use super::{
    Debugger, FiredLog, GuestError, Returns, Traces,
    console::Mark,
    machine::{Machine, Wake},
    physical::Trace,
};

/// Time after an execution in which the host listens to the kernel when nothing else is to do.
const LATE: Duration = Duration::from_millis(200);

/// The host asks for the waiting time of a guest's threads at most once in this time, and not after
/// shorter executions: asking takes a tenth of a millisecond.
const WAITED_INTERVAL: Duration = Duration::from_secs(1);

/// A running guest. Its process ends when it is dropped.
pub struct Guest {
    machine: Machine,
    addresses: Addresses,
    /// True when the agent notices the first request without being rung.
    awake: bool,
    /// The debugger that has it go on with its first request.
    debugger: Option<Debugger>,
    stop: Stop,
    state: State,
    /// True when it has reported an execution.
    reported: bool,
    /// End of the last execution's console text.
    told: Mark,
    /// The waiting time of the guest's threads, and when it was asked for.
    waited: Option<(Instant, Duration)>,
}

/// Places in the guest's memory that the host reads.
#[derive(Clone, Debug)]
pub(super) struct Addresses {
    /// Guest-physical address of the log of fired faults.
    pub(super) fired_log: u64,
    /// Guest-physical address of the values that traced calls return.
    pub(super) returns: u64,
    /// Places of the coverage traces.
    pub(super) traces: Vec<TraceMemory>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Saved,
    Idle,
    Dead,
}

/// The facts that the host sees of one request. Which execution they belong to is for
/// `runner::attribution` to say.
#[derive(Debug)]
pub struct Observed {
    /// The end of it.
    pub end: End,
    /// Console text between the end of the execution before (or the guest's birth) and the request.
    pub before: String,
    /// Console text from the request to the end; at most the last 4 MiB.
    pub console: String,
    /// Generation of the log of fired faults before the request; unknown when it cannot be read.
    pub generation_before: Option<u32>,
    /// The log of fired faults after the request; nothing when it cannot be read.
    pub log: Option<FiredLog>,
    /// The values that calls returned, where the request asks to trace them and they can be read.
    pub returns: Option<Returns>,
    /// From the request to the guest's answer or end.
    pub wall: Duration,
    /// Time that the guest's threads, all together, were ready to run while the host ran something
    /// else. It counts from at most a second before the request; 0 for an execution of less than a
    /// second, and for a hang that was no less one for it.
    pub starved: Duration,
}

/// The end of a request.
#[derive(Debug)]
pub enum End {
    /// The agent reports. The guest can execute more, unless the report says that it is not clean.
    Reported(Box<Report>),
    /// The agent cannot do what was asked; the reason. The guest can execute more.
    Refused(String),
    /// The agent did not run the plan, as an earlier execution left something behind: its
    /// description. The guest is dead.
    Unclean(String),
    /// The kernel had died before it was asked. The guest is dead.
    DeadBefore,
    /// The kernel died. The guest is dead.
    Died,
    /// The deadline passed, or a step does not return in an idle guest. The guest is dead.
    Hung {
        /// Text that the kernel printed when the host interrupted it after the deadline: a panic
        /// ("NMI: Not continuing") that is none of its own, with the stack of its processor. Empty
        /// when it did not answer. Behind it, below [`STEP_RAN`], are the functions in which the
        /// step ran when the agent last said so. Of a step that does not return in an idle guest,
        /// the functions in which it waits.
        stack: String,
    },
    /// Guest or host failed. The guest is dead.
    Lost(GuestError),
}

impl End {
    /// Says whether the plan may have run, so that there may be coverage.
    fn may_have_run(&self) -> bool {
        matches!(self, Self::Reported(_) | Self::Died | Self::Hung { .. })
    }
}

impl Guest {
    pub(super) fn new(
        machine: Machine,
        addresses: Addresses,
        awake: bool,
        debugger: Option<Debugger>,
        stop: Stop,
    ) -> Self {
        let (state, told) = (State::Saved, Mark::default());
        Self { machine, addresses, awake, debugger, stop, state, reported: false, told, waited: None }
    }

    /// Executes `request` and waits for its end, at most until `deadline` has passed, of which only
    /// the time counts in which the host lets the guest run. `traces` get the code that ran, if the
    /// request asks for it, also of a guest that died or hung; else they are empty.
    ///
    /// The kernel reports a soft lockup or a hung task by itself after 10 to 20 s: a longer
    /// deadline gives better reports of hangs.
    pub fn execute(&mut self, request: &Execute, deadline: Duration, traces: &mut Traces) -> Observed {
        traces.iter_mut().for_each(Trace::clear);
        let observed = self.observe(request, deadline);
        if request.coverage != Recorded::Nothing && observed.end.may_have_run() {
            for TraceMemory { role, ranges } in &self.addresses.traces {
                let trace = &mut traces[role.index()];
                if let Err(error) = self.machine.read_trace(ranges, trace) {
                    // The end of the execution is known nevertheless.
                    tracing::warn!(%role, "no coverage of an execution: {}", execution::chain(&error));
                    trace.clear();
                }
            }
        }
        if !matches!(observed.end, End::Reported(_) | End::Refused(_)) {
            self.kill();
        }
        observed
    }

    fn observe(&mut self, request: &Execute, deadline: Duration) -> Observed {
        let ended = self.machine.has_ended();
        if ended {
            self.machine.settle();
        }
        let start = self.machine.console().mark();
        let before = self.machine.console().between(mem::replace(&mut self.told, start), start);
        // The log is still that of an earlier execution.
        let generation_before = if ended { None } else { self.generation() };
        let waited = self.waited_before();
        let started = Instant::now();
        let mut until = None;
        let end = if ended {
            self.machine.settle();
            End::DeadBefore
        } else {
            let end = self.answer(request, (deadline, waited), generation_before, &mut until);
            end.unwrap_or_else(End::Lost)
        };
        let wall = started.elapsed();
        let starved =
            if wall < WAITED_INTERVAL { Duration::ZERO } else { self.machine.waited().saturating_sub(waited) };
        // A hang before the deadline is the agent's word, of a guest that is idle: it asks for no
        // processor. One that ran for all the time that it was allowed hangs, however long it took.
        let allowed = wall < deadline || wall.saturating_sub(starved) + 2 * WAITED_INTERVAL >= deadline;
        let starved = if allowed && matches!(end, End::Hung { .. }) { Duration::ZERO } else { starved };
        let log = if matches!(end, End::Lost(_)) { None } else { self.fired_log() };
        let returns = log.as_ref().filter(|_| !request.trace.is_empty());
        let returns = returns.and_then(|_| self.machine.returns(self.addresses.returns));
        self.told = until.unwrap_or_else(|| self.machine.console().mark());
        let console = self.machine.console().between(start, self.told);
        Observed { end, before, console, generation_before, log, returns, wall, starved }
    }

    /// Sends the request and waits for the end, until the deadline; the guest's threads had waited
    /// for the second time before. `until` gets the end of its console text where that is not the
    /// present one.
    fn answer(
        &mut self,
        request: &Execute,
        (deadline, waited): (Duration, Duration),
        generation_before: Option<u32>,
        until: &mut Option<Mark>,
    ) -> Result<End, GuestError> {
        if self.state == State::Dead {
            return Err(GuestError::Dead);
        }
        self.send(&ToAgent::Execute(request.clone()))?;
        match self.machine.receive_within(&self.stop, deadline, waited)? {
            Wake::Message(FromAgent::Report(report)) => {
                if report.id != request.id {
                    let found = format!("the report of execution {}", report.id);
                    return Err(GuestError::Unexpected { found, expected: "the report of this execution" });
                }
                self.reported = true;
                Ok(End::Reported(report))
            }
            Wake::Message(FromAgent::Refused(reason)) => Ok(End::Refused(reason)),
            // Only an execution before this one can have left something, and this one has not
            // begun.
            Wake::Message(FromAgent::Unclean(leftover)) if self.reported && self.generation() == generation_before => {
                self.machine.settle();
                Ok(End::Unclean(leftover))
            }
            Wake::Message(FromAgent::Hung(waits)) => {
                *until = Some(self.machine.console().mark());
                Ok(End::Hung { stack: format!("idle; the step waits in\n{waits}") })
            }
            Wake::Message(other) => Err(GuestError::unexpected(&other, "a report")),
            Wake::Ended => {
                self.machine.settle();
                Ok(End::Died)
            }
            Wake::Deadline => {
                let mark = self.machine.console().mark();
                *until = Some(mark);
                let said = ran_in(&self.machine.console().between(self.told, mark));
                Ok(End::Hung { stack: self.interrupted_stack(mark)? + &said })
            }
        }
    }

    /// Gives the waiting time of the guest's threads a short while ago.
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

    /// Gives the agent its request. A guest that was saved goes on only when the request is there.
    fn send(&mut self, message: &ToAgent) -> Result<(), GuestError> {
        let saved = self.state == State::Saved;
        if saved && self.awake {
            self.machine.put(message)?;
        } else {
            self.machine.send(message)?;
        }
        if saved {
            match self.debugger.take() {
                // Nobody may listen: the guest waits all the same.
                Some(debugger) => _ = debugger.waits.try_send(()),
                None => _ = self.machine.command("cont", &json!({}))?,
            }
            self.state = State::Idle;
        }
        Ok(())
    }

    /// Asks the kernel where it is, and gives its answer; stops the guest if it gives none.
    fn interrupted_stack(&mut self, mark: Mark) -> Result<String, GuestError> {
        if !self.machine.interrupt(&self.stop)? {
            self.machine.command("stop", &json!({}))?;
        }
        self.machine.settle();
        Ok(self.machine.console().since(mark))
    }

    /// Gives the generation that the log of fired faults has now.
    fn generation(&self) -> Option<u32> {
        self.fired_log().map(|log| log.generation)
    }

    fn fired_log(&self) -> Option<FiredLog> {
        self.machine.fired_log(self.addresses.fired_log)
    }

    /// Gives the text that the guest prints soon after the last execution: the host waits for the
    /// time `LATE`, and then for as long as the guest prints.
    pub fn late_console(&mut self) -> String {
        thread::sleep(LATE);
        self.machine.settle();
        self.unread_console()
    }

    /// Gives the text that the guest has printed since the last execution.
    pub fn unread_console(&mut self) -> String {
        let mark = self.machine.console().mark();
        self.machine.console().between(mem::replace(&mut self.told, mark), mark)
    }

    /// Ends the guest. Its console can still be read.
    pub fn kill(&mut self) {
        self.state = State::Dead;
        self.machine.kill();
    }

    /// Gives the process id of its QEMU.
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

/// Gives the functions in which a step ran when the agent last said so on the `console`, below
/// words that say what they are; nothing if it did not.
fn ran_in(console: &str) -> String {
    let Some(frames) = step_ran(console) else { return String::new() };
    frames.fold(format!("{STEP_RAN}Call Trace:\n"), |text, frame| text + frame + "\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_agent_said_last_of_a_step_that_runs_is_read() {
        assert_eq!(ran_in("agent: up\n"), "");
        let console = "agent: a step still runs in\n[<0>] first+0x1/0x2\n\
            agent: a step still runs in\n[<0>] inner+0x1/0x2\n[   1.000000] EXT4-fs error\n[<0>] outer+0x1/0x2\n\n";
        assert_eq!(ran_in(console), format!("{STEP_RAN}Call Trace:\ninner+0x1/0x2\nouter+0x1/0x2\n"));
    }

    #[test]
    fn an_agents_trouble_is_the_guests() {
        let trouble = GuestError::unexpected(&FromAgent::Trouble("no disk".to_owned()), "a report");
        assert!(matches!(trouble, GuestError::Agent(reason) if reason == "no disk"));
    }
}
